"""Unsent work that a person gives up: kept as text first, gone as a whole, nothing that was sent is lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from crdt_sync.errors import CrdtSyncError, LocalError, RecordAbsent, RecordNotFound
from crdt_sync.ids import RecordId
from crdt_sync.records.changes import Increment
from crdt_sync_client.engine.exporting import UnsyncedOperation
from crdt_sync_client.engine.fetched import FetchedRecord
from crdt_sync_client.engine.model import Transaction, UpdateOp
from tests.client.engine_world import Peer, World
from tests.client.test_engine_giving_back import give_back, greet_anew, lose_records
from tests.client.test_engine_refusals import push, refuse_record


def discard(device: Peer, id: RecordId) -> list[UnsyncedOperation]:
    kept: list[UnsyncedOperation] = []
    assert device.engine.discard("job", id, kept.extend) == kept
    return kept


def fetch(device: Peer) -> None:
    """What the relay answers to a question for the wanted records."""
    relay = device.world.relay
    wanted = device.engine.wanted(device.space, 64)
    rows = {
        opaque: [(seq, kind, raw) for seq, kind, raw, _, record, _ in relay.rows if record == opaque]
        for opaque in wanted
    }
    answers = [FetchedRecord(opaque, rows[opaque], relay.head) for opaque in wanted]
    device.engine.take_fetched(device.space, answers)


def test_what_is_given_up_is_handed_out_first_and_the_record_is_as_others_have_it(
    world: World, anna: Peer
) -> None:
    id, other = (world.office.create({"title": title, "hours": 3}) for title in "ab")
    world.settle()
    anna.set(id, count=1)
    world.settle()
    anna.set(id, title="of anna", hours=Increment(5))
    anna.set(other, count=2)
    (operation,) = discard(anna, id)
    assert ("title",) in [path for path, _, _ in operation.writes]
    assert [item.id for item in anna.engine.outbox()] == [other]
    assert anna.engine.get("job", id) is None
    with pytest.raises(RecordAbsent):
        anna.set(id, count=9)
    anna.reopen()
    world.settle()
    fetch(anna)
    assert anna.values(id) == world.office.values(id)
    assert (anna.values(id)["title"], anna.values(id)["hours"], anna.values(id)["count"]) == ("a", 3, 1)
    anna.set(id, title="once more")
    world.settle()
    world.assert_converged()
    assert world.office.values(other)["count"] == 2
    assert world.office.values(id)["title"] == "once more"


def test_a_record_that_was_never_sent_is_gone(world: World, anna: Peer) -> None:
    id, other = anna.create({"title": "never sent"}), anna.create({"title": "kept"})
    discard(anna, id)
    assert anna.engine.wanted(anna.space, 9) == []
    with pytest.raises(RecordNotFound):
        anna.set(id, count=1)
    world.settle()
    assert world.office.values(other)["title"] == "kept"
    assert world.office.engine.get("job", id) is None
    world.assert_converged()


def test_what_was_refused_can_be_given_up(world: World, anna: Peer) -> None:
    a, b = anna.create({"title": "a"}), anna.create({"title": "b"})
    refuse_record(anna, a)
    anna.set(a, count=1)
    assert {operation.state for operation in discard(anna, a)} == {"failed"}
    assert anna.engine.status_counts().failed == 0
    world.settle()
    assert anna.engine.outbox() == []
    assert world.office.values(b)["title"] == "b"
    world.assert_converged()


def test_what_a_transaction_wrote_is_given_up_as_a_whole(world: World, anna: Peer) -> None:
    a, b, c = (anna.create({"title": title}) for title in "abc")
    world.settle()
    anna.engine.write([Transaction(tuple(UpdateOp("job", id, {"notes": "x"}) for id in (a, b)))])
    anna.set(c, notes="y")
    assert {operation.id for operation in discard(anna, a)} == {a, b}
    world.settle()
    fetch(anna)
    world.settle()
    world.assert_converged()
    assert [world.office.values(id).get("notes") for id in (a, b, c)] == [None, None, "y"]


def test_what_may_have_been_sent_is_not_given_up(world: World, anna: Peer) -> None:
    id = anna.create({"title": "a"})
    sent = push(anna)
    with pytest.raises(LocalError, match="is on its way"):
        discard(anna, id)
    anna.reopen()
    anna.connect()
    assert anna.push() == sent
    with pytest.raises(RecordNotFound, match="nothing of job"):
        discard(anna, id)


def test_nothing_is_given_up_when_it_cannot_be_kept(world: World, anna: Peer) -> None:
    id = anna.create({"title": "a"})

    def fails(_: Sequence[UnsyncedOperation]) -> None:
        raise LocalError("no room")

    with pytest.raises(LocalError, match="no room"):
        anna.engine.discard("job", id, fails)
    world.settle()
    assert world.office.values(id)["title"] == "a"


def test_a_write_is_relayed_when_the_relay_has_it_whatever_comes_after(world: World, anna: Peer) -> None:
    id, other = anna.create({"title": "a"}), anna.create({"title": "b"})
    first = anna.set(id, count=1).clock

    def relayed(clock: int) -> bool:
        return anna.engine.is_relayed(anna.space, "job", id, clock)

    assert not relayed(first)
    anna.sync()
    assert relayed(first)
    second = anna.set(id, count=2).clock
    assert relayed(first)
    assert not relayed(second)
    refuse_record(anna, id)
    anna.engine.retry()
    third = anna.set(id, count=3).clock
    assert relayed(first)
    assert [relayed(second), relayed(third)] == [False, False]
    world.settle()
    assert [relayed(second), relayed(third)] == [True, True]
    assert anna.engine.is_relayed(anna.space, "job", other, third)


def test_a_part_that_the_relay_took_of_a_transaction_that_is_given_up_shows_nowhere(
    world: World, anna: Peer
) -> None:
    """It refused the rest; others keep the part aside for good."""
    ids = [world.office.create({"title": title}) for title in "ab"]
    world.settle()
    together = Transaction(tuple(UpdateOp("job", id, {"notes": "both"}) for id in ids))
    assert not isinstance(anna.engine.write([together])[0], CrdtSyncError)
    refuse_record(anna, ids[1])
    anna.pull()  # past its own part, which is not echoed
    assert len(discard(anna, ids[0])) == 2
    anna.connect()
    anna.pull()
    fetch(anna)
    world.settle()
    world.assert_converged()
    assert [anna.values(id).get("notes") for id in ids] == [None, None]
    anna.set(ids[0], notes="alone")
    world.settle()
    assert world.office.values(ids[0])["notes"] == "alone"


def test_what_was_to_leave_once_it_is_sent_and_is_given_up_leaves_nothing_to_do(
    world: World, anna: Peer
) -> None:
    """Or the device would look for something to do for ever."""
    id = world.office.create({"title": "a", "status": "open"})
    world.settle()
    anna.set(id, status="done")
    anna.engine.set_scope(anna.space, "job", {"status": "open"})
    refuse_record(anna, id)
    discard(anna, id)
    assert not anna.engine.upkeep_due
    fetch(anna)
    assert anna.values(id)["status"] == "open"


def test_nothing_is_given_up_of_a_record_that_the_relay_has_lost_before_others_gave_it_back(
    world: World, anna: Peer
) -> None:
    id, untouched = (world.office.create({"title": title}) for title in ("shared", "other"))
    world.settle()
    anna.set(id, title="of anna", count=1)
    anna.set(untouched, count=2)
    refuse_record(anna, id)
    world.settle()
    lose_records(world)
    greet_anew(anna)
    with pytest.raises(LocalError, match=r"lost changes of job .* they would be dropped") as refused:
        discard(anna, id)
    assert refused.value.hint is not None
    assert "crdt-sync sync" in refused.value.hint
    assert anna.values(id)["title"] == "of anna"
    assert give_back(anna) == 1  # what has no refused work
    greet_anew(world.office)
    assert give_back(world.office) == len(world.office.engine.schemas()) + 1
    anna.pull()
    assert discard(anna, id)
    fetch(anna)
    assert anna.values(id)["title"] == "shared"
    world.settle()
    world.assert_converged()
