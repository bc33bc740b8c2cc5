"""The conflicts that the five applications describe, each played by devices with the record types that ship.

Rig crews, mobile maintenance, volunteers, citizen reports and the plain task list: who edits what apart, and
what everybody has to show afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import PermissionDenied, ValidationError
from crdt_sync.ids import RecordId
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.roles import Role
from crdt_sync_client.engine.model import (
    ConflictEntry,
    CreateOp,
    DeleteOp,
    ResolveOp,
    RestoreOp,
    RestoreVersionOp,
    UpdateOp,
)
from tests.client.engine_world import Peer, World

SCHEMAS = Path(__file__).parents[2] / "schemas"
DAY_MS = 86_400_000
TYPES = (
    "work_order", "asset", "daily_work_record", "time_record", "volunteer", "volunteer_project", "task",
    "citizen_report", "citizen_profile", "todo",
)  # fmt: skip
SUBPROJECT = "5f3e0f5e-0000-4000-8000-000000000001"


class Team:
    """An office, a supervisor and two people in the field, each with a device."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory, schemas=tuple((SCHEMAS / f"{name}.yaml").read_text() for name in TYPES))
        self.admin = self.world.office
        self.office = self.world.join("office desk", Role.OFFICE)
        self.supervisor = self.world.join("supervisor", Role.SUPERVISOR)
        self.field = self.world.join("field", Role.FIELD)
        self.other = self.world.join("other field", Role.FIELD)

    def start(self, type: str, values: dict[str, Any], by: Peer | None = None) -> RecordId:
        """A record that everybody has."""
        id = (by or self.office).write(CreateOp(type, values))[0].id
        self.world.settle()
        return id

    def meet(self) -> None:
        self.world.settle()
        self.world.assert_converged()

    def shown(self, type: str, id: RecordId) -> dict[str, Any]:
        """What every device shows."""
        seen = [peer.get(id, type).values for peer in self.world.peers]
        assert all(values == seen[0] for values in seen)
        return seen[0]

    def conflicts(self, id: RecordId, state: str) -> dict[str, ConflictEntry]:
        """By field; the same on every device."""
        found = [
            {
                each.field: each
                for each in peer.engine.conflicts(open_only=False, record=id)
                if each.state == state
            }
            for peer in self.world.peers
        ]
        ids = [{field: each.id for field, each in entries.items()} for entries in found]
        assert all(each == ids[0] for each in ids)
        return found[0]

    def is_gone(self, type: str, id: RecordId) -> bool:
        gone = {peer.engine.get(type, id) is None for peer in self.world.peers}
        assert len(gone) == 1
        return gone.pop()


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    team = Team(tmp_path)
    yield team
    team.world.close()


def write(peer: Peer, type: str, id: RecordId, changes: dict[str, Any]) -> None:
    peer.write(UpdateOp(type, id, changes))


def values_in(conflict: ConflictEntry) -> set[Any]:
    return {each.value for each in conflict.alternatives}


# Rig crews: checked out, edited offline, checked in ----------------------------------------------------


DAY = {"subproject_id": SUBPROJECT, "date": "2026-11-05", "status": "in_progress"}


def test_rig_crews_conflicting_notes_wait_for_a_person_and_the_status_does_not(team: Team) -> None:
    """Of the two conflicting fields `notes` is for a person, and for `status` the last write wins."""
    id = team.start("daily_work_record", DAY, team.field)
    write(team.field, "daily_work_record", id, {"notes": "Pulled 20 joints", "status": "pending"})
    write(team.other, "daily_work_record", id, {"notes": "Waited on cement", "status": "in_review"})
    team.meet()
    assert team.shown("daily_work_record", id)["status"] == "in_review"
    assert values_in(team.conflicts(id, "open")["notes"]) == {"Pulled 20 joints", "Waited on cement"}
    assert values_in(team.conflicts(id, "auto")["status"]) == {"pending", "in_review"}
    notes = team.conflicts(id, "open")["notes"]
    team.field.write(ResolveOp(notes.id, value="Waited on cement, then pulled 20 joints"))
    team.meet()
    assert team.shown("daily_work_record", id)["notes"] == "Waited on cement, then pulled 20 joints"
    assert team.conflicts(id, "open") == {}


