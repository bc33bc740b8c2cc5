"""What a device would get that came now: everything there is has to be at the relay, not only on devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.frames import RowKind
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.document import EMPTY_UPDATE, merge_updates
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine.giving_back import contains
from crdt_sync_sim.oracle import RecordName

if TYPE_CHECKING:
    from crdt_sync_sim.run import Simulation


def missing_at_relay(sim: Simulation) -> Iterator[RecordName]:
    """Records of which the first device has something that no row of the relay's log brings."""
    device = sim.members[0]
    replica = device.engine._replica
    space = replica.space(device.space)
    key = sim.relay.log_storage.find_space(space.id)
    shown: dict[OpaqueId, list[bytes]] = {}
    rows = [] if key is None else sim.relay.log_storage.read(key, 0, max_rows=10**9, max_bytes=2**50).rows
    for row in rows:
        if row.kind in (RowKind.UPDATE, RowKind.SNAPSHOT):
            envelope = parse(row.payload, max_bytes=MAX_ENVELOPE_BYTES)
            payload = Payload.decode(envelope.open(space.keys.envelope_key(envelope.header.epoch)))
            shown.setdefault(envelope.header.record, []).append(payload.update)
    for name in device.record_names():
        opaque = space.keys.opaque_id(*name)
        record = replica.records.find(space, opaque, replica.author)
        assert record is not None
        there = merge_updates(shown.get(opaque, [EMPTY_UPDATE]))
        if not contains(parse_update(there), parse_update(record.doc.state())):
            yield name
