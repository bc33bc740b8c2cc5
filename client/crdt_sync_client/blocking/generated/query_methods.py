"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from typing import TypeVar

from ...engine.queries import OrderBy, Query, Where
from ...live import Page
from ...query_methods import QueryMethods as AsyncQueryMethods
from ...records import Record
from ..wrapping import Blocking
from .live import LiveQuery
from .watching import Watch

W = TypeVar("W", bound=AsyncQueryMethods)


class QueryMethods(Blocking[W]):
    """Part of `Device`, which has the store and the thread it is read on."""

    def get(self, type: str, id: str, *, space: str | None = None) -> Record | None:
        """The record, or None when this device has none of that id."""
        return self._run(lambda: self._inner.get(type, id, space=space))

    def query(
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
        return self._run(
            lambda: self._inner.query(type, where, order_by=order_by, limit=limit, offset=offset, space=space)
        )

    def page(self, query: Query, after: str | None = None) -> Page:
        """The first `limit` records of a query, or with the `next` of a page those that come after it.

        Pages go on where they ended, whatever is written in between. Raises as `query`.
        """
        return self._run(lambda: self._inner.page(query, after))

    def count(self, type: str | Query, where: Where = None, *, space: str | None = None) -> int:
        """How many records `query` would find without a limit."""
        return self._run(lambda: self._inner.count(type, where, space=space))

    def watch(self, type: str | None = None, id: str | None = None) -> Watch:
        """Changes from now on, of one type or one record if given: `for change in device.watch():`.

        A watcher that falls behind skips steps in between, never the latest state.
        """
        made = self._call(lambda: self._inner.watch(type, id))
        return Watch(made, self._background, self._kept())

    def live(self, query: Query) -> LiveQuery:
        """The first page of a query now and whenever it has changed: `for page in device.live(query):`.

        What is wrong with the query is raised when the first result is asked for.
        """
        made = self._call(lambda: self._inner.live(query))
        return LiveQuery(made, self._background, self._kept())