def test_rig_crews_a_review_stands_against_the_crews_later_status(team: Team) -> None:
    id = team.start("daily_work_record", DAY | {"status": "in_review"}, team.field)
    write(team.supervisor, "daily_work_record", id, {"status": "approved", "is_locked": True})
    write(team.field, "daily_work_record", id, {"status": "in_progress", "is_locked": False})
    team.meet()
    shown = team.shown("daily_work_record", id)
    assert (shown["status"], shown["is_locked"]) == ("approved", True)


def test_rig_crews_what_was_created_offline_gets_one_server_id(team: Team) -> None:
    """The back office fills the id in once; a second, different one is a matter for a person."""
    id = team.start("daily_work_record", DAY, team.field)
    write(team.office, "daily_work_record", id, {"server_id": 456})
    team.meet()
    with pytest.raises(ValidationError, match="is written once, and it is 456 already"):
        write(team.office, "daily_work_record", id, {"server_id": 457})
    other = team.start("daily_work_record", DAY, team.field)
    write(team.office, "daily_work_record", other, {"server_id": 789})
    write(team.supervisor, "daily_work_record", other, {"server_id": 790})
    team.meet()
    assert values_in(team.conflicts(other, "open")["server_id"]) == {789, 790}


def test_rig_crews_hours_of_two_people_do_not_meet(team: Team) -> None:
    day = team.start("daily_work_record", DAY, team.field)
    row = {"daily_work_record_id": day, "start_time": "6:00"}
    one = team.field.write(CreateOp("time_record", row | {"employee_id": 1}))[0].id
    two = team.other.write(CreateOp("time_record", row | {"employee_id": 2}))[0].id
    team.meet()
    write(team.field, "time_record", one, {"stop_time": "18:00"})
    write(team.office, "time_record", one, {"stop_time": "17:00", "role_id": 7})
    write(team.other, "time_record", two, {"travel_time": "1:30"})
    team.meet()
    shown = team.shown("time_record", one)
    assert (shown["stop_time"], shown["role_id"]) == ("18:00", 7)
    assert team.shown("time_record", two)["travel_time"] == "1:30"
    assert team.conflicts(one, "open") == team.conflicts(two, "open") == {}


# Mobile maintenance: the four strategies ---------------------------------------------------------------


def order(team: Team, **values: Any) -> RecordId:
    start = {"title": "Replace contactor", "status": "in_progress"}
    return team.start("work_order", start | values)


def test_maintenance_server_wins_for_scheduled_dates(team: Team) -> None:
    id = order(team, scheduled_start="2026-11-05")
    write(team.office, "work_order", id, {"scheduled_start": "2026-11-09"})
    write(team.field, "work_order", id, {"scheduled_start": "2026-11-12"})
    team.meet()
    assert team.shown("work_order", id)["scheduled_start"] == "2026-11-09"
    lost = team.conflicts(id, "auto")["scheduled_start"]
    assert values_in(lost) == {"2026-11-09", "2026-11-12"}  # in the log, for manual review
    ours = next(i for i, each in enumerate(lost.alternatives) if each.value == "2026-11-12")
    team.office.write(RestoreVersionOp(lost.id, ours))
    team.meet()
    assert team.shown("work_order", id)["scheduled_start"] == "2026-11-12"


def test_maintenance_server_wins_for_a_status_that_the_supervisor_changed(team: Team) -> None:
    id = order(team)
    write(team.supervisor, "work_order", id, {"status": "on_hold"})
    write(team.field, "work_order", id, {"status": "completed"})
    team.meet()
    assert team.shown("work_order", id)["status"] == "on_hold"


def test_maintenance_asset_status_is_the_offices_and_technicians_read_it(team: Team) -> None:
    id = team.start("asset", {"name": "Feed pump 2"})
    with pytest.raises(PermissionDenied):
        write(team.field, "asset", id, {"status": "failed"})
    write(team.office, "asset", id, {"status": "maintenance"})
    write(team.admin, "asset", id, {"status": "failed"})
    team.meet()
    assert team.shown("asset", id)["status"] == "maintenance"


@pytest.mark.parametrize(
    ("field", "by_field", "by_office"),
    [
        ("measurements.P1.value", 7.5, 9),
        ("labor_records.L1.hours", 6.5, 8),
        ("tasks.T1.done", True, False),
        ("parts_used.A.qty", 2, 1),
        ("actual_end", "2026-11-05T10:00:00Z", "2026-11-05T12:00:00Z"),
    ],
)
def test_maintenance_client_wins_for_what_was_done(
    team: Team, field: str, by_field: object, by_office: object
) -> None:
    id = order(team)
    write(team.field, "work_order", id, {field: by_field})
    write(team.office, "work_order", id, {field: by_office})
    team.meet()
    shown: Any = team.shown("work_order", id)
    for name in field.split("."):
        shown = shown[name]
    assert shown == by_field
    assert team.conflicts(id, "auto").keys() == {field}


