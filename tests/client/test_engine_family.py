"""Parents and children among records, with the rig crews' own tree: what goes and comes back together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import CrdtSyncError, PermissionDenied, RecordHasChildren
from crdt_sync.ids import RecordId
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine.model import CreateOp, DeleteOp, ResolveOp, RestoreOp, UpdateOp
from crdt_sync_client.shipped import find_schema
from tests.client.engine_world import Peer, World

LEAVES = ("work_assignment", "time_record", "charge_record", "charge_item")
TREE = ("project", "subproject", "daily_work_record", *LEAVES)

CABINET = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Cabinet
x-type: cabinet
x-version: 1
x-delete: {rule: manual}
x-parent: {type: cabinet, field: inside, on_delete: cascade}
type: object
required: [name]
properties:
  name: {type: string}
  inside: {type: string}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, schemas=tuple(find_schema(name).text for name in TREE))
    yield world
    world.close()


@pytest.fixture
def cabinets(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, schemas=(CABINET,))
    yield world
    world.close()


class Day:
    """A project with one subproject and one day, and what was done in it."""

    def __init__(self, peer: Peer) -> None:
        self.project = peer.create({"name": "Mud Creek"}, "project")
        self.subproject = peer.create({"project_id": self.project, "name": "Well 7"}, "subproject")
        self.day = peer.create({"subproject_id": self.subproject, "date": "2026-03-02"}, "daily_work_record")
        day = {"daily_work_record_id": self.day}
        self.assignment = peer.create({**day, "description": "Pull rods"}, "work_assignment")
        self.time = peer.create({**day, "employee_id": 12}, "time_record")
        self.charge = peer.create(day, "charge_record")
        item = {"charge_record_id": self.charge, "kind": "inventory", "description": "Rod box"}
        self.item = peer.create(item, "charge_item")

    @property
    def below(self) -> dict[str, RecordId]:
        """What goes with the day, by type."""
        ids = (self.assignment, self.time, self.charge, self.item)
        return dict(zip(LEAVES, ids, strict=True))


def do(peer: Peer, op: Any) -> Any:
    (result,) = peer.engine.write([op])
    if isinstance(result, CrdtSyncError):
        raise result
    return result


def there(peer: Peer, type: str, id: RecordId) -> bool:
    return peer.engine.get(type, id) is not None


def orphaned(peer: Peer, type: str, id: RecordId) -> bool:
    record = peer.engine.get(type, id)
    assert record is not None
    (listed,) = [each for each in peer.engine.query(type) if each.id == id]
    assert listed.orphaned is record.orphaned
    return record.orphaned


def test_deleting_a_day_deletes_all_that_was_done_in_it_on_every_device(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    tree = Day(world.office)
    world.settle()
    result = do(anna, DeleteOp("daily_work_record", tree.day))
    assert set(result.below) == set(tree.below.items())
    told = {(change.type, change.id) for change in anna.engine.changes_of([result])}
    assert told == {("daily_work_record", tree.day), *tree.below.items()}
    world.settle()
    for peer in (anna, ben, world.office):
        assert not there(peer, "daily_work_record", tree.day)
        assert not any(there(peer, type, id) for type, id in tree.below.items())
        assert there(peer, "subproject", tree.subproject)
    world.assert_converged()


def test_a_project_with_subprojects_is_not_deleted_and_they_are_named(world: World) -> None:
    tree = Day(world.office)
    second = world.office.create({"project_id": tree.project, "name": "Well 8"}, "subproject")
    with pytest.raises(RecordHasChildren) as refused:
        do(world.office, DeleteOp("project", tree.project))
    assert refused.value.message == (
        f"project {tree.project} still has 2 subproject ({tree.subproject}, {second})"
    )
    assert refused.value.children == (("subproject", tree.subproject), ("subproject", second))
    assert there(world.office, "project", tree.project)


def test_many_children_are_counted_and_the_first_are_named(world: World) -> None:
    tree = Day(world.office)
    for number in range(4):
        world.office.create({"project_id": tree.project, "name": f"Well {number}"}, "subproject")
    with pytest.raises(RecordHasChildren, match=r"still has 5 subproject \(.*, .*, .* and 2 more\)"):
        do(world.office, DeleteOp("project", tree.project))


def test_a_project_can_be_deleted_when_its_subprojects_are(world: World) -> None:
    tree = Day(world.office)
    do(world.office, DeleteOp("daily_work_record", tree.day))
    do(world.office, DeleteOp("subproject", tree.subproject))
    assert do(world.office, DeleteOp("project", tree.project)).below == ()
    assert not there(world.office, "project", tree.project)


def test_a_child_moved_to_another_parent_is_not_in_the_way(world: World) -> None:
    tree = Day(world.office)
    other = world.office.create({"name": "Sand Hill"}, "project")
    do(world.office, UpdateOp("subproject", tree.subproject, {"project_id": other}))
    do(world.office, DeleteOp("project", tree.project))
    with pytest.raises(RecordHasChildren):
        do(world.office, DeleteOp("project", other))


def test_what_one_call_did_before_counts(world: World) -> None:
    """Children made, moved or deleted in the same call are seen as they are then."""
    office = world.office
    tree = Day(office)
    results = office.engine.write(
        [
            DeleteOp("daily_work_record", tree.day),
            DeleteOp("subproject", tree.subproject),
            DeleteOp("project", tree.project),
        ]
    )
    assert not any(isinstance(result, CrdtSyncError) for result in results)
    project = office.create({"name": "Sand Hill"}, "project")
    made, refused = office.engine.write(
        [CreateOp("subproject", {"project_id": project, "name": "A"}), DeleteOp("project", project)]
    )
    assert not isinstance(made, CrdtSyncError)
    assert isinstance(refused, RecordHasChildren)


def test_a_cascade_is_refused_whole_where_the_role_may_not_delete_what_is_below(cabinets: World) -> None:
    world = cabinets
    sealed = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Seal
x-type: seal
x-delete: {roles: [admin]}
x-parent: {type: cabinet, field: on, on_delete: cascade}
type: object
properties: {on: {type: string}}
"""
    world.office.engine.add_schema(world.space, load_schema(sealed, source="test"))
    world.office.sync()
    anna = world.join("anna")
    cabinet = anna.create({"name": "A"}, "cabinet")
    inner = anna.create({"name": "B", "inside": cabinet}, "cabinet")
    anna.create({"on": inner}, "seal")
    with pytest.raises(PermissionDenied, match="may not delete records of type seal"):
        do(anna, DeleteOp("cabinet", cabinet))
    assert there(anna, "cabinet", inner)


