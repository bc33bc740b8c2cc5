"""What a relay has lost and a device can give back only later, or in part: not lost, and not sent twice."""

from __future__ import annotations

import pytest

from crdt_sync.crypto.envelope import Kind, parse
from crdt_sync.ids import RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.document import RecordDocument
from crdt_sync_client.engine.filters import nothing
from crdt_sync_client.engine.model import CreateOp, Operation, Transaction, UpdateOp
from tests.client.engine_world import Peer, World
from tests.client.test_engine_giving_back import give_back


def leave_waiting(author: Peer, reader: Peer, *ids: RecordId) -> None:
    """The author counts in these jobs together and makes another; all but the last part reach the reader.

    The author itself keeps no jobs then.
    """
    world = author.world
    before = world.relay.head
    counted: list[Operation] = [UpdateOp("job", id, {"count": 7}) for id in ids]
    author.engine.write([Transaction((*counted, CreateOp("job", {"title": "the last part"})))])
    author.sync()
    *parts, _ = world.relay.after(before, reader.greeted)
    assert len(parts) == len(ids)
    reader.connect()
    reader.engine.receive(world.space, parts, parts[-1][0])
    author.engine.set_scope(world.space, "job", nothing)


def go_on(author: Peer, *readers: Peer) -> None:
    """The author's chain goes on: the missing part will never come, and readers show what there is."""
    author.create({"title": "later"})
    author.sync()
    for reader in readers:
        reader.connect()
        reader.pull()


def give_all_back(peer: Peer) -> int:
    """How many snapshots that took; what the relay takes comes back to the device as a row of its log."""
    given = 0
    for _ in range(4):
        given += give_back(peer)
        peer.pull()
    return given


def test_a_snapshot_that_was_put_aside_is_no_update_that_others_hear_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = world.office.create({"title": "pump"})
    world.settle()
    with monkeypatch.context() as patched:
        patched.setattr(RecordDocument, "shown_state", lambda _: b"no update")
        (bad,) = anna.engine.make_snapshots(world.space, [anna.opaque(id)])
    world.relay._add(Kind.SNAPSHOT, bad, None, anna.opaque(id), 0)
    ben.pull()
    assert len(ben.engine.quarantined(world.space)) == 1
    ben.crash()
    (good,) = ben.engine.make_snapshots(world.space, [ben.opaque(id)])
    assert not parse(good, max_bytes=MAX_ENVELOPE_BYTES).cover().unmerged