def test_maintenance_field_level_merge_of_status_and_parts(team: Team) -> None:
    """Server: in progress, one of part A. Client: completed, two of part B. Merged: completed, both parts."""
    id = order(team, status="assigned")
    write(team.office, "work_order", id, {"status": "in_progress", "parts_used.A.qty": 1})
    write(team.field, "work_order", id, {"status": "completed", "parts_used.B.qty": 2})
    team.meet()
    shown = team.shown("work_order", id)
    assert shown["status"] == "completed"
    assert shown["parts_used"] == {"A": {"qty": 1}, "B": {"qty": 2}}


def test_maintenance_root_cause_and_completion_notes_are_for_a_person_field_by_field(team: Team) -> None:
    """Keep mine for one field, use the server's for the other; the trail says who did it, and how."""
    id = order(team)
    write(team.field, "work_order", id, {"root_cause": "worn seal", "completion_notes": "Replaced it"})
    write(team.office, "work_order", id, {"root_cause": "cavitation", "completion_notes": "Ask the vendor"})
    team.meet()
    standing = team.conflicts(id, "open")
    assert standing.keys() == {"root_cause", "completion_notes"}
    assert set(team.field.get(id, "work_order").provisional) == standing.keys()
    team.field.write(ResolveOp(standing["root_cause"].id, keep="mine"))
    team.field.write(ResolveOp(standing["completion_notes"].id, keep="theirs"))
    team.meet()
    shown = team.shown("work_order", id)
    assert (shown["root_cause"], shown["completion_notes"]) == ("worn seal", "Ask the vendor")
    closed = team.conflicts(id, "closed")
    assert {each.resolver_name for each in closed.values()} == {"field"}
    assert {field: each.resolution for field, each in closed.items()} == {
        "root_cause": "worn seal",
        "completion_notes": "Ask the vendor",
    }


def test_maintenance_two_people_who_resolve_apart_differently_have_a_new_conflict(team: Team) -> None:
    id = order(team)
    write(team.field, "work_order", id, {"root_cause": "worn seal"})
    write(team.other, "work_order", id, {"root_cause": "cavitation"})
    team.meet()
    first = team.conflicts(id, "open")["root_cause"]
    team.field.write(ResolveOp(first.id, keep="mine"))
    team.other.write(ResolveOp(first.id, keep="mine"))
    team.meet()
    second = team.conflicts(id, "open")["root_cause"]
    assert second.id != first.id
    assert values_in(second) == {"worn seal", "cavitation"}


def test_maintenance_a_deleted_order_comes_back_with_offline_work_and_technicians_may_not_delete(
    team: Team,
) -> None:
    id = order(team)
    with pytest.raises(PermissionDenied):
        team.field.write(DeleteOp("work_order", id))
    team.office.write(DeleteOp("work_order", id))
    write(team.field, "work_order", id, {"labor_records.L1.hours": 3})
    team.meet()
    assert team.shown("work_order", id)["labor_records"] == {"L1": {"hours": 3}}
    assert team.conflicts(id, "auto").keys() == {"$deleted"}


def test_maintenance_a_week_offline(team: Team) -> None:
    """Seven days of a technician's work against seven days of the office's, then one sync."""
    id = order(team)
    for day in range(7):
        team.world.now_ms += DAY_MS
        write(team.field, "work_order", id, {f"labor_records.D{day}.hours": 8, "meter_reading": 100 + day})
        write(team.office, "work_order", id, {"priority": f"P{day}", "tags": AddElement(f"day {day}")})
    assert team.field.engine.outbox()
    team.meet()
    shown = team.shown("work_order", id)
    assert len(shown["labor_records"]) == len(shown["tags"]) == 7
    assert (shown["meter_reading"], shown["priority"]) == (106, "P6")
    assert team.field.engine.outbox() == []
    assert team.conflicts(id, "auto") == {}


