"""Priorities: what goes to the relay first, and that a record's writes never overtake each other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import CrdtSyncError, ValidationError
from crdt_sync.ids import RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_format import parse_update
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine.model import CreateOp, DeleteOp, Transaction, UpdateOp
from tests.client.engine_world import JOB, Peer, World
from tests.client.test_engine_refusals import refuse_record

URGENT_JOB = JOB.replace("x-version: 1\n", "x-version: 1\nx-priority: 7\n").replace(
    "default: open, x-merge: register", "default: open, x-priority: {done: 3}"
)


def create(device: Peer, title: str, priority: int | None = None) -> RecordId:
    return device.write(CreateOp("job", {"title": title}, priority=priority))[0].id


def update(device: Peer, id: RecordId, priority: int | None = None, **values: object) -> None:
    device.write(UpdateOp("job", id, values, priority=priority))


def opened(device: Peer, raw: bytes) -> Payload:
    keys = device.engine._replica.space(device.space).keys
    envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
    return Payload.decode(envelope.open(keys.envelope_key(envelope.header.epoch)))


def sent(device: Peer) -> list[RecordId]:
    """The records of what is sent now, in order."""
    device.connect()
    return [RecordId(opened(device, raw).record_id) for raw in device.push()]


def test_the_most_urgent_goes_first_and_within_one_priority_the_oldest(world: World) -> None:
    office = world.office
    ids = {name: create(office, name, int(name[1:])) for name in ("a5", "b9", "c1", "d5", "e1", "f10", "g2")}
    assert sent(office) == [ids[name] for name in ("c1", "e1", "g2", "a5", "d5", "b9", "f10")]


def test_an_urgent_write_takes_along_what_waits_for_its_record(world: World) -> None:
    office = world.office
    first, second = create(office, "first"), create(office, "second")
    update(office, second, 1, status="done")
    office.reopen()
    assert sent(office) == [second, first]
    assert world.join("anna").values(second)["status"] == "done"


def test_a_less_urgent_write_goes_with_what_waits_for_its_record(world: World) -> None:
    office = world.office
    first, second = create(office, "first", 2), create(office, "second", 4)
    update(office, first, 10, status="done")
    assert sent(office) == [first, second]
    assert office.engine.outbox() == []


def test_what_is_set_aside_has_no_say_until_it_is_lined_up_again(world: World) -> None:
    office = world.office
    refused, first, second = (create(office, name) for name in ("refused", "first", "second"))
    world.settle()
    update(office, refused, status="done")
    refuse_record(office, refused)
    update(office, first, 7, title="one")
    update(office, second, 6, title="two")
    together = tuple(UpdateOp("job", id, {"title": "both"}) for id in (refused, first))
    office.engine.write([Transaction(together, priority=1)])
    assert sent(office) == [second, first]
    assert office.engine.retry() == 2
    assert {item.id: item.priority for item in office.engine.outbox()} == {refused: 1, first: 1}


def test_on_a_metered_network_what_was_sealed_rests_until_something_urgent_is_written(world: World) -> None:
    office = world.office
    first, second = create(office, "first", 7), create(office, "second", 8)
    office.connect()
    sealed = office.engine.next_push(office.space, max_count=1, max_bytes=10**6)
    office.engine.limit_priority(3)
    assert sent(office) == []
    office.reopen()
    office.engine.limit_priority(3)
    assert sent(office) == [], "also after a restart"
    assert {item.id for item in office.engine.outbox()} == {first, second}
    urgent = create(office, "urgent", 2)
    assert sent(office) == [first, urgent], "what is sealed cannot be overtaken"
    assert world.relay.updates()[-2].raw == sealed[0]
    office.engine.limit_priority(10)
    assert sent(office) == [second]


def test_what_rests_goes_when_the_network_is_another(world: World) -> None:
    office = world.office
    first = create(office, "first")
    office.connect()
    office.engine.next_push(office.space, max_count=1, max_bytes=10**6)
    office.engine.limit_priority(1)
    assert sent(office) == []
    office.engine.limit_priority(10)
    assert [opened(office, raw).record_id for raw in office.push()] == [first], "in the same session"


def test_a_transaction_of_which_the_relay_has_a_part_does_not_rest(world: World) -> None:
    office, anna = world.office, world.join("anna")
    ids = [create(office, name) for name in ("a", "b")]
    world.settle()
    together = Transaction(tuple(UpdateOp("job", id, {"notes": "both"}) for id in ids))
    assert not isinstance(office.engine.write([together])[0], CrdtSyncError)
    office.connect()
    (part,) = office.engine.next_push(office.space, max_count=1, max_bytes=10**6)
    assert world.relay.push(part)
    office.engine.limit_priority(1)
    assert sent(office) == [ids[1]]
    anna.pull()
    assert [anna.values(id)["notes"] for id in ids] == ["both", "both"]


def test_nothing_is_urgent_any_more_once_it_was_sent(world: World) -> None:
    office = world.office
    first, second = create(office, "first", 1), create(office, "second", 9)
    assert sent(office) == [first, second]
    update(office, second, count=1)
    update(office, first, 6, count=1)
    assert sent(office) == [second, first]


def test_a_transaction_goes_together_with_all_that_waits_for_its_records(world: World) -> None:
    office = world.office
    early = create(office, "early")
    a, b, c = (create(office, title) for title in "abc")
    assert sent(office) == [early, a, b, c]
    update(office, early, count=1)
    update(office, c, count=1)
    office.engine.write([Transaction((UpdateOp("job", a, {"count": 1}), UpdateOp("job", b, {"count": 1})))])
    office.engine.write([Transaction((UpdateOp("job", b, {"count": 2}), UpdateOp("job", c, {"count": 2})))])
    update(office, a, 1, count=3)  # tied to b, which is tied to c
    assert sent(office) == [c, a, b, early]


def test_a_transaction_may_be_urgent_as_a_whole(world: World) -> None:
    office = world.office
    a, b, c = (create(office, title) for title in "abc")
    ops = (UpdateOp("job", b, {"count": 1}), UpdateOp("job", c, {"count": 1}, priority=2))
    office.engine.write([Transaction(ops, priority=4)])
    assert {item.id: item.priority for item in office.engine.outbox()} == {a: 5, b: 2, c: 2}
    assert sent(office) == [b, c, a]


def test_the_schema_says_what_is_urgent(tmp_path: Path) -> None:
    world = World(tmp_path, schemas=(URGENT_JOB,))
    office = world.office
    a, b, c = (create(office, title) for title in "abc")
    assert sent(office) == [a, b, c]
    update(office, a, count=1)
    update(office, b, 4, count=1)
    update(office, c, status="done", count=1)
    assert [item.priority for item in office.engine.outbox()] == [7, 4, 3]
    assert sent(office) == [c, b, a]
    world.close()


def test_a_deletion_may_be_urgent_and_a_wrong_priority_writes_nothing(world: World) -> None:
    office = world.office
    a, b = create(office, "a"), create(office, "b")
    sent(office)
    update(office, a, count=1)
    (wrong,) = office.engine.write([UpdateOp("job", b, {"count": 1}, priority=11)])
    assert isinstance(wrong, ValidationError)
    assert "count" not in office.values(b)
    office.write(DeleteOp("job", b, priority=1))
    assert sent(office) == [b, a]


def test_record_types_go_before_the_records_that_need_them(world: World) -> None:
    office = world.office
    a = create(office, "a", 2)
    tool = JOB.replace("x-type: job", "x-type: tool")
    office.engine.add_schema(office.space, load_schema(tool, source="test"))
    (b,) = (result.id for result in office.write(CreateOp("tool", {"title": "b"}, priority=1)))
    assert sent(office)[1:] == [b, a]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_whatever_the_priorities_a_record_keeps_its_order_and_everything_arrives(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Each write adds a row of its own to its record; what an author wrote in one must leave in its order."""
    rng = random.Random(seed)
    world = World(tmp_path_factory.mktemp("world"), seed=str(seed))
    office, anna = world.office, world.join("anna")
    ids = [office.create({"title": str(n)}) for n in range(5)]
    world.settle()
    wanted: dict[RecordId, list[str]] = {id: [] for id in ids}
    left: dict[tuple[int, RecordId], int] = {}

    def op(step: str) -> UpdateOp:
        id = rng.choice(ids)
        wanted[id].append(step)
        priority = rng.choice([None, None, *range(1, 11)])
        return UpdateOp("job", id, {"parts": {step: {"qty": 1}}}, priority=priority)

    def push(count: int) -> None:
        for raw in office.engine.next_push(world.space, max_count=count, max_bytes=10**6):
            header = parse(raw, max_bytes=MAX_ENVELOPE_BYTES).header
            assert world.relay.push(raw)
            id = RecordId(opened(office, raw).record_id)
            for blocks in parse_update(opened(office, raw).update).blocks:
                place = (blocks.client, id)
                assert blocks.start >= left.get(place, 0), "a write overtook an earlier one of its record"
                left[place] = blocks.end
            office.engine.acked(world.space, header.incarnation, header.sequence)

    office.connect()
    for step in range(60):
        match rng.randrange(8):
            case 0 | 1:
                ops = tuple(op(f"R{step}.{n}") for n in range(rng.randint(2, 3)))
                (done,) = office.engine.write([Transaction(ops, priority=rng.choice([None, 1, 10]))])
                assert not isinstance(done, CrdtSyncError)
            case 2:
                push(rng.randint(1, 3))
            case 3 if rng.random() < 0.3:
                office.reopen()
                office.connect()
            case _:
                office.write(*(op(f"R{step}.{n}") for n in range(rng.randint(1, 2))))
    world.settle()
    world.assert_converged()
    for id in ids:
        assert set(anna.values(id).get("parts", {})) == set(wanted[id])
    world.close()
