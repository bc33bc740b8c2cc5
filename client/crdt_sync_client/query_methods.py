"""The methods of a device that find records: once, page by page, counted, and live."""

from __future__ import annotations

from crdt_sync.ids import RecordId

from .device_part import StorePart
from .engine.live_matching import LiveAnswer
from .engine.queries import OrderBy, Query, Where
from .live import LiveHub, LiveQuery, Page
from .records import Record
from .watching import Watch, WatchHub


class QueryMethods(StorePart):
    """Part of `Device`, which has the store and the thread it is read on."""

    _hub: WatchHub
    _live_hub: LiveHub

    async def get(self, type: str, id: str, *, space: str | None = None) -> Record | None:
        """The record, or None when this device has none of that id."""
        engine, chosen = self._engine, await self._space_id(space)
        found = await self._run(lambda: engine.get(type, id, space=chosen))
        return None if found is None else Record.of(found)

    async def query(
        self,
        type: str | Query,
        where: Where = None,
        *,
        order_by: OrderBy | None = None,
        limit: int | None = None,
        offset: int = 0,
        space: str | None = None,
    ) -> list[Record]:
        """Records of a type for which `where` holds: a mapping of fields to the values they equal (dotted
        paths allowed), or a condition such as `(field("cost") > 100) & field("tags").contains("pm")`.

        `order_by` is a field, "-field" for descending, or several. A `Query` in place of the type says all of
        this itself, and more; then give nothing else. Raises UnknownType, and ValidationError naming what
        does not fit.
        """
        wanted = type if isinstance(type, Query) else Query(type, where, order_by or (), limit, space=space)
        engine, chosen = self._engine, await self._space_id(wanted.space)
        found = await self._run(lambda: engine.find(wanted, offset=offset, space=chosen))
        return [Record.of(record) for record in found]

    async def page(self, query: Query, after: str | None = None) -> Page:
        """The first `limit` records of a query, or with the `next` of a page those that come after it.

        Pages go on where they ended, whatever is written in between. Raises as `query`.
        """
        engine, chosen = self._engine, await self._space_id(query.space)
        found, next = await self._run(lambda: engine.page(query, after, space=chosen))
        return Page([Record.of(record) for record in found], next)

    async def count(self, type: str | Query, where: Where = None, *, space: str | None = None) -> int:
        """How many records `query` would find without a limit."""
        wanted = type if isinstance(type, Query) else Query(type, where, space=space)
        engine, chosen = self._engine, await self._space_id(wanted.space)
        return await self._run(lambda: engine.count(wanted, space=chosen))

    def watch(self, type: str | None = None, id: str | None = None) -> Watch:
        """Changes from now on, of one type or one record if given: `async for change in device.watch():`.

        A watcher that falls behind skips steps in between, never the latest state.
        """
        return self._hub.watch(type, None if id is None else RecordId(id))

    def live(self, query: Query) -> LiveQuery:
        """The first page of a query now and whenever it has changed: `async for page in device.live(query):`.

        What is wrong with the query is raised when the first result is asked for.
        """
        return self._live_hub.query(query)

    async def _live_answer(self, query: Query) -> LiveAnswer:
        engine, chosen = self._engine, await self._space_id(query.space)
        return await self._run(lambda: engine.live_answer(query, space=chosen))
