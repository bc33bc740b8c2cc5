"""What an app wants done, one intended change each: plain values that may cross threads.

`priority` is from 1, which goes to the relay first, to 10; None: as the record's schema says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from crdt_sync.ids import RecordId, SpaceId

Path = tuple[str, ...]
Keep = Literal["mine", "theirs", "winner", "deleted", "record"]
"""Which alternative stays: this device's, the other one, the one in use; where a deletion met edits also
whether the record (row, element) is deleted or stays."""


class _Unset:
    """The type of `UNSET`; None is a value that a field may have."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()


@dataclass(frozen=True, slots=True)
class CreateOp:
    """Make a record. An existing id is updated with the values instead (a second import)."""

    type: str
    values: Mapping[str, Any]
    id: RecordId | None = None
    space: SpaceId | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class UpdateOp:
    """Change fields of a record. Keys are field names, dotted paths or path tuples."""

    type: str
    id: RecordId
    changes: Mapping[str, Any] | Mapping[str | Path, Any]
    space: SpaceId | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteOp:
    type: str
    id: RecordId
    space: SpaceId | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class RestoreOp:
    """Undo the delete of a record."""

    type: str
    id: RecordId
    space: SpaceId | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class ResolveOp:
    """Settle a standing conflict with one of its alternatives or a value of one's own.

    Give exactly one of `keep`, `alternative` (its index in `ConflictEntry.alternatives`), `value` and
    `suggested` (what the remembered preference says). `field`, where given, must be the conflict's field.
    `remember`: keep that side in later conflicts about the field too, see `preferences`.
    """

    conflict: str
    keep: Keep | None = None
    alternative: int | None = None
    value: Any = UNSET
    field: str | None = None
    suggested: bool = False
    remember: bool = False
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class ResolveRecordOp:
    """Settle several standing conflicts of one record: all of them or, when one cannot be, none."""

    decisions: tuple[ResolveOp, ...]
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class RestoreVersionOp:
    """Bring back an alternative of any conflict in the trail, standing or closed, by its index.

    While the conflict stands this resolves it. Afterwards it is a new write that has seen everything
    since: it replaces what stands now, and says so in its result.
    """

    conflict: str
    alternative: int
    priority: int | None = None


Operation = CreateOp | UpdateOp | DeleteOp | RestoreOp | ResolveOp | ResolveRecordOp | RestoreVersionOp


@dataclass(frozen=True, slots=True)
class Transaction:
    """Operations on records of one space that are all done or none, and that others see all of or nothing.

    Each sees what those before it did.
    """

    ops: tuple[Operation, ...]
    priority: int | None = None
    """Of those that have none of their own; all go with the most urgent in any case."""
