"""Whether the relay has a write: by the time of the write, which it keeps however it is sent.

Work that is made again, because a store was copied or the relay refused something, has another author and
another place in the outbox, but its old time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.ids import Author, Incarnation, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.writes import read_write
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


def is_relayed(replica: Replica, space: Space, record_type: str, id: RecordId, clock: int) -> bool:
    """See `Engine.is_relayed`. What only clears something has no time: it counts as written before."""
    opaque = space.keys.opaque_id(record_type, id)
    no = replica.db.value("SELECT no FROM records WHERE space = ? AND opaque = ?", (space.no, opaque))
    if no is None or not replica.unsent.get(no):
        return True
    for incarnation, change in replica.db.rows(
        "SELECT incarnation, change FROM outbox WHERE record = ?", (no,)
    ):
        if _is_of(replica, incarnation, change, clock):
            return False
    for incarnation, raw in replica.db.rows(
        "SELECT incarnation, envelope FROM sealed WHERE record = ?", (no,)
    ):
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        opened = envelope.open(space.keys.envelope_key(envelope.header.epoch))
        if _is_of(replica, incarnation, Payload.decode(opened).update, clock):
            return False
    return True


def _is_of(replica: Replica, incarnation: int, update: bytes, clock: int) -> bool:
    """Whether an update has something from that time or before."""
    author = Author(replica.device_id, Incarnation(incarnation))
    items = [raw for blocks in parse_update(update).blocks for _, raw in blocks.items]
    return not items or any(read_write(raw, author).hlc <= clock for raw in items)
