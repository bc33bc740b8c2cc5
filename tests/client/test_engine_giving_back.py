"""What a device tells a relay that has lost something, and what it finds missing there."""

from __future__ import annotations

import pytest

from crdt_sync.crypto.envelope import Kind, parse
from crdt_sync.errors import MalformedEnvelope
from crdt_sync.ids import Author, Incarnation, RelayId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine import absent, giving_back, unmerged
from crdt_sync_client.engine.filters import nothing
from crdt_sync_client.engine.model import CreateOp, Transaction, TransactionResult
from tests.client.engine_world import Peer, Relay, World

ANOTHER_LIFE = RelayId(b"another life....")


def test_a_group_acknowledged_in_part_is_sent_whole_to_a_relay_that_lost_it(world: World) -> None:
    office = world.office
    office.engine.write([Transaction(tuple(CreateOp("job", {"title": f"{n}"}) for n in range(3)))])
    office.connect()
    before = office.engine.session_start(world.space).acked
    sent = office.push(acknowledge=False)
    assert len(sent) == 3
    office.engine.acked(world.space, office.greeted.incarnation, before.sequence + 1)
    assert office.engine.session_start(world.space).acked == before
    office.engine.acked(world.space, office.greeted.incarnation, before.sequence + 3)
    assert office.engine.session_start(world.space).acked.sequence == before.sequence + 3


def test_a_device_holds_a_relay_to_what_a_welcome_acknowledged(world: World) -> None:
    office = world.office
    office.create({"title": "taken"})
    office.connect()
    before = office.engine.session_start(world.space)
    assert office.push(acknowledge=False)
    assert office.engine.session_start(world.space).promised < world.relay.head
    office.connect()  # the acknowledgement was lost with the connection; the relay has it all the same
    after = office.engine.session_start(world.space)
    assert after.acked.sequence > before.acked.sequence
    assert after.promised == world.relay.head


def test_a_relay_that_began_anew_and_lost_nothing_is_written_down_with_what_it_brings(world: World) -> None:
    anna, office, space = world.join("anna"), world.office, world.space
    world.settle()
    anna.create({"title": "new"})
    anna.sync()
    start, before = office.engine.session_start(space), office.engine._replica.transactions
    office.engine.welcome(
        space, ANOTHER_LIFE, start.acked.sequence, start.acked.hash, world.relay.head, start.cursor
    )
    assert office.engine._replica.transactions == before
    # The place in its earlier life is a place that the relay knows.
    assert office.engine.session_start(space) == start
    rows = world.relay.after(start.cursor, office.engine.author)
    with pytest.raises(MalformedEnvelope):  # everything in memory is read again
        office.engine.receive(space, [*rows, (world.relay.head, Kind.UPDATE, b"")], world.relay.head)
    office.engine.receive(space, rows, world.relay.head)
    office.crash()
    after = office.engine.session_start(space)
    assert (after.relay_seen, after.cursor) == (ANOTHER_LIFE, world.relay.head)


def test_what_a_relay_has_not_shown_is_given_back_and_nothing_else(world: World) -> None:
    office = world.office
    kept, lost = office.create({"title": "kept"}), office.create({"title": "lost"})
    office.sync()
    space = world.space
    rows = world.relay.after(0, Author(office.greeted.device, Incarnation(1)))
    opaque = office.engine._replica.space(space).keys.opaque_id("job", lost)
    shown = [row for row in rows if bytes(opaque) not in row[2]]
    assert len(shown) < len(rows)
    start = office.engine.session_start(space)
    welcomed = office.engine.welcome(
        space, ANOTHER_LIFE, start.acked.sequence, start.acked.hash, world.relay.head, 0
    )
    assert welcomed.relay_behind
    office.engine.receive(space, shown, world.relay.head)
    assert office.engine.gives_back(space)
    (snapshot,) = office.engine.give_back(space, max_bytes=10**6)
    assert bytes(opaque) in snapshot
    office.engine.gave_back(space, opaque, "stored")
    assert office.engine.give_back(space, max_bytes=10**6) == []
    assert not office.engine.gives_back(space)
    assert office.get(kept).values["title"] == "kept"


def test_a_missing_deletion_is_missing(world: World) -> None:
    office = world.office
    id = office.create({"title": "a", "notes": "b"})
    replica = office.engine._replica
    space = replica.space(world.space)
    record = replica.records.find(space, space.keys.opaque_id("job", id), replica.author)
    assert record is not None
    before = parse_update(record.doc.state())
    office.set(id, notes=None)
    after = parse_update(record.doc.state())
    assert giving_back.contains(after, before)
    assert not giving_back.contains(before, after)


