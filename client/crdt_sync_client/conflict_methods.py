"""The methods of a device that are about conflicts: what stands and why, what was decided, and deciding."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from crdt_sync.errors import MergeFailed, ValidationError
from crdt_sync.ids import DeviceId, RecordId, SpaceId

from . import choices
from .choices import Choice, MergeFunction, OwnValue
from .conflict_export import ExportFormat, Writable, write_trail
from .conflict_watching import ConflictHub, ConflictWatch
from .engine import Engine, model, trail
from .engine.explaining import Explanation
from .engine.history import HistoryEntry
from .engine.model import UNSET, ConflictEntry, ConflictFilter, ConflictState, Keep
from .engine.trail import CountBy
from .preferences import Preferences
from .records import WriteResult

T = TypeVar("T")


class ConflictMethods:
    """Part of `Device`, which has the store, the queue of writes and the thread they run on."""

    device_id: DeviceId
    name: str
    _engine: Engine
    _conflict_hub: ConflictHub

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        raise NotImplementedError  # the device's

    async def _write(self, op: model.Operation) -> WriteResult:
        raise NotImplementedError  # the device's

    async def _space_id(self, space: str | None) -> SpaceId | None:
        raise NotImplementedError  # the device's

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

    async def conflict(self, id: str) -> ConflictEntry:
        """One conflict, by its id or an unambiguous start of it. Raises ConflictNotFound."""
        engine = self._engine
        return await self._run(lambda: engine.conflict(id))

    async def conflict_trail(self, *, since_ms: int | None = None) -> AsyncIterator[ConflictEntry]:
        """The whole audit trail, oldest first, read page by page: `async for entry in …`.

        `since_ms` (Unix milliseconds) leaves out what was seen and closed before.
        """
        engine = self._engine
        wanted = ConflictFilter(state=None, since_ms=since_ms)
        after: int | None = 0
        while after is not None:
            page, after = await self._run(partial(engine.conflict_page, wanted, after=after))
            for entry in page:
                yield entry

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

    # Deciding ---------------------------------------------------------------------------------------

    async def resolve(
        self,
        id: str,
        *,
        field: str | None = None,
        keep: Keep | None = None,
        alternative: int | None = None,
        value: Any = UNSET,
        merge: MergeFunction | None = None,
        suggested: bool = False,
        remember: bool = False,
    ) -> WriteResult:
        """Settle a standing conflict.

        Keep "mine" or "theirs" ("deleted" or "record" where a deletion met edits), keep an alternative by
        its index, give a value, or a function that makes one of all alternatives; `suggested` does what the
        remembered preference says, `remember` remembers the side that is kept now. `field`, where given,
        must be the conflict's.

        Raises ConflictNotFound, ConflictClosed (it says by whom), ValidationError, MergeFailed when the
        function raises or returns what does not fit, PermissionDenied; nothing has changed then.
        """
        if merge is not None:
            if keep is not None or alternative is not None or value is not UNSET or suggested:
                raise ValidationError(field or "resolve", "needs one decision, and merge is one already")
            entry = await self.conflict(id)
            if entry.state == "closed":
                raise trail.closed_error(entry)
            op = await choices.operation(entry, merge, remember=remember)
            op = model.ResolveOp(op.conflict, value=op.value, field=field, remember=remember)
            return await self._write_merged(op)
        return await self._write(
            model.ResolveOp(
                id,
                keep=keep,
                alternative=alternative,
                value=value,
                field=field,
                suggested=suggested,
                remember=remember,
            )
        )

    async def resolve_record(
        self,
        type: str,
        id: str,
        decisions: Mapping[str, Choice] | None = None,
        *,
        keep: Keep | None = None,
        space: str | None = None,
    ) -> WriteResult:
        """Settle conflicts of one record at once: all of them or, when one cannot be, none.

        `decisions` names fields (dotted) and what shall stand there: "mine", "theirs", the index of an
        alternative, `OwnValue(value)`, or a merge function. `keep` is for the other open ones. Raises as
        `resolve` does; ConflictNotFound for a field about which none stands.
        """
        engine, chosen_space = self._engine, await self._space_id(space)
        wanted = ConflictFilter(state=None, type=type, record=id, space=chosen_space)
        entries = await self._run(lambda: engine.find_conflicts(wanted))
        standing = {entry.field: entry for entry in entries if entry.state != "closed"}
        chosen = choices.for_record(standing, decisions or {}, keep, f"{type} {RecordId(id)}")
        ops = [await choices.operation(entry, choice) for entry, choice in chosen]
        op = model.ResolveRecordOp(tuple(ops))
        merged = any(callable(choice) for _, choice in chosen)
        return await (self._write_merged(op) if merged else self._write(op))

    async def restore_version(self, id: str, alternative: int) -> WriteResult:
        """Bring back an alternative of a conflict, by its index, also of one that is closed.

        While the conflict stands this resolves it, and the result names it in `resolved`. Afterwards it is a
        new write, made by somebody who has seen everything since: it replaces what stands now, on every
        device. Raises ConflictNotFound, RecordDeleted, ValidationError, TransitionError, PermissionDenied.
        """
        return await self._write(model.RestoreVersionOp(id, alternative))

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

    async def _write_merged(self, op: model.Operation) -> WriteResult:
        try:
            return await self._write(op)
        except MergeFailed:
            raise
        except ValidationError as error:
            raise choices.does_not_fit(error) from error

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
