"""Reference data that some roles only read: a device that breaks the rule is not followed by the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.crypto.envelope import Kind
from crdt_sync.errors import CrdtSyncError, PermissionDenied
from crdt_sync.ids import Author, RecordId
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine.model import CreateOp, DeleteOp, Operation, Transaction, UpdateOp
from tests.client.engine_world import Peer, World

PRICE = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Price
x-type: price
x-version: 1
x-write: {roles: [office, admin]}
x-delete: {roles: [admin]}
type: object
properties:
  item: {type: string}
  cents: {type: integer}
"""
FOR_ALL = PRICE.replace("x-write: {roles: [office, admin]}\nx-delete: {roles: [admin]}\n", "")
NOTE = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Note
x-type: note
x-version: 1
type: object
properties: {text: {type: string}}
"""


def version(text: str, number: int) -> str:
    return text.replace("x-version: 1", f"x-version: {number}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, schemas=(PRICE, NOTE))
    yield world
    world.close()


def add(peer: Peer, text: str) -> None:
    peer.engine.add_schema(peer.space, load_schema(text, source="test"), force=True)


def do(peer: Peer, op: Operation | Transaction) -> None:
    (result,) = peer.engine.write([op])
    if isinstance(result, CrdtSyncError):
        raise result


def forced(peer: Peer, op: Operation | Transaction) -> None:
    """Do it with an app that does not ask who may."""
    schemas = peer.engine._replica.space(peer.space).record_types.schemas
    schemas["price"] = load_schema(FOR_ALL, source="test")
    do(peer, op)


def aside(peer: Peer) -> list[str]:
    return [item.reason for item in peer.engine.quarantined(peer.space)]


def cents(peer: Peer, id: RecordId) -> int:
    value: int = peer.get(id, "price").values["cents"]
    return value


MAY_NOT_WRITE = "a device with role field may not write records of type price"
MAY_NOT_DELETE = "a device with role office may not delete records of type price"


def test_a_write_in_a_role_that_may_not_is_put_aside_and_says_why(world: World) -> None:
    eve, ben = world.join("eve"), world.join("ben")
    id = world.office.create({"item": "bolt", "cents": 40}, "price")
    world.settle()
    with pytest.raises(PermissionDenied, match=MAY_NOT_WRITE):
        do(eve, UpdateOp("price", id, {"cents": 1}))
    forced(eve, UpdateOp("price", id, {"cents": 1}))
    world.settle()
    for peer in (ben, world.office):
        assert cents(peer, id) == 40
        (item,) = peer.engine.quarantined(world.space)
        assert (item.device_name, item.code, item.reason, item.type) == (
            "eve", "not_allowed", MAY_NOT_WRITE, "price",
        )  # fmt: skip
        assert peer.engine.status_counts().quarantined == 1


def test_a_deletion_in_a_role_that_may_not_delete_is_put_aside(world: World) -> None:
    eve = world.join("eve", Role.OFFICE)
    ben = world.join("ben")
    id = eve.create({"item": "bolt", "cents": 40}, "price")
    world.settle()
    assert cents(ben, id) == 40
    forced(eve, DeleteOp("price", id))
    world.settle()
    assert cents(ben, id) == 40
    assert aside(ben) == aside(world.office) == [MAY_NOT_DELETE]


def test_what_was_put_aside_is_merged_when_a_version_grants_the_right(world: World) -> None:
    eve, ben = world.join("eve"), world.join("ben")
    id = world.office.create({"item": "bolt", "cents": 40}, "price")
    world.settle()
    forced(eve, UpdateOp("price", id, {"cents": 1}))
    world.settle()
    ben.reopen()
    add(world.office, version(FOR_ALL, 2))
    world.settle()
    late = world.join("late")
    for peer in (ben, late, world.office):
        assert cents(peer, id) == 1
        assert aside(peer) == []
    world.assert_converged()


def test_work_done_before_the_right_was_taken_away_is_merged(world: World) -> None:
    add(world.office, version(FOR_ALL, 2))
    anna, ben = world.join("anna"), world.join("ben")
    id = world.office.create({"item": "bolt", "cents": 40}, "price")
    world.settle()
    do(anna, UpdateOp("price", id, {"cents": 41}))
    add(world.office, version(PRICE, 3))
    world.office.sync()
    ben.sync()
    world.settle()
    late = world.join("late")
    for peer in (*world.peers, late):
        assert cents(peer, id) == 41
        assert aside(peer) == []
    world.assert_converged()
    with pytest.raises(PermissionDenied):
        do(anna, UpdateOp("price", id, {"cents": 42}))


def test_whatever_comes_first_devices_agree_in_the_end(tmp_path: Path) -> None:
    """Schema versions, honest work under each, and a forced write, in every order that the chains allow."""
    world = World(tmp_path, schemas=(NOTE,), seed="orders")
    office, eve, mia = world.office, world.join("eve"), world.join("mia", Role.OFFICE)
    start = world.relay.head
    add(office, PRICE)
    office.sync()
    eve.sync()
    mia.sync()
    one, two, three = (RecordId(f"6f1c9f0e-0000-4000-8000-00000000000{number}") for number in (1, 2, 3))
    forced(eve, CreateOp("price", {"cents": 1}, one))
    forced(eve, UpdateOp("price", one, {"cents": 2}))
    do(mia, CreateOp("price", {"cents": 3}, two))
    do(mia, CreateOp("price", {"cents": 4}, one))
    eve.push()
    mia.push()
    add(office, version(PRICE.replace("[office, admin]", "[field, admin]"), 2))
    do(office, CreateOp("price", {"cents": 5}, three))
    office.push()
    chains: dict[Author, list[tuple[int, bytes]]] = {}
    for seq, kind, raw, author, *_ in world.relay.rows:
        if seq > start and kind == Kind.UPDATE and author is not None:
            chains.setdefault(author, []).append((kind, raw))
    assert len(chains) == 3
    orders = {tuple(order) for order in itertools.permutations([a for a, c in chains.items() for _ in c])}
    seen = set()
    for number, order in enumerate(sorted(orders, key=repr)):
        reader = world.join(f"reader{number}", sync=False)
        log = world.relay.after(0, reader.engine.author)
        reader.connect()
        known = [row for row in log if row[0] <= start or row[1] == Kind.MEMBERSHIP]
        reader.engine.receive(world.space, known, start)
        waiting = {author: iter(chain) for author, chain in chains.items()}
        for place, author in enumerate(order):
            kind, raw = next(waiting[author])
            reader.engine.receive(world.space, [(10_000 + place, kind, raw)], 10_000 + place)
        while reader.engine.keep_up() is not None:
            pass
        records = reader.engine.query("price")
        seen.add(repr(sorted((r.id, r.values, reader.engine.content_hash("price", r.id)) for r in records)))
        assert aside(reader) == []
    assert len(orders) > 5
    assert len(seen) == 1
    world.close()


def test_a_group_with_a_part_that_may_not_is_put_aside_whole_and_merged_whole(world: World) -> None:
    eve, ben = world.join("eve"), world.join("ben")
    id = world.office.create({"item": "bolt", "cents": 40}, "price")
    note = world.office.create({"text": "40"}, "note")
    world.settle()
    forced(eve, Transaction((UpdateOp("note", note, {"text": "1"}), UpdateOp("price", id, {"cents": 1}))))
    world.settle()
    assert (cents(ben, id), ben.get(note, "note").values["text"]) == (40, "40")
    assert len(aside(ben)) == 2
    ben.reopen()
    add(world.office, version(FOR_ALL, 2))
    world.office.sync()
    ben.sync()
    assert (cents(ben, id), ben.get(note, "note").values["text"]) == (1, "1")
    world.settle()
    world.assert_converged()


def test_a_snapshot_does_not_carry_in_what_may_not_be_written(world: World) -> None:
    eve, ben = world.join("eve"), world.join("ben")
    id = world.office.create({"item": "bolt", "cents": 40}, "price")
    world.settle()
    forced(eve, UpdateOp("price", id, {"cents": 1}))
    world.settle()
    assert eve.compact(id, type="price")
    ben.sync()
    assert cents(ben, id) == 40
    late = world.join("late")
    assert aside(late) == [MAY_NOT_WRITE]
    assert late.engine.get("price", id) is None


def test_whoever_may_write_at_all_may_compact_what_it_only_reads(world: World) -> None:
    anna = world.join("anna")
    id = world.office.create({"item": "bolt", "cents": 40}, "price")
    world.settle()
    assert anna.compact(id, type="price")
    late = world.join("late")
    assert cents(late, id) == 40
    assert aside(late) == []


def test_updates_of_a_type_that_has_not_come_wait_and_are_no_trouble(world: World) -> None:
    add(world.office, version(NOTE, 1).replace("note", "memo").replace("Note", "Memo"))
    id = world.office.create({"text": "hello"}, "memo")
    world.office.sync()
    anna = world.join("anna", sync=False)
    anna.connect()
    rows = world.relay.after(0, anna.engine.author)
    first_memo, schema_of_memo = rows[-2], rows[-3]
    before = [row for row in rows if row not in (first_memo, schema_of_memo)]
    received = anna.engine.receive(world.space, [*before, first_memo], rows[0][0])
    assert received.quarantined == ()
    assert anna.engine.status_counts().quarantined == 0
    assert aside(anna) == []
    anna.reopen()
    anna.connect()
    anna.pull()
    assert anna.get(id, "memo").values == {"text": "hello"}
    world.assert_converged()
