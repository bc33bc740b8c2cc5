"""Transactions of a device's engine: all of their operations or none, and sealed as one group."""

from __future__ import annotations

import pytest

from crdt_sync.errors import RecordNotFound, TransactionError, ValidationError
from crdt_sync.ids import RecordId
from crdt_sync_client.engine import local_writes, sealing
from crdt_sync_client.engine.model import CreateOp, DeleteOp, RestoreOp, Transaction, UpdateOp
from tests.client.engine_world import Peer, World
from tests.client.group_kit import opened, places, set_all, shown, together

# Writing


def test_a_transaction_is_done_as_a_whole_and_each_operation_sees_those_before(anna: Peer) -> None:
    id = RecordId("00000000-0000-4000-8000-000000000001")
    outcome = together(
        anna,
        CreateOp("job", {"title": "Swap teeth"}, id),
        UpdateOp("job", id, {"status": "busy", "parts": {"A": {"qty": 2}}}),
        UpdateOp("job", id, {"parts": {"A": None}, "status": "done"}),
        CreateOp("job", {"title": "Order teeth"}),
        DeleteOp("job", id),
        RestoreOp("job", id),
    )
    assert [result.id for result in outcome.results if result.change is not None] == [
        outcome.results[3].id, id,
    ]  # fmt: skip
    assert anna.values(id)["status"] == "done"
    assert not anna.values(id).get("parts")
    assert anna.values(outcome.results[3].id)["title"] == "Order teeth"


def test_one_operation_that_fails_undoes_nothing_but_its_transaction(anna: Peer, ids: list[RecordId]) -> None:
    unknown = RecordId("00000000-0000-4000-8000-00000000000f")
    before = anna.values(ids[1])
    outcomes = anna.engine.write(
        [
            UpdateOp("job", ids[0], {"notes": "alone"}),
            Transaction(
                (
                    UpdateOp("job", ids[0], {"notes": "together"}),
                    CreateOp("job", {"title": "New"}),
                    UpdateOp("job", ids[1], {"notes": "together"}),
                    UpdateOp("job", unknown, {"notes": "together"}),
                )
            ),
            UpdateOp("job", ids[0], {"count": 7}),
            Transaction((UpdateOp("job", ids[2], {"notes": "x"}), UpdateOp("job", ids[2], {"count": "y"}))),
        ]
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "WriteResult", "RecordNotFound", "WriteResult", "ValidationError",
    ]  # fmt: skip
    assert anna.values(ids[0])["notes"] == "alone"
    assert anna.values(ids[0])["count"] == 7
    assert anna.values(ids[1]) == before
    assert "notes" not in anna.values(ids[2])
    assert len(anna.engine.query("job")) == len(ids)
    assert {item.id for item in anna.engine.outbox()} == {ids[0]}


