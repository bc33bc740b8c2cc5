"""What of a space a device keeps: conditions, picks, and what is closed for long enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.errors import RecordAbsent, UnknownType, ValidationError
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine.filters import AnyOf, field
from crdt_sync_client.engine.model import CreateOp, DeleteOp, RecordChange, RestoreOp, UpdateOp
from tests.client.engine_world import JOB, SITE, Peer, World

CLOSING = JOB.replace(
    "type: object\nrequired",
    "x-closed: {field: status, values: [done], keep_days: 30}\ntype: object\nrequired",
)
TASK = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Task
x-type: task
x-version: 1
x-parent: {type: job, field: job, on_delete: cascade}
type: object
properties:
  name: {type: string}
  job: {type: string}
"""
STEP = TASK.replace("task", "step").replace("job", "task")
DAY_MS = 86_400_000
OPEN = field("status") != "done"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, schemas=(CLOSING, SITE, TASK, STEP))
    world.join("anna")
    yield world
    world.close()


@pytest.fixture
def anna(world: World) -> Peer:
    return world.peers[1]


def titles(peer: Peer) -> list[str]:
    return sorted(record.values["title"] for record in peer.engine.query("job"))


def gone(changes: list[RecordChange] | tuple[RecordChange, ...]) -> list[str]:
    return [change.record.values.get("title", "") for change in changes if change.left]


def upkeep(peer: Peer) -> list[str]:
    """Do all there is; which records left."""
    found: list[str] = []
    while (done := peer.engine.keep_up()) is not None:
        found += gone(done.changes)
    return found


def test_only_what_meets_the_condition_is_kept_from_the_first_sync_on(world: World, anna: Peer) -> None:
    anna.engine.set_scope(world.space, "job", OPEN)
    office = world.office
    done = office.create({"title": "Old", "status": "done"})
    office.create({"title": "New"})
    office.sync()
    received = anna.sync()
    assert titles(anna) == ["New"]
    assert [change.record.values.get("title", "") for change in received.changes] == ["New"]
    assert anna.engine.is_absent("job", done)
    db = anna.engine._replica.db
    assert (
        db.value("SELECT count(*) FROM documents d JOIN records r ON r.no = d.record WHERE type = 'job'") == 1
    )
    assert anna.engine.wanted(world.space, 9) == []
    anna.reopen()
    assert titles(anna) == ["New"]
    assert anna.engine.scope(world.space).absent == 1


def test_what_meets_it_no_more_leaves_and_what_meets_it_again_comes_whole(world: World, anna: Peer) -> None:
    anna.engine.set_scope(world.space, "job", OPEN)
    office = world.office
    id = office.create({"title": "Pump", "hours": 2})
    office.sync()
    anna.sync()
    office.set(id, status="done")
    office.sync()
    received = anna.sync()
    assert gone(received.changes) == ["Pump"]
    assert titles(anna) == []
    office.set(id, hours=3)
    office.sync()
    anna.sync()
    assert anna.engine.wanted(world.space, 9) == []  # hours say nothing about the status
    office.set(id, status="busy")
    office.sync()
    anna.sync()
    assert anna.engine.wanted(world.space, 9) == [anna.opaque(id)]
    anna.fetch()
    assert anna.values(id) == office.values(id)


def test_what_is_fetched_and_does_not_meet_it_does_not_stay(world: World, anna: Peer) -> None:
    anna.engine.set_scope(world.space, "job", OPEN & (field("count") > 5))
    id = world.office.create({"title": "Pump", "status": "done", "count": 9})
    world.office.sync()
    anna.sync()
    world.office.set(id, count=10)
    world.office.sync()
    anna.sync()
    assert anna.engine.wanted(world.space, 9)
    assert anna.fetch().changes == ()
    assert titles(anna) == []
    assert anna.engine.wanted(world.space, 9) == []
    assert anna.engine.is_absent("job", id)


