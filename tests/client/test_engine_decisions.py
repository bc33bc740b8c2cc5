"""Deciding conflicts: deletions, several at once, bringing losers back, and how the trail tells it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import (
    ConflictClosed,
    CrdtSyncError,
    LocalError,
    PermissionDenied,
    RecordDeleted,
    ValidationError,
)
from crdt_sync.ids import RecordId
from crdt_sync.roles import Role
from crdt_sync_client.engine.model import (
    ConflictEntry,
    ConflictFilter,
    CreateOp,
    DeleteOp,
    Keep,
    ResolveOp,
    ResolveRecordOp,
    RestoreVersionOp,
    UpdateOp,
)
from tests.client.engine_world import JOB, SITE, Peer, World

VISIT = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Visit
x-type: visit
x-version: 1
x-delete: {rule: manual}
type: object
properties:
  place: {type: string}
  cause: {type: string, x-merge: manual}
  remedy: {type: string, x-merge: manual}
  state: {type: string, x-merge: register}
  parts:
    type: object
    x-merge: rows
    additionalProperties: {type: object, properties: {qty: {type: number}, note: {type: string}}}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, schemas=(JOB, SITE, VISIT))
    yield world
    world.close()


def visit(peer: Peer, id: RecordId, **changes: object) -> None:
    peer.write(UpdateOp("visit", id, changes))


def pair(world: World, **values: object) -> tuple[Peer, Peer, RecordId]:
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.write(CreateOp("visit", values or {"place": "Pit 4"}))[0].id
    world.settle()
    return anna, ben, id


def refused(peer: Peer, *ops: ResolveOp | ResolveRecordOp | RestoreVersionOp) -> CrdtSyncError:
    """The error of the only operation; raises if it went through."""
    (error,) = peer.engine.write(ops)
    assert isinstance(error, CrdtSyncError)
    return error


def trail(peer: Peer) -> list[ConflictEntry]:
    return peer.engine.conflicts(open_only=False)


def deletion_met_edits(world: World) -> tuple[Peer, Peer, RecordId, str]:
    anna, ben, id = pair(world)
    anna.write(DeleteOp("visit", id))
    visit(ben, id, place="Pit 5", state="busy")
    world.settle()
    ids = {entry.id for peer in world.peers for entry in peer.engine.conflicts()}
    assert len(ids) == 1, "the same conflict, by the same id, on every device"
    return anna, ben, id, ids.pop()


@pytest.mark.parametrize("keep", ["deleted", "record"])
def test_a_person_says_whether_a_disputed_record_is_deleted(world: World, keep: Keep) -> None:
    anna, ben, id, conflict = deletion_met_edits(world)
    entry = anna.engine.conflict(conflict)
    assert (entry.field, entry.state, entry.about_deletion) == ("$deleted", "open", True)
    assert len(entry.alternatives) == 3, "the deletion and two edits"
    assert anna.get(id, "visit").provisional == ("$deleted",)
    (result,) = ben.write(ResolveOp(conflict, keep=keep))
    assert result.resolved == (conflict,)
    world.settle()
    world.assert_converged()
    for peer in world.peers:
        assert (peer.engine.get("visit", id) is None) is (keep == "deleted")
        closed = peer.engine.conflict(conflict)
        assert (closed.state, closed.resolver_name, closed.resolution) == ("closed", "ben", keep)
        assert closed.kept is not None
        assert closed.alternatives[closed.kept].deletes is (keep == "deleted")


def test_keeping_a_side_of_a_deletion_needs_no_choice_among_its_edits(world: World) -> None:
    anna, _ben, id, conflict = deletion_met_edits(world)
    anna.write(ResolveOp(conflict, keep="theirs"))
    assert anna.get(id, "visit").values["place"] == "Pit 5"


def test_words_about_a_deletion_fit_only_there(world: World) -> None:
    _anna, ben, id, conflict = deletion_met_edits(world)
    assert "keep 'deleted' or 'record'" in refused(ben, ResolveOp(conflict, value="x")).hint
    ben.write(ResolveOp(conflict, keep="record"))
    visit(ben, id, cause="a")
    visit(world.office, id, cause="b")
    world.settle()
    (field,) = ben.engine.conflicts()
    error = refused(ben, ResolveOp(field.id, keep="deleted"))
    assert "not about a deletion" in error.message


def test_three_versions_are_three_everywhere(world: World) -> None:
    anna, ben, id = pair(world)
    for peer, text in ((anna, "seal"), (ben, "pin"), (world.office, "lip")):
        visit(peer, id, cause=text)
    world.settle()
    for peer in world.peers:
        (entry,) = peer.engine.conflicts()
        assert {each.value for each in entry.alternatives} == {"seal", "pin", "lip"}
        assert sum(each.mine for each in entry.alternatives) == 1
    place = next(at for at, each in enumerate(entry.alternatives) if each.value == "pin")
    world.office.write(ResolveOp(entry.id, alternative=place))
    world.settle()
    assert {peer.get(id, "visit").values["cause"] for peer in world.peers} == {"pin"}
    assert anna.engine.conflict(entry.id).kept == place


def test_of_several_versions_that_fit_a_preference_the_latest_is_suggested(world: World) -> None:
    anna, ben, id = pair(world)
    world.office.engine.set_preference("visit", "cause", "theirs")
    for peer, text in ((ben, "pin"), (anna, "seal"), (world.office, "lip")):
        visit(peer, id, cause=text)
    world.settle()
    (entry,) = world.office.engine.conflicts()
    assert entry.suggestion is not None
    assert entry.alternatives[entry.suggestion.alternative].value == "seal"
    assert entry.suggestion.why.endswith("is theirs, the latest of 2")
    assert anna.engine.conflicts()[0].suggestion is None


def three_in_one_record(world: World) -> tuple[Peer, Peer, RecordId, dict[str, str]]:
    anna, ben, id = pair(world)
    visit(anna, id, cause="seal", remedy="replace", state="busy")
    visit(ben, id, cause="pin", remedy="grease", state="done")
    world.settle()
    return anna, ben, id, {entry.field: entry.id for entry in trail(anna)}


def test_all_conflicts_of_a_record_are_decided_at_once(world: World) -> None:
    anna, _, id, ids = three_in_one_record(world)
    decisions = (
        ResolveOp(ids["cause"], keep="theirs"),
        ResolveOp(ids["remedy"], value="both"),
        ResolveOp(ids["state"], keep="mine"),
    )
    (result,) = anna.write(ResolveRecordOp(decisions))
    assert set(result.resolved) == set(ids.values())
    assert len(anna.push()) == 1, "one change, one envelope"
    world.settle()
    for peer in world.peers:
        values = peer.get(id, "visit").values
        assert (values["cause"], values["remedy"], values["state"]) == ("pin", "both", "busy")
        assert {entry.resolver_name for entry in trail(peer)} == {"anna"}


def test_of_several_decisions_all_count_or_none(world: World) -> None:
    anna, _, id, ids = three_in_one_record(world)
    good = ResolveOp(ids["cause"], keep="theirs")
    before = anna.get(id, "visit")
    for bad in (
        ResolveOp(ids["remedy"], value=7),
        ResolveOp(ids["remedy"], alternative=2),
        ResolveOp(ids["cause"], keep="mine"),
        ResolveOp("0" * 32, keep="mine"),
    ):
        refused(anna, ResolveRecordOp((good, bad)))
        assert anna.get(id, "visit") == before
        assert anna.engine.conflict(ids["cause"]).state == "open"
    other = anna.write(CreateOp("visit", {"cause": "x"}))[0].id
    world.settle()
    visit(anna, other, cause="y")
    visit(world.office, other, cause="z")
    world.settle()
    elsewhere = next(entry.id for entry in anna.engine.conflicts() if entry.record == other)
    error = refused(anna, ResolveRecordOp((good, ResolveOp(elsewhere, keep="mine"))))
    assert isinstance(error, LocalError)
    assert "more than one record" in error.message


def test_a_record_and_what_is_in_it_are_decided_together(world: World) -> None:
    anna, ben, id = pair(world)
    visit(anna, id, cause="seal")
    visit(ben, id, cause="pin")
    world.office.write(DeleteOp("visit", id))
    world.settle()
    ids = {entry.field: entry.id for entry in anna.engine.conflicts()}
    assert set(ids) == {"cause", "$deleted"}
    anna.write(
        ResolveRecordOp((ResolveOp(ids["$deleted"], keep="record"), ResolveOp(ids["cause"], keep="theirs")))
    )
    world.settle()
    world.assert_converged()
    assert ben.get(id, "visit").values["cause"] == "pin"
    assert [entry.state for entry in trail(ben)] == ["closed", "closed"]


def test_what_a_rule_decided_comes_back_at_once_and_after_more_edits(world: World) -> None:
    anna, ben, id, ids = three_in_one_record(world)
    entry = anna.engine.conflict(ids["state"])
    assert entry.alternatives[entry.winner].value == "done"
    loser = 1 - entry.winner
    (at_once,) = anna.write(RestoreVersionOp(entry.id, loser))
    assert at_once.resolved == (entry.id,)
    world.settle()
    assert ben.get(id, "visit").values["state"] == "busy"
    visit(ben, id, state="waiting")
    world.settle()
    (later,) = anna.write(RestoreVersionOp(entry.id, entry.winner))
    assert (later.changed, later.resolved) == (True, ())
    world.settle()
    world.assert_converged()
    assert ben.get(id, "visit").values["state"] == "done"


def test_a_version_of_an_open_conflict_comes_back_after_it_was_decided(world: World) -> None:
    anna, ben, id, ids = three_in_one_record(world)
    anna.write(ResolveOp(ids["cause"], value="neither"))
    world.settle()
    entry = ben.engine.conflict(ids["cause"])
    mine = next(at for at, each in enumerate(entry.alternatives) if each.mine)
    ben.write(RestoreVersionOp(entry.id, mine))
    world.settle()
    assert anna.get(id, "visit").values["cause"] == "pin"
    assert anna.engine.conflicts()[0].field == "remedy"


def test_a_deletion_that_lost_or_won_can_be_turned_round_later(world: World) -> None:
    anna, ben, id, conflict = deletion_met_edits(world)
    entry = ben.engine.conflict(conflict)
    deletion = next(at for at, each in enumerate(entry.alternatives) if each.deletes)
    edit = next(at for at, each in enumerate(entry.alternatives) if each.value == "Pit 5")
    anna.write(ResolveOp(conflict, keep="record"))
    world.settle()
    ben.write(RestoreVersionOp(conflict, deletion))
    world.settle()
    assert anna.engine.get("visit", id) is None
    ben.write(RestoreVersionOp(conflict, edit))
    world.settle()
    world.assert_converged()
    assert anna.get(id, "visit").values["place"] == "Pit 5"


def test_a_removed_row_can_be_brought_back_as_it_was(world: World) -> None:
    anna, ben, id = pair(world, place="Pit", parts={"A": {"qty": 1}})
    visit(anna, id, parts={"A": None})
    ben.write(UpdateOp("visit", id, {"parts.A.qty": 4}))
    world.settle()
    (entry,) = trail(anna)
    assert (entry.field, entry.state) == ("parts.A.$deleted", "auto")
    anna.write(ResolveOp(entry.id, keep="deleted"))
    world.settle()
    assert ben.get(id, "visit").values["parts"] == {}
    assert ben.engine.conflict(entry.id).resolver_name == "anna"
    edit = next(at for at, each in enumerate(entry.alternatives) if not each.deletes)
    ben.write(RestoreVersionOp(entry.id, edit))
    world.settle()
    assert anna.get(id, "visit").values["parts"] == {"A": {"qty": 4}}


def test_restoring_into_a_deleted_record_or_what_is_not_there_is_refused(world: World) -> None:
    anna, _, id, ids = three_in_one_record(world)
    assert "alternatives 0 to 1" in refused(anna, RestoreVersionOp(ids["cause"], 2)).message
    anna.write(ResolveOp(ids["cause"], keep="mine"), DeleteOp("visit", id))
    assert isinstance(refused(anna, RestoreVersionOp(ids["cause"], 0)), RecordDeleted)


def test_two_resolutions_made_apart_are_a_conflict_and_the_trail_shows_the_chain(world: World) -> None:
    anna, ben, id, ids = three_in_one_record(world)
    first = ids["cause"]
    anna.write(ResolveOp(first, keep="mine"))
    ben.write(ResolveOp(first, value="both"))
    world.settle()
    world.assert_converged()
    seconds = {
        entry.id for peer in world.peers for entry in peer.engine.conflicts() if entry.field == "cause"
    }
    (second,) = seconds
    for peer in world.peers:
        old, new = peer.engine.conflict(first), peer.engine.conflict(second)
        assert (old.state, old.superseded_by) == ("closed", second)
        assert (new.state, new.supersedes) == ("open", (first,))
        assert {each.value for each in new.alternatives} == {"seal", "both"}
    assert anna.engine.conflict(first).resolution == "seal"
    assert ben.engine.conflict(first).resolution == "both"
    error = refused(anna, ResolveOp(first, keep="mine"))
    assert isinstance(error, ConflictClosed)
    assert second in error.message
    world.office.write(ResolveOp(second, keep="winner"))
    world.settle()
    assert anna.engine.conflict(second).resolver_name == "office"
    assert {peer.get(id, "visit").values["cause"] for peer in world.peers} == {"both"}


def test_two_who_resolve_alike_have_agreed(world: World) -> None:
    anna, ben, _id, ids = three_in_one_record(world)
    anna.write(ResolveOp(ids["cause"], value="both"))
    ben.write(ResolveOp(ids["cause"], value="both"))
    world.settle()
    for peer in world.peers:
        entry = peer.engine.conflict(ids["cause"])
        assert (entry.state, entry.resolution, entry.superseded_by) == ("closed", "both", None)
    assert world.office.engine.conflict(ids["cause"]).resolver_name == "anna", "the first of the two"


def test_a_closed_conflict_says_who_closed_it_how_and_what_can_be_done(world: World) -> None:
    anna, ben, id, ids = three_in_one_record(world)
    ben.write(ResolveOp(ids["cause"], keep="theirs"), ResolveOp(ids["remedy"], value="own"))
    world.settle()
    error = refused(anna, ResolveOp(ids["cause"], keep="mine"))
    assert isinstance(error, ConflictClosed)
    assert "cause was closed by ben at 2025-06-15" in error.message
    assert "with the version of anna" in error.message
    assert f"conflicts restore {ids['cause'][:8]} --version N" in error.hint
    assert "with another value" in refused(anna, ResolveOp(ids["remedy"], keep="mine")).message
    assert "own" not in str(refused(anna, ResolveOp(ids["remedy"], keep="mine")))
    anna.write(DeleteOp("visit", id))
    assert "none of its versions stands" in refused(anna, ResolveOp(ids["state"], keep="mine")).message


def test_a_reader_decides_nothing(world: World) -> None:
    _anna, _ben, _id, ids = three_in_one_record(world)
    reader = world.join("auditor", Role.READER)
    world.settle()
    for op in (
        ResolveOp(ids["cause"], keep="winner"),
        ResolveRecordOp((ResolveOp(ids["cause"], keep="winner"),)),
        RestoreVersionOp(ids["state"], 0),
    ):
        assert isinstance(refused(reader, op), PermissionDenied)


def test_the_trail_is_found_by_device_type_record_state_and_time(world: World) -> None:
    anna, ben, id, ids = three_in_one_record(world)
    job = anna.create({"title": "Pump"})
    world.settle()
    at_ms = world.now_ms
    anna.set(job, notes="leak")
    world.office.set(job, notes="crack")
    world.settle()
    ben.write(ResolveOp(ids["cause"], keep="mine"))
    world.settle()

    def fields(**wanted: Any) -> set[str]:
        found = anna.engine.find_conflicts(ConflictFilter(**{"state": None, **wanted}))
        assert anna.engine.count_conflicts(ConflictFilter(**{"state": None, **wanted})) == len(found)
        return {entry.field for entry in found}

    assert fields() == {"cause", "remedy", "state", "notes"}
    assert fields(device="office") == {"notes"}
    assert fields(device=ben.engine.device_id.hex()[:10]) == {"cause", "remedy", "state"}
    assert fields(type="job") == {"notes"} == fields(record=job)
    assert fields(state="open") == {"remedy", "notes"}
    assert fields(state="auto") == {"state"}
    assert fields(state="closed", type="visit") == {"cause"}
    assert fields(since_ms=at_ms) == {"cause", "notes"}, "one was seen since then, one closed"
    by_device = anna.engine.conflict_counts(ConflictFilter(state=None), "device")
    assert by_device == {"anna": 4, "ben": 3, "office": 1}
    by_record = anna.engine.conflict_counts(ConflictFilter(), "record")
    assert by_record == {f"visit {id}": 1, f"job {job}": 1}
    with pytest.raises(LocalError, match="no member is called 'carla'") as unknown:
        anna.engine.find_conflicts(ConflictFilter(device="carla"))
    assert "anna, ben, office" in unknown.value.hint


def test_a_long_trail_is_read_page_by_page(world: World) -> None:
    anna, _ben, _id, ids = three_in_one_record(world)
    pages = []
    after: int | None = 0
    while after is not None:
        page, after = anna.engine.conflict_page(ConflictFilter(state=None), after=after, limit=2)
        pages.append([entry.id for entry in page])
    assert [len(page) for page in pages] == [2, 1]
    assert [id for page in pages for id in page] == list(ids.values())


def test_a_value_that_does_not_fit_leaves_everything_as_it_was(world: World) -> None:
    anna, _ben, _id, ids = three_in_one_record(world)
    assert isinstance(refused(anna, ResolveOp(ids["cause"], value=["a"])), ValidationError)
    assert anna.engine.status_counts().pending == 0
