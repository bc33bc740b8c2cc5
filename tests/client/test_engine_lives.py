"""Refusals, and stores put back from a copy: whatever happens to a chain, no acknowledged write is lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crdt_sync.crypto.envelope import Header
from crdt_sync.ids import RecordId
from crdt_sync.records.changes import Increment
from crdt_sync_client.engine.model import CreateOp, DeleteOp, UpdateOp
from tests.client.engine_world import Peer, World

PUMP = {"title": "Pump", "parts": {"A": {"qty": 2}}}


def refuse(device: Peer, raw: bytes, code: str, times: int = 1) -> None:
    """Refused in that many sessions, one after the other."""
    header = Header.unpack(raw)
    for _ in range(times):
        device.connect()
        device.engine.refused(device.space, header.incarnation, header.sequence, code, "because")


def copy_of(peer: Peer, *, clean: bool) -> bytes:
    """The store's file; `clean` as after a proper end, else as if power had gone."""
    if clean:
        peer.engine.close()
    else:
        peer.engine._replica.db.close()
    copy = peer.path.read_bytes()
    peer._open()
    return copy


def put_back(peer: Peer, copy: bytes) -> None:
    peer.engine.close()
    peer.path.write_bytes(copy)
    peer._open()


# Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["bad_signature", "chain_broken", "equivocation", "permission"])
def test_what_was_refused_once_is_sent_again_byte_for_byte(world: World, code: str) -> None:
    device = world.office
    id = device.create(PUMP)
    author = device.engine.author
    device.connect()
    (sealed,) = device.engine.next_push(world.space, max_count=10, max_bytes=10**6)
    refuse(device, sealed, code, times=2)
    assert device.get(id).sync_state == "pending"
    assert device.values(id)["title"] == "Pump"
    assert device.engine.author == author
    device.connect()
    assert device.push() == [sealed]
    assert device.get(id).sync_state == "synced"


