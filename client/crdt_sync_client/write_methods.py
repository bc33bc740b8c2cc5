"""The methods that write: of a device, each done at once, and of a transaction, done at its end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from crdt_sync.errors import MergeFailed, ValidationError
from crdt_sync.ids import RecordId

from . import choices
from .choices import Choice, MergeFunction
from .create_method import Changes
from .device_part import StorePart
from .engine import model, trail
from .engine.model import UNSET, ConflictEntry, ConflictFilter, Keep
from .records import WriteResult


class WriteMethods(StorePart):
    """Part of `Device` and `Transaction`, which have the store and know what becomes of an operation."""

    @abstractmethod
    async def _write(self, op: model.Operation) -> WriteResult: ...

    # Records ----------------------------------------------------------------------------------------

    async def update(
        self, type: str, id: str, changes: Changes, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Change fields: by name, by dotted path (`"parts_used.A.qty"`) or by tuple; None clears a field.

        `priority`: from 1, which goes to the relay first, to 10; as the schema says without it. When the
        field had an open conflict, this write resolves it and the result names it. Raises RecordNotFound,
        RecordDeleted, ValidationError, TransitionError, PermissionDenied.
        """
        op = model.UpdateOp(type, RecordId(id), changes, await self._space_id(space), priority)
        return await self._write(op)

    async def delete(
        self, type: str, id: str, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Delete a record for everyone. The schema says who may and what a concurrent edit does."""
        return await self._write(model.DeleteOp(type, RecordId(id), await self._space_id(space), priority))

    async def restore(
        self, type: str, id: str, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Bring a deleted record back with the fields it had."""
        return await self._write(model.RestoreOp(type, RecordId(id), await self._space_id(space), priority))

    # Conflicts ---------------------------------------------------------------------------------------

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

    async def conflict(self, id: str) -> ConflictEntry:
        """One conflict, by its id or an unambiguous start of it. Raises ConflictNotFound."""
        engine = self._engine
        return await self._run(lambda: engine.conflict(id))

    # Inside -----------------------------------------------------------------------------------------

    async def _write_merged(self, op: model.Operation) -> WriteResult:
        try:
            return await self._write(op)
        except MergeFailed:
            raise
        except ValidationError as error:
            raise choices.does_not_fit(error) from error