# Volunteers: concurrent edits, deletes, time logged offline ----------------------------------------------


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"keep": "mine"}, "John Smith"),
        ({"keep": "theirs"}, "Jonathan Smith"),
        ({"value": "John (Jonathan) Smith"}, "John (Jonathan) Smith"),
    ],
    ids=["client wins", "server wins", "merged data"],
)
def test_volunteers_two_names_for_one_person_are_resolved_in_three_ways(
    team: Team, choice: dict[str, Any], name: str
) -> None:
    id = team.start("volunteer", {"name": "J. Smith", "email": "j@example.org"})
    write(team.field, "volunteer", id, {"name": "John Smith", "email": "john.smith@example.org"})
    write(team.office, "volunteer", id, {"name": "Jonathan Smith"})
    team.meet()
    standing = team.conflicts(id, "open")
    assert standing.keys() == {"name"}
    team.field.write(ResolveOp(standing["name"].id, **choice))
    team.meet()
    shown = team.shown("volunteer", id)
    assert (shown["name"], shown["email"]) == (name, "john.smith@example.org")


@pytest.mark.parametrize("keep", ["deleted", "record"])
def test_volunteers_delete_on_one_device_and_edit_on_another_asks_a_person(team: Team, keep: Any) -> None:
    id = team.start("volunteer", {"name": "Jane Doe"})
    team.office.write(DeleteOp("volunteer", id))
    write(team.field, "volunteer", id, {"phone": "555-0100"})
    team.meet()
    assert team.shown("volunteer", id)["phone"] == "555-0100"
    conflict = team.conflicts(id, "open")["$deleted"]
    team.supervisor.write(ResolveOp(conflict.id, keep=keep))
    team.meet()
    assert team.is_gone("volunteer", id) is (keep == "deleted")
    assert team.conflicts(id, "open") == {}


def test_volunteers_a_soft_delete_reaches_every_device_and_does_not_reappear(team: Team) -> None:
    id = team.start("volunteer", {"name": "Jane Doe"})
    team.office.write(DeleteOp("volunteer", id))
    team.meet()
    team.meet()
    assert team.is_gone("volunteer", id)
    team.office.write(RestoreOp("volunteer", id))
    team.meet()
    assert team.shown("volunteer", id)["name"] == "Jane Doe"


def test_volunteers_hours_skills_and_remarks_of_two_devices_add_up(team: Team) -> None:
    id = team.start(
        "volunteer", {"name": "Jane Doe", "hours": 10, "notes": "Speaks French.", "skills": ["first aid"]}
    )
    write(team.field, "volunteer", id, {"hours": Increment(2), "notes": "Speaks French. Has a van."})
    write(team.other, "volunteer", id, {"hours": Increment(3), "skills": AddElement("driving")})
    write(team.office, "volunteer", id, {"notes": "Speaks French and Dutch.", "last_active_on": "2026-11-05"})
    write(team.field, "volunteer", id, {"last_active_on": "2026-11-04"})
    team.meet()
    shown = team.shown("volunteer", id)
    assert shown["hours"] == 15
    assert shown["notes"] == "Speaks French and Dutch. Has a van."
    assert shown["skills"] == ["driving", "first aid"]
    assert shown["last_active_on"] == "2026-11-05"
    assert team.conflicts(id, "open") == {}


def test_volunteers_time_logged_offline_brings_a_deleted_task_back(team: Team) -> None:
    project = team.start("volunteer_project", {"name": "River clean-up"})
    id = team.start("task", {"title": "North bank", "project_id": project})
    team.office.write(DeleteOp("task", id))
    write(team.field, "task", id, {"time_entries.e1.hours": 4, "status": "done"})
    write(team.other, "task", id, {"time_entries.e2.hours": 2, "status": "in_progress"})
    team.meet()
    shown = team.shown("task", id)
    assert shown["time_entries"] == {"e1": {"hours": 4}, "e2": {"hours": 2}}
    assert shown["status"] == "done"


def test_volunteers_safe_default_is_the_servers_project(team: Team) -> None:
    id = team.start("volunteer_project", {"name": "River clean-up", "start_date": "2026-05-01"})
    write(team.office, "volunteer_project", id, {"start_date": "2026-05-08"})
    write(team.field, "volunteer_project", id, {"start_date": "2026-05-15", "name": "River day"})
    team.meet()
    shown = team.shown("volunteer_project", id)
    assert (shown["name"], shown["start_date"]) == ("River day", "2026-05-08")


# Citizen reports: the three tests of the document ----------------------------------------------------------


REPORT = {"title": "Pothole on Main Street", "category": "roads"}
PLACE = {"latitude": 23.3441, "longitude": 85.3096}


