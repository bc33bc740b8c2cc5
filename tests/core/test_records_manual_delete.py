"""The delete rule `manual`: a deletion that met an edit waits for a person, and people may disagree."""

from __future__ import annotations

import pytest

from crdt_sync.errors import PermissionDenied
from crdt_sync.roles import Role
from crdt_sync.schemas import RecordSchema, load_schema
from tests.core.record_replicas import MANUAL, Replica, meet

OFFICE_DELETES = load_schema(
    "x-type: job\nx-delete: {rule: manual, roles: [office]}\n"
    "properties: {status: {type: string}, cause: {type: string, x-merge: manual}}\n",
    source="job.yaml",
)


def disputed(schema: RecordSchema = MANUAL) -> tuple[Replica, Replica]:
    """A field device that edited, and an office that deleted meanwhile."""
    field, office = Replica(0, schema, Role.FIELD), Replica(1, schema, Role.OFFICE)
    field.create({"status": "assigned"})
    meet(field, office)
    field.set({"status": "done"})
    office.delete()
    meet(field, office)
    return field, office


def deletion(replica: Replica) -> object:
    """The value that stands for the deletion among the alternatives."""
    (conflict,) = replica.view().conflicts
    return next(write.value for write in conflict.alternatives if write.path == ("$deleted",))


def test_the_record_is_shown_and_provisional_until_somebody_decides() -> None:
    field, office = disputed()
    for device in (field, office):
        seen = device.view()
        assert not seen.deleted
        assert seen.values["status"] == "done"
        assert seen.provisional == (("$deleted",),)
        (conflict,) = seen.conflicts
        assert (conflict.kind, conflict.rule, conflict.winner.value) == ("open", "manual", "done")
        assert len(conflict.alternatives) == 2
    assert field.view().conflicts[0].id == office.view().conflicts[0].id


def test_keeping_the_deletion_deletes() -> None:
    field, office = disputed()
    edit = office.resolve("$deleted", deletion(office))
    assert edit.resolves == [("$deleted",)]
    meet(field, office)
    for device in (field, office):
        assert device.view().deleted
        assert device.view().conflicts == ()


def test_keeping_the_record_keeps_it() -> None:
    field, office = disputed()
    edit = field.resolve("$deleted", "done")
    assert edit.resolves == [("$deleted",)]
    meet(field, office)
    for device in (field, office):
        assert not device.view().deleted
        assert device.view().conflicts == ()
        assert device.values["status"] == "done"


def test_who_may_not_delete_cannot_decide_for_the_deletion() -> None:
    field, _ = disputed(OFFICE_DELETES)
    with pytest.raises(PermissionDenied) as caught:
        field.resolve("$deleted", deletion(field))
    assert str(caught.value) == "a device with role field may not delete records of type job"
    field.resolve("$deleted", "done")
    assert field.view().conflicts == ()


def test_an_edit_leaves_the_conflict_open() -> None:
    field, office = disputed()
    edit = field.set({"status": "on hold", "owner": "Ada"})
    assert edit.resolves == []
    office.set({"tags": ["late"]})
    meet(field, office)
    for device in (field, office):
        assert [(each.kind, each.path) for each in device.view().conflicts] == [("open", ("$deleted",))]
        assert device.values["owner"] == "Ada"


def test_a_conflict_inside_a_disputed_record_can_be_decided_by_itself() -> None:
    field, office = Replica(0, OFFICE_DELETES, Role.FIELD), Replica(1, OFFICE_DELETES, Role.OFFICE)
    field.create({"status": "assigned"})
    meet(field, office)
    field.set({"cause": "seal"})
    office.set({"cause": "bearing"})
    office.delete()
    meet(field, office)
    assert [each.path for each in field.view().conflicts] == [("$deleted",), ("cause",)]
    assert field.resolve("cause", "seal").resolves == [("cause",)]
    assert [each.path for each in field.view().conflicts] == [("$deleted",)]


def test_restoring_and_deleting_again_decide() -> None:
    field, office = disputed()
    assert field.restore().resolves == [("$deleted",)]
    assert field.view().conflicts == ()
    assert not field.restore()
    _, office = disputed()
    assert office.delete().resolves == [("$deleted",)]
    assert office.view().deleted


def test_two_decisions_made_apart_meet_as_a_new_conflict() -> None:
    field, office = disputed()
    before = field.view().conflicts[0].id
    field.resolve("$deleted", "done")
    office.resolve("$deleted", deletion(office))
    meet(field, office)
    for device in (field, office):
        (conflict,) = device.view().conflicts
        assert (conflict.kind, conflict.path) == ("open", ("$deleted",))
        assert conflict.id != before
        assert not device.view().deleted


def test_a_deletion_that_nobody_contradicts_is_none_to_decide() -> None:
    field, office = Replica(0, MANUAL), Replica(1, MANUAL)
    field.create({"status": "assigned"})
    meet(field, office)
    office.delete()
    field.delete()
    meet(field, office)
    assert field.view().deleted
    assert office.view().conflicts == ()
