"""What became of a write, as a person asks for it: at every stage, after restarts, refusals and conflicts."""

from __future__ import annotations

import pytest

from crdt_sync.errors import CheckedOut, NotPermitted, RecordNotFound
from crdt_sync.ids import RecordId
from crdt_sync_client.engine import outbox_past
from crdt_sync_client.engine.model import Transaction, TransactionResult, UpdateOp, WriteResult
from crdt_sync_client.engine.write_life import WriteLife
from tests.client.engine_world import Peer, World
from tests.client.test_engine_lives import copy_of, put_back
from tests.client.test_engine_refusals import push, refuse_record


@pytest.fixture
def id(world: World, anna: Peer) -> RecordId:
    made = world.office.create({"title": "Pump"})
    world.settle()
    anna.connect()
    return made


def life(device: Peer, write: WriteResult) -> WriteLife:
    return device.engine.life(write.space, write.type, write.id, write.clock, write.first)


def stages(device: Peer, *writes: WriteResult) -> list[str]:
    return [life(device, write).stage for write in writes]


def values(device: Peer, write: WriteResult) -> dict[str, str]:
    return {each.field: each.part for each in life(device, write).values or ()}


def test_it_is_pending_then_on_its_way_then_at_the_relay(world: World, anna: Peer, id: RecordId) -> None:
    write = anna.write(UpdateOp("job", id, {"title": "Leak", "count": 1}, priority=2))[0]
    pending = life(anna, write)
    assert (pending.stage, pending.priority, pending.sealed_ms) == ("pending", 2, None)
    assert abs(pending.written_ms - world.now_ms) < 1000
    world.now_ms += 60_000
    (envelope,) = push(anna)
    sending = life(anna, write)
    assert (sending.stage, sending.attempts, sending.relayed_ms) == ("sending", 0, None)
    assert sending.sealed_ms is not None
    assert sending.sealed_ms - sending.written_ms >= 60_000
    push(anna)  # in another session: the relay had not answered
    assert life(anna, write).attempts == 1
    world.now_ms += 60_000
    anna.connect()
    anna.push()
    relayed = life(anna, write)
    assert (relayed.stage, relayed.priority, relayed.envelope) == ("relayed", 2, sending.envelope)
    assert relayed.sealed_ms == sending.sealed_ms
    assert relayed.relayed_ms is not None
    assert relayed.relayed_ms - sending.sealed_ms >= 60_000
    assert values(anna, write) == {"title": "shown", "count": "shown"}
    anna.reopen()
    assert life(anna, write) == relayed, "it is kept in the store"
    assert envelope


def test_writes_that_go_in_one_envelope_share_it_and_later_ones_do_not(
    world: World, anna: Peer, id: RecordId
) -> None:
    first, second = anna.set(id, count=1), anna.set(id, count=2, notes="n")
    push(anna)
    later, cleared = anna.set(id, count=3), anna.set(id, notes=None)
    assert stages(anna, first, second, later, cleared) == ["sending", "sending", "pending", "pending"]
    world.settle()
    assert stages(anna, first, second, later, cleared) == ["relayed"] * 4
    assert life(anna, first).envelope == life(anna, second).envelope != life(anna, later).envelope
    assert life(anna, later).envelope == life(anna, cleared).envelope
    assert anna.engine.is_relayed(anna.space, "job", id, cleared.clock)
    assert values(anna, later) == {"count": "shown"}
    assert [life(anna, write).overwritten for write in (first, second, later)] == [True, True, False]
    listed = anna.engine.lives("job", id)
    assert [each.envelope for each in listed] == [life(anna, later).envelope, life(anna, first).envelope]
    assert [{value.field for value in each.values or ()} for each in listed] == [{"count", "notes"}, set()]


def test_writes_of_one_commit_are_told_apart(anna: Peer, id: RecordId) -> None:
    one, two = anna.write(UpdateOp("job", id, {"count": 1}), UpdateOp("job", id, {"notes": "n"}))
    assert (values(anna, one), values(anna, two)) == ({"count": "shown"}, {"notes": "shown"})
    together = Transaction((UpdateOp("job", id, {"title": "T"}), UpdateOp("job", id, {"hours": 1})))
    (done,) = anna.engine.write([together])
    assert isinstance(done, TransactionResult)
    assert [life(anna, write).stage for write in done.results] == ["pending", "pending"]
    assert "title" in values(anna, done.results[0])


def test_what_lost_against_another_says_so(world: World, anna: Peer, id: RecordId) -> None:
    mine = anna.set(id, notes="anna", title="Leak")
    world.now_ms += 1000
    world.office.set(id, notes="office")
    world.settle()
    (conflict,) = anna.engine.conflicts()
    found = {each.field: (each.part, each.conflict) for each in life(anna, mine).values or ()}
    assert found["title"] == ("shown", None)
    assert found["notes"][1] == conflict.id
    world.office.set(id, notes="both", title="Leak at pump 2")
    world.settle()
    assert life(anna, mine).overwritten is True