def test_what_is_to_be_given_back_cannot_be_cleared_away(world: World) -> None:
    office = world.office
    kept, lost = office.create({"title": "shown"}), office.create({"title": "lost"})
    office.sync()
    space = world.space
    opaque = office.opaque(lost)
    rows = world.relay.after(0, Author(office.greeted.device, Incarnation(1)))
    shown = [row for row in rows if bytes(opaque) not in row[2]]
    start = office.engine.session_start(space)
    acked = start.acked
    office.engine.welcome(space, ANOTHER_LIFE, acked.sequence, acked.hash, world.relay.head, 0)
    office.engine.receive(space, shown, world.relay.head)
    left = office.engine.clear(space)
    assert kept in {change.id for change in left}
    assert lost not in {change.id for change in left}
    assert office.get(lost).values["title"] == "lost"
    assert len(office.engine.give_back(space, max_bytes=10**6)) == 1
    office.engine.gave_back(space, opaque, "stored")
    office.engine.give_back(space, max_bytes=10**6)
    assert lost in {change.id for change in office.engine.clear(space)}


def test_what_a_relay_lost_of_a_record_that_is_not_here_is_not_written_over(world: World) -> None:
    """The record comes back without the last that was written here, which others have and give back later."""
    office, ben = world.office, world.join("ben")
    id = office.create({"title": "a"})
    office.sync()
    office.set(id, count=1)
    office.sync()
    ben.sync()
    assert id in {change.id for change in office.engine.clear(world.space)}
    author, lost = office.greeted, world.relay.rows.pop()
    start, before = office.engine.session_start(world.space), office.engine.author
    acked = start.acked
    office.engine.welcome(world.space, ANOTHER_LIFE, acked.sequence, acked.hash, world.relay.head, 0)
    rows = world.relay.after(0, Author(author.device, Incarnation(1)))
    office.engine.receive(world.space, rows, world.relay.head)
    replica = office.engine._replica
    with replica.transaction(durable=False):
        absent.want(replica, replica.space(world.space), [office.opaque(id)])
    office.fetch()
    assert office.values(id).get("count") is None
    office.set(id, notes="written without it")
    assert office.engine.author != before  # it goes on beside what it may have lost
    world.relay.id = ANOTHER_LIFE
    world.relay.rows.append(lost)  # as ben gives it back
    office.engine._replica.space(world.space).cursor = lost[0] - 1
    world.settle()
    world.assert_converged()
    assert office.values(id)["count"] == 1
    assert office.values(id)["notes"] == "written without it"


def lose_records(world: World) -> None:
    """The relay's log begins anew, with the members and with how far it had acknowledged each chain."""
    lost, world.relay = world.relay, Relay()
    world.relay.id, world.relay.chains, world.relay.stored = ANOTHER_LIFE, lost.chains, lost.stored
    for _, kind, raw, *_ in lost.rows:
        if kind == Kind.MEMBERSHIP:
            world.relay.append(raw)


def greet_anew(*peers: Peer) -> None:
    """The relay tells each that its log is another one, and gives all of it."""
    relay = peers[0].world.relay
    for peer in peers:
        start = peer.engine.session_start(peer.space)
        peer.greeted = Author(start.device, start.incarnation)
        acked = start.acked
        assert peer.engine.welcome(
            peer.space, relay.id, acked.sequence, acked.hash, relay.head, 0
        ).relay_behind
        peer.pull()


def give_back(peer: Peer) -> int:
    """How many snapshots it gave back; the relay has pruned what they cover, and asked for all else."""
    relay, snapshots = peer.world.relay, peer.engine.give_back(peer.space, max_bytes=10**6, again=True)
    for raw in snapshots:
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        named, record = envelope.cover(), envelope.header.record
        for row in relay.updates():
            place = (row.header.author, row.header.sequence)
            assert row.header.record != record or named.covers(*place) or place in named.unmerged
        relay.push_snapshot(raw, given_back=True)
        peer.engine.gave_back(peer.space, record, "stored")
    return len(snapshots)


def test_two_who_each_sent_what_builds_on_lost_changes_do_not_wait_for_each_other(world: World) -> None:
    anna, ben, space = world.join("anna"), world.join("ben"), world.space
    id = world.office.create({"title": "pump"})
    world.settle()
    for number, peer in enumerate((anna, ben)):  # the relay acknowledges, nobody receives
        peer.connect()
        peer.set(id, **{("notes", "status")[number]: ("leaks", "busy")[number]})
        peer.push()
    lose_records(world)
    anna.set(id, notes="leaks badly")  # over a change that only anna has
    ben.set(id, status="done")
    greet_anew(anna, ben)
    for peer in (anna, ben):
        peer.push()
    for peer in (anna, ben):
        peer.pull()
    assert anna.get(id).values["status"] == "open"
    assert [one.reason for one in anna.engine.quarantined(space)] == [unmerged.WAITS]
    anna.crash()
    anna.connect()
    assert give_back(anna) == 1
    ben.pull()
    assert ben.get(id).values["notes"] == "leaks badly"
    assert not ben.engine.quarantined(space)
    assert give_back(ben) == 1
    anna.pull()
    assert not anna.engine.quarantined(space)
    assert [give_back(peer) for peer in (anna, ben)] == [0, 0]
    assert not any(peer.engine.gives_back(space) for peer in (anna, ben))
    greet_anew(world.office)
    assert give_back(world.office) == len(world.office.engine.schemas())
    newcomer = world.join("newcomer")
    for peer in (anna, ben, newcomer):
        peer.pull()
        values = peer.get(id).values
        assert (values["title"], values["notes"], values["status"]) == ("pump", "leaks badly", "done")
    assert not world.relay.updates()


