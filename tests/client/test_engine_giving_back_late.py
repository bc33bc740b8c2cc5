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
from tests.client.test_engine_giving_back import give_back, greet_anew, lose_records


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


@pytest.mark.parametrize("cleared_first", [False, True])
def test_what_waits_for_its_group_is_not_lost_with_the_record_it_is_for(
    world: World, cleared_first: bool
) -> None:
    anna, ben, office = world.join("anna"), world.join("ben"), world.office
    id = office.create({"title": "pump"})
    world.settle()
    if cleared_first:
        ben.engine.clear(world.space)
    leave_waiting(anna, ben, id)
    lose_records(world)
    greet_anew(office, ben)
    give_all_back(office)
    give_all_back(ben)
    if not cleared_first:  # the record could be fetched anew, but not the part that waits
        assert id not in {change.id for change in ben.engine.clear(world.space)}
    go_on(anna, ben)
    ben.crash()
    ben.connect()
    ben.fetch()
    ben.pull()
    assert ben.get(id).values["count"] == 7
    assert give_all_back(ben) == 1
    assert not ben.engine.gives_back(world.space)
    office.pull()
    assert office.get(id).values["count"] == 7


def test_a_record_of_which_two_groups_wait_is_given_back_after_each(world: World) -> None:
    anna, carl, ben, office = (*(world.join(name) for name in ("anna", "carl", "ben")), world.office)
    id, other = office.create({"title": "pump"}), office.create({"title": "valve"})
    world.settle()
    leave_waiting(anna, ben, id)
    leave_waiting(carl, ben, id, other)
    lose_records(world)
    greet_anew(office, ben)
    give_all_back(office)
    give_all_back(ben)
    ben.set(other, notes="not sent")  # so this one cannot be given back yet
    go_on(anna, ben)
    assert give_back(ben) == 1
    go_on(carl, ben)
    assert give_all_back(ben) == 1
    ben.push()
    assert give_all_back(ben) == 1
    assert not ben.engine.gives_back(world.space)
    office.pull()
    for each in (id, other):
        assert office.engine.content_hash("job", each) == ben.engine.content_hash("job", each)


def test_a_gap_in_what_waits_for_lost_changes_is_not_given_back_with_each_edit(world: World) -> None:
    anna, carl, ben, office = (*(world.join(name) for name in ("anna", "carl", "ben")), world.office)
    id = office.create({"title": "pump"})
    world.settle()
    carl.set(id, status="busy")
    world.settle()
    carl.connect()
    carl.set(id, notes="leaks")
    carl.push()
    leave_waiting(anna, ben, id)
    lose_records(world)
    carl.set(id, notes="leaks badly")  # of which the relay has lost the one before
    greet_anew(carl, office)
    carl.push()
    greet_anew(ben)
    assert give_all_back(ben)
    for number in range(3):
        office.set(id, title=f"pump {number}")
        office.push()
        ben.pull()
        assert give_back(ben) == 0


@pytest.mark.parametrize("written_before", [False, True])
def test_own_work_that_builds_on_what_is_lost_is_not_covered_by_a_snapshot_without_it(
    world: World, written_before: bool
) -> None:
    anna, ben, carl, office = (*(world.join(name) for name in ("anna", "ben", "carl")), world.office)
    id = ben.create({"title": "pump", "notes": "leaks", "status": "busy"})
    world.settle()
    if written_before:
        anna.set(id, count=1)
        world.settle()
    anna.set(id, notes="leaks badly")
    carl.set(id, status="done")
    lose_records(world)
    greet_anew(carl)
    carl.push()
    anna.give_up(id)  # its document was damaged; what is unsent is in the outbox
    greet_anew(anna)
    anna.fetch()
    anna.sync()
    assert not anna.engine.outbox()
    assert give_all_back(anna) == 1
    greet_anew(ben)
    assert give_all_back(ben) == 1
    greet_anew(office)
    give_all_back(office)
    for peer in (anna, ben, carl, office):
        peer.pull()
        values, conflicts = peer.get(id).values, peer.get(id).conflicts
        assert (values["notes"], values["status"], conflicts) == ("leaks badly", "done", ())
    assert not anna.engine.quarantined(world.space)


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


def test_what_has_waited_is_given_back_while_something_else_cannot_be(world: World) -> None:
    anna, ben, office = world.join("anna"), world.join("ben"), world.office
    id, other = office.create({"title": "pump"}), office.create({"title": "valve"})
    world.settle()
    leave_waiting(anna, ben, id)
    ben.set(other, notes="not sent")
    lose_records(world)
    greet_anew(ben)
    assert give_all_back(ben) == 1  # and the other one later
    go_on(anna)
    ben.pull()  # in the same session
    assert ben.get(id).values["count"] == 7
    assert give_all_back(ben) == 1
    ben.push()
    assert give_all_back(ben) == 1
    assert not ben.engine.gives_back(world.space)
    greet_anew(office)
    office.pull()
    assert office.get(id).values["count"] == 7


@pytest.mark.parametrize("read_anew", [False, True])
def test_what_shows_only_at_the_end_of_the_log_is_given_back(world: World, read_anew: bool) -> None:
    anna, ben, office = world.join("anna"), world.join("ben"), world.office
    id = office.create({"title": "pump"})
    world.settle()
    leave_waiting(anna, ben, id)
    lose_records(world)
    greet_anew(office, ben)
    give_all_back(office)
    give_all_back(ben)
    anna.create({"title": "later"})
    anna.sync()
    ben.connect()
    rows = world.relay.after(ben.engine._replica.space(world.space).cursor, ben.greeted)
    ben.engine.receive(world.space, rows, rows[-1][0], caught_up=False)
    give_back(ben)
    ben.engine.receive(world.space, [], rows[-1][0], caught_up=True)
    assert ben.get(id).values["count"] == 7
    if read_anew:  # as when a transaction fails
        ben.engine._replica.reload()
    assert len(ben.engine.give_back(world.space, max_bytes=10**6)) == 1  # nothing new has come


@pytest.mark.parametrize("delivered_again", [False, True])
def test_what_waits_for_its_type_when_the_relay_lost_it_is_given_back(
    world: World, delivered_again: bool
) -> None:
    anna, office, space = world.join("anna"), world.office, world.space
    lose_records(world)  # the record types too: only the office can give them back
    greet_anew(anna)
    give_back(anna)
    newcomer = world.join("newcomer")
    id = anna.create({"title": "pump"})
    anna.push()
    newcomer.connect()
    newcomer.pull()
    assert [one.type for one in newcomer.engine.quarantined(space)] == []  # nothing is wrong with it
    anna.engine.set_scope(space, "job", nothing)
    (row,) = world.relay.of(anna.opaque(id))
    lose_records(world)
    if delivered_again:
        world.relay._add(Kind.UPDATE, row[2], None, anna.opaque(id), 0)
    newcomer.crash()
    greet_anew(newcomer)
    assert give_back(newcomer) == 0
    assert newcomer.engine.gives_back(space) is not delivered_again
    greet_anew(office)
    give_back(office)
    newcomer.crash()
    newcomer.connect()
    newcomer.pull()
    assert newcomer.get(id).values["title"] == "pump"
    assert give_back(newcomer) == int(not delivered_again)
    newcomer.pull()
    assert give_back(newcomer) == 0
    assert not newcomer.engine.gives_back(space)
    office.pull()
    assert office.get(id).values["title"] == "pump"
