"""The audit trail: conflicts are the same everywhere, and how each ended can be read afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from crdt_sync.errors import ConflictClosed, ConflictNotFound, CrdtSyncError, ValidationError
from crdt_sync.ids import RecordId
from crdt_sync.roles import Role
from crdt_sync_client.engine.model import (
    ConflictEntry,
    CreateOp,
    DeleteOp,
    ResolveOp,
    UpdateOp,
    WriteResult,
)
from tests.client.engine_world import START_MS, Peer, World


def disagree(world: World) -> tuple[Peer, Peer, RecordId, ConflictEntry]:
    """Anna and Ben wrote different notes while apart."""
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create({"title": "Pump"})
    world.settle()
    anna.set(id, notes="leak")
    ben.set(id, notes="crack")
    world.settle()
    (conflict,) = anna.engine.conflicts()
    return anna, ben, id, conflict


def test_an_open_conflict_names_both_sides_and_is_the_same_everywhere(world: World) -> None:
    _anna, _ben, id, conflict = disagree(world)
    assert (conflict.kind, conflict.state, conflict.rule, conflict.field) == (
        "open",
        "open",
        "manual",
        "notes",
    )
    assert {(one.device_name, one.value, one.role) for one in conflict.alternatives} == {
        ("anna", "leak", Role.FIELD),
        ("ben", "crack", Role.FIELD),
    }
    assert all(START_MS < one.at_ms <= world.now_ms for one in conflict.alternatives)
    for peer in world.peers:
        (same,) = peer.engine.conflicts()
        assert same.id == conflict.id
        assert same.alternatives[same.winner].value == "crack" == peer.values(id)["notes"]
        assert peer.get(id).conflicts == (conflict.id,)
        assert peer.engine.status_counts().conflicts == 1
        peer.reopen()
        assert peer.engine.conflict(conflict.id[:10]).id == conflict.id


def test_a_resolution_closes_it_everywhere_and_names_who_and_what(world: World) -> None:
    anna, ben, id, conflict = disagree(world)
    (result,) = ben.write(ResolveOp(conflict.id, keep="theirs"))
    assert result.resolved == (conflict.id,)
    world.settle()
    for peer in world.peers:
        assert peer.engine.conflicts() == []
        (closed,) = peer.engine.conflicts(open_only=False)
        assert (closed.state, closed.kind) == ("closed", "open")
        assert (closed.resolver_name, closed.resolution) == ("ben", "leak")
        assert closed.closed_at_ms is not None
        assert peer.values(id)["notes"] == "leak"
        assert peer.get(id).sync_state == "synced"
    with pytest.raises(ConflictClosed):
        anna.write(ResolveOp(conflict.id, keep="mine"))


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"keep": "mine"}, "leak"),
        ({"keep": "theirs"}, "crack"),
        ({"keep": "winner"}, "crack"),
        ({"value": "both"}, "both"),
        ({"value": None}, None),
        ({"keep": "mine", "field": "notes"}, "leak"),
    ],
)
def test_ways_to_decide(world: World, choice: dict[str, Any], kept: str | None) -> None:
    anna, _ben, id, conflict = disagree(world)
    anna.write(ResolveOp(conflict.id, **choice))
    assert anna.values(id)["notes"] == kept


def test_decisions_that_are_none(world: World) -> None:
    _, _, id, conflict = disagree(world)
    office = world.office
    ops = [
        ResolveOp(conflict.id),
        ResolveOp(conflict.id, keep="mine", value="x"),
        ResolveOp(conflict.id, keep="mine"),  # neither is the office's
        ResolveOp(conflict.id, keep="theirs"),  # both are someone else's
        ResolveOp(conflict.id, alternative=2),
        ResolveOp(conflict.id, value=7),
        ResolveOp(conflict.id, value="x", field="status"),
        ResolveOp("0" * 32, keep="mine"),
    ]
    errors = office.engine.write(ops)
    assert [type(error) for error in errors] == [ValidationError] * 7 + [ConflictNotFound]
    office.write(ResolveOp(conflict.id, alternative=1 - conflict.winner))
    assert office.values(id)["notes"] == "leak"


def test_only_the_first_of_two_decisions_in_one_call_counts(world: World) -> None:
    anna, _, id, conflict = disagree(world)
    first, second = anna.engine.write(
        [ResolveOp(conflict.id, keep="mine"), ResolveOp(conflict.id, keep="theirs")]
    )
    assert isinstance(first, WriteResult)
    assert isinstance(second, ConflictClosed)
    assert anna.values(id)["notes"] == "leak"


def test_a_plain_write_that_saw_all_sides_says_what_it_resolved(world: World) -> None:
    anna, _, id, conflict = disagree(world)
    assert anna.set(id, notes="leak and crack").resolved == (conflict.id,)
    assert anna.set(id, notes="again").resolved == ()


def test_resolutions_that_differ_open_a_new_conflict(world: World) -> None:
    anna, ben, _id, conflict = disagree(world)
    anna.write(ResolveOp(conflict.id, keep="mine"))
    ben.write(ResolveOp(conflict.id, keep="mine"))
    world.settle()
    world.assert_converged()
    (new,) = world.office.engine.conflicts()
    assert new.id != conflict.id
    assert {one.value for one in new.alternatives} == {"leak", "crack"}


def test_a_third_side_supersedes(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create({"title": "Pump"})
    world.settle()
    for peer, text in ((anna, "leak"), (ben, "crack"), (world.office, "rust")):
        peer.set(id, notes=text)
    anna.sync()
    ben.sync()
    (two,) = ben.engine.conflicts()
    world.settle()
    (three,) = ben.engine.conflicts()
    assert len(three.alternatives) == 3
    old = ben.engine.conflict(two.id)
    assert (old.state, old.superseded_by, old.resolver) == ("closed", three.id, None)


def test_a_rules_decision_is_in_the_trail_and_can_be_overruled(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.create({"title": "Pump"})
    world.settle()
    anna.set(id, status="busy")
    ben.set(id, status="done")
    world.settle()
    assert anna.engine.conflicts() == []
    (auto,) = anna.engine.conflicts(open_only=False, type="job", record=id)
    assert (auto.state, auto.rule) == ("auto", "register")
    assert auto.alternatives[auto.winner].value == "done"
    assert anna.get(id).sync_state == "synced"
    anna.write(ResolveOp(auto.id, keep="mine"))
    world.settle()
    assert ben.values(id)["status"] == "busy"
    assert ben.engine.conflict(auto.id).resolver_name == "anna"


@pytest.mark.parametrize("type", ["job", "site"])
def test_a_delete_against_an_edit_is_in_the_trail(world: World, type: str) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    field = {"job": "title", "site": "name"}[type]
    id = anna.write(CreateOp(type, {field: "North"}))[0].id
    world.settle()
    anna.write(DeleteOp(type, id))
    ben.write(UpdateOp(type, id, {field: "South"}))
    world.settle()
    world.assert_converged()
    (entry,) = ben.engine.conflicts(open_only=False)
    assert entry.kind == "auto"
    assert [one.deletes for one in entry.alternatives].count(True) == 1
    assert entry.alternatives[entry.winner].deletes is (type == "site")
    assert (ben.engine.get(type, id) is None) is (type == "site")
    edit = next(index for index, one in enumerate(entry.alternatives) if not one.deletes)
    assert entry.alternatives[edit].value == "South"
    ben.write(ResolveOp(entry.id, alternative=edit if type == "site" else 1 - edit))
    world.settle()
    world.assert_converged()
    assert (anna.engine.get(type, id) is None) is (type == "job")


def test_a_local_write_error_leaves_the_conflict_open(world: World) -> None:
    anna, _, _id, conflict = disagree(world)
    (error,) = anna.engine.write([ResolveOp(conflict.id, value=["not", "text"])])
    assert isinstance(error, CrdtSyncError)
    assert anna.engine.conflict(conflict.id).state == "open"