def test_a_transaction_is_in_one_space_and_not_too_long(
    world: World, anna: Peer, ids: list[RecordId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_writes, "MAX_TRANSACTION", 3)
    with pytest.raises(TransactionError, match="up to 3 operations"):
        set_all(anna, ids, notes="together")
    with pytest.raises(TransactionError, match="without operations"):
        together(anna)
    other, _ = anna.engine.begin_space("Truck", "ws://localhost:8787", list(anna.engine.schemas().values()))
    with pytest.raises(TransactionError, match="of one space, and this one began in North rig"):
        together(
            anna,
            UpdateOp("job", ids[0], {"notes": "here"}, world.space),
            CreateOp("job", {"title": "there"}, space=other),
        )
    monkeypatch.setattr(local_writes, "MAX_TRANSACTION_BYTES", 10_000)
    with pytest.raises(TransactionError, match="MiB"):
        together(
            anna,
            *(UpdateOp("job", id, {"notes": "x" * 6_000}, world.space) for id in ids[:2]),
        )
    assert "notes" not in anna.engine.query("job", space=world.space)[0].values


def test_a_draft_tells_what_is_wrong_at_once_and_writes_nothing(anna: Peer, ids: list[RecordId]) -> None:
    draft = anna.engine.draft()
    op, result = draft.add(CreateOp("job", {"title": "New"}))
    assert isinstance(op, CreateOp)
    assert op.id == result.id
    assert result.state == "pending"
    with pytest.raises(ValidationError, match="status"):
        draft.add(UpdateOp("job", result.id, {"status": "nonsense"}))
    _, changed = draft.add(UpdateOp("job", result.id, {"status": "busy"}))
    assert changed.changed
    _, unchanged = draft.add(UpdateOp("job", result.id, {"status": "busy"}))
    assert not unchanged.changed
    with pytest.raises(RecordNotFound):
        draft.add(UpdateOp("job", RecordId("00000000-0000-4000-8000-00000000000f"), {"status": "busy"}))
    assert anna.engine.get("job", result.id) is None
    assert anna.engine.outbox() == []


# Sealing


def test_what_is_written_together_follows_each_other_in_the_chain_and_says_so(
    anna: Peer, ids: list[RecordId]
) -> None:
    anna.set(ids[3], notes="before")
    set_all(anna, ids[:3], notes="together")
    anna.set(ids[0], count=1)
    sent = anna.push()
    a, b, c, d = ids
    assert places(anna, sent) == [(d, None), (a, (0, 3)), (b, (1, 3)), (c, (2, 3))]
    sequences = [opened(anna, raw)[0].header.sequence for raw in sent]
    assert sequences == list(range(sequences[0], sequences[0] + 4))
    assert anna.engine.outbox() == []
    set_all(anna, [a], notes="one record alone is no group")
    assert places(anna, anna.push()) == [(a, None)]


def test_what_waits_for_a_record_joins_the_group_and_groups_that_share_a_record_become_one(
    anna: Peer, ids: list[RecordId]
) -> None:
    a, b, c, d = ids
    anna.set(a, count=1)
    anna.set(d, count=1)
    set_all(anna, [a, b], notes="first")
    set_all(anna, [b, c], notes="second")
    assert places(anna, anna.push()) == [(a, (0, 3)), (b, (1, 3)), (c, (2, 3)), (d, None)]


def test_groups_grow_to_a_limit_and_no_further(
    anna: Peer, ids: list[RecordId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "MAX_GROUP", 2)
    a, b, c, d = ids
    set_all(anna, [a, b], notes="first")
    set_all(anna, [b, c], notes="second")
    anna.set(d, count=1)
    batch = anna.engine.next_push(anna.space, max_count=9, max_bytes=10**6)
    assert places(anna, batch) == [(a, (0, 2)), (b, (1, 2))]
    batch = anna.engine.next_push(anna.space, max_count=9, max_bytes=10**6)
    assert places(anna, batch) == [(b, (0, 2)), (c, (1, 2)), (d, None)]


@pytest.mark.parametrize(("count", "size_bytes"), [(1, 10**6), (2, 10**6), (9, 900), (3, 1)])
def test_a_group_is_sealed_whole_and_handed_out_as_the_push_has_room(
    anna: Peer, ids: list[RecordId], count: int, size_bytes: int
) -> None:
    anna.set(ids[3], count=1)
    set_all(anna, ids[:3], notes="together")
    batches: list[list[bytes]] = []
    while batch := anna.engine.next_push(anna.space, max_count=count, max_bytes=size_bytes):
        batches.append(batch)
        assert len(batch) <= count
    a, b, c, d = ids
    sent = [raw for batch in batches for raw in batch]
    assert places(anna, sent) == [(d, None), (a, (0, 3)), (b, (1, 3)), (c, (2, 3))]
    assert len(batches) > 1
    assert {item.attempts for item in anna.engine.outbox()} == {0}


def test_large_values_are_cut_into_envelopes_of_one_group(
    anna: Peer, ids: list[RecordId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "_MERGE_BYTES", 1_000)
    a, b = ids[:2]
    anna.set(a, notes="x" * 700)
    anna.set(a, title="y" * 700)
    set_all(anna, [a, b], notes="z" * 700)
    assert places(anna, anna.push()) == [(a, (0, 4)), (a, (1, 4)), (a, (2, 4)), (b, (3, 4))]


# What the relay answers


def test_a_group_counts_as_sent_when_the_relay_has_all_of_it(anna: Peer, ids: list[RecordId]) -> None:
    set_all(anna, ids[:3], notes="together")
    sent = anna.engine.next_push(anna.space, max_count=9, max_bytes=10**6)
    headers = [opened(anna, raw)[0].header for raw in sent]
    for raw in sent[:2]:
        assert anna.world.relay.push(raw)
    acked = anna.engine.acked(anna.space, headers[1].incarnation, headers[1].sequence)
    assert acked == []
    assert [anna.get(id).sync_state for id in ids[:3]] == ["pending"] * 3
    assert anna.compact(*ids[:2]) == []
    anna.reopen()
    anna.connect()
    assert anna.push() == sent[2:]
    assert [anna.get(id).sync_state for id in ids[:3]] == ["synced"] * 3
    assert len(anna.compact(*ids[:2])) == 2


def test_a_refusal_in_the_middle_of_a_group_holds_all_of_it(anna: Peer, ids: list[RecordId]) -> None:
    set_all(anna, ids[:3], notes="together")
    sent = anna.engine.next_push(anna.space, max_count=9, max_bytes=10**6)
    header = opened(anna, sent[1])[0].header
    assert anna.world.relay.push(sent[0])
    for _ in range(3):
        anna.connect()
        failed = anna.engine.refused(anna.space, header.incarnation, header.sequence, "permission", "no")
    assert {id for _, id in failed} == set(ids[:3])
    assert [anna.get(id).sync_state for id in ids[:3]] == ["failed"] * 3
    anna.set(ids[3], notes="goes on")
    anna.sync()
    assert anna.get(ids[3]).sync_state == "synced"
    assert anna.engine.retry() == 3
    anna.connect()
    again = anna.push()
    assert len(again) == 3
    assert not set(again) & set(sent)
    assert [anna.get(id).sync_state for id in ids[:3]] == ["synced"] * 3
    assert shown(anna, ids[:3]) == ["together"] * 3
