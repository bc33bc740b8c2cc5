"""What the relay refuses waits alone: everything else goes on, nothing is lost, it can be tried again."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt_sync.crypto.envelope import Header
from crdt_sync.errors import CrdtSyncError, RecordNotFound
from crdt_sync.ids import RecordId
from crdt_sync.records.changes import AddElement, Increment
from crdt_sync_client.engine.model import DeleteOp, OutboxItem, Transaction, UpdateOp
from tests.client.engine_world import Peer, World
from tests.client.test_engine_lives import refuse

FINAL = "permission"
"""A code after which a person has to act."""


def push(device: Peer) -> list[bytes]:
    device.connect()
    return device.engine.next_push(device.space, max_count=50, max_bytes=10**6)


def refuse_record(device: Peer, id: RecordId, code: str = FINAL) -> None:
    """The relay takes everything but what is of that record, until the device sets it aside."""
    opaque = device.engine._replica.space(device.space).keys.opaque_id("job", id)
    for _ in range(12):
        sent = push(device)
        for raw in sent:
            header = Header.unpack(raw)
            if header.record == opaque:
                device.engine.refused(device.space, header.incarnation, header.sequence, code, "because")
                break
            assert device.world.relay.push(raw)
            device.engine.acked(device.space, header.incarnation, header.sequence)
        if not sent or item_of(device, id).state in ("failed", "waiting"):
            return


def item_of(device: Peer, id: RecordId) -> OutboxItem:
    return next(item for item in device.engine.outbox() if item.id == id)


def assert_whole(device: Peer, id: RecordId) -> None:
    """Nothing in the record waits for what nobody has; such a record could never be compacted again."""
    replica = device.engine._replica
    record = replica.records.find(replica.space(device.space), device.opaque(id), device.engine.author)
    assert record is not None
    assert not record.doc.pending


def test_only_the_refused_record_waits_and_everything_else_goes_on(world: World, anna: Peer) -> None:
    a, b, c = (anna.create({"title": title, "hours": 1}) for title in "abc")
    anna.set(c, count=3, tags=["x"], notes="n")
    first, *_ = push(anna)
    later = anna.create({"title": "not sealed yet"})
    refuse(anna, first, FINAL, times=3)
    assert anna.get(a).sync_state == "failed"
    assert [anna.get(id).sync_state for id in (b, c, later)] == ["pending"] * 3
    world.settle()
    assert [anna.get(id).sync_state for id in (b, c, later)] == ["synced"] * 3
    assert world.office.values(c) == anna.values(c)
    assert (world.office.values(c)["hours"], world.office.values(later)["title"]) == (1, "not sealed yet")
    assert world.office.engine.get("job", a) is None
    assert anna.values(a)["title"] == "a"
    (item,) = anna.engine.outbox()
    assert (item.id, item.state, item.code, item.attempts) == (a, "failed", FINAL, 3)
    assert item.error == "permission: because"
    assert anna.engine.status_counts().failed == 1


def test_what_was_set_aside_goes_when_a_person_tries_again(world: World, anna: Peer) -> None:
    a, b = anna.create({"title": "a", "hours": 2}), anna.create({"title": "b"})
    refuse_record(anna, a)
    anna.reopen()
    anna.set(a, count=7, hours=Increment(1))
    world.settle()
    assert anna.get(a).sync_state == "failed"
    with pytest.raises(RecordNotFound, match="nothing of job"):
        anna.engine.retry(type="job", id=b)
    assert anna.engine.retry(type="job", id=a) == 1
    assert anna.get(a).sync_state == "pending"
    anna.reopen()
    world.settle()
    world.assert_converged()
    assert world.office.values(a) == {**anna.values(a), "title": "a", "hours": 3, "count": 7}
    assert anna.engine.outbox() == []
    assert anna.engine.retry() == 0


def test_what_was_written_over_stays_written_over_on_both_sides(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    anna.set(ids[0], notes="by anna", title="of anna", tags=["t"])
    refuse_record(anna, ids[0])
    world.office.set(ids[0], notes="by office", count=4)
    world.settle()
    assert anna.values(ids[0])["count"] == 4  # what others write goes on arriving
    assert anna.values(ids[0])["title"] == "of anna"
    anna.engine.retry()
    world.settle()
    world.assert_converged()
    assert world.office.values(ids[0])["title"] == "of anna"
    (conflict,) = world.office.engine.conflicts()
    assert {one.value for one in conflict.alternatives} == {"by anna", "by office"}


def test_a_deletion_that_was_refused_is_a_deletion_when_it_goes(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    anna.write(DeleteOp("job", ids[0]))
    anna.set(ids[1], count=1)
    refuse_record(anna, ids[0])
    world.settle()
    assert world.office.values(ids[1])["count"] == 1
    assert world.office.engine.get("job", ids[0]) is not None
    assert anna.engine.get("job", ids[0]) is None
    anna.engine.retry()
    world.settle()
    assert world.office.engine.get("job", ids[0]) is None
    world.assert_converged()


def test_what_a_transaction_ties_to_it_waits_too_and_nobody_sees_a_part(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    a, b, c, _ = ids
    anna.set(a, count=1)
    refuse_record(anna, a)
    together = Transaction(tuple(UpdateOp("job", id, {"notes": "together"}) for id in (a, b)))
    assert not isinstance(anna.engine.write([together])[0], CrdtSyncError)
    anna.set(b, title="behind it")
    anna.set(c, title="goes on")
    world.settle()
    assert [anna.get(id).sync_state for id in (a, b, c)] == ["failed", "failed", "synced"]
    assert [world.office.values(id).get("notes") for id in (a, b)] == [None, None]
    assert world.office.values(b)["title"] == "Job 1"
    assert anna.engine.retry(type="job", id=b) == 1
    world.settle()
    world.assert_converged()
    assert [world.office.values(id).get("notes") for id in (a, b)] == ["together", "together"]
    assert world.office.values(a)["count"] == 1
    assert anna.engine.outbox() == []


def test_ten_attempts_are_made_with_growing_pauses_and_then_a_person_is_asked(
    world: World, anna: Peer
) -> None:
    a, b = anna.create({"title": "a"}), anna.create({"title": "b"})
    refuse_record(anna, a, "bad_signature")
    pauses, attempts = [], []
    while (item := item_of(anna, a)).state == "waiting":
        attempts.append(item.attempts)
        wait_s = anna.engine.retry_in_s(anna.space)
        assert wait_s is not None
        assert item.retry_at_ms is not None
        anna.connect()
        assert item_of(anna, a).state == "waiting"
        pauses.append(wait_s)
        assert anna.get(a).sync_state == "pending"
        world.now_ms = item.retry_at_ms
        refuse_record(anna, a, "bad_signature")
    assert attempts == [3, 4, 5, 6, 7, 8, 9]
    for pause, least in zip(pauses, [5, 10, 30, 60, 300, 300, 300], strict=True):
        assert least - 1 <= pause <= least * 1.25
    assert (item.state, item.attempts, item.retry_at_ms) == ("failed", 10, None)
    assert anna.get(a).sync_state == "failed"
    assert anna.engine.retry_in_s(anna.space) is None
    anna.sync()
    assert anna.get(b).sync_state == "synced"
    anna.engine.retry()
    world.settle()
    assert world.office.values(a)["title"] == "a"


def test_what_is_checked_out_is_tried_until_it_is_free(world: World, anna: Peer) -> None:
    a = anna.create({"title": "a"})
    for _ in range(15):
        refuse_record(anna, a, "checked_out")
        assert item_of(anna, a).state == "waiting"
        anna.reopen()
        world.now_ms += 400_000
    world.settle()
    assert world.office.values(a)["title"] == "a"
    assert anna.engine.outbox() == []


def test_a_clock_that_is_set_back_puts_off_no_try(world: World, anna: Peer) -> None:
    a = anna.create({"title": "a"})
    refuse_record(anna, a, "record_over_quota")
    wait_s = anna.engine.retry_in_s(anna.space)
    assert wait_s is not None
    assert 0 < wait_s < 40
    world.now_ms -= 3 * 86_400_000
    assert anna.engine.retry_in_s(anna.space) == 0
    anna.sync()
    assert anna.get(a).sync_state == "synced"


@pytest.mark.parametrize("code", ["over_quota", "rate_limited"])
def test_what_is_too_much_for_now_is_sent_again_as_it_is_however_often(
    world: World, anna: Peer, code: str
) -> None:
    a, b = anna.create({"title": "a"}), anna.create({"title": "b"})
    sent = push(anna)
    refuse(anna, sent[0], code, times=20)
    assert {item.state for item in anna.engine.outbox()} == {"sending"}
    assert item_of(anna, a).error == f"{code}: because"
    assert item_of(anna, b).error is None
    anna.connect()
    assert anna.push() == sent
    assert anna.engine.outbox() == []


def test_what_is_refused_of_an_earlier_life_does_not_hold_up_this_one(world: World, anna: Peer) -> None:
    a, b = anna.create({"title": "a"}), anna.create({"title": "b"})
    push(anna)
    anna.crash()
    c = anna.create({"title": "c"})
    refuse_record(anna, a)
    world.settle()
    assert [anna.get(id).sync_state for id in (a, b, c)] == ["failed", "synced", "synced"]
    anna.crash()
    anna.engine.retry()
    world.settle()
    world.assert_converged()
    assert world.office.values(a)["title"] == "a"


def test_what_a_later_life_wrote_to_the_record_waits_behind_it(world: World, anna: Peer) -> None:
    a, b, c = (anna.create({"title": title, "notes": "old"}) for title in "abc")
    push(anna)
    anna.crash()
    anna.set(a, notes="new")
    together = Transaction(tuple(UpdateOp("job", id, {"count": 1}) for id in (a, b)))
    assert not isinstance(anna.engine.write([together])[0], CrdtSyncError)
    anna.set(c, count=1)
    refuse_record(anna, a)
    world.settle()
    assert [anna.get(id).sync_state for id in (a, b, c)] == ["failed", "failed", "synced"]
    assert world.office.engine.get("job", a) is None
    assert world.office.engine.get("job", b) is None
    anna.engine.retry()
    world.settle()
    world.assert_converged()
    assert world.office.values(a)["notes"] == "new"
    assert [world.office.values(id)["count"] for id in (a, b, c)] == [1, 1, 1]
    assert_whole(world.office, a)


def test_what_several_lives_wrote_is_made_again_in_its_order_whatever_its_priorities(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    """The most urgent comes first in the outbox; what it wrote over was written first all the same."""
    a, *_ = ids
    anna.set(a, notes="one")
    refuse_record(anna, a)
    for notes, priority in [("two", 5), ("three", 1), ("four", 3)]:
        anna.crash()
        anna.write(UpdateOp("job", a, {"notes": notes}, priority=priority))
    anna.engine.retry()
    world.settle()
    world.assert_converged()
    assert world.office.values(a)["notes"] == "four"
    assert world.office.get(a).conflicts == ()
    for peer in (anna, world.office):
        assert_whole(peer, a)


def test_a_relay_that_had_it_after_all_shows_it_to_us_as_well(world: World, anna: Peer) -> None:
    """It said that it refused, and stored. Everybody ends with the same."""
    a, b = anna.create({"title": "a"}), anna.create({"title": "b"})
    for raw in push(anna):
        assert world.relay.push(raw)
    refuse(anna, world.relay.updates()[-2].raw, FINAL, times=3)
    world.settle()
    anna.engine.retry()
    world.settle()
    world.assert_converged()
    assert [world.office.values(id)["title"] for id in (a, b)] == ["a", "b"]


@pytest.mark.parametrize("refused_first", [False, True])
def test_what_others_gave_back_for_us_is_not_made_twice(
    world: World, anna: Peer, ids: list[RecordId], refused_first: bool
) -> None:
    """The relay took it, was put back from a copy before it said so, and refuses it now."""
    a, b, *_ = ids
    anna.set(a, hours=Increment(5))
    anna.set(b, title="behind it")
    author, (first, _) = anna.engine.author, push(anna)
    assert world.relay.push(first)
    world.office.sync()
    assert len(world.office.compact(a)) == 1
    del world.relay.chains[author]  # as in the copy, to which the office has given its snapshot
    sequence = Header.unpack(first).sequence
    if not refused_first:
        anna.connect()
        anna.pull()
    push(anna)
    anna.engine.refused(anna.space, author.incarnation, sequence, "record_over_quota", "because")
    if refused_first:
        assert item_of(anna, a).state == "waiting"
        anna.connect()
        anna.pull()
        world.now_ms += 60_000
    world.settle()
    world.assert_converged()
    assert anna.engine.outbox() == []
    for peer in (anna, world.office):
        assert peer.values(a)["hours"] == 5
        assert peer.values(b)["title"] == "behind it"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_whatever_is_refused_when_nothing_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Each write adds a row of its own and an hour: a missing one and a doubled one both show.

    And so does a part of a transaction, the rows of which have the same step.
    """
    rng = random.Random(seed)
    world = World(tmp_path_factory.mktemp("world"), seed=str(seed))
    office, anna = world.office, world.join("anna")
    ids = [office.create({"title": str(n)}) for n in range(5)]
    world.settle()
    written: dict[RecordId, list[str]] = {id: [] for id in ids}

    def op(step: str) -> UpdateOp:
        id = rng.choice(ids)
        written[id].append(step)
        changes: dict[str, Any] = {"parts": {step: {"qty": 1}}, "hours": Increment(1), "count": 1}
        return UpdateOp("job", id, {**changes, "tags": AddElement(step)}, priority=rng.choice([None, 1, 9]))

    def assert_no_part() -> None:
        there = Counter(part.split(".")[0] for id in ids for part in office.values(id).get("parts", {}))
        all_of = Counter(part.split(".")[0] for parts in written.values() for part in parts)
        assert {step: all_of[step] for step in there} == dict(there)

    for step in range(40):
        match rng.randrange(9):
            case 0:
                ops = tuple(op(f"R{step}.{n}") for n in range(rng.randint(2, 3)))
                assert not isinstance(anna.engine.write([Transaction(ops)])[0], CrdtSyncError)
            case 1 | 2:
                sent = push(anna)
                for raw in sent[: rng.randint(0, len(sent))]:
                    header = Header.unpack(raw)
                    assert world.relay.push(raw)
                    if rng.random() < 0.7:
                        anna.engine.acked(world.space, header.incarnation, header.sequence)
                else:
                    left = push(anna)
                    if left:
                        refuse(anna, left[0], rng.choice([FINAL, "bad_signature", "checked_out"]), times=3)
            case 3:
                anna.pull()
            case 4:
                office.write(op(f"R{step}"))
                office.sync()
                assert_no_part()
            case 5:
                anna.engine.retry()
            case 6:
                world.now_ms += 20_000
                anna.connect()
            case 7 if rng.random() < 0.4:
                (anna.crash if rng.random() < 0.5 else anna.reopen)()
            case _:
                anna.write(op(f"R{step}"))
    world.settle()
    assert_no_part()
    for _ in range(3):
        anna.engine.retry()
        world.settle()
    world.assert_converged()
    for id in ids:
        values = office.values(id)
        assert sorted(values.get("parts", {})) == sorted(written[id]) == sorted(values.get("tags", []))
        assert values.get("hours", 0) == len(written[id])
    assert anna.engine.outbox() == []
    world.close()


def test_a_story_in_which_a_note_went_before_the_work_it_was_about(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What was marked was neither tried again nor sent when asked."""
    tested: Any = test_whatever_is_refused_when_nothing_is_lost_or_doubled
    tested.hypothesis.inner_test(tmp_path_factory, 158495)
