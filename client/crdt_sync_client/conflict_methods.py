"""The methods of a device that are about conflicts: what stands and why, and what was decided."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

from crdt_sync.ids import DeviceId, RecordId

from .choices import Choice, MergeFunction, OwnValue
from .conflict_export import ExportFormat, Writable, write_trail
from .conflict_watching import ConflictHub, ConflictWatch
from .engine.explaining import Explanation
from .engine.history import HistoryEntry
from .engine.model import ConflictEntry, ConflictFilter, ConflictState
from .engine.trail import CountBy
from .preferences import Preferences
from .write_methods import WriteMethods


class ConflictMethods(WriteMethods):
    """Part of `Device`, which has the store, the queue of writes and the thread they run on."""

    device_id: DeviceId
    name: str
    _conflict_hub: ConflictHub

    # What there is ----------------------------------------------------------------------------------

    async def conflicts(
        self,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> list[ConflictEntry]:
        """What waits for a person's decision; with `open_only=False` the whole audit trail, oldest first.

        `state` asks for one kind of entry instead ("open", "auto", "closed"); `type` and `id` for a
        record's, `device` (name or id) for those in which that device has an alternative. Raises
        LocalError for a device that nobody knows.
        """
        wanted = await self._wanted(open_only, state, type, id, device, space)
        engine = self._engine
        return await self._run(lambda: engine.find_conflicts(wanted))

    async def count_conflicts(
        self,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> int:
        """How many `conflicts` would find."""
        wanted = await self._wanted(open_only, state, type, id, device, space)
        engine = self._engine
        return await self._run(lambda: engine.count_conflicts(wanted))

    async def conflict_counts(
        self,
        by: CountBy,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> dict[str, int]:
        """How many `conflicts` would find by "device", "type", "record", "field" or "state", the most first.

        By device: in how many it has an alternative.
        """
        wanted = await self._wanted(open_only, state, type, id, device, space)
        engine = self._engine
        return await self._run(lambda: engine.conflict_counts(wanted, by))

    async def conflict_trail(self, *, since_ms: int | None = None) -> AsyncIterator[ConflictEntry]:
        """The whole audit trail, oldest first, read page by page: `async for entry in …`.

        `since_ms` (Unix milliseconds) leaves out what was seen and closed before.
        """
        wanted = ConflictFilter(state=None, since_ms=since_ms)
        after: int | None = 0
        while after is not None:
            page, after = await self._trail_page(wanted, after)
            for entry in page:
                yield entry

    def _trail_page(
        self, wanted: ConflictFilter, after: int
    ) -> Awaitable[tuple[list[ConflictEntry], int | None]]:
        engine = self._engine
        return self._run(lambda: engine.conflict_page(wanted, after=after))

    async def export_conflicts(
        self, out: Writable, *, format: ExportFormat = "jsonl", since_ms: int | None = None
    ) -> int:
        """Write the trail as JSON lines or CSV, entry by entry; returns how many there were.

        What stands in it: `crdt_sync_client.conflict_export`. Open a file for CSV with `newline=""`.
        """
        trail = self.conflict_trail(since_ms=since_ms)
        return await write_trail(trail, out, format, device=self.device_id, device_name=self.name)

    def watch_conflicts(
        self, type: str | None = None, id: str | None = None, *, open_only: bool = True
    ) -> ConflictWatch:
        """Conflicts that open or close from now on: `async for change in device.watch_conflicts():`.

        Of one type or one record if given; with `open_only=False` also those that a rule settled. One that
        opens and closes before it is looked at is told once, as closed.
        """
        return self._conflict_hub.watch(type, None if id is None else RecordId(id), open_only=open_only)

    # Why --------------------------------------------------------------------------------------------

    async def explain(
        self, type: str, id: str, field: str | None = None, *, space: str | None = None
    ) -> Explanation:
        """Why a record, or one field of it (dotted), is as it is.

        Per field the writes that stand, who made them and when, which rule chose and why, what lost and
        the conflict's id; for a record that is deleted or came back what the deletion had seen; whether its
        parent is deleted. Raises UnknownType, RecordNotFound, ValidationError.
        """
        engine, chosen = self._engine, await self._space_id(space)
        return await self._run(lambda: engine.explain(type, id, field, space=chosen))

    async def history(
        self, type: str, id: str, *, limit: int = 50, space: str | None = None
    ) -> list[HistoryEntry]:
        """What each transaction on this device changed in a record, the newest first.

        Only for types whose schema says how many entries to keep (`x-history: 50`); LocalError for others.
        """
        engine, chosen = self._engine, await self._space_id(space)
        return await self._run(lambda: engine.history(type, id, space=chosen, limit=limit))

    @property
    def preferences(self) -> Preferences:
        """Which side this device keeps in conflicts about a field: `set`, `ls`, `clear`."""
        return Preferences(self._engine, self._run)

    # Inside -----------------------------------------------------------------------------------------

    async def _wanted(
        self,
        open_only: bool,
        state: ConflictState | None,
        type: str | None,
        id: str | None,
        device: str | None,
        space: str | None,
    ) -> ConflictFilter:
        return ConflictFilter(
            state=state or ("open" if open_only else None),
            type=type,
            record=id,
            device=device,
            space=await self._space_id(space),
        )


__all__ = ["Choice", "ConflictMethods", "MergeFunction", "OwnValue"]