def test_a_changed_condition_lets_go_and_fetches(world: World, anna: Peer) -> None:
    office = world.office
    for title, status in (("A", "open"), ("B", "busy"), ("C", "done")):
        office.create({"title": title, "status": status})
    world.settle()
    assert gone(anna.engine.set_scope(world.space, "job", field("status") == "open")) == ["B", "C"]
    assert titles(anna) == ["A"]
    assert gone(anna.engine.set_scope(world.space, "job", field("status") == "busy")) == ["A"]
    anna.fetch()
    assert titles(anna) == ["B"]
    assert anna.engine.set_scope(world.space, "job", None) == []
    anna.fetch()
    assert titles(anna) == ["A", "B", "C"]
    world.settle()
    world.assert_converged()


def test_what_left_comes_back_when_a_new_version_of_its_type_does_not_fit_the_condition(
    world: World, anna: Peer
) -> None:
    """Found by seeds 720008, 720011 and 720231 of `every_rule`."""
    anna.engine.set_scope(world.space, "job", field("count") > 5)
    for title, count in (("Few", 2), ("Many", 9)):
        world.office.create({"title": title, "count": count})
    world.settle()
    assert titles(anna) == ["Many"]
    renamed = CLOSING.replace("x-version: 1", "x-version: 2").replace(
        "count: {type: integer}", "number: {type: integer, x-aliases: [count]}"
    )
    world.office.engine.add_schema(world.space, load_schema(renamed, source="test"))
    world.office.sync()
    anna.sync()
    upkeep(anna)
    anna.fetch()
    assert titles(anna) == ["Few", "Many"]


def test_a_condition_must_fit_and_can_be_none_at_all(world: World, anna: Peer) -> None:
    world.office.create({"title": "A"})
    world.settle()
    with pytest.raises(ValidationError, match="statuss"):
        anna.engine.set_scope(world.space, "job", field("statuss") == "open")
    with pytest.raises(ValidationError, match="bytes"):
        anna.engine.set_scope(world.space, "job", field("photo") == b"x")
    with pytest.raises(UnknownType):
        anna.engine.set_scope(world.space, "jobs", None)
    assert titles(anna) == ["A"]
    anna.engine.set_scope(world.space, "job", AnyOf(()))
    assert titles(anna) == []


def test_unsent_work_stays_until_it_is_sent(world: World, anna: Peer) -> None:
    anna.engine.set_scope(world.space, "job", OPEN)
    id = anna.create({"title": "Pump"})
    anna.sync()
    anna.set(id, status="done")
    assert titles(anna) == ["Pump"]
    assert anna.engine.scope(world.space).leaving == 1
    assert upkeep(anna) == []
    anna.crash()
    assert titles(anna) == ["Pump"]
    anna.sync()
    assert upkeep(anna) == ["Pump"]
    assert titles(anna) == []
    world.settle()
    assert titles(world.office) == ["Pump"]


def test_a_record_that_comes_to_meet_it_again_before_it_was_sent_stays(world: World, anna: Peer) -> None:
    anna.engine.set_scope(world.space, "job", OPEN)
    id = anna.create({"title": "Pump", "status": "done"})
    anna.set(id, status="busy")
    anna.sync()
    assert upkeep(anna) == []
    assert titles(anna) == ["Pump"]
    assert anna.engine.scope(world.space).leaving == 0


