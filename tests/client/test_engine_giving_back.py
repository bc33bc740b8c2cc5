"""What a device tells a relay that has lost something, and what it finds missing there."""

from __future__ import annotations

import pytest

from crdt_sync.crypto.envelope import Kind
from crdt_sync.errors import MalformedEnvelope
from crdt_sync.ids import Author, Incarnation, RelayId
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine import absent, giving_back
from crdt_sync_client.engine.model import CreateOp, Transaction
from tests.client.engine_world import World

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
