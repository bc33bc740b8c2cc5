"""Deleting a record, and removing a row, against edits made meanwhile.

A deletion does not take the field writes away: an edit that its author had not seen would then bring
back a record with a single field. It is a write of its own, at `$deleted`, that carries its *context*:
for every author the last time the deleting device had seen (see `records.writes`).

A write is *covered* when some visible deletion had seen it. Under `edit_wins` (the default) the record
or row is gone while every visible write under it is covered; a single edit that no deletion had seen
brings all of it back. Under `delete_wins` it is gone while any deletion is visible. Under `manual`, for
records only, it stands as under `edit_wins`, but provisionally: deletion and edits are an open conflict
that an edit does not end. Somebody deletes the record again, restores it, or decides the conflict.

Under the other rules, whoever edits what came back has seen the deletion and removes its mark. Whoever
creates again what is gone removes the old writes and the mark in one transaction and starts afresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from crdt_sync.hlc import Hlc
from crdt_sync.records.changes import Value
from crdt_sync.records.writes import Write

DeleteRule: TypeAlias = Literal["edit_wins", "delete_wins", "manual"]
EDIT_WINS: Final = "edit_wins"
DELETE_WINS: Final = "delete_wins"
MANUAL: Final = "manual"
DELETE_RULES: Final[tuple[DeleteRule, ...]] = (EDIT_WINS, DELETE_WINS, MANUAL)

Coverage: TypeAlias = Mapping[str, int]
"""Array name of an author -> the last time of that author that is covered."""


def coverage(marks: Iterable[Write]) -> dict[str, int]:
    """What the visible deletions have seen between them."""
    covered: dict[str, int] = {}
    for mark in marks:
        if not isinstance(mark.value, dict):
            continue
        for name, time in mark.value.items():
            if type(time) is int and time > covered.get(name, 0):
                covered[name] = time
    return covered


def uncovered(marks: Sequence[Write], writes: Iterable[Write]) -> list[Write]:
    """The writes that no visible deletion had seen."""
    covered = coverage(marks)
    return [write for write in writes if write.hlc > covered.get(write.author.array_name, 0)]


def is_gone(rule: str, marks: Sequence[Write], writes: Iterable[Write]) -> bool:
    """Whether the record or row is deleted. `writes` are all visible writes under it but the marks."""
    if not marks:
        return False
    if rule == DELETE_WINS:
        return True
    covered = coverage(marks)
    return all(write.hlc <= covered.get(write.author.array_name, 0) for write in writes)


def context_of(marks: Iterable[Write], writes: Iterable[Write]) -> Value:
    """The context of a deletion by somebody who sees these writes and these earlier deletions.

    What earlier deletions had seen counts as seen: it may not have arrived here yet, and would
    otherwise revive what two people have deleted.
    """
    seen: dict[str, int] = coverage(marks)
    for write in writes:
        name = write.author.array_name
        if write.hlc > seen.get(name, 0):
            seen[name] = Hlc(write.hlc)
    return {name: seen[name] for name in sorted(seen)}
