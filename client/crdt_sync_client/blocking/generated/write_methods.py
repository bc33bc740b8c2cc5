"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ...choices import Choice, MergeFunction
from ...create_method import Changes
from ...engine.model import UNSET, ConflictEntry, Keep
from ...write_methods import WriteMethods as AsyncWriteMethods
from ..wrapping import Blocking
from .records import WriteResult

W = TypeVar("W", bound=AsyncWriteMethods)


class WriteMethods(Blocking[W]):
    """Part of `Device` and `Transaction`, which have the store and know what becomes of an operation."""

    def update(
        self, type: str, id: str, changes: Changes, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Change fields: by name, by dotted path (`"parts_used.A.qty"`) or by tuple; None clears a field.

        `priority`: from 1, which goes to the relay first, to 10; as the schema says without it. When the
        field had an open conflict, this write resolves it and the result names it. Raises RecordNotFound,
        RecordDeleted, ValidationError, TransitionError, PermissionDenied.
        """
        made = self._run(lambda: self._inner.update(type, id, changes, space=space, priority=priority))
        return WriteResult(made, self._background, self._kept())

    def delete(
        self, type: str, id: str, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Delete a record for everyone. The schema says who may and what a concurrent edit does."""
        made = self._run(lambda: self._inner.delete(type, id, space=space, priority=priority))
        return WriteResult(made, self._background, self._kept())

    def restore(
        self, type: str, id: str, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Bring a deleted record back with the fields it had."""
        made = self._run(lambda: self._inner.restore(type, id, space=space, priority=priority))
        return WriteResult(made, self._background, self._kept())

    def resolve(
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
        made = self._run(
            lambda: self._inner.resolve(
                id,
                field=field,
                keep=keep,
                alternative=alternative,
                value=value,
                merge=merge,
                suggested=suggested,
                remember=remember,
            )
        )
        return WriteResult(made, self._background, self._kept())

    def resolve_record(
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
        made = self._run(lambda: self._inner.resolve_record(type, id, decisions, keep=keep, space=space))
        return WriteResult(made, self._background, self._kept())

    def restore_version(self, id: str, alternative: int) -> WriteResult:
        """Bring back an alternative of a conflict, by its index, also of one that is closed.

        While the conflict stands this resolves it, and the result names it in `resolved`. Afterwards it is a
        new write, made by somebody who has seen everything since: it replaces what stands now, on every
        device. Raises ConflictNotFound, RecordDeleted, ValidationError, TransitionError, PermissionDenied.
        """
        made = self._run(lambda: self._inner.restore_version(id, alternative))
        return WriteResult(made, self._background, self._kept())

    def conflict(self, id: str) -> ConflictEntry:
        """One conflict, by its id or an unambiguous start of it. Raises ConflictNotFound."""
        return self._run(lambda: self._inner.conflict(id))
