"""The record types that ship: each holds a record, refuses a wrong one, and merges as its field decided."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import PermissionDenied, ValidationError
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.roles import Role
from crdt_sync.schemas import RecordSchema, load_schema
from crdt_sync.schemas.model import Parent
from tests.core.record_replicas import Replica, meet

FOLDER = Path(__file__).resolve().parents[2] / "schemas"
SCHEMAS = {
    path.stem: load_schema(path.read_text("utf-8"), source=path.name) for path in FOLDER.glob("*.yaml")
}
PARENT = "00000000-0000-4000-8000-000000000009"
OTHER = "00000000-0000-4000-8000-000000000008"

GOOD: dict[str, dict[str, Any]] = {
    "project": {"name": "North field", "customer_name": "Acme", "start_date": "2026-11-05"},
    "subproject": {"project_id": PARENT, "name": "Well 7", "job_number": "J-7", "assigned_rig_id": 12},
    "daily_work_record": {"subproject_id": PARENT, "date": "2026-11-05", "ticket_number": "T-17"},
    "work_assignment": {
        "daily_work_record_id": PARENT,
        "description": "Run tubing",
        "from_time": "06:30",
        "to_time": "24:00",
        "input_values": {"joints": {"value": 42, "unit": "pieces"}},
    },
    "time_record": {
        "daily_work_record_id": PARENT,
        "employee_id": 4,
        "start_time": "6:00",
        "rig_time": "11:30",
    },
    "charge_record": {"daily_work_record_id": PARENT},
    "charge_item": {
        "charge_record_id": PARENT,
        "kind": "service",
        "description": "Crane",
        "unit_price": 90.5,
    },
    "work_description": {"name": "Run tubing", "inputs": {"joints": {"label": "Joints", "required": True}}},
    "work_order": {"title": "Swap bucket", "parts_used": {"A": {"qty": 1}}},
    "asset": {"name": "Pump 2", "asset_number": "P-2", "location": {"building": "B", "latitude": 50.1}},
    "inventory_item": {"part_id": "SEAL-12", "quantity_available": 4, "counted_at": "2026-11-05T08:00:00Z"},
    "user_profile": {"user_id": "u1", "email": "a@example.org", "skills": ["welding"], "site_ids": ["pit4"]},
    "volunteer": {"name": "John Smith", "email": "john@example.org", "skills": ["first aid"], "hours": 2},
    "volunteer_project": {"name": "Tree planting", "volunteers": [PARENT]},
    "task": {"title": "Dig", "project_id": PARENT, "time_entries": {"e1": {"hours": 1.5}}},
    "citizen_report": {
        "title": "Pothole on Main Street",
        "category": "roads",
        "location": {"latitude": 23.3441, "longitude": 85.3096},
    },
    "citizen_profile": {"name": "Asha", "location": {"latitude": 23.3, "longitude": 85.3}},
    "todo": {"text": "Buy rope", "created_at": "2026-11-05T08:00:00Z"},
}

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("project", {"name": ""}, "name: has 0 characters, at least 1 is needed"),
    ("subproject", {"project_id": "42"}, "project_id: '42' is not a UUID"),
    ("daily_work_record", {"date": "5.11.2026"}, "date: '5.11.2026' is not a date such as 2026-11-05"),
    ("work_assignment", {"from_time": "25:00"},
     "from_time: '25:00' does not match the pattern ^([01]?[0-9]|2[0-4]):[0-5][0-9]$"),
    ("time_record", {"rig_time": "11.5"},
     "rig_time: '11.5' does not match the pattern ^[0-9]{1,3}:[0-5][0-9]$"),
    ("charge_record", {"total_amount": "12"}, "total_amount: takes a number, got text ('12')"),
    ("charge_item", {"kind": "inventry"},
     "kind: 'inventry' is not one of inventory, service, miscellaneous; did you mean 'inventory'?"),
    ("work_description", {"inputs": {"a": {"lable": "x"}}},
     "inputs.a.lable: there is no such field; did you mean 'label'?"),
    ("work_order", {"cost": "dear"}, "cost: takes a number, got text ('dear')"),
    ("asset", {"location": {"latitude": 91}}, "location.latitude: must be at most 90, got 91"),
    ("inventory_item", {"quantity_available": -1}, "quantity_available: must be at least 0, got -1"),
    ("user_profile", {"email": "a@"}, "email: 'a@' is not an e-mail address"),
    ("volunteer", {"skills": "first aid"}, "skills: takes a list of elements, got text ('first aid')"),
    ("volunteer_project", {"volunteers": ["me"]}, "volunteers[0]: 'me' is not a UUID"),
    ("task", {"time_entries": {"e": {"hours": 25}}}, "time_entries.e.hours: must be at most 24, got 25"),
    ("citizen_report", {"location": {"latitude": 23.3}}, "location: lacks 'longitude'"),
    ("citizen_profile", {"notifications": ["all"]},
     "notifications[0]: 'all' is not one of status_changes, nearby_reports, newsletter"),
    ("todo", {"is_completed": "yes"}, "is_completed: takes true or false, got text ('yes')"),
]  # fmt: skip

APART: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = [
    # type, what the field does, what the office does later, what is shown, conflicts
    ("project", {}, {"start_date": "2026-12-01"}, {"start_date": "2026-12-01"}, []),
    ("subproject", {}, {"assigned_rig_id": 14}, {"assigned_rig_id": 14}, []),
    # The rig crews' conflict: notes and status of one daily work record.
    ("daily_work_record",
     {"notes": "Rained.", "status": "in_progress"}, {"notes": "Rain", "status": "pending"},
     {"notes": "Rain", "status": "pending"}, ["open notes", "auto status"]),
    ("daily_work_record",
     {"is_locked": False, "is_last_day": True}, {"is_locked": True, "is_last_day": False},
     {"is_locked": True, "is_last_day": True}, []),
    ("work_assignment", {"to_time": "17:00", "input_values.joints.value": 43},
     {"to_time": "18:00", "input_values.depth.value": 900},
     {"to_time": "17:00",
      "input_values": {"depth": {"value": 900}, "joints": {"value": 43, "unit": "pieces"}}},
     ["auto to_time"]),
    ("time_record", {"employee_id": 5, "rig_time": "10:00"}, {"employee_id": 6, "rig_time": "12:00"},
     {"employee_id": 6, "rig_time": "10:00"}, ["open employee_id", "auto rig_time"]),
    ("charge_record", {"total_amount": 10}, {"is_manual_total": True, "total_amount": 12},
     {"is_manual_total": True, "total_amount": 12}, ["auto total_amount"]),
    ("charge_item", {"quantity": 3, "unit_price": 80}, {"quantity": 2, "unit_price": 95},
     {"quantity": 3, "unit_price": 95}, ["auto quantity", "auto unit_price"]),
    ("work_description", {}, {"inputs.joints.unit": "pieces"},
     {"inputs": {"joints": {"label": "Joints", "required": True, "unit": "pieces"}}}, []),
    # Maintenance: the plan is the server's, what was done the technician's, arrays merge, and causes are for
    # a person.
    ("work_order",
     {"actual_end": "2026-11-08T10:00:00Z", "scheduled_start": "2026-11-07", "parts_used.B.qty": 2,
      "root_cause": "seal"},
     {"actual_end": "2026-11-08", "scheduled_start": "2026-11-09", "parts_used.C.qty": 1,
      "root_cause": "bearing"},
     {"actual_end": "2026-11-08T10:00:00Z", "scheduled_start": "2026-11-09", "root_cause": "bearing",
      "parts_used": {"A": {"qty": 1}, "B": {"qty": 2}, "C": {"qty": 1}}},
     ["auto actual_end", "open root_cause", "auto scheduled_start"]),
    ("asset", {}, {"status": "failed"}, {"status": "failed"}, []),
    ("inventory_item", {}, {"quantity_available": 3}, {"quantity_available": 3}, []),
    ("user_profile", {}, {"skills": AddElement("rigging")}, {"skills": ["rigging", "welding"]}, []),
    # The volunteers' guide: "John Smith" and "Jonathan Smith", left to a person; hours add up.
    ("volunteer", {"name": "John A. Smith", "hours": Increment(3), "notes": "Strong."},
     {"name": "Jonathan Smith", "hours": Increment(1)},
     {"name": "Jonathan Smith", "hours": 6, "notes": "Strong."}, ["open name"]),
    ("volunteer_project", {"name": "Trees", "status": "active", "volunteers": AddElement(OTHER)},
     {"name": "Planting", "volunteers": RemoveElement(PARENT)},
     {"name": "Planting", "status": "active", "volunteers": [OTHER]}, ["auto name"]),
    ("task",
     {"status": "done", "time_entries.e2.hours": 2}, {"status": "in_progress", "due_date": "2026-12-01"},
     {"status": "done", "due_date": "2026-12-01", "time_entries": {"e1": {"hours": 1.5}, "e2": {"hours": 2}}},
     ["auto status"]),
    # Citizen reports: one edited on two devices; the server wins, but for the citizen's own words.
    ("citizen_report", {"title": "Deep pothole", "category": "water", "severity": "high"},
     {"title": "Pothole", "category": "drainage", "severity": "low", "status": "assigned"},
     {"title": "Deep pothole", "category": "drainage", "severity": "high", "status": "assigned"},
     ["auto category", "auto severity", "auto title"]),
    ("citizen_profile",
     {"phone": "1"}, {"phone": "2", "is_verified": True}, {"phone": "1", "is_verified": True},
     ["auto phone"]),
    # The task list: mobile always wins.
    ("todo", {"text": "Buy rope, 20 m", "is_completed": True}, {"text": "Buy a rope", "is_completed": False},
     {"text": "Buy rope, 20 m", "is_completed": True}, ["auto text"]),
]  # fmt: skip

READ_ONLY = {
    "asset": {Role.OFFICE, Role.ADMIN},
    "inventory_item": {Role.OFFICE, Role.ADMIN},
    "user_profile": {Role.OFFICE, Role.ADMIN},
    "work_description": {Role.OFFICE, Role.ADMIN},
    "project": {Role.OFFICE, Role.SUPERVISOR, Role.ADMIN},
    "subproject": {Role.OFFICE, Role.SUPERVISOR, Role.ADMIN},
}


def test_every_record_type_is_tried_here() -> None:
    assert SCHEMAS.keys() == GOOD.keys() == {name for name, *_ in BAD} == {name for name, *_ in APART}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_file_is_called_as_its_type_and_says_what_it_is(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema.type == name
    assert schema.title
    assert schema.description.endswith(".")
    assert schema.comment in (
        "rig crews", "mobile maintenance", "volunteers", "citizen reports", "task list"
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_rule_but_the_usual_one_stands_under_a_reason(name: str) -> None:
    """A comment above the field, or above one of the fields just before it that it belongs with."""
    lines = (FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()
    start = lines.index("properties:")
    reasoned = False
    for line in lines[start + 1 :]:
        if line.lstrip().startswith("#"):
            reasoned = True
        elif re.match(r"  [a-z]", line) and "x-merge" in line and "server_id" not in line:
            assert reasoned, line


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_record_can_be_made(name: str) -> None:
    device = Replica(3, SCHEMAS[name])
    device.create(GOOD[name])
    shown = device.view().values
    assert {field: shown[field] for field in GOOD[name]} == GOOD[name]
    for field, default in SCHEMAS[name].defaults.items():
        assert shown[field] == GOOD[name].get(field, default)


@pytest.mark.parametrize(("name", "wrong", "message"), BAD)
def test_a_wrong_value_is_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    device = Replica(3, SCHEMAS[name])
    with pytest.raises(ValidationError) as caught:
        device.create({**GOOD[name], **wrong})
    assert str(caught.value) == message


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_record_without_what_it_needs_is_refused(name: str) -> None:
    schema = SCHEMAS[name]
    missing = schema.required[-1]
    values = {field: value for field, value in GOOD[name].items() if field != missing}
    with pytest.raises(ValidationError) as caught:
        Replica(3, schema).create(values)
    assert str(caught.value) == f"{missing}: is required for a {name}"


@pytest.mark.parametrize(("name", "of_field", "of_office", "shown", "conflicts"), APART)
def test_edits_made_apart_merge_as_their_guides_say(
    name: str, of_field: Any, of_office: Any, shown: dict[str, Any], conflicts: list[str]
) -> None:
    field, office, admin = (Replica(number, SCHEMAS[name]) for number in (0, 1, 3))
    admin.create(GOOD[name])
    meet(admin, field, office)
    for device, changes in ((field, of_field), (office, of_office)):
        device.now_ms = office.now_ms + 60_000
        device.clock.last = admin.clock.last
        if changes:
            device.set(changes)
    meet(admin, field, office)
    for device in (admin, field, office):
        seen = device.view()
        assert {each: seen.values[each] for each in shown} == shown
        assert [f"{each.kind} {'.'.join(each.path)}" for each in seen.conflicts] == conflicts


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_reference_data_is_not_written_in_the_field(name: str) -> None:
    schema = SCHEMAS[name]
    everyone = {role for role in Role if role.may_write}
    assert schema.write_roles == READ_ONLY.get(name, everyone)
    if name in READ_ONLY:
        with pytest.raises(PermissionDenied):
            Replica(0, schema, Role.FIELD).create(GOOD[name])


def test_the_rig_crews_tree() -> None:
    tree = {name: schema.parent for name, schema in SCHEMAS.items() if schema.parent}
    assert tree == {
        "subproject": Parent("project", "project_id", "refuse"),
        "daily_work_record": Parent("subproject", "subproject_id", "refuse"),
        "work_assignment": Parent("daily_work_record", "daily_work_record_id", "cascade"),
        "time_record": Parent("daily_work_record", "daily_work_record_id", "cascade"),
        "charge_record": Parent("daily_work_record", "daily_work_record_id", "cascade"),
        "charge_item": Parent("charge_record", "charge_record_id", "cascade"),
        "task": Parent("volunteer_project", "project_id", "keep"),
    }
    assert {parent.type for parent in tree.values()} <= SCHEMAS.keys()


def test_a_task_list_is_not_deleted_on_mobile_and_an_edit_from_there_outlives_the_webs() -> None:
    mobile, web = Replica(0, SCHEMAS["todo"], Role.FIELD), Replica(1, SCHEMAS["todo"], Role.OFFICE)
    mobile.create(GOOD["todo"])
    meet(mobile, web)
    with pytest.raises(PermissionDenied):
        mobile.delete()
    mobile.set({"is_completed": True})
    web.delete()
    meet(mobile, web)
    assert not web.view().deleted
    assert web.view().values["is_completed"] is True


@pytest.mark.parametrize(
    ("name", "change", "deleted", "conflicts"),
    [
        ("volunteer", {"phone": "1"}, False, ["open $deleted"]),
        ("work_order", {"status": "assigned"}, False, ["auto $deleted"]),
        ("daily_work_record", {"notes": "x"}, False, ["auto $deleted"]),
        ("citizen_profile", {"phone": "1"}, True, ["auto $deleted"]),
        ("task", {"time_entries.e9.hours": 1}, False, ["auto $deleted"]),
    ],
)
def test_a_delete_on_one_device_and_an_edit_on_another(
    name: str, change: Any, deleted: bool, conflicts: list[str]
) -> None:
    field, office = Replica(0, SCHEMAS[name]), Replica(1, SCHEMAS[name])
    office.create(GOOD[name])
    meet(field, office)
    field.set(change)
    office.delete()
    meet(field, office)
    for device in (field, office):
        assert device.view().deleted == deleted
        assert [f"{each.kind} {'.'.join(each.path)}" for each in device.view().conflicts] == conflicts


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_servers_number_comes_later_and_once(name: str) -> None:
    schema: RecordSchema = SCHEMAS[name]
    if "server_id" not in schema.fields:
        return
    number: Any = 17 if schema.fields["server_id"].types == ("integer",) else "17"
    device = Replica(1, schema)
    device.create(GOOD[name])
    device.set({"server_id": number})
    with pytest.raises(ValidationError) as caught:
        device.set({"server_id": number * 2})
    assert str(caught.value) == f"server_id: is written once, and it is {number!r} already"
