"""The audit trail as it is written: every conflict this device has seen, and how each ended.

A conflict's id follows from the record, the path and the concurrent writes, so it is the same on every
device. An entry is made when a conflict first stands in a record here and closed when it no longer does:

- another write has replaced all alternatives: its author closed it (`resolver`, `resolution`);
- several did so apart, with one value: they agreed, and the first of them closed it;
- several did so apart with different values: each device has its own resolver, and the conflict between
  the resolutions is named in `superseded_by`;
- a further concurrent write came in: the conflict at that path now has another id (`superseded_by`);
- nothing of it is visible any more (its row or record was replaced): closed, by nobody in particular.

Reading is in `trail`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from crdt_sync.hlc import Hlc, hlc_to_ms
from crdt_sync.ids import DeviceId
from crdt_sync.records.conflicts import Conflict, differ
from crdt_sync.records.view import writes_under
from crdt_sync.records.writes import DELETED, MARKS, DocWrites, Path, Write
from crdt_sync.rules.base import by_clock
from crdt_sync_client.engine.open_records import OpenRecord, Standing

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

WENT: Final = "deleted"
STAYED: Final = "record"
"""How a conflict between a deletion and edits can end, and what its `resolution` says then."""

_encode = msgspec.msgpack.Encoder().encode
_path_text = msgspec.json.Encoder().encode


class StoredAlternative(NamedTuple):
    """One alternative as the trail keeps it. `path` is where it was written."""

    value: Any
    device: bytes
    incarnation: int
    hlc: int
    role: int
    path: tuple[str, ...]


decode_alternatives = msgspec.msgpack.Decoder(list[StoredAlternative]).decode

_INSERT: Final = (
    "INSERT INTO conflicts (id, record, path, rule, kind, state, alternatives, winner, seen_at_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET rule = excluded.rule,"
    " kind = excluded.kind, state = excluded.state, winner = excluded.winner,"
    " closed_at_ms = NULL, resolver = NULL, resolution = NULL, superseded_by = NULL"
)
_CLOSE: Final = (
    "UPDATE conflicts SET state = 'closed', closed_at_ms = ?, resolver = ?, resolution = ?,"
    " superseded_by = ? WHERE id = ?"
)
_LINK: Final = (
    "UPDATE conflicts SET superseded_by = ? WHERE record = ? AND path = ? AND state = 'closed'"
    " AND superseded_by IS NULL AND resolver = ? AND closed_at_ms = ?"
)


class _Ending(NamedTuple):
    """How a conflict ended. `resolution` is encoded."""

    at_ms: int
    resolver: DeviceId | None = None
    resolution: bytes | None = None
    superseded_by: str | None = None


class AuditRows:
    """What one transaction changes in the trail. Collected first, so that each statement runs once."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._opened: dict[str, tuple[Any, ...]] = {}
        self._closed: list[tuple[Any, ...]] = []
        self._links: list[tuple[Any, ...]] = []

    def note(
        self,
        record: OpenRecord,
        before: Sequence[Standing],
        after: Sequence[Conflict],
        writes: DocWrites,
        now_ms: int,
        *,
        by_another_schema: bool,
    ) -> None:
        """The difference between what stood in a record and what stands in it now.

        A schema that may be another than before may have another rule for what stood there already.
        """
        known = set() if by_another_schema else {standing.id for standing in before}
        for conflict in after:
            if conflict.id not in known:
                self._open(conflict, record.no, now_ms)
        standing_now = {conflict.id for conflict in after}
        for gone in before:
            if gone.id not in standing_now:
                self._closed.append((*self._ending(gone, after, writes, now_ms), gone.id))

    def save(self) -> None:
        """Closes first: a conflict may close and stand again within one transaction."""
        db = self._replica.db
        for sql, rows in (
            (_CLOSE, self._closed),
            (_INSERT, list(self._opened.values())),
            (_LINK, self._links),
        ):
            if rows:
                db.many(sql, rows)

    def _open(self, conflict: Conflict, record_no: int, now_ms: int) -> None:
        path = _path_text(conflict.path).decode()
        alternatives = [
            StoredAlternative(
                write.value,
                write.author.device,
                write.author.incarnation,
                write.hlc,
                int(write.role),
                write.path,
            )
            for write in conflict.alternatives
        ]
        self._opened[conflict.id] = (
            conflict.id,
            record_no,
            path,
            conflict.rule,
            conflict.kind,
            conflict.kind,
            _encode(alternatives),
            conflict.alternatives.index(conflict.winner),
            now_ms,
        )
        # Where one of the alternatives was the resolution of an earlier conflict, that one goes on in this.
        self._links += [
            (conflict.id, record_no, path, each.device, hlc_to_ms(Hlc(each.hlc))) for each in alternatives
        ]

    def _ending(self, gone: Standing, after: Sequence[Conflict], writes: DocWrites, now_ms: int) -> _Ending:
        for conflict in after:
            if conflict.path == gone.path:
                return _Ending(now_ms, superseded_by=conflict.id)
        if gone.path[-1] == DELETED:
            return self._deletion_ending(gone, writes) or _Ending(now_ms)
        settling: tuple[Write, ...] = writes.get(gone.path, ())
        if not settling or differ(settling):
            return _Ending(now_ms)
        return _ended_by(min(settling, key=by_clock), settling[0].value)

    def _deletion_ending(self, gone: Standing, writes: DocWrites) -> _Ending | None:
        """Who deleted again or kept what a deletion and edits had been in conflict about; None if unclear."""
        alternatives = self._alternatives(gone.id)
        known = {(each.device, each.incarnation, each.hlc) for each in alternatives}
        marks = writes.get(gone.path, ())
        if marks:
            fresh = [mark for mark in marks if _name(mark) not in known]
            return _ended_by(min(fresh, key=by_clock), WENT) if fresh else None
        last = max((each.hlc for each in alternatives if each.path[-1] == DELETED), default=0)
        under = writes_under(writes, gone.path[:-1], writes)
        later = [write for write in under if write.hlc > last and _name(write) not in known]
        kept = [write for write in later if write.path[-1] in MARKS] or later
        if len({write.author.device for write in kept}) != 1:
            return None
        return _ended_by(min(kept, key=by_clock), STAYED)

    def _alternatives(self, id: str) -> list[StoredAlternative]:
        row = self._opened.get(id)
        raw = (
            row[6]
            if row is not None
            else self._replica.db.value("SELECT alternatives FROM conflicts WHERE id = ?", (id,))
        )
        return [] if raw is None else decode_alternatives(raw)


def _name(write: Write) -> tuple[bytes, int, int]:
    return (write.author.device, write.author.incarnation, write.hlc)


def _ended_by(write: Write, resolution: Any) -> _Ending:
    return _Ending(hlc_to_ms(Hlc(write.hlc)), write.author.device, _encode(resolution))


def is_deletion(path: Path) -> bool:
    """Whether a conflict at that path is one between a deletion and edits it had not seen."""
    return path[-1] == DELETED
