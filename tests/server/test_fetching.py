"""Single records that a device asks for: everything there is of them, frame by frame."""

from __future__ import annotations

import pytest

from crdt_sync.crypto.envelope import parse
from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.frames import Bye, Fetched, FetchRecords, Push, RowKind
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_server import fetching
from crdt_sync_server.effects import Peer
from tests.server.engine_kit import Relay
from tests.server.relay_kit import TestSpace, record

R1, R2, R3 = record(1), record(2), record(3)


@pytest.fixture
def space() -> TestSpace:
    space = TestSpace(3)
    space.member()
    return space


def ask(relay: Relay, peer: Peer, *records: OpaqueId, after: int = 0) -> Fetched:
    return relay.answer(peer, FetchRecords(list(records), after), Fetched)


def test_all_rows_of_the_records_come_in_the_order_of_the_question_own_ones_too(
    engine: Relay, space: TestSpace
) -> None:
    engine.create(space)
    peer, device = engine.connect(space.founder), space.founder
    updates = [device.update(of) for of in (R1, R2, R1, R3)]
    engine.push(peer, *updates)
    base = len(space.entries)
    answer = ask(engine, peer, R2, R1)
    assert [row.payload for row in answer.rows] == [updates[1], updates[0], updates[2]]
    assert [row.sequence - base for row in answer.rows] == [2, 1, 3]
    assert (answer.whole, answer.head) == (2, base + 4)
    assert ask(engine, peer, record(9)) == Fetched([], 1, base + 4)


def test_a_snapshot_comes_with_the_updates_that_it_does_not_cover(engine: Relay, space: TestSpace) -> None:
    engine.create(space)
    peer, device = engine.connect(space.founder), space.founder
    first, second = device.update(R1), device.update(R1)
    engine.push(peer, first, second)
    snapshot = device.snapshot(R1, [first])
    assert engine.snapshot(peer, snapshot) == "stored"
    rows = ask(engine, peer, R1).rows
    assert [(row.kind, row.payload) for row in rows] == [
        (RowKind.SNAPSHOT, snapshot),
        (RowKind.UPDATE, second),
    ]


def test_what_does_not_fit_a_frame_is_asked_for_again(
    engine: Relay, space: TestSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.create(space)
    peer, device = engine.connect(space.founder), space.founder
    updates = [device.update(of) for of in (R1, R1, R1, R2, R2, R3)]
    engine.push(peer, *updates)
    monkeypatch.setattr(fetching, "FRAME_ROWS", 2)
    wanted, after, got = [R1, R2, record(9), R3], 0, []
    while wanted:
        answer = ask(engine, peer, *wanted, after=after)
        assert 1 <= len(answer.rows) <= 2
        got += [row.payload for row in answer.rows]
        wanted = wanted[answer.whole :]
        last = parse(answer.rows[-1].payload, max_bytes=MAX_ENVELOPE_BYTES).header.record
        after = answer.rows[-1].sequence if wanted and wanted[0] == last else 0
    assert got == updates


def test_what_is_pushed_in_the_same_commit_is_in_the_answer(engine: Relay, space: TestSpace) -> None:
    engine.create(space)
    peer = engine.connect(space.founder)
    update = space.founder.update(R1)
    effects = engine.do((peer, Push([update])), (peer, FetchRecords([R1], 0)))
    answers = [getattr(effect, "frame", None) for effect in effects]
    (answer,) = [frame for frame in answers if isinstance(frame, Fetched)]
    assert [row.payload for row in answer.rows] == [update]
    assert answer.head == len(space.entries) + 1


def test_records_of_another_space_are_not_there(engine: Relay, space: TestSpace) -> None:
    engine.create(space)
    engine.push(engine.connect(space.founder), space.founder.update(R1))
    other = TestSpace(4)
    engine.create(other)
    answer = ask(engine, engine.connect(other.founder), R1)
    assert not isinstance(answer, Bye)
    assert (answer.rows, answer.whole) == ([], 1)