def test_citizens_create_a_report_offline(team: Team) -> None:
    """Saved at once, under an id of its own; when it has arrived, the authority's number comes back."""
    id = team.field.write(CreateOp("citizen_report", REPORT | {"location": PLACE}))[0].id
    assert team.field.get(id, "citizen_report").sync_state == "pending"
    team.meet()
    assert team.field.get(id, "citizen_report").sync_state == "synced"
    write(team.office, "citizen_report", id, {"server_id": 123, "status": "assigned"})
    team.meet()
    shown = team.shown("citizen_report", id)
    assert (shown["server_id"], shown["status"], shown["location"]) == (123, "assigned", PLACE)


@pytest.mark.parametrize("resolution", ["server_wins", "client_wins", "merge"])
def test_citizens_one_report_edited_on_two_devices_offline(team: Team, resolution: str) -> None:
    id = team.start("citizen_report", REPORT, team.field)
    write(team.field, "citizen_report", id, {"category": "lighting", "description": "Two metres wide"})
    team.field.sync()
    write(team.office, "citizen_report", id, {"category": "drains", "severity": "high"})
    team.office.sync()
    team.meet()
    shown = team.shown("citizen_report", id)
    assert (shown["category"], shown["description"], shown["severity"]) == (
        "drains",
        "Two metres wide",
        "high",
    )
    conflict = team.conflicts(id, "auto")["category"]
    if resolution == "client_wins":
        team.field.write(ResolveOp(conflict.id, keep="mine"))
    elif resolution == "merge":
        team.office.write(ResolveOp(conflict.id, value="roads and drains"))
    team.meet()
    wanted = {"server_wins": "drains", "client_wins": "lighting", "merge": "roads and drains"}
    assert team.shown("citizen_report", id)["category"] == wanted[resolution]


def test_citizens_three_days_offline_ten_reports_five_updates_of_the_profile(team: Team) -> None:
    profile = team.start("citizen_profile", {"name": "Asha"}, team.field)
    for number in range(10):
        team.world.now_ms += DAY_MS // 4
        team.field.write(CreateOp("citizen_report", REPORT | {"title": f"Report {number}"}))
        if number < 5:
            write(team.field, "citizen_profile", profile, {"address": f"House {number}"})
    assert len(team.field.engine.outbox()) == 11
    team.meet()
    assert team.field.engine.outbox() == []
    assert team.office.engine.count("citizen_report") == 10
    assert team.shown("citizen_profile", profile)["address"] == "House 4"


def test_citizens_two_officers_answers_are_for_a_person(team: Team) -> None:
    id = team.start("citizen_report", REPORT, team.field)
    write(team.office, "citizen_report", id, {"resolution": "Filled on Monday"})
    write(team.supervisor, "citizen_report", id, {"resolution": "Private road"})
    team.meet()
    assert values_in(team.conflicts(id, "open")["resolution"]) == {"Filled on Monday", "Private road"}


def test_citizens_who_asks_to_be_forgotten_stays_forgotten(team: Team) -> None:
    id = team.start("citizen_profile", {"name": "Asha", "notifications": ["newsletter"]}, team.field)
    write(team.field, "citizen_profile", id, {"notifications": RemoveElement("newsletter")})
    write(team.other, "citizen_profile", id, {"notifications": []})
    team.meet()
    assert team.shown("citizen_profile", id)["notifications"] == []
    team.office.write(DeleteOp("citizen_profile", id))
    write(team.other, "citizen_profile", id, {"phone": "555-0100"})
    team.meet()
    assert team.is_gone("citizen_profile", id)
    assert team.conflicts(id, "auto").keys() == {"$deleted"}


# The plain task list: mobile always wins -------------------------------------------------------------------


def test_task_list_mobile_always_wins(team: Team) -> None:
    id = team.start("todo", {"text": "Check valve"})
    write(team.field, "todo", id, {"text": "Check both valves", "is_completed": True})
    write(team.office, "todo", id, {"text": "Check nothing", "is_completed": False, "user_id": "u1"})
    team.meet()
    shown = team.shown("todo", id)
    assert (shown["text"], shown["is_completed"], shown["user_id"]) == ("Check both valves", True, "u1")


def test_task_list_no_delete_on_mobile_and_the_webs_loses_against_an_edit(team: Team) -> None:
    id = team.start("todo", {"text": "Check valve"})
    with pytest.raises(PermissionDenied):
        team.field.write(DeleteOp("todo", id))
    team.office.write(DeleteOp("todo", id))
    write(team.field, "todo", id, {"is_completed": True})
    team.meet()
    assert team.shown("todo", id)["is_completed"] is True
