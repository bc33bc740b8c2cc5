"""Records that are not on a device: nothing is lost, nothing half is shown, and they come back whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.errors import MalformedEnvelope, RecordAbsent, RecordNotFound
from crdt_sync.ids import RecordId
from crdt_sync.protocol.frames import Deliver, Row, RowKind
from crdt_sync_client.engine.fetched import FetchedRecord
from crdt_sync_client.engine.model import CreateOp, DeleteOp, Transaction, UpdateOp
from crdt_sync_client.session_steps import BatchStep
from tests.client.engine_world import Peer, World

NOBODY = RecordId("00000000-0000-4000-8000-000000000000")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.join("anna")
    yield world
    world.close()


@pytest.fixture
def anna(world: World) -> Peer:
    return world.peers[1]


@pytest.fixture
def job(world: World, anna: Peer) -> RecordId:
    """A job that both wrote to, and that both have."""
    id = anna.create({"title": "Pump", "hours": 2})
    world.settle()
    world.office.set(id, status="busy")
    anna.set(id, notes="leaks")
    world.settle()
    return id


def test_a_record_that_is_given_up_comes_back_as_it_was(world: World, anna: Peer, job: RecordId) -> None:
    before, digest = anna.values(job), anna.engine.content_hash("job", job)
    anna.give_up(job)
    assert anna.engine.get("job", job) is None
    assert anna.engine.query("job") == []
    received = anna.fetch()
    assert [(change.id, change.origin) for change in received.changes] == [(job, "remote")]
    assert (anna.values(job), anna.engine.content_hash("job", job)) == (before, digest)
    assert anna.engine.wanted(world.space, 9) == []
    anna.set(job, status="done")
    world.settle()
    world.assert_converged()


def test_it_is_wanted_until_it_has_come_also_after_a_crash(world: World, anna: Peer, job: RecordId) -> None:
    anna.give_up(job)
    for again in (anna.reopen, anna.crash):
        again()
        assert anna.engine.wanted(world.space, 9) == [anna.opaque(job)]
        assert anna.engine.is_absent("job", job)
    anna.sync()
    anna.fetch()
    anna.reopen()
    assert not anna.engine.is_absent("job", job)
    assert anna.values(job)["status"] == "busy"


def test_what_comes_meanwhile_is_not_merged_into_half_a_record(
    world: World, anna: Peer, job: RecordId
) -> None:
    anna.give_up(job)
    world.office.set(job, status="done")
    world.office.sync()
    anna.sync()
    assert anna.engine.get("job", job, deleted=True) is None
    assert anna.compact(job) == []
    anna.fetch()
    assert anna.values(job)["status"] == "done"
    world.settle()
    world.assert_converged()


def test_an_answer_from_before_something_came_is_not_enough(world: World, anna: Peer, job: RecordId) -> None:
    anna.give_up(job)
    opaque = anna.opaque(job)
    answer = FetchedRecord(opaque, world.relay.of(opaque), world.relay.head)
    world.office.set(job, status="done")
    world.office.sync()
    anna.sync()
    assert anna.engine.take_fetched(world.space, [answer]).changes == ()
    assert anna.engine.wanted(world.space, 9) == [opaque]
    anna.fetch()
    assert anna.values(job)["status"] == "done"


def test_looking_whether_something_is_wanted_does_not_make_an_old_answer_enough(
    world: World, anna: Peer, job: RecordId
) -> None:
    """The batch that brings what the answer lacks asks whether there is something to fetch."""
    anna.give_up(job)
    (opaque,) = anna.engine.wanted(anna.space, 10)
    answer = FetchedRecord(opaque, world.relay.of(opaque), world.relay.head)
    world.office.set(job, notes="later")
    world.office.sync()
    cursor = anna.engine._replica.space(anna.space).cursor
    rows = [Row(seq, RowKind(kind), raw) for seq, kind, raw in world.relay.after(cursor, anna.greeted)]
    came = Deliver(cursor, rows, world.relay.head, caught_up=True)
    step = BatchStep(anna.engine, anna.space, [came], appends=[], bounds=None)
    step.run()
    assert step.error is None
    assert step.wants
    anna.engine.take_fetched(anna.space, [answer])
    anna.fetch()
    assert anna.values(job)["notes"] == "later"


def test_a_snapshot_and_what_follows_it_make_the_record(world: World, anna: Peer, job: RecordId) -> None:
    world.office.compact(job)
    world.office.set(job, tags=["urgent"])
    world.settle()
    anna.give_up(job)
    anna.fetch()
    assert anna.values(job)["tags"] == ["urgent"]
    assert anna.compact(job)
    world.settle()
    world.assert_converged()


def test_unsent_work_of_an_unreadable_record_is_put_back_into_it_and_sent(
    world: World, anna: Peer, job: RecordId
) -> None:
    anna.connect()
    anna.set(job, title="Pump 7")
    sealed = anna.engine.next_push(world.space, max_count=9, max_bytes=10**6)
    anna.set(job, hours=3)
    anna.give_up(job)
    assert anna.engine.outbox()[0].id == job
    anna.sync()
    anna.fetch()
    assert anna.values(job)["title"] == "Pump 7"
    anna.sync()
    world.settle()
    assert world.office.values(job)["title"] == "Pump 7"
    assert world.office.values(job)["hours"] == anna.values(job)["hours"]
    assert sealed
    world.assert_converged()


def test_own_work_that_the_relay_took_after_it_answered_is_asked_for_again(
    world: World, anna: Peer, job: RecordId
) -> None:
    anna.connect()
    anna.set(job, title="Pump 7")
    anna.give_up(job)
    opaque = anna.opaque(job)
    assert anna.engine.wanted(world.space, 9) == [opaque]
    answer = FetchedRecord(opaque, world.relay.of(opaque), world.relay.head)
    anna.sync()
    assert anna.engine.take_fetched(world.space, [answer]).changes == ()
    anna.fetch()
    assert anna.values(job)["title"] == "Pump 7"


def test_writing_to_it_says_how_to_get_it_and_changes_nothing(
    world: World, anna: Peer, job: RecordId
) -> None:
    anna.give_up(job)
    for op in (
        UpdateOp("job", job, {"status": "done"}),
        CreateOp("job", {"title": "Pump"}, job),
        DeleteOp("job", job),
        Transaction((CreateOp("job", {"title": "Other"}), UpdateOp("job", job, {"status": "done"}))),
    ):
        (error,) = anna.engine.write([op])
        assert isinstance(error, RecordAbsent)
        assert error.message == f"job {job} is not on this device, only in the space"
        assert error.hint.endswith(f"`crdt-sync fetch job {job}`")
    for ask in (anna.engine.explain, anna.engine.content_hash):
        with pytest.raises(RecordAbsent):
            ask("job", job)
    assert anna.engine.query("job") == []
    assert anna.engine.outbox() == []


def test_a_record_that_was_never_here_can_be_asked_for(world: World, anna: Peer) -> None:
    id = world.office.create({"title": "Crane"})
    world.office.sync()
    assert anna.engine.ask_for("job", id)
    anna.sync()
    anna.fetch()
    assert anna.values(id)["title"] == "Crane"
    assert not anna.engine.ask_for("job", id)


def test_one_that_nobody_has_is_not_found_afterwards(world: World, anna: Peer, job: RecordId) -> None:
    anna.engine.ask_for("job", NOBODY)
    assert isinstance(anna.engine.missing("job", NOBODY), RecordAbsent)
    anna.fetch()
    assert isinstance(anna.engine.missing("job", NOBODY), RecordNotFound)
    assert anna.engine.wanted(world.space, 9) == []
    assert anna.write(CreateOp("job", {"title": "New"}, NOBODY))[0].changed


def test_rows_of_another_record_are_refused_and_change_nothing(
    world: World, anna: Peer, job: RecordId
) -> None:
    other = world.office.create({"title": "Crane"})
    world.settle()
    anna.give_up(job)
    opaque = anna.opaque(job)
    with pytest.raises(MalformedEnvelope, match="another record"):
        anna.engine.take_fetched(
            world.space, [FetchedRecord(opaque, world.relay.of(anna.opaque(other)), world.relay.head)]
        )
    assert anna.engine.wanted(world.space, 9) == [opaque]
    anna.fetch()
    assert anna.values(job)["title"] == "Pump"


def test_what_was_not_asked_for_changes_nothing(world: World, anna: Peer, job: RecordId) -> None:
    opaque = anna.opaque(job)
    received = anna.engine.take_fetched(
        world.space, [FetchedRecord(opaque, world.relay.of(opaque), world.relay.head)]
    )
    assert (received.changes, received.envelopes) == ((), 0)


def test_a_part_of_an_unfinished_group_goes_on_waiting(world: World, anna: Peer, job: RecordId) -> None:
    office = world.office
    other = office.create({"title": "Crane"})
    world.settle()
    office.connect()
    ops = Transaction((UpdateOp("job", job, {"status": "done"}), UpdateOp("job", other, {"status": "done"})))
    office.engine.write([ops])
    first, second = office.engine.next_push(world.space, max_count=9, max_bytes=10**6)
    world.relay.push(first)
    anna.give_up(job)
    anna.sync()
    anna.fetch()
    assert anna.values(job)["status"] == "busy"
    world.relay.push(second)
    anna.sync()
    assert (anna.values(job)["status"], anna.values(other)["status"]) == ("done", "done")


def test_a_group_that_came_while_it_was_absent_shows_whole(world: World, anna: Peer, job: RecordId) -> None:
    office = world.office
    other = office.create({"title": "Crane"})
    world.settle()
    anna.give_up(job)
    office.engine.write(
        [Transaction((UpdateOp("job", job, {"status": "done"}), UpdateOp("job", other, {"title": "C"})))]
    )
    office.sync()
    anna.sync()
    assert anna.values(other)["title"] == "C"
    anna.fetch()
    assert anna.values(job)["status"] == "done"
    world.settle()
    world.assert_converged()
