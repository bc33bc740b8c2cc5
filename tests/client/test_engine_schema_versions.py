"""A newer version of a schema comes to devices with work of their own: nothing is lost, nothing waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import PermissionDenied, SchemaError, SchemaRefused, UnknownType, ValidationError
from crdt_sync.ids import RecordId, keyed_record_id
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine import record_types, upkeep
from crdt_sync_client.engine.model import CreateOp, DeleteOp, UpdateOp
from tests.client.engine_world import Peer, World

HEAD = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Visit
x-type: visit
x-version: {version}
type: object
"""
V1 = (
    HEAD.format(version=1)
    + """\
required: [title]
properties:
  title: {type: string}
  tech: {type: string}
  remark: {type: string, x-merge: manual}
  score: {type: integer}
  phone: {type: string}
"""
)
V2 = (
    HEAD.format(version=2)
    + """\
required: [title, grade]
properties:
  title: {type: string}
  technician: {type: string, x-aliases: [tech]}
  remark: {type: string}
  score: {type: integer, maximum: 10}
  grade: {type: string}
"""
)
"""`tech` has another name, `phone` is gone, `grade` is required, `score` is narrower, `remark` has another
rule."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, schemas=(V1,))
    yield world
    world.close()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "AT_ONCE", 4)


def add(peer: Peer, text: str, *, force: bool = True) -> bool:
    schema = load_schema(text, source="test")
    return peer.engine.add_schema(peer.space, schema, force=force).changed


def publish_unread(peer: Peer, text: str, type: str = "visit") -> None:
    """Carry a text that this program cannot read, as an admin with a later program does."""
    id = keyed_record_id(peer.space, "_schema", type)
    peer.write(CreateOp("_schema", {"source": text, "writers": ["field", "office", "admin"]}, id))


def visit(peer: Peer, id: RecordId) -> dict[str, Any]:
    return peer.get(id, "visit").values


def keep_up(peer: Peer) -> int:
    steps = 0
    while peer.engine.keep_up() is not None:
        steps += 1
    return steps


def due(peer: Peer) -> bool:
    return peer.engine.upkeep_due


def test_unsynced_work_survives_every_kind_of_change(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    shared = world.office.create({"title": "Pump 4", "tech": "Ada", "phone": "1"}, "visit")
    world.settle()
    own = anna.create({"title": "Pump 5", "tech": "Ben", "score": 50, "phone": "2"}, "visit")
    anna.write(UpdateOp("visit", shared, {"tech": "Cem", "score": 40, "remark": "leaks"}))
    ben.write(UpdateOp("visit", shared, {"remark": "drips"}))
    ben.sync()
    add(world.office, V2)
    world.office.sync()
    anna.connect()
    anna.pull()  # the version comes before its own work is sent
    assert anna.engine.status_counts().pending == 2
    anna.write(UpdateOp("visit", own, {"grade": "A"}))
    world.settle()
    for peer in world.peers:
        assert visit(peer, shared)["technician"] == "Cem"
        assert visit(peer, shared)["score"] == 40
        assert visit(peer, shared)["phone"] == "1"
        assert visit(peer, own) == {
            "title": "Pump 5", "technician": "Ben", "score": 50, "phone": "2", "grade": "A"
        }  # fmt: skip
        assert [record.id for record in peer.engine.query("visit", {"technician": "Cem"})] == [shared]
        assert peer.engine.status_counts().pending == 0
    world.assert_converged()
    with pytest.raises(ValidationError, match="grade"):
        ben.create({"title": "Pump 6"}, "visit")
    with pytest.raises(ValidationError, match="score"):
        ben.write(UpdateOp("visit", shared, {"score": 11}))


def test_a_conflict_that_has_another_rule_now_stands_by_that_rule(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = world.office.create({"title": "Pump 4"}, "visit")
    world.settle()
    anna.write(UpdateOp("visit", id, {"remark": "leaks"}))
    ben.write(UpdateOp("visit", id, {"remark": "drips"}))
    world.settle()
    assert [conflict.kind for conflict in ben.engine.conflicts()] == ["open"]
    add(world.office, V2)
    world.settle()
    late = world.join("late")
    for peer in (anna, ben, late):
        assert peer.engine.conflicts() == []
        assert peer.engine.status_counts().conflicts == 0
        assert [(c.kind, c.state, c.rule) for c in peer.engine.conflicts(open_only=False)] == [
            ("auto", "auto", "register")
        ]


def test_a_device_with_the_version_before_keeps_and_sends_what_it_does_not_know(world: World) -> None:
    old = world.join("old")
    id = world.office.create({"title": "Pump 4", "tech": "Ada"}, "visit")
    world.settle()
    add(world.office, V2)
    world.office.write(UpdateOp("visit", id, {"grade": "A", "technician": "Ben"}))
    schemas = [row for row in rows_for(world.office, old) if row[3] == "_schema"]
    others = [row[:3] for row in rows_for(world.office, old) if row not in schemas]
    old.connect()
    old.engine.receive(world.space, others, old.engine.space(None).cursor)
    assert old.engine.schemas()["visit"].version == 1
    assert visit(old, id)["grade"] == "A"
    old.write(UpdateOp("visit", id, {"title": "Pump 4b"}))
    old.push()
    world.settle()
    late = world.join("late")
    assert visit(late, id) == {"title": "Pump 4b", "technician": "Ben", "grade": "A"}
    world.assert_converged()


def rows_for(writer: Peer, reader: Peer) -> list[tuple[int, int, bytes, str]]:
    """What `writer` sends now, as the relay gives it to `reader`, each with its record type."""
    from crdt_sync.crypto.envelope import parse
    from crdt_sync.crypto.payload import Payload

    writer.push()
    relay, keys = writer.world.relay, writer.engine._replica.space(writer.space).keys
    rows = relay.after(reader.engine.space(None).cursor, reader.engine.author)
    found = []
    for seq, kind, raw in rows:
        envelope = parse(raw, max_bytes=1 << 21)
        key = keys.envelope_key(envelope.header.epoch)
        found.append((seq, kind, raw, Payload.decode(envelope.open(key)).record_type))
    return found


def test_many_records_are_made_anew_in_steps_and_work_goes_on(world: World, small_steps: None) -> None:
    anna = world.join("anna")
    ids = [world.office.create({"title": f"Pump {n}", "tech": "Ada"}, "visit") for n in range(23)]
    gone = ids.pop()
    world.settle()
    world.office.write(DeleteOp("visit", gone))
    world.settle()
    add(world.office, V2)
    world.office.sync()
    anna.sync()
    assert due(anna)
    assert 0 < anna.engine.status_counts().remaking <= 23
    last = ids[-1]
    assert visit(anna, last) == {"title": "Pump 21", "tech": "Ada"}
    anna.write(UpdateOp("visit", last, {"grade": "A"}))
    assert visit(anna, last)["technician"] == "Ada"
    anna.engine.keep_up()
    anna.crash()
    assert due(anna)
    told = []
    while (done := anna.engine.keep_up()) is not None:
        told += [change.id for change in done.changes]
    assert len(told) == len(set(told)) >= 10
    assert not due(anna)
    assert anna.engine.status_counts().remaking == 0
    assert len(anna.engine.query("visit", {"technician": "Ada"})) == 22
    keep_up(world.office)
    world.settle()
    world.assert_converged()


def test_a_version_that_comes_while_records_are_made_anew_is_the_one_they_show(
    world: World, small_steps: None
) -> None:
    anna = world.join("anna")
    ids = [world.office.create({"title": f"Pump {n}", "tech": "Ada"}, "visit") for n in range(9)]
    world.settle()
    add(world.office, V2)
    world.office.sync()
    anna.sync()
    anna.engine.keep_up()
    third = V2.replace("x-version: 2", "x-version: 3").replace(
        "technician: {type: string, x-aliases: [tech]}",
        "engineer: {type: string, x-aliases: [tech, technician]}",
    )
    add(world.office, third)
    world.office.sync()
    anna.sync()
    keep_up(anna)
    assert all(visit(anna, id)["engineer"] == "Ada" for id in ids)


def test_a_version_that_this_program_cannot_read_leaves_the_one_before_in_use(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = world.join("anna")
    id = world.office.create({"title": "Pump 4", "tech": "Ada"}, "visit")
    world.settle()
    later = V2.replace("type: object\n", "x-from-the-future: 1\ntype: object\n").replace(
        "version: 2", "version: 7"
    )
    with pytest.raises(SchemaError):
        load_schema(later, source="test")
    publish_unread(world.office, later)
    world.settle()
    for _ in range(2):
        assert anna.engine.space(None).unreadable == {"visit": 7}
        assert anna.engine.schemas()["visit"].version == 1
        anna.write(UpdateOp("visit", id, {"tech": "Ben"}))
        assert visit(anna, id)["tech"] == "Ben"
        anna.reopen()
    with pytest.raises(SchemaRefused, match="version 7 of visit, which this program cannot read"):
        add(world.office, V2)
    world.settle()
    # The program is updated.
    monkeypatch.setattr(
        record_types,
        "load_schema",
        lambda text, source: load_schema(text.replace("x-from-the-future: 1\n", ""), source=source),
    )
    record_types.compiled.cache_clear()
    anna.reopen()
    assert due(anna)
    keep_up(anna)
    assert anna.engine.space(None).unreadable == {}
    assert visit(anna, id)["technician"] == "Ben"
    world.office.reopen()
    keep_up(world.office)
    world.settle()
    world.assert_converged()
    record_types.compiled.cache_clear()


def test_a_type_of_which_no_version_can_be_read_is_kept_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    boat = V1.replace("visit", "boat").replace("type: object\n", "x-from-the-future: 1\ntype: object\n")
    with monkeypatch.context() as newer:
        newer.setattr(
            record_types,
            "load_schema",
            lambda text, source: load_schema(text.replace("x-from-the-future: 1\n", ""), source=source),
        )
        publish_unread(world.office, boat, "boat")
        id = world.office.create({"title": "Ark"}, "boat")
    world.office.push()
    record_types.compiled.cache_clear()
    anna = world.join("anna")
    with pytest.raises(UnknownType, match="needs a newer program") as told:
        anna.engine.get("boat", id)
    assert "update crdt-sync" in told.value.hint
    assert anna.engine.status_counts().quarantined == 0
    assert anna.engine.content_hash("boat", id) == world.office.engine.content_hash("boat", id)
    assert anna.compact(id, type="boat")


def test_the_higher_version_stands_whoever_published_it_and_when(world: World) -> None:
    """The other admin's clock is behind, and it had not heard of the first."""
    other = world.join("other", Role.ADMIN)
    ben = world.join("ben")
    add(other, V2.replace("x-version: 2", "x-version: 3"))
    add(world.office, V2)
    world.settle()
    for peer in world.peers:
        assert peer.engine.schemas()["visit"].version == 3
    ben.reopen()
    assert ben.engine.schemas()["visit"].version == 3
    world.assert_converged()