def test_acknowledged_work_starts_the_count_of_refusals_again(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    device.connect()
    (first,) = device.engine.next_push(world.space, max_count=10, max_bytes=10**6)
    refuse(device, first, "bad_signature", times=2)
    device.sync()
    device.set(id, count=1)
    device.connect()
    (second,) = device.engine.next_push(world.space, max_count=10, max_bytes=10**6)
    refuse(device, second, "bad_signature", times=2)
    assert device.get(id).sync_state == "pending"


def test_what_only_came_out_of_order_is_not_given_up(world: World) -> None:
    """A network that swaps and loses frames gets one envelope refused several times in a row."""
    device = world.office
    id = device.create(PUMP)
    device.connect()
    (sealed,) = device.engine.next_push(world.space, max_count=10, max_bytes=10**6)
    refuse(device, sealed, "chain_broken", times=9)
    assert device.get(id).sync_state == "pending"
    device.connect()
    assert device.push() == [sealed]
    assert device.get(id).sync_state == "synced"


# Older copies ---------------------------------------------------------------------------------------


def test_a_copy_made_with_work_on_its_way_gets_all_of_it_back(world: World) -> None:
    anna = world.join("anna")
    id = anna.create(PUMP)
    anna.connect()
    sealed = anna.engine.next_push(world.space, max_count=10, max_bytes=10**6)
    copy = copy_of(anna, clean=False)
    anna.connect()
    assert anna.push() == sealed
    anna.sync()
    anna.set(id, count=5, hours=Increment(2))
    world.settle()
    put_back(anna, copy)
    assert anna.values(id)["title"] == "Pump"
    world.settle()
    assert anna.values(id)["count"] == 5
    assert anna.values(id)["hours"] == 2
    assert anna.engine.outbox() == []
    world.assert_converged()


@pytest.mark.parametrize("compacted", [False, True])
def test_both_lives_of_a_copied_store_keep_what_they_wrote(world: World, compacted: bool) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create(PUMP)
    world.settle()
    copy = copy_of(anna, clean=True)
    anna.set(id, status="busy", count=1, notes="from the first life")
    fresh = anna.create({"title": "made after the copy"})
    anna.sync()
    if compacted:
        ben.sync()
        ben.compact(id, fresh)
    put_back(anna, copy)
    before = anna.engine.author
    anna.set(
        id, count=100, notes="from the second life"
    )  # under the author that the relay knows to be further
    anna.set(id, parts={"B": {"qty": 7}})
    made = anna.create({"title": "made in the copy"})
    start = anna.engine.session_start(world.space)
    sequence, link = world.relay.chains[before]
    welcomed = anna.engine.welcome(world.space, world.relay.id, sequence, link, world.relay.head)
    assert start.incarnation == before.incarnation
    assert welcomed.reconnect
    assert {named for _, named in welcomed.failed} == {id, made}
    assert anna.engine.author != before
    assert "older copy" in (anna.engine.outbox()[0].error or "")
    assert anna.engine.retry() == 0
    for _ in range(2):  # at every moment, also after a crash in the middle, it can be read here
        assert anna.values(id)["notes"] == "from the second life"
        assert anna.values(id)["count"] == 100
        assert anna.values(made)["title"] == "made in the copy"
        if compacted:
            anna.crash()
    world.settle()
    for peer in (anna, ben):
        assert peer.values(id)["status"] == "busy"
        assert peer.values(id)["count"] == 100
        assert peer.values(id)["parts"] == {"A": {"qty": 2}, "B": {"qty": 7}}
        assert peer.values(fresh)["title"] == "made after the copy"
        assert peer.values(made)["title"] == "made in the copy"
        conflict = next(one for one in peer.engine.conflicts() if one.field == "notes")
        assert {one.value for one in conflict.alternatives} == {"from the first life", "from the second life"}
    assert anna.engine.outbox() == []
    world.assert_converged()


def test_what_a_copy_deleted_and_the_other_life_did_not_see_is_still_decided_by_the_rule(
    world: World,
) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    kept, gone = anna.create(PUMP), anna.create(PUMP)
    world.settle()
    copy = copy_of(anna, clean=True)
    anna.set(kept, count=1)
    anna.sync()
    put_back(anna, copy)
    anna.write(DeleteOp("job", kept), DeleteOp("job", gone))
    assert anna.engine.get("job", gone) is None
    world.settle()
    world.assert_converged()
    for peer in (anna, ben):
        assert peer.values(kept)["count"] == 1
        assert peer.engine.get("job", gone) is None


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(seed=3_899_184_143)
@given(seed=st.integers(0, 2**32))
def test_any_history_with_stores_put_back_keeps_every_write_of_another_field(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Each write adds a row of its own, so that nothing can hide that one is missing."""
    rng = random.Random(seed)
    world = World(tmp_path_factory.mktemp("world"), seed=str(seed))
    anna, ben = world.join("anna"), world.join("ben")
    ids = [world.office.create(PUMP) for _ in range(2)]
    world.settle()
    written: set[tuple[str, str]] = set()
    copy, in_copy = copy_of(anna, clean=True), set(written)
    mine: set[tuple[str, str]] = set()
    for step in range(40):
        match rng.randrange(9):
            case 0:
                copy, in_copy = copy_of(anna, clean=rng.random() < 0.5), set(written)
            case 1:
                put_back(anna, copy)
                # What the first life had sent must come back; what it had not is gone with its disk.
                written = {place for place in written if place not in mine or place in in_copy}
                mine = {place for place in mine if place in in_copy}
            case 2 | 3:
                anna.sync()
                if not anna.engine.outbox():  # what another life met is sent by the sync after that
                    mine.clear()
            case 4:
                anna.connect()
                anna.push(acknowledge=False)
            case 5:
                ben.sync()
                ben.compact(*ids)
            case _:
                place = rng.choice(ids), f"R{step}"
                anna.write(UpdateOp("job", place[0], {"parts": {place[1]: {"qty": step}}, "count": step}))
                anna.write(CreateOp("job", {"title": f"step {step}"}))
                written.add(place)
                mine.add(place)
    world.settle()
    world.assert_converged()
    for record, row in written:
        assert row in ben.values(RecordId(record))["parts"]
    assert anna.engine.outbox() == []
    world.close()