def test_a_refusal_is_typed_and_tells_what_follows(world: World, anna: Peer, id: RecordId) -> None:
    write = anna.set(id, count=1)
    refuse_record(anna, id, "checked_out")
    waiting = life(anna, write)
    assert waiting.stage == "waiting"
    assert isinstance(waiting.refusal, CheckedOut)
    assert waiting.retry_at_ms is not None
    world.now_ms = waiting.retry_at_ms
    refuse_record(anna, id, "permission")
    failed = life(anna, write)
    assert (failed.stage, failed.retry_at_ms, failed.error) == ("failed", None, "permission: because")
    assert isinstance(failed.refusal, NotPermitted)
    assert failed.refusal.reason == "because"
    behind = anna.set(id, count=2)
    assert life(anna, behind).stage == "failed", "it waits behind the other"
    anna.engine.retry()
    assert stages(anna, write, behind) == ["pending", "pending"]
    world.settle()
    assert stages(anna, write, behind) == ["relayed", "relayed"]


def test_what_was_given_up_stays_given_up_when_the_record_is_there_again(
    world: World, anna: Peer, id: RecordId
) -> None:
    before = anna.set(id, count=1)
    world.settle()
    write, own = anna.set(id, count=2), anna.write(UpdateOp("job", anna.create({"title": "x"}), {}))[0]
    refuse_record(anna, id, "too_large")
    anna.engine.discard("job", id, lambda _: None)
    anna.engine.discard("job", own.id, lambda _: None)
    given_up = life(anna, write)
    assert (given_up.stage, given_up.values) == ("discarded", None)
    assert given_up.discarded_ms is not None
    assert given_up.refusal is not None
    assert given_up.refusal.relay_code == "too_large"
    world.settle()
    anna.fetch()
    anna.reopen()
    again = anna.set(id, count=3)
    assert stages(anna, before, write, again) == ["relayed", "discarded", "pending"]
    assert life(anna, own).stage == "discarded", "also of a record that is nowhere any more"


def test_work_of_a_store_that_was_an_older_copy_keeps_its_time(
    world: World, anna: Peer, id: RecordId
) -> None:
    copy = copy_of(anna, clean=True)
    lost = anna.set(id, count=1)
    world.settle()
    put_back(anna, copy)
    mine = anna.set(id, notes="copy")
    for _ in range(3):
        world.settle()
    assert life(anna, mine).stage == "relayed"
    assert abs(life(anna, mine).written_ms - world.now_ms) < 60_000
    assert life(anna, lost).stage == "relayed", "the relay has it, though this store has forgotten when"


def test_what_others_have_is_known_for_all_that_came_before(world: World, anna: Peer, id: RecordId) -> None:
    first = anna.set(id, count=1)
    world.settle()
    # The least relay there can be tells no place in its log.
    with anna.engine._replica.transaction(durable=True):
        anna.engine._replica.db.execute("UPDATE outbox_past SET row = 7")
    second = anna.set(id, count=2)
    anna.engine.note_delivered(anna.space, 7, 1, 3)
    assert (life(anna, first).delivered_to, life(anna, first).others) == (1, 3)
    (version,) = anna.engine.explain("job", id, "count").fields[0].versions
    assert version.life is not None
    assert version.life.stage == "pending"
    anna.engine.note_delivered(anna.space, 6, 1, 1)
    assert stages(anna, first, second) == ["relayed", "pending"]
    anna.engine.note_delivered(anna.space, 7, 1, 1)
    assert stages(anna, first, second) == ["delivered", "pending"]
    known = life(anna, first).delivered_ms
    world.now_ms += 1000
    anna.engine.note_delivered(anna.space, 9, 1, 1)
    assert life(anna, first).delivered_ms == known, "when it was known first"


def test_memory_is_bounded_and_what_is_forgotten_is_relayed(
    monkeypatch: pytest.MonkeyPatch, world: World, anna: Peer, id: RecordId
) -> None:
    monkeypatch.setattr(outbox_past, "KEPT", 3)
    monkeypatch.setattr(outbox_past, "_PRUNED_EVERY", 1)
    writes = []
    for count in range(8):
        writes.append(anna.set(id, count=count))
        world.settle()
    assert [life(anna, write).relayed_ms is None for write in writes] == [True] * 5 + [False] * 3
    assert set(stages(anna, *writes)) == {"relayed"}
    assert len(anna.engine.lives("job", id)) == 3
    assert len(anna.engine.lives("job", id, limit=2)) == 2


def test_a_write_that_never_was_is_not_found(anna: Peer, id: RecordId) -> None:
    with pytest.raises(RecordNotFound, match="knows nothing"):
        anna.engine.life(anna.space, "job", RecordId("5f1c9f0e-0000-4000-8000-000000000000"), 1)
    assert anna.engine.lives("job", RecordId("5f1c9f0e-0000-4000-8000-000000000000")) == []
