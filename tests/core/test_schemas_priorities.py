"""`x-priority`: what a write counts as, and what is wrong with a keyword that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from crdt_sync.errors import SchemaError, ValidationError
from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author, DeviceId, Incarnation
from crdt_sync.records.writes import Write
from crdt_sync.roles import Role
from crdt_sync.schemas.compare import compare
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from crdt_sync.schemas.priorities import check_priority
from tests.core.test_schemas_shipped import SCHEMAS

GOOD = """x-type: job
properties:
  title: {type: string}
  status: {type: string, enum: [open, done], x-priority: {done: 3}}
  parts: {type: array, x-merge: set, x-priority: 4}
  hours: {type: number, x-priority: 6}
"""
ME = Author(DeviceId(bytes(16)), Incarnation(1))


def load(text: str) -> RecordSchema:
    return load_schema(text, source="s.yaml")


def urgency(schema: RecordSchema, **values: Any) -> int:
    return schema.priorities.of(
        [Write((name,), value, Hlc(1), Role.FIELD, ME) for name, value in values.items()]
    )


def test_a_write_is_as_urgent_as_the_most_urgent_of_what_it_assigns() -> None:
    job = load(GOOD)
    assert urgency(job, title="x") == 5
    assert urgency(job, hours=2) == 6
    assert urgency(job, hours=2, title="x") == 5
    assert urgency(job, parts="A", title="x") == 4
    assert urgency(job, status="open") == 5
    assert urgency(job, status="done", parts="A", hours=1) == 3
    assert urgency(job) == 5  # a field that was cleared


def test_a_type_has_a_priority_for_what_says_nothing() -> None:
    job = load(f"x-priority: 8\n{GOOD}")
    assert (urgency(job, title="x"), urgency(job, hours=2), urgency(job, status="open")) == (8, 6, 8)
    assert urgency(load("x-type: a\nproperties: {b: {type: string}}\n"), b="c") == 5


NUMBER = "x-priority must be a whole number from 1, which goes first, to 10"
ROWS = "{type: object, x-merge: rows, additionalProperties: {properties: {q: {type: number, x-priority: 1}}}}"


@pytest.mark.parametrize(
    ("last", "at", "message"),
    [
        ("x-priority: 0", "0", NUMBER),
        ("x-priority: high", "high", NUMBER),
        ("  a: {type: string, x-priority: 11}", "11", NUMBER),
        ("  a: {type: string, x-priority: {on: 0}}", "0", NUMBER),
        ("  a: {type: string, enum: [up], x-priority: {upp: 1}}", "upp:",
         "x-priority names 'upp', which is not in the enum; did you mean 'up'?"),
        ("  a: {type: number, x-priority: {x: 1}}", "{x",
         "only the values of a field of type string can have a priority each"),
        (f"  a: {ROWS}", "x-priority",
         "x-priority cannot stand here: a field of the record has one, not a field of its rows"),
        ("  a: {type: array, items: {x-priority: 1}}", "x-priority",
         "x-priority cannot stand here: a priority belongs to a field, not to a part of its value"),
    ],
)  # fmt: skip
def test_a_problem_of_a_priority_is_named_where_it_stands(last: str, at: str, message: str) -> None:
    with pytest.raises(SchemaError) as wrong:
        load(f"{GOOD}{last}\n")
    (problem,) = wrong.value.problems
    assert (problem.line, problem.column, problem.message) == (7, last.index(at) + 1, message)


def test_another_priority_in_the_next_version_is_a_safe_change() -> None:
    (change,) = compare(load(f"x-version: 1\n{GOOD}"), load(f"x-version: 2\nx-priority: 2\n{GOOD}"))
    assert (change.safety, change.kind) == ("safe", "priorities")


@pytest.mark.parametrize("priority", [0, 11, -1, True, 5.0, "1", None])
def test_a_priority_that_is_given_is_a_whole_number_from_1_to_10(priority: Any) -> None:
    with pytest.raises(ValidationError, match="from 1, which goes first, to 10"):
        check_priority(priority)


def test_the_shipped_types_follow_the_maintenance_plan() -> None:
    order = SCHEMAS["work_order"]
    assert urgency(order, title="Leak", priority="emergency") == 1
    assert urgency(SCHEMAS["asset"], status="operational") == 2
    assert urgency(order, status="completed") == 3
    assert urgency(order, parts_used=None) == 4
    assert urgency(order, status="in_progress") == 5
    assert urgency(order, labor_records=None) == 6
    assert urgency(SCHEMAS["time_record"], start_time="6:00") == 6
    assert urgency(order, tags="pm") == 9
