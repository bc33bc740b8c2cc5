"""`once`: filled one time, corrected by those who may, decided by a person when two filled it apart."""

from __future__ import annotations

from typing import Any

import pytest

from crdt_sync.errors import ValidationError
from crdt_sync.roles import Role
from crdt_sync.schemas import RecordSchema, load_schema
from tests.core.record_replicas import Replica, meet

LOOSE = "{rule: once, correct: [supervisor, admin]}"


def schema(rule: str = "once") -> RecordSchema:
    return load_schema(f"""\
x-type: job
properties:
  ticket: {{type: string, x-merge: {rule}}}
  note: {{type: string}}
  parts:
    type: object
    x-merge: rows
    additionalProperties: {{type: object, properties: {{serial: {{type: string, x-merge: {rule}}}}}}}
""", source="job.yaml")  # fmt: skip


def filled(rule: str = "once", role: Role | None = None) -> Replica:
    device = Replica(0, schema(rule), role)
    device.create({"note": "x"})
    device.set({"ticket": "T-17", "parts.A.serial": "S1"})
    return device


def refusal(device: Replica, changes: Any) -> ValidationError:
    before = device.doc.state()
    with pytest.raises(ValidationError) as caught:
        device.set(changes)
    assert device.doc.state() == before
    return caught.value


def test_a_filled_field_is_not_written_again_by_anybody() -> None:
    for role in (Role.FIELD, Role.OFFICE, Role.SUPERVISOR, Role.ADMIN):
        error = refusal(filled(role=role), {"ticket": "T-18"})
        assert str(error) == "ticket: is written once, and it is 'T-17' already"
        assert error.hint == "its schema names no role that may correct it (option correct of rule once)"


def test_clearing_and_rows_are_no_way_around() -> None:
    assert str(refusal(filled(), {"ticket": None})) == "ticket: is written once, and it is 'T-17' already"
    assert str(refusal(filled(), {"parts.A.serial": "S2"})) == (
        "parts.A.serial: is written once, and it is 'S1' already"
    )
    assert str(refusal(filled(), {"parts": {"A": {"serial": "S2"}}})) == (
        "parts.A.serial: is written once, and it is 'S1' already"
    )


def test_the_same_value_again_is_no_second_writing() -> None:
    device = filled()
    assert not device.set({"ticket": "T-17"})
    assert device.values["ticket"] == "T-17"


def test_a_role_that_may_correct_writes_over_it() -> None:
    device = filled(LOOSE, Role.SUPERVISOR)
    device.set({"ticket": "T-71"})
    assert device.values["ticket"] == "T-71"
    device.set({"ticket": None})
    device.set({"ticket": "T-72"})
    error = refusal(filled(LOOSE, Role.FIELD), {"ticket": "T-18"})
    assert error.hint == "a device with role supervisor or admin may correct it"


def apart(rule: str = "once") -> tuple[Replica, Replica]:
    one, two = Replica(0, schema(rule), Role.FIELD), Replica(1, schema(rule), Role.SUPERVISOR)
    one.create({"note": "x"})
    meet(one, two)
    two.now_ms -= 60_000
    two.clock.last = one.clock.last
    two.set({"ticket": "T-18"})
    one.now_ms += 60_000
    one.set({"ticket": "T-17"})
    meet(one, two)
    return one, two


def test_two_who_filled_it_apart_have_a_conflict_and_the_first_is_shown() -> None:
    for device in apart():
        (conflict,) = device.view().conflicts
        assert (conflict.kind, conflict.rule, conflict.path) == ("open", "once", ("ticket",))
        assert conflict.winner.value == "T-18"
        assert device.values["ticket"] == "T-18"
        assert device.view().provisional == (("ticket",),)


def test_a_plain_write_does_not_decide_the_conflict_but_a_decision_does() -> None:
    one, two = apart()
    for value in ("T-17", "T-18", "T-19", None):
        error = refusal(one, {"ticket": value})
        assert str(error) == "ticket: is written once and has an open conflict"
        assert error.hint == "decide the conflict"
    edit = one.resolve("ticket", "T-17")
    assert edit.resolves == [("ticket",)]
    meet(one, two)
    for device in (one, two):
        assert device.values["ticket"] == "T-17"
        assert device.view().conflicts == ()


def test_who_may_correct_decides_by_writing() -> None:
    _, supervisor = apart(LOOSE)
    assert supervisor.set({"ticket": "T-20"}).resolves == [("ticket",)]
    assert supervisor.values["ticket"] == "T-20"


def test_agreeing_apart_is_no_conflict() -> None:
    one, two = Replica(0, schema()), Replica(1, schema())
    one.create({"note": "x"})
    meet(one, two)
    one.set({"ticket": "T"})
    two.set({"ticket": "T"})
    meet(one, two)
    assert one.view().conflicts == two.view().conflicts == ()
    assert not one.set({"ticket": "T"}).resolves


def test_a_value_beats_a_clearing_made_apart() -> None:
    one, two = Replica(0, schema(LOOSE), Role.ADMIN), Replica(1, schema(LOOSE), Role.SUPERVISOR)
    one.create({"ticket": "T-1"})
    meet(one, two)
    one.set({"ticket": None})
    two.set({"ticket": "T-2"})
    meet(one, two)
    assert one.values["ticket"] == two.values["ticket"] == "T-2"
    assert [conflict.kind for conflict in one.view().conflicts] == ["open"]


def test_a_record_made_anew_is_filled_anew() -> None:
    device = filled()
    device.delete()
    device.create({"ticket": "T-99"})
    assert device.values["ticket"] == "T-99"