def test_what_was_made_or_edited_apart_stays_as_an_orphan(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    tree = Day(world.office)
    world.settle()
    do(anna, DeleteOp("daily_work_record", tree.day))
    made = ben.create({"daily_work_record_id": tree.day, "employee_id": 40}, "time_record")
    do(ben, UpdateOp("work_assignment", tree.assignment, {"description": "Pull rods and pump"}))
    assert not orphaned(ben, "time_record", made)
    world.settle()
    for peer in world.peers:
        assert orphaned(peer, "time_record", made)
        assert orphaned(peer, "work_assignment", tree.assignment)
        assert not there(peer, "time_record", tree.time)
        assert not there(peer, "daily_work_record", tree.day)
    world.assert_converged()


def test_restoring_brings_back_what_the_cascade_deleted_and_nothing_else(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    tree = Day(world.office)
    world.settle()
    do(ben, DeleteOp("time_record", tree.time))
    world.settle()
    do(anna, DeleteOp("daily_work_record", tree.day))
    world.settle()
    result = do(ben, RestoreOp("daily_work_record", tree.day))
    assert {type for type, _ in result.below} == {"work_assignment", "charge_record", "charge_item"}
    world.settle()
    for peer in world.peers:
        assert there(peer, "daily_work_record", tree.day)
        assert not there(peer, "time_record", tree.time)
        for type in ("work_assignment", "charge_record", "charge_item"):
            assert not orphaned(peer, type, tree.below[type])
    world.assert_converged()


def test_what_was_deleted_for_its_own_sake_while_apart_stays_deleted(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    tree = Day(world.office)
    world.settle()
    do(anna, DeleteOp("daily_work_record", tree.day))
    do(ben, DeleteOp("time_record", tree.time))
    world.settle()
    do(world.office, RestoreOp("daily_work_record", tree.day))
    world.settle()
    assert not there(ben, "time_record", tree.time)
    assert there(ben, "work_assignment", tree.assignment)


def test_two_cascades_made_apart_are_both_taken_back(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben")
    tree = Day(world.office)
    world.settle()
    do(anna, DeleteOp("daily_work_record", tree.day))
    do(ben, DeleteOp("daily_work_record", tree.day))
    world.settle()
    do(ben, RestoreOp("daily_work_record", tree.day))
    world.settle()
    assert all(there(anna, type, id) for type, id in tree.below.items())


def test_a_parent_that_an_edit_kept_can_be_restored_with_what_had_gone(world: World) -> None:
    """The edit wins over the deletion of the day, not over those of its records; also after later edits."""
    anna, ben = world.join("anna"), world.join("ben")
    tree = Day(world.office)
    world.settle()
    do(anna, DeleteOp("daily_work_record", tree.day))
    do(ben, UpdateOp("daily_work_record", tree.day, {"date": "2026-03-03"}))
    world.settle()
    assert there(anna, "daily_work_record", tree.day)
    assert not there(anna, "time_record", tree.time)
    do(ben, UpdateOp("daily_work_record", tree.day, {"date": "2026-03-04"}))
    world.settle()
    result = do(world.office, RestoreOp("daily_work_record", tree.day))
    assert (result.changed, set(result.below)) == (True, set(tree.below.items()))
    assert do(world.office, RestoreOp("daily_work_record", tree.day)).changed is False


def test_deciding_a_disputed_deletion_restores_or_deletes_what_is_below(cabinets: World) -> None:
    world = cabinets
    anna, ben = world.join("anna"), world.join("ben")
    for keep in (True, False):
        outer = anna.create({"name": "A"}, "cabinet")
        inner = anna.create({"name": "B", "inside": outer}, "cabinet")
        world.settle()
        do(anna, DeleteOp("cabinet", outer))
        do(ben, UpdateOp("cabinet", outer, {"name": "C"}))
        added = ben.create({"name": "D", "inside": outer}, "cabinet")
        world.settle()
        assert not there(ben, "cabinet", inner)
        (conflict,) = ben.engine.conflicts()
        chosen = [each.deletes for each in conflict.alternatives].index(not keep)
        result = do(ben, ResolveOp(conflict.id, alternative=chosen))
        assert result.below == (("cabinet", inner if keep else added),)
        world.settle()
        assert [there(anna, "cabinet", id) for id in (outer, inner, added)] == [keep, keep, keep]
        world.assert_converged()


def test_a_child_may_come_before_its_parent(world: World) -> None:
    id = RecordId("6f1c9f0e-0000-4000-8000-000000000001")
    day = world.office.create({"subproject_id": id, "date": "2026-03-02"}, "daily_work_record")
    assert orphaned(world.office, "daily_work_record", day)
    anna = world.join("anna")
    project = world.office.create({"name": "Mud Creek"}, "project")
    (result,) = world.office.write(CreateOp("subproject", {"project_id": project, "name": "Well 7"}, id))
    told = [change for change in world.office.engine.changes_of([result]) if change.id == day]
    assert [(change.fields, change.record.orphaned) for change in told] == [((), False)]
    assert not orphaned(world.office, "daily_work_record", day)
    world.office.sync()
    received = anna.sync()
    flags = {change.id: change.record.orphaned for change in received.changes}
    assert flags == {project: False, id: False, day: False}


def test_watchers_hear_when_a_parent_goes_and_comes_back(world: World) -> None:
    anna, ben = world.join("anna"), world.join("ben", Role.OFFICE)
    tree = Day(world.office)
    world.settle()
    kept = ben.create({"daily_work_record_id": tree.day, "employee_id": 40}, "time_record")
    do(anna, DeleteOp("daily_work_record", tree.day))
    anna.sync()
    received = ben.sync()
    flags = {change.id: change.record.orphaned for change in received.changes if not change.record.deleted}
    assert flags == {kept: True}
    back = do(ben, RestoreOp("daily_work_record", tree.day))
    flags = {change.id: change.record.orphaned for change in ben.engine.changes_of([back])}
    assert flags[kept] is False


def test_records_in_a_ring_are_deleted_once_each(cabinets: World) -> None:
    office = cabinets.office
    first = office.create({"name": "A"}, "cabinet")
    second = office.create({"name": "B", "inside": first}, "cabinet")
    do(office, UpdateOp("cabinet", first, {"inside": second}))
    own = office.create({"name": "C"}, "cabinet")
    do(office, UpdateOp("cabinet", own, {"inside": own}))
    assert do(office, DeleteOp("cabinet", first)).below == (("cabinet", second),)
    assert do(office, RestoreOp("cabinet", second)).below == (("cabinet", first),)
    assert do(office, DeleteOp("cabinet", own)).below == ()


def test_too_many_generations_or_records_are_refused(
    cabinets: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crdt_sync_client.engine.family.MAX_BELOW", 3)
    office = cabinets.office
    outer = office.create({"name": "A"}, "cabinet")
    for name in "BCD":
        office.create({"name": name, "inside": outer}, "cabinet")
    top = office.create({"name": "T"}, "cabinet")
    do(office, UpdateOp("cabinet", outer, {"inside": top}))
    with pytest.raises(RecordHasChildren, match="more than 3 records would go with it"):
        do(office, DeleteOp("cabinet", top))
    assert len(do(office, DeleteOp("cabinet", outer)).below) == 3


def test_the_parent_of_a_store_from_before_is_found_after_a_restart(world: World) -> None:
    tree = Day(world.office)
    world.office.reopen()
    with pytest.raises(RecordHasChildren):
        do(world.office, DeleteOp("project", tree.project))
    assert len(do(world.office, DeleteOp("daily_work_record", tree.day)).below) == 4
