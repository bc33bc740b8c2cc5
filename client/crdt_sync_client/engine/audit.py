"""The audit trail: every conflict this device has seen, how it stands, and how it ended.

A conflict's id follows from the record, the path and the concurrent writes, so it is the same on every
device. An entry is made when a conflict first stands in a record here and closed when it no longer does:

- another write has replaced all alternatives: its author closed it (`resolver`, `resolution`);
- a further concurrent write came in: the conflict at that path now has another id (`superseded_by`);
- nothing of it is visible any more (its row or record was replaced): closed, by nobody in particular.

Device names are not stored but looked up in the membership log when an entry is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from crdt_sync.errors import ConflictNotFound
from crdt_sync.hlc import Hlc, hlc_to_ms
from crdt_sync.ids import Author, DeviceId, Incarnation, RecordId
from crdt_sync.records.conflicts import Conflict
from crdt_sync.records.writes import DELETED, DocWrites, Write
from crdt_sync.roles import Role
from crdt_sync_client.engine.model import Alternative, ConflictEntry
from crdt_sync_client.engine.open_records import OpenRecord, Standing

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_encode = msgspec.msgpack.Encoder().encode
_decode_alternatives = msgspec.msgpack.Decoder(list[tuple[Any, bytes, int, int, int, tuple[str, ...]]]).decode
_decode = msgspec.msgpack.Decoder().decode
_path_text = msgspec.json.Encoder().encode
_read_path = msgspec.json.Decoder(tuple[str, ...]).decode

_INSERT = (
    "INSERT INTO conflicts (id, record, path, rule, kind, state, alternatives, winner, seen_at_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = kind,"
    " closed_at_ms = NULL, resolver = NULL, resolution = NULL, superseded_by = NULL"
)
_CLOSE = (
    "UPDATE conflicts SET state = 'closed', closed_at_ms = ?, resolver = ?, resolution = ?,"
    " superseded_by = ? WHERE id = ?"
)
_SELECT = (
    "SELECT c.id, r.space, r.type, r.id, c.path, c.rule, c.kind, c.state, c.alternatives, c.winner,"
    " c.seen_at_ms, c.closed_at_ms, c.resolver, c.resolution, c.superseded_by"
    " FROM conflicts c JOIN records r ON r.no = c.record"
)


class AuditRows:
    """What one transaction changes in the trail. Collected first, so that each statement runs once."""

    def __init__(self) -> None:
        self.opened: list[tuple[Any, ...]] = []
        self.closed: list[tuple[Any, ...]] = []

    def note(
        self,
        record: OpenRecord,
        before: Sequence[Standing],
        after: Sequence[Conflict],
        writes: DocWrites,
        now_ms: int,
    ) -> None:
        """The difference between what stood in a record and what stands in it now."""
        known = {standing.id for standing in before}
        for conflict in after:
            if conflict.id not in known:
                self.opened.append(_row_of(conflict, record.no, now_ms))
        standing_now = {conflict.id for conflict in after}
        for gone in before:
            if gone.id not in standing_now:
                self.closed.append((*_ending(gone, after, writes, now_ms), gone.id))

    def save(self, replica: Replica) -> None:
        """Closes first: a conflict may close and stand again within one transaction."""
        if self.closed:
            replica.db.many(_CLOSE, self.closed)
        if self.opened:
            replica.db.many(_INSERT, self.opened)


def _row_of(conflict: Conflict, record_no: int, now_ms: int) -> tuple[Any, ...]:
    alternatives = [
        (
            write.value,
            write.author.device,
            write.author.incarnation,
            write.hlc,
            int(write.role),
            write.path,
        )
        for write in conflict.alternatives
    ]
    return (
        conflict.id,
        record_no,
        _path_text(conflict.path).decode(),
        conflict.rule,
        conflict.kind,
        conflict.kind,
        _encode(alternatives),
        conflict.alternatives.index(conflict.winner),
        now_ms,
    )


def _ending(
    gone: Standing, after: Sequence[Conflict], writes: DocWrites, now_ms: int
) -> tuple[int, bytes | None, bytes | None, str | None]:
    """When a conflict ended, who ended it with what, and what took its place."""
    for conflict in after:
        if conflict.path == gone.path:
            return now_ms, None, None, conflict.id
    settling: tuple[Write, ...] = writes.get(gone.path, ())
    if len(settling) == 1 and gone.path[-1] != DELETED:
        write = settling[0]
        return hlc_to_ms(Hlc(write.hlc)), write.author.device, _encode(write.value), None
    return now_ms, None, None, None


def entries(
    replica: Replica, *, open_only: bool, record_type: str | None, record_id: str | None
) -> list[ConflictEntry]:
    """The trail, oldest first."""
    sql, params = _SELECT, []
    conditions = ["c.state = 'open'"] if open_only else []
    if record_type is not None:
        conditions.append("r.type = ?")
        params.append(record_type)
    if record_id is not None:
        conditions.append("r.id = ?")
        params.append(record_id)
    if conditions:
        sql += " WHERE " + " AND ".join(conditions)
    return _read(replica, replica.db.rows(sql + " ORDER BY c.no", params))


def entry(replica: Replica, id: str) -> ConflictEntry:
    """The conflict of that id, or whose id begins so. Raises ConflictNotFound."""
    text = id.strip().lower()
    rows: list[Any] = []
    if text and all(character in "0123456789abcdef" for character in text):
        rows = replica.db.rows(_SELECT + " WHERE c.id >= ? AND c.id < ? LIMIT 2", (text, text + "g"))
    if len(rows) > 1:
        raise ConflictNotFound(f"more than one conflict begins with {text}", hint="give more of its id")
    if not rows:
        raise ConflictNotFound(
            f"there is no conflict {text[:40]!r}", hint="list them with `crdt-sync conflicts ls`"
        )
    return _read(replica, rows)[0]


def _read(replica: Replica, rows: Iterable[Any]) -> list[ConflictEntry]:
    spaces = {space.no: space for space in replica.spaces.values()}
    found = []
    for row in rows:
        id, space_no, record_type, record_id, path, rule, kind, state, alternatives, winner = row[:10]
        seen_at_ms, closed_at_ms, resolver, resolution, superseded_by = row[10:]
        space = spaces[space_no]
        found.append(
            ConflictEntry(
                id=id,
                space=space.id,
                type=record_type,
                record=RecordId(record_id),
                path=_read_path(path),
                rule=rule,
                kind=kind,
                state=state,
                alternatives=tuple(
                    Alternative(
                        value=value,
                        device=DeviceId(device),
                        device_name=space.device_name(DeviceId(device)),
                        role=Role(role),
                        at_ms=hlc_to_ms(Hlc(time)),
                        mine=device == replica.device_id,
                        author=Author(DeviceId(device), Incarnation(incarnation)).array_name,
                        field=".".join(wrote),
                        deletes=wrote[-1] == DELETED,
                    )
                    for value, device, incarnation, time, role, wrote in _decode_alternatives(alternatives)
                ),
                winner=winner,
                seen_at_ms=seen_at_ms,
                closed_at_ms=closed_at_ms,
                resolver=None if resolver is None else DeviceId(resolver),
                resolver_name=None if resolver is None else space.device_name(DeviceId(resolver)),
                resolution=None if resolution is None else _decode(resolution),
                superseded_by=superseded_by,
            )
        )
    return found