def test_a_pick_keeps_a_record_and_what_belongs_to_it(world: World, anna: Peer) -> None:
    office, engine = world.office, anna.engine
    job = office.create({"title": "Pump", "status": "done"})
    task = office.create({"name": "Seal", "job": job}, type="task")
    other = office.create({"name": "Other"}, type="task")
    engine.set_scope(world.space, "job", OPEN)
    engine.set_scope(world.space, "task", AnyOf(()))
    office.sync()
    anna.sync()
    assert titles(anna) == []
    engine.pick(world.space, "job", job)
    anna.fetch()
    assert titles(anna) == ["Pump"]
    assert [record.id for record in engine.query("task")] == [task]
    later = office.create({"name": "Bolt", "job": job}, type="task")
    office.sync()
    anna.sync()
    anna.reopen()
    assert {record.id for record in anna.engine.query("task")} == {task, later}
    assert anna.engine.scope(world.space).picks == (("job", job),)
    changes = anna.engine.unpick(world.space, "job", job)
    assert sorted(change.id for change in changes if change.left) == sorted([job, task, later])
    assert titles(anna) == []
    assert anna.engine.is_absent("task", other)


def test_a_pick_of_what_was_never_here_is_fetched(world: World, anna: Peer) -> None:
    anna.engine.set_scope(world.space, "job", AnyOf(()))
    job = world.office.create({"title": "Pump"})
    world.office.sync()
    anna.engine.pick(world.space, "job", job)
    anna.sync()
    anna.fetch()
    assert titles(anna) == ["Pump"]


def test_children_of_a_record_that_is_not_here_are_no_orphans(world: World, anna: Peer) -> None:
    office = world.office
    job = office.create({"title": "Pump", "status": "done"})
    task = office.create({"name": "Seal", "job": job}, type="task")
    anna.engine.set_scope(world.space, "job", OPEN)
    office.sync()
    anna.sync()
    assert not anna.get(task, "task").orphaned
    assert anna.engine.query("task")[0].orphaned is False


def test_a_parent_does_not_go_without_its_absent_children(world: World, anna: Peer) -> None:
    office = world.office
    job = office.create({"title": "Pump"})
    office.create({"name": "Seal", "job": job}, type="task")
    anna.engine.set_scope(world.space, "task", AnyOf(()))
    office.sync()
    anna.sync()
    (error,) = anna.engine.write([DeleteOp("job", job)])
    assert isinstance(error, RecordAbsent)
    assert titles(anna) == ["Pump"]


def test_closed_records_leave_after_their_time_and_not_what_must_stay(world: World, anna: Peer) -> None:
    office, engine = world.office, anna.engine
    made = {
        title: office.create({"title": title, "status": status})
        for title, status in (("open", "busy"), ("old", "done"), ("kept", "done"), ("edited", "done"))
    }
    deleted = office.create({"title": "deleted"})
    office.write(DeleteOp("job", deleted))
    world.settle()
    world.now_ms += 29 * DAY_MS
    assert engine.finished(world.space, {}) == []
    world.now_ms += 2 * DAY_MS
    office.create({"title": "young", "status": "done"})
    world.settle()
    engine.pick(world.space, "job", made["kept"])
    anna.set(made["edited"], hours=1)
    found = {each.id for each in engine.finished(world.space, {})}
    assert found == {made["old"], deleted}
    assert engine.finished(world.space, {"job": 0}) == []
    changes, place = engine.clean_up(world.space, {})
    assert {change.id for change in changes} == found
    assert place is not None
    assert engine.clean_up(world.space, {}, place) == ([], None)
    assert titles(anna) == ["edited", "kept", "open", "young"]
    assert titles(office) == ["edited", "kept", "old", "open", "young"]


def test_a_closed_record_that_is_opened_again_comes_back(world: World, anna: Peer) -> None:
    office = world.office
    id = office.create({"title": "Pump", "status": "done"})
    world.settle()
    world.now_ms += 31 * DAY_MS
    anna.engine.clean_up(world.space, {})
    office.set(id, notes="by the way")
    world.settle()
    assert anna.engine.wanted(world.space, 9) == []
    office.set(id, status="busy")
    world.settle()
    anna.fetch()
    assert anna.values(id)["notes"] == "by the way"


