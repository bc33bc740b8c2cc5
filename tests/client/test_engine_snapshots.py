"""Snapshots: a fresh engine gets the same content from them, and they never cover what is not merged."""

from __future__ import annotations

from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.envelope import Kind, parse
from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from tests.client.engine_world import Peer, World
from tests.client.test_engine_exchange import PUMP, forged


def opaque(peer: Peer, id: RecordId) -> OpaqueId:
    return peer.engine._replica.space(peer.space).keys.opaque_id("job", id)


def cover_of(peer: Peer, id: RecordId) -> CoverVector:
    (raw,) = peer.engine.make_snapshots(peer.space, [opaque(peer, id)])
    return parse(raw, max_bytes=MAX_ENVELOPE_BYTES).cover()


def test_a_fresh_device_gets_everything_from_snapshots_and_tails(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    ids = [anna.create({**PUMP, "count": n}) for n in range(5)]
    world.settle()
    for id in ids:
        ben.set(id, status="busy")
    world.settle()
    before = len(world.relay.rows)
    assert len(ben.compact(*ids)) == 5
    assert len(world.relay.rows) == before - 5  # two updates each, one snapshot in their place
    anna.set(ids[0], count=50)
    anna.sync()
    late = world.join("late")
    assert late.engine.count("job") == 5
    assert late.values(ids[0])["count"] == 50
    world.settle()
    world.assert_converged()


def test_a_snapshot_of_what_one_has_changes_nothing(world: World) -> None:
    anna = world.join("anna")
    id = anna.create(PUMP)
    world.settle()
    (raw,) = anna.compact(id)
    received = world.office.engine.receive(
        world.space, [(world.relay.head, int(Kind.SNAPSHOT), raw)], world.relay.head
    )
    assert received.changes == ()
    assert (received.conflicts_opened, received.conflicts_closed, received.quarantined) == ((), (), ())


def test_a_snapshot_stands_in_for_an_update_that_was_pruned_before_one_came_to_it(world: World) -> None:
    anna, late = world.join("anna"), world.join("late")
    id = anna.create(PUMP)
    anna.sync()
    anna.set(id, count=7)
    anna.sync()
    world.office.sync()
    _, changed = (
        (number, int(Kind.UPDATE), one.raw)
        for number, one in enumerate(world.relay.updates(), 1)
        if one.header.record == opaque(anna, id)
    )
    head = world.relay.head
    (raw,) = world.office.engine.make_snapshots(world.space, [opaque(anna, id)])
    # Its cursor has passed the first row, which another snapshot had emptied; it has the newest update.
    late.engine.receive(world.space, [(head + 1, changed[1], changed[2])], head + 1)
    assert late.engine.count("job") == 0
    late.engine.receive(world.space, [(head + 2, int(Kind.SNAPSHOT), raw)], head + 2)
    assert late.values(id)["count"] == 7
    assert late.values(id)["title"] == "Pump"


def test_a_snapshot_covers_the_last_update_of_each_author_and_no_other(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id, other = anna.create(PUMP), anna.create(PUMP)
    world.settle()
    ben.set(id, count=1)
    ben.set(other, count=1)
    anna.set(id, status="busy")
    world.settle()
    of_record = [one for one in world.relay.updates() if one.header.record == opaque(anna, id)]
    last = {one.header.author: (one.header.sequence, one.hash) for one in of_record}
    for peer in world.peers:
        cover = cover_of(peer, id)
        assert {author: tuple(head) for author, head in cover.covered.items()} == last
        assert cover.unmerged == frozenset()


def test_no_snapshot_while_work_is_unsent_or_unacknowledged(world: World) -> None:
    anna = world.join("anna")
    id = anna.create(PUMP)
    anna.sync()
    assert len(anna.engine.make_snapshots(world.space, [opaque(anna, id)])) == 1
    anna.set(id, count=1)
    assert anna.engine.make_snapshots(world.space, [opaque(anna, id)]) == []
    anna.connect()
    anna.push(acknowledge=False)
    assert anna.engine.make_snapshots(world.space, [opaque(anna, id)]) == []
    anna.connect()
    assert len(anna.engine.make_snapshots(world.space, [opaque(anna, id)])) == 1


def test_what_is_put_aside_is_never_covered(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create(PUMP)
    world.settle()
    bad = forged(anna, id, b"not an update")
    sequence = parse(bad, max_bytes=MAX_ENVELOPE_BYTES).header.sequence
    assert world.relay.push(bad)
    anna.set(id, count=1)
    anna.sync()
    ben.sync()
    for _ in range(2):
        cover = cover_of(ben, id)
        assert cover.unmerged == {(anna.engine.author, sequence)}
        assert not cover.covers(anna.engine.author, sequence)
        assert cover.covers(anna.engine.author, sequence + 1)
        ben.reopen()
    ben.compact(id)
    assert [one.raw for one in world.relay.updates() if one.header.record == opaque(ben, id)] == [bad]


def test_one_who_learns_from_a_snapshot_what_was_not_merged_does_not_cover_it_either(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create(PUMP)
    world.settle()
    bad = forged(anna, id, b"not an update")
    assert world.relay.push(bad)
    anna.set(id, count=1)
    anna.sync()
    ben.sync()
    ben.compact(id)
    late = world.join("late")
    late.reopen()
    sequence = parse(bad, max_bytes=MAX_ENVELOPE_BYTES).header.sequence
    assert cover_of(late, id).unmerged == {(anna.engine.author, sequence)}
    assert late.values(id) == ben.values(id)


def test_a_record_that_waits_for_a_missing_update_is_not_vouched_for(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create(PUMP)
    world.settle()
    anna.set(id, count=1)
    anna.connect()
    anna.push()
    anna.set(id, status="busy")
    anna.push()
    start = ben.engine.session_start(world.space)
    rows = world.relay.after(start.cursor, ben.engine.author)
    assert len(rows) == 2
    ben.engine.receive(world.space, rows[1:], rows[1][0])  # a relay that withholds the one before
    assert ben.engine.make_snapshots(world.space, [opaque(ben, id)]) == []


def test_readers_and_for_record_types_all_but_admins_make_none(world: World) -> None:
    anna, auditor = world.join("anna"), world.join("auditor", Role.READER)
    id = anna.create(PUMP)
    world.settle()
    assert auditor.engine.make_snapshots(world.space, [opaque(anna, id)]) == []
    space = world.office.engine._replica.space(None)
    rows = world.office.engine._replica.db.rows("SELECT opaque FROM records WHERE type = ?", (SCHEMA_TYPE,))
    schemas = [OpaqueId(row[0]) for row in rows]
    assert space.types == ("job", "site")
    assert anna.engine.make_snapshots(world.space, schemas) == []
    assert len(world.office.engine.make_snapshots(world.space, schemas)) == 2
    assert anna.engine.make_snapshots(world.space, [OpaqueId(bytes(16))]) == []