def test_a_version_that_is_not_newer_is_refused(world: World) -> None:
    office = world.office
    assert add(office, V1) is False
    assert add(office, "# a comment more\n" + V1) is False
    for text in (V1.replace("phone", "mobile"), V2.replace("x-version: 2", "x-version: 1")):
        with pytest.raises(SchemaRefused, match="carries version 1 of visit, this is version 1") as refused:
            add(office, text)
        assert refused.value.hint == "give it x-version: 2"
    assert office.engine.schemas()["visit"].version == 1


def test_unsafe_changes_are_refused_by_name_unless_forced(world: World) -> None:
    office = world.office
    unsafe = V1.replace("x-version: 1", "x-version: 2").replace(
        "score: {type: integer}", "score: {type: string}"
    )
    with pytest.raises(SchemaRefused) as refused:
        add(office, unsafe, force=False)
    assert len(refused.value.unsafe) == 1
    assert refused.value.unsafe[0].startswith("score: ")
    assert office.engine.schemas()["visit"].version == 1
    assert add(office, unsafe, force=True) is True
    with pytest.raises(PermissionDenied):
        add(world.join("anna"), unsafe.replace("x-version: 2", "x-version: 3"))


def test_records_written_in_the_same_call_as_the_version_are_shown_by_it(world: World) -> None:
    office = world.office
    id = office.create({"title": "Pump 4", "tech": "Ada"}, "visit")
    schema = keyed_record_id(world.space, "_schema", "visit")
    office.write(UpdateOp("visit", id, {"tech": "Ben"}), CreateOp("_schema", {"source": V2}, schema))
    assert visit(office, id)["technician"] == "Ben"


def test_a_parent_that_a_version_declares_is_known_of_records_from_before(world: World) -> None:
    office = world.office
    top = office.create({"title": "Campaign"}, "visit")
    below = office.create({"title": "Pump 4", "tech": top}, "visit")
    text = V1.replace(
        "x-version: 1", "x-version: 2\nx-parent: {type: visit, field: tech, on_delete: cascade}"
    )
    add(office, text)
    (result,) = office.write(DeleteOp("visit", top))
    assert result.below == (("visit", below),)
