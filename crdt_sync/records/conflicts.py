"""Conflicts: concurrent writes that a rule settled (`auto`) or that wait for a person (`open`).

A conflict is nothing stored. It follows from the visible writes, and so does its id, so every device
that has seen the same writes names the same conflict without asking anyone. One more write that has
seen all alternatives ends it; one that has not makes it another conflict, with another id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from crdt_sync.records.writes import Path, Write, same_value
from crdt_sync.rules.base import by_clock
from crdt_sync.rules.deletion import DELETE_WINS, MANUAL, uncovered

ConflictKind: TypeAlias = Literal["open", "auto"]


class Conflict(msgspec.Struct, frozen=True):
    """Concurrent writes of one path, or a deletion against edits it had not seen (path ending `$deleted`).

    `id` is 32 hex digits. `rule` is the name of the rule. `alternatives` are in canonical order (author,
    then time); `winner` is the one that is shown, for an `open` conflict provisionally.
    """

    id: str
    path: Path
    rule: str
    kind: ConflictKind
    alternatives: tuple[Write, ...]
    winner: Write


def differ(writes: Sequence[Write]) -> bool:
    """Whether concurrent writes disagree: the same value written twice is no conflict."""
    first = writes[0].value
    return any(not same_value(first, write.value) for write in writes[1:])


def field_conflict(
    record_type: str,
    record_id: str,
    path: Path,
    rule: str,
    kind: ConflictKind,
    writes: Sequence[Write],
    winner: Write,
) -> Conflict:
    """The conflict between these writes, which are in canonical order."""
    id = conflict_id(record_type, record_id, path, writes)
    return Conflict(id, path, rule, kind, tuple(writes), winner)


def deletion_conflict(
    record_type: str, record_id: str, path: Path, rule: str, marks: Sequence[Write], under: Iterable[Write]
) -> Conflict | None:
    """The conflict between deletions and the edits none of them had seen; None when there is no such edit.

    `path` is that of the deletion. Its alternatives are all of those deletions and edits.
    """
    unseen = uncovered(marks, under)
    if not marks or not unseen:
        return None
    winner = max(marks if rule == DELETE_WINS else unseen, key=by_clock)
    kind: ConflictKind = "open" if rule == MANUAL else "auto"
    return field_conflict(record_type, record_id, path, rule, kind, canonical([*marks, *unseen]), winner)


def conflict_id(record_type: str, record_id: str, path: Path, alternatives: Sequence[Write]) -> str:
    """The same on every device: a hash of the record, the path and the ids of the canonical alternatives."""
    hashed = b"crdt-sync/conflict/v1"
    for name in (record_type, record_id, *path):
        raw = name.encode()
        hashed += len(raw).to_bytes(4, "big") + raw
    for write in alternatives:
        author = write.author
        hashed += author.device + author.incarnation.to_bytes(4, "big") + write.hlc.to_bytes(8, "big")
    return hashlib.sha256(hashed).hexdigest()[:32]


def canonical(writes: Iterable[Write]) -> tuple[Write, ...]:
    """Writes by author and time, the order in which every device lists them."""
    return tuple(sorted(writes, key=lambda write: (write.author, write.hlc, write.path)))
