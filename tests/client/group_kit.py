"""For tests of groups: write together, look at what is sent, deliver it piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crdt_sync.crypto.envelope import Envelope, parse
from crdt_sync.crypto.groups import GroupPlace
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_client.engine.model import Operation, Received, Transaction, TransactionResult, UpdateOp
from tests.client.engine_world import Peer


def together(peer: Peer, *ops: Operation) -> TransactionResult:
    (outcome,) = peer.engine.write([Transaction(ops)])
    if isinstance(outcome, CrdtSyncError):
        raise outcome
    assert isinstance(outcome, TransactionResult)
    return outcome


def set_all(peer: Peer, ids: Sequence[RecordId], **changes: Any) -> None:
    together(peer, *(UpdateOp("job", id, changes) for id in ids))


def deliver(peer: Peer, count: int | None = None, *, caught_up: bool | None = None) -> Received:
    """Give the peer the next rows of the log: so many, or all."""
    relay = peer.world.relay
    space = peer.engine._replica.space(peer.space)
    rows = relay.after(space.cursor, peer.greeted)
    part = rows if count is None else rows[:count]
    at_end = len(part) == len(rows) if caught_up is None else caught_up
    cursor = relay.head if len(part) == len(rows) else part[-1][0]
    return peer.engine.receive(peer.space, part, cursor, caught_up=at_end)


def shown(peer: Peer, ids: Sequence[RecordId], field: str = "notes") -> list[Any]:
    """What stands in that field of each record; None also where there is no record."""
    records = [peer.engine.get("job", id) for id in ids]
    return [None if record is None else record.values.get(field) for record in records]


def waiting(peer: Peer) -> int:
    """How many envelopes wait on the disk."""
    return len(peer.engine._replica.db.rows("SELECT no FROM waiting"))


def opened(peer: Peer, raw: bytes) -> tuple[Envelope, Payload]:
    envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
    keys = peer.engine._replica.space(peer.space).keys
    return envelope, Payload.decode(envelope.open(keys.envelope_key(envelope.header.epoch)))


def places(peer: Peer, sent: Sequence[bytes]) -> list[tuple[RecordId, tuple[int, int] | None]]:
    """Of each envelope its record, and its place in its group: (position, size)."""
    found: list[tuple[RecordId, tuple[int, int] | None]] = []
    for raw in sent:
        _, payload = opened(peer, raw)
        place = None if payload.group is None else GroupPlace.decode(payload.group)
        found.append((payload.record_id, None if place is None else (place.position, place.size)))
    return found