def test_one_with_an_open_conflict_stays(world: World, anna: Peer) -> None:
    id = world.office.create({"title": "Pump", "status": "done"})
    world.settle()
    world.office.set(id, notes="a")
    anna.set(id, notes="b")
    world.settle()
    world.now_ms += 31 * DAY_MS
    assert anna.get(id).conflicts
    assert anna.engine.finished(world.space, {}) == []


def test_a_cleared_cache_is_fetched_anew_but_for_unsent_work(world: World, anna: Peer) -> None:
    sent = anna.create({"title": "Sent"})
    world.settle()
    unsent = anna.create({"title": "Unsent"})
    assert gone(anna.engine.clear(world.space)) == ["Sent"]
    assert titles(anna) == ["Unsent"]
    assert anna.engine.schemas(world.space)
    anna.crash()
    anna.sync()
    anna.fetch()
    assert titles(anna) == ["Sent", "Unsent"]
    assert anna.values(sent) | anna.values(unsent)
    world.settle()
    world.assert_converged()


def test_a_record_of_an_id_that_left_is_not_made_anew(world: World, anna: Peer) -> None:
    anna.engine.set_scope(world.space, "job", OPEN)
    id = world.office.create({"title": "Pump", "status": "done"})
    world.office.sync()
    anna.sync()
    (error,) = anna.engine.write([CreateOp("job", {"title": "Pump"}, id)])
    assert isinstance(error, RecordAbsent)


def test_a_deleted_record_that_left_comes_back_when_somebody_restores_it(world: World, anna: Peer) -> None:
    office = world.office
    id = office.create({"title": "Pump"})
    office.write(DeleteOp("job", id))
    world.settle()
    world.now_ms += 31 * DAY_MS
    anna.engine.clean_up(world.space, {})
    assert anna.engine.is_absent("job", id)
    office.write(RestoreOp("job", id))
    world.settle()
    anna.fetch()
    assert anna.values(id)["title"] == "Pump"


def test_a_pick_that_is_taken_back_before_it_came_is_forgotten(world: World, anna: Peer) -> None:
    id = world.office.create({"title": "Pump", "status": "done"})
    anna.engine.set_scope(world.space, "job", OPEN)
    world.settle()
    anna.engine.pick(world.space, "job", id)
    anna.engine.unpick(world.space, "job", id)
    anna.crash()
    anna.sync()
    anna.fetch()
    assert anna.engine.is_absent("job", id)


def test_what_comes_to_belong_to_a_picked_record_comes_and_what_moves_away_leaves(
    world: World, anna: Peer
) -> None:
    office, engine = world.office, anna.engine
    picked, other = office.create({"title": "Pump"}), office.create({"title": "Fan"})
    task = office.create({"name": "Seal", "job": other}, type="task")
    engine.set_scope(world.space, "task", AnyOf(()))
    engine.pick(world.space, "job", picked)
    world.settle()
    assert engine.is_absent("task", task)
    office.write(UpdateOp("task", task, {"job": picked}))
    world.settle()
    anna.fetch()
    assert not engine.is_absent("task", task)
    office.write(UpdateOp("task", task, {"job": other}))
    world.settle()
    assert engine.is_absent("task", task)


def test_what_is_two_below_a_picked_record_follows_the_one_between(world: World, anna: Peer) -> None:
    office, engine = world.office, anna.engine
    picked, other = office.create({"title": "Pump"}), office.create({"title": "Fan"})
    task = office.create({"name": "Seal", "job": other}, type="task")
    step = office.create({"name": "Loosen", "task": task}, type="step")
    engine.set_scope(world.space, "step", AnyOf(()))
    engine.pick(world.space, "job", picked)
    world.settle()
    assert engine.is_absent("step", step)
    office.write(UpdateOp("task", task, {"job": picked}))
    world.settle()
    anna.fetch()
    assert not engine.is_absent("step", step)
    anna.write(UpdateOp("task", task, {"job": other}))
    upkeep(anna)
    assert engine.is_absent("step", step)
