"""Engines exchange envelopes through a log: they converge, resend faithfully, and nothing blocks the rest."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.envelope import Header, Kind, parse, seal
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import BadSignature, CrdtSyncError, MalformedEnvelope, UnknownMember
from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine.model import CreateOp, DeleteOp, Operation, RestoreOp, UpdateOp
from tests.client.engine_world import JOB, SITE, Peer, World

PUMP = {"title": "Pump", "photo": b"\x00\xff", "tags": ["a"], "parts": {"A": {"qty": 2}}}


def forged(peer: Peer, id: RecordId, update: bytes, *, type: str = "job") -> bytes:
    """An envelope that `peer` really signs, whatever is in it."""
    replica = peer.engine._replica
    space = replica.space(peer.space)
    head = ChainHead(*peer.world.relay.chains.get(replica.author, space.chain(replica.author)))
    header = Header.for_update(
        space=space.id,
        record=space.keys.opaque_id(type, id),
        author=replica.author,
        epoch=1,
        sequence=head.sequence + 1,
        prev=head.hash,
        members_head=space.log.short_head,
        frontier=bytes(16),
    )
    payload = Payload(type, id, 1, update).encode()
    key = space.keys.envelope_key(1)
    raw = seal(header, payload, key=key, keys=replica.keys, nonce=bytes(12))
    space.advance(replica.author, ChainHead(header.sequence, parse(raw, max_bytes=10**6).hash), own=True)
    return raw


def payload_of(peer: Peer, raw: bytes) -> Payload:
    envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
    keys = peer.engine._replica.space(peer.space).keys
    return Payload.decode(envelope.open(keys.envelope_key(1)))


def opaque(peer: Peer, id: RecordId) -> OpaqueId:
    return peer.engine._replica.space(peer.space).keys.opaque_id("job", id)


def test_two_devices_see_what_the_other_wrote(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create(PUMP)
    anna.sync()
    received = ben.sync()
    assert [(change.id, change.origin) for change in received.changes] == [(id, "remote")]
    assert ben.values(id) == anna.values(id)
    assert anna.get(id).sync_state == ben.get(id).sync_state == "synced"
    ben.set(id, status="busy")
    ben.sync()
    assert anna.sync().changes[0].fields == ("status",)
    world.settle()
    world.assert_converged()


def test_pending_edits_of_a_record_go_out_as_one_envelope(world: World) -> None:
    device = world.office
    one, two = device.create(PUMP), device.create(PUMP)
    for n in range(20):
        device.set(one, count=n)
        device.set(two, count=-n)
    device.connect()
    assert len(device.push()) == 2
    assert device.engine.outbox() == []


def test_a_record_offline_on_both_sides_merges_by_its_rules(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create(PUMP)
    world.settle()
    anna.write(
        UpdateOp(
            "job", id, {"hours": Increment(2), "tags": AddElement("x"), "parts.A.qty": 3, "notes": "leak"}
        )
    )
    ben.write(UpdateOp("job", id, {"hours": Increment(1.5), "tags": RemoveElement("a"), "parts.B.qty": 1}))
    ben.set(id, notes="crack")
    world.settle()
    world.assert_converged()
    record = world.office.get(id)
    assert record.values["hours"] == 3.5
    assert record.values["tags"] == ["x"]
    assert record.values["parts"] == {"A": {"qty": 3}, "B": {"qty": 1}}
    assert record.sync_state == "conflict"
    assert record.provisional == ("notes",)


def test_a_schema_that_arrives_late_brings_its_records_to_light(world: World) -> None:
    boat = load_schema(JOB.replace("x-type: job", "x-type: boat"), source="test")
    world.office.engine.add_schema(world.space, boat)
    id = world.office.create({"title": "Ark"}, type="boat")
    world.office.sync()
    anna = world.join("anna", sync=False)
    anna.connect()
    rows = world.relay.after(0, anna.engine.author)
    types = {seq: payload_of(world.office, raw).record_type for seq, kind, raw in rows if kind == Kind.UPDATE}
    late = [row for row in rows if types.get(row[0]) == "_schema"]
    early = [row for row in rows if row not in late]
    anna.engine.receive(world.space, early, early[0][0] - 1)
    assert anna.engine.schemas() == {}
    anna.reopen()
    received = anna.engine.receive(world.space, late, world.relay.head)
    assert sorted(received.schemas_changed) == ["boat", "job", "site"]
    assert anna.get(id, "boat").values["title"] == "Ark"
    assert id in {change.id for change in received.changes}
    world.assert_converged()


def test_a_new_version_of_a_schema_views_old_records_anew(world: World) -> None:
    anna = world.join("anna")
    id = anna.create(PUMP)
    world.settle()
    text = JOB.replace("x-version: 1", "x-version: 2").replace(
        "notes: {type: string, x-merge: manual}", "notes: {type: string}\n  owner: {type: string}"
    )
    world.office.engine.add_schema(world.space, load_schema(text, source="test"))
    world.office.write(UpdateOp("job", id, {"owner": "Kim"}))
    world.settle()
    world.assert_converged()
    assert anna.values(id)["owner"] == "Kim"
    assert anna.engine.schemas()["job"].version == 2
    anna.reopen()
    assert anna.engine.schemas()["job"].version == 2


def test_a_change_under_a_fields_old_name_is_told_under_its_name_now(world: World) -> None:
    anna = world.join("anna")
    id = anna.create(PUMP)
    world.settle()
    text = JOB.replace("x-version: 1", "x-version: 2").replace(
        "count: {type: integer}", "total: {type: integer, x-aliases: [count]}"
    )
    world.office.engine.add_schema(world.space, load_schema(text, source="test"))
    anna.set(id, count=5)  # with the older schema: the newer one has not come yet
    anna.connect()
    anna.push()
    (change,) = world.office.sync().changes
    assert change.fields == ("total",)
    assert change.record.values["total"] == 5


def test_only_admins_carry_schemas(world: World) -> None:
    anna = world.join("anna")
    with pytest.raises(CrdtSyncError, match="may not"):
        anna.engine.add_schema(world.space, load_schema(SITE, source="test"))


@pytest.mark.parametrize("crash", [True, False])
def test_what_was_sealed_is_sent_again_byte_for_byte(world: World, crash: bool) -> None:
    device = world.office
    id = device.create(PUMP)
    device.connect()
    sealed = device.engine.next_push(world.space, max_count=10, max_bytes=10**6)
    assert len(sealed) == 1
    device.crash() if crash else device.reopen()
    device.set(id, count=7)
    device.connect()
    again = device.engine.next_push(world.space, max_count=10, max_bytes=10**6)
    assert again[0] == sealed[0]
    # After a crash there is a new author; a session sends one author's work, the oldest first.
    assert [parse(raw, max_bytes=10**6).header.sequence for raw in again] == ([3] if crash else [3, 4])
    assert device.engine.next_push(world.space, max_count=10, max_bytes=10**6) == []
    assert device.engine.outbox()[0].state == "sending"
    for raw in again:
        assert world.relay.push(raw)
        header = parse(raw, max_bytes=10**6).header
        device.engine.acked(world.space, header.incarnation, header.sequence)
    assert device.engine.session_over(world.space) == crash
    device.sync()
    assert device.get(id).sync_state == "synced"
    anna = world.join("anna")
    assert anna.values(id) == device.values(id)


def test_a_lost_acknowledgement_comes_with_the_next_welcome(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    device.connect()
    device.push(acknowledge=False)
    assert device.get(id).sync_state == "pending"
    device.reopen()
    device.connect()
    assert device.push() == []
    assert device.get(id).sync_state == "synced"


def test_what_comes_with_an_acknowledgement_is_stored_with_it_or_not_at_all(world: World) -> None:
    anna, office = world.join("anna"), world.office
    theirs = anna.create(PUMP)
    anna.connect()
    good = anna.push()[0]
    mine = office.create(PUMP)
    office.connect()
    header = parse(office.push(acknowledge=False)[0], max_bytes=10**6).header
    ack = (header.incarnation, header.sequence, world.relay.head)
    rows = world.relay.after(office.engine.space().cursor, office.engine.author)
    bad = (world.relay.head, int(Kind.UPDATE), good[:100])
    with pytest.raises(MalformedEnvelope):
        office.engine.receive(world.space, [*rows, bad], world.relay.head, acks=[ack])
    office.reopen()
    assert office.get(mine).sync_state == "pending"
    assert office.engine.get("job", theirs) is None
    assert office.engine.receive(world.space, rows, world.relay.head, acks=[ack]).envelopes == 1
    office.reopen()
    assert office.get(mine).sync_state == "synced"
    assert office.values(theirs) == anna.values(theirs)
    office.set(mine, count=1)
    office.connect()
    header = parse(office.push(acknowledge=False)[0], max_bytes=10**6).header
    ack = (header.incarnation, header.sequence, world.relay.head)
    office.engine.receive(world.space, [], world.relay.head, acks=[ack])
    office.crash()
    assert office.get(mine).sync_state == "synced"
    assert office.engine.session_start(world.space).cursor == world.relay.head


def test_updates_made_before_a_crash_stay_in_their_own_chain(world: World) -> None:
    device = world.office
    first = device.engine.author
    id = device.create(PUMP)
    device.crash()
    second = device.engine.author
    device.set(id, count=1)
    device.connect()
    headers = [parse(raw, max_bytes=10**6).header for raw in device.push()]
    assert device.engine.session_over(world.space)
    device.connect()
    headers += [parse(raw, max_bytes=10**6).header for raw in device.push()]
    assert [header.author for header in headers] == [first, second]
    anna = world.join("anna")
    assert anna.values(id) == device.values(id)
    world.settle()
    world.assert_converged()


def test_replayed_and_repeated_rows_change_nothing(world: World) -> None:
    anna = world.join("anna")
    id = anna.create(PUMP)
    world.settle()
    anna.set(id, status="done")
    world.settle()
    office = world.office
    digest, cursor = office.engine.content_hash("job", id), office.engine.space().cursor
    rows = world.relay.after(0, office.engine.author)
    assert office.engine.receive(world.space, rows, cursor).changes == ()
    office.engine._replica.spaces[world.space].cursor = 0  # a relay that starts again from the beginning
    again = office.engine.receive(world.space, rows, cursor)
    assert again.changes == ()
    assert again.quarantined == ()
    assert office.engine.content_hash("job", id) == digest


def test_a_bad_envelope_is_put_aside_and_blocks_nothing(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id, other = anna.create(PUMP), anna.create(PUMP)
    world.settle()
    assert world.relay.push(forged(anna, id, b"this is not an update"))
    by_someone_else = world.office.engine.make_snapshots(world.space, [opaque(world.office, other)])[0]
    assert world.relay.push(forged(anna, id, payload_of(world.office, by_someone_else).update[::-1]))
    anna.set(other, count=5)
    anna.push()
    received = ben.sync()
    assert [aside.code for aside in received.quarantined] == ["bad_update", "bad_update"]
    assert [aside.device for aside in received.quarantined] == [anna.engine.device_id] * 2
    assert ben.values(other)["count"] == 5
    assert ben.engine.status_counts().quarantined == 2
    ben.reopen()
    assert ben.engine.status_counts().quarantined == 2


def test_readers_and_schemas_by_others_than_admins_are_put_aside(world: World) -> None:
    anna, reader = world.join("anna"), world.join("auditor", Role.READER)
    id = anna.create(PUMP)
    world.settle()
    assert world.relay.push(forged(reader, id, b"\0\0"))
    assert world.relay.push(forged(anna, id, b"\0\0", type="_schema"))
    received = world.office.sync()
    assert {aside.code for aside in received.quarantined} == {"bad_update"}
    assert len(received.quarantined) == 2


def test_a_row_no_honest_relay_delivers_ends_the_batch_and_changes_nothing(world: World) -> None:
    anna = world.join("anna")
    id = anna.create(PUMP)
    anna.connect()
    office = world.office
    office.sync()
    good = anna.push()[0]
    cursor = world.relay.head
    for bad, error in (
        (good[:-1] + bytes([good[-1] ^ 1]), BadSignature),
        (good[:150] + bytes([good[150] ^ 1]) + good[151:], BadSignature),
        (good[:100], MalformedEnvelope),
        (bytes(40) + bytes(16) + good[56:], MalformedEnvelope),
    ):
        rows = [(cursor, int(Kind.UPDATE), good), (cursor + 1, int(Kind.UPDATE), bad)]
        with pytest.raises(error):
            office.engine.receive(world.space, rows, cursor + 1)
        assert office.engine.get("job", id) is None
        assert office.engine.space().cursor < cursor
    stranger = Peer(world, "stranger")
    header = parse(good, max_bytes=10**6).header
    key = office.engine._replica.space(None).keys.envelope_key(1)
    by_stranger = seal(
        Header.for_update(
            space=header.space,
            record=header.record,
            author=stranger.engine.author,
            epoch=1,
            sequence=1,
            prev=bytes(32),
            members_head=bytes(16),
            frontier=bytes(16),
        ),
        b"x",
        key=key,
        keys=stranger.engine._replica.keys,
        nonce=bytes(12),
    )
    with pytest.raises(UnknownMember):
        office.engine.receive(world.space, [(cursor + 1, 1, by_stranger)], cursor + 1)
    stranger.engine.close()
    office.sync()
    assert office.values(id)["title"] == "Pump"


# Random histories -----------------------------------------------------------------------------------


def random_op(rng: random.Random, ids: list[RecordId]) -> Operation:
    id = rng.choice(ids)
    match rng.randrange(9):
        case 0:
            return DeleteOp("job", id)
        case 1:
            return RestoreOp("job", id)
        case 2:
            return UpdateOp("job", id, {"hours": Increment(rng.randrange(5))})
        case 3:
            return UpdateOp("job", id, {"tags": rng.choice([AddElement, RemoveElement])(rng.choice("abc"))})
        case 4:
            return UpdateOp(
                "job", id, {"parts": {rng.choice("AB"): rng.choice([None, {"qty": 1}, {"label": "x"}])}}
            )
        case 5:
            return UpdateOp("job", id, {"notes": rng.choice(["leak", "crack", None])})
        case 6:
            return CreateOp("job", {"title": "again"}, id=id)
        case _:
            return UpdateOp(
                "job", id, {"status": rng.choice(["open", "busy", "done"]), "count": rng.randrange(9)}
            )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_history_of_writes_syncs_crashes_and_snapshots_converges(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    world = World(tmp_path_factory.mktemp("world"), seed=str(seed))
    for name in ("anna", "ben"):
        world.join(name)
    ids = [world.office.create(PUMP) for _ in range(3)]
    world.settle()
    for _ in range(60):
        peer = rng.choice(world.peers)
        match rng.randrange(12):
            case 0:
                peer.crash()
            case 1:
                peer.reopen()
            case 2 | 3:
                peer.sync()
            case 4:
                peer.sync()
                peer.compact(*ids)
            case 5:
                peer.connect()
                peer.push(acknowledge=False)
            case _:
                peer.engine.write([random_op(rng, ids) for _ in range(rng.randrange(1, 4))])
    world.settle()
    world.join("late")
    world.settle()
    world.assert_converged()
    for peer in world.peers:
        assert peer.engine.outbox() == []
        assert peer.engine.status_counts().quarantined == 0
    world.close()
