"""Explaining a record with the names of its devices, orphans, and the history of what changed here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.errors import LocalError, RecordNotFound, UnknownType, ValidationError
from crdt_sync.roles import Role
from crdt_sync_client.engine.explaining import ExplainedField
from crdt_sync_client.engine.model import CreateOp, DeleteOp, ResolveOp, RestoreOp, UpdateOp
from tests.client.engine_world import JOB, SITE, Peer, World

CHECK = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Check
x-type: check
x-version: 1
x-history: 5
x-parent: {type: site, field: site_id}
type: object
properties:
  site_id: {type: string}
  result: {type: string, x-merge: client_wins}
  finding: {type: string, x-merge: manual}
  photo: {type: string, contentEncoding: base64}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, schemas=(JOB, SITE, CHECK))
    yield world
    world.close()


def field(peer: Peer, type: str, id: str, name: str) -> ExplainedField:
    (found,) = peer.engine.explain(type, id, name).fields
    return found


def test_a_field_says_who_wrote_what_when_and_why_it_is_shown(world: World) -> None:
    anna = world.join("anna")
    id = anna.write(CreateOp("check", {"result": "open"}))[0].id
    world.settle()
    before_ms = world.now_ms
    anna.write(UpdateOp("check", id, {"result": "passed"}))
    world.office.write(UpdateOp("check", id, {"result": "failed"}))
    world.settle()
    for peer in world.peers:
        found = field(peer, "check", id, "result")
        assert (found.value, found.rule, found.reason) == ("passed", "client_wins", "field before admin")
        versions = {each.device_name: each for each in found.versions}
        assert (versions["anna"].part, versions["office"].part) == ("shown", "lost")
        assert (versions["office"].value, versions["office"].role) == ("failed", Role.ADMIN)
        assert before_ms < versions["anna"].at_ms <= world.now_ms
        assert versions[peer.name].mine
        (conflict,) = peer.engine.conflicts(open_only=False)
        assert (found.conflict, found.conflict_kind) == (conflict.id, "auto")


def test_a_child_of_a_deleted_parent_is_said_to_be_orphaned(world: World) -> None:
    office = world.office
    site = office.write(CreateOp("site", {"name": "Pit"}))[0].id
    id = office.write(CreateOp("check", {"site_id": site}))[0].id
    found = office.engine.explain("check", id)
    assert (found.parent, found.orphaned, found.deleted) == (("site", site), False, False)
    office.write(DeleteOp("site", site))
    assert office.engine.explain("check", id).orphaned
    assert office.engine.explain("site", site).deleted
    alone = office.write(CreateOp("check", {"result": "open"}))[0].id
    assert office.engine.explain("check", alone).parent is None


def test_what_is_not_there_is_refused_by_name(world: World) -> None:
    id = world.office.write(CreateOp("check", {"result": "open"}))[0].id
    engine = world.office.engine
    with pytest.raises(UnknownType):
        engine.explain("gadget", id)
    with pytest.raises(RecordNotFound):
        engine.explain("job", id)
    with pytest.raises(ValidationError, match="no field 'resul'; did you mean 'result'"):
        engine.explain("check", id, "resul")
    with pytest.raises(RecordNotFound):
        engine.history("job", id)
    job = world.office.create({"title": "Pump"})
    with pytest.raises(LocalError, match="keep no history") as none:
        engine.history("job", job)
    assert "x-history: 50" in none.value.hint


def test_the_history_tells_what_each_transaction_changed(world: World) -> None:
    anna = world.join("anna")
    id = anna.write(CreateOp("check", {"result": "open", "photo": b"\xff"}))[0].id
    anna.write(UpdateOp("check", id, {"result": "passed"}), UpdateOp("check", id, {"finding": "leak"}))
    world.office.sync()
    anna.sync()
    world.office.sync()
    newest, first = anna.engine.history("check", id)
    assert [(each.field, each.before, each.after) for each in newest.fields] == [
        ("result", "open", "passed"),
        ("finding", None, "leak"),
    ]
    assert {each.device_name for each in newest.fields} == {"anna"}
    assert (newest.origin, newest.deleted) == ("local", None)
    assert {each.field: each.after for each in first.fields} == {"result": "open", "photo": "/w=="}
    (merged,) = world.office.engine.history("check", id)
    assert (merged.origin, {each.device_name for each in merged.fields}) == ("remote", {"anna"})
    world.office.write(UpdateOp("check", id, {"finding": "crack"}))
    anna.write(UpdateOp("check", id, {"finding": "rust"}))
    world.settle()
    conflict = anna.engine.conflicts()[0].id
    anna.write(ResolveOp(conflict, keep="theirs"), DeleteOp("check", id))
    anna.write(RestoreOp("check", id))
    back, gone, opened = anna.engine.history("check", id, limit=3)
    assert (back.deleted, gone.deleted) == (False, True)
    assert gone.closed == (conflict,)
    assert opened.opened == (conflict,)


def test_the_history_keeps_as_many_entries_as_the_schema_says_and_survives(world: World) -> None:
    office = world.office
    ids = [office.write(CreateOp("check", {"result": "0"}))[0].id for _ in range(2)]
    for number in range(1, 9):
        for id in ids:
            office.write(UpdateOp("check", id, {"result": str(number)}))
    office.reopen()
    for id in ids:
        kept = office.engine.history("check", id)
        assert [each.fields[0].after for each in kept] == ["8", "7", "6", "5", "4"]
    assert office.engine._replica.db.value("SELECT count(*) FROM history") == 10