def test_what_waits_is_put_aside_only_until_what_it_builds_on_comes(world: World) -> None:
    office, ben, space = world.office, world.join("ben"), world.space
    world.settle()
    before = world.relay.head
    id = office.create({"title": "pump"})
    office.sync()
    office.set(id, title="the pump")
    office.sync()
    (first, second) = world.relay.after(before, ben.greeted)
    ben.connect()
    ben.engine.receive(space, [(first[0], *second[1:])], first[0])
    assert ben.engine.get("job", id) is None
    (waits,) = ben.engine.quarantined(space)
    assert (waits.device_name, waits.reason) == ("office", unmerged.WAITS)
    ben.crash()
    ben.connect()
    ben.engine.receive(space, [(second[0], *first[1:])], second[0])
    assert ben.get(id).values["title"] == "the pump"
    assert not ben.engine.quarantined(space)
    assert len(ben.compact(id)) == 1


@pytest.mark.parametrize("delivered_again", [False, True])
def test_what_waited_for_its_group_when_the_relay_lost_it_is_given_back(
    world: World, delivered_again: bool
) -> None:
    """Found by seed 741532 of a swarm: it was taken for something that the relay has."""
    anna, ben, space = world.join("anna"), world.join("ben"), world.space
    world.settle()
    before = world.relay.head
    made = anna.engine.write(
        [Transaction((CreateOp("job", {"title": "a"}), CreateOp("job", {"title": "b"})))]
    )
    assert isinstance(made[0], TransactionResult)
    id = made[0].results[0].id
    anna.sync()
    first, _ = world.relay.after(before, ben.greeted)
    ben.connect()
    ben.engine.receive(space, [first], first[0])
    assert ben.engine.get("job", id) is None  # the rest has not come
    anna.engine.set_scope(space, "job", nothing)  # others keep them
    lose_records(world)
    if delivered_again:
        envelope = parse(first[2], max_bytes=MAX_ENVELOPE_BYTES).header
        world.relay._add(Kind.UPDATE, first[2], envelope.author, envelope.record, 0)
    ben.crash()
    greet_anew(ben)
    assert give_back(ben) == 0
    assert ben.engine.gives_back(space) is not delivered_again
    other = ben.create({"title": "of ben"})
    ben.push()
    ben.engine.set_scope(space, "job", nothing)
    assert ben.engine.is_absent("job", other)  # what the relay has may go
    ben.engine.set_scope(space, "job", None)
    anna.create({"title": "c"})
    anna.sync()
    ben.crash()
    ben.connect()
    ben.pull()
    assert ben.get(id).values["title"] == "a"
    assert give_back(ben) == int(not delivered_again)
    assert give_back(ben) == 0
    assert not ben.engine.gives_back(space)
    newcomer = world.join("newcomer", sync=False)
    rows = world.relay.of(newcomer.opaque(id))
    assert [kind for _, kind, _ in rows] == [Kind.UPDATE if delivered_again else Kind.SNAPSHOT]


def test_a_device_with_much_looks_for_what_is_lost_in_small_steps(world: World) -> None:
    """Between two of them other work goes."""
    office, anna, space = world.office, world.join("anna"), world.space
    step = giving_back.LOOKED_AT * giving_back.STEPS
    made = [office.create({"title": f"{n}"}) for n in range(step * 3 // 2)]
    world.settle()
    lost = bytes(anna.opaque(made[-1]))
    world.relay.id = ANOTHER_LIFE
    world.relay.rows = [row for row in world.relay.rows if row[4] != lost]
    greet_anew(anna)
    assert anna.engine.give_back(space, max_bytes=10**6) == []
    assert anna.engine.looks_on(space)
    (snapshot,) = anna.engine.give_back(space, max_bytes=10**6)
    assert lost in snapshot
    anna.engine.gave_back(space, anna.opaque(made[-1]), "stored")
    assert anna.engine.give_back(space, max_bytes=10**6) == []
    assert not anna.engine.looks_on(space)
    assert not anna.engine.gives_back(space)
