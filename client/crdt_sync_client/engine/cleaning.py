"""Records that leave the device by themselves: those that have been closed, or deleted, for long enough.

A type's schema says when a record is closed and how long devices keep it then (`x-closed`); the device may
have another time for a type. What counts is the time of the write that closed it. A clock that is years ahead
makes records leave early, which loses nothing: the space has them, and whoever opens one fetches it.

Records with unsent work, an open conflict or a pick stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crdt_sync.hlc import hlc_to_ms
from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.records.view import DELETED_PATH
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import scoping
from crdt_sync_client.engine.open_records import OpenRecord, decode_standing
from crdt_sync_client.engine.query_sql import value_of

if TYPE_CHECKING:
    from crdt_sync_client.engine.model import RecordChange
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space

DAY_MS: Final = 86_400_000
AT_ONCE: Final = 300
"""Records looked at in one transaction: some 25 ms."""
_CLOSED: Final = (
    "SELECT no, opaque, id, standing FROM records WHERE space = ? AND type = ? AND json IS NOT NULL"
    " AND no > ? AND (deleted = 1 OR {closed}) ORDER BY no LIMIT ?"
)
_HERE: Final = (
    "SELECT no, opaque FROM records WHERE space = ? AND absent IS NULL AND type NOT LIKE '\\_%' ESCAPE '\\'"
)

Place = tuple[str, int]
"""A type, and the number of the last of its records that was looked at."""


class Finished(NamedTuple):
    """A record that may leave: closed or deleted at `since_ms` (Unix)."""

    no: int
    opaque: OpaqueId
    type: str
    id: RecordId
    since_ms: int


def keep_days(schema: RecordSchema, own: Mapping[str, int]) -> int:
    """How many days a type's closed records stay on this device; 0 for good."""
    found = own.get(schema.type)
    if found is not None:
        return found
    return 0 if schema.closed is None else schema.closed.keep_days


def look(
    replica: Replica, space: Space, own: Mapping[str, int], after: Place = ("", 0)
) -> tuple[list[Finished], Place | None]:
    """What of the next records may leave now, and where to look on; None at the end.

    `own` are this device's days by type.
    """
    for name in space.types:
        schema = space.schemas[name]
        if name < after[0] or schema.closed is None or not keep_days(schema, own):
            continue
        values = schema.closed.values
        value = value_of((schema.closed.field,))
        sql = _CLOSED.format(closed=f"{value.text} IN ({', '.join('?' * len(values))})")
        start = after[1] if name == after[0] else 0
        rows = replica.db.rows(sql, (space.no, name, start, *value.params, *values, AT_ONCE))
        if rows:
            return _old(replica, space, schema, rows, keep_days(schema, own)), (name, rows[-1][0])
    return [], None


def _old(replica: Replica, space: Space, schema: RecordSchema, rows: list[Any], days: int) -> list[Finished]:
    before_ms = replica.now_ms() - days * DAY_MS
    found = []
    for no, opaque, id, standing in rows:
        decided = all(conflict.kind != "open" for conflict in decode_standing(standing).conflicts)
        if not decided or scoping.is_held(replica, no):
            continue
        record = replica.records.find(space, OpaqueId(opaque), replica.author)
        if record is None or scoping.is_picked(replica, space, schema.type, record.opaque, record.parent):
            continue
        since_ms = _since_ms(schema, record)
        if since_ms is not None and since_ms <= before_ms:
            found.append(Finished(no, record.opaque, schema.type, RecordId(id), since_ms))
    return found


def _since_ms(schema: RecordSchema, record: OpenRecord) -> int | None:
    """When the record was closed or deleted, by the clock of who did it."""
    assert schema.closed is not None
    writes = schema.current(record.doc.writes())
    found = [*writes.get(DELETED_PATH, ())] if record.deleted else [*writes.get((schema.closed.field,), ())]
    return max((hlc_to_ms(write.hlc) for write in found), default=None)


def clean_up(
    replica: Replica, space: Space, own: Mapping[str, int], after: Place
) -> tuple[list[RecordChange], Place | None]:
    """Let those of the next records go that are finished; what watchers are told, and where to go on.

    Inside a transaction.
    """
    found, further = look(replica, space, own, after)
    return scoping.depart(replica, space, [(each.no, each.opaque) for each in found], "closed"), further


def clear(replica: Replica, space: Space) -> list[RecordChange]:
    """Have fresh copies of all that is here and has no unsent work. Inside a transaction."""
    going = [(no, OpaqueId(opaque)) for no, opaque in replica.db.rows(_HERE, (space.no,))]
    return scoping.depart(replica, space, going, "cleared", wanted=True)
