"""When a record is done with, and how long devices keep it then: `x-closed`."""

from __future__ import annotations

import pytest

from crdt_sync.errors import SchemaError
from crdt_sync.schemas import load_schema
from crdt_sync.schemas.closing import Closed
from crdt_sync.schemas.compare import compare
from crdt_sync.schemas.model import RecordSchema

GOOD = """\
x-type: job
properties:
  status: {type: string, enum: [open, done]}
  tags: {type: array, items: {type: string}, x-merge: set}
  paid: {type: boolean}
"""
HOW = "x-closed is a mapping such as {field: status, values: [closed], keep_days: 90}"


def load(line: str) -> RecordSchema:
    return load_schema(GOOD + line + "\n", source="job.yaml")


def test_what_it_says() -> None:
    assert load("x-closed: {field: status, values: [done]}").closed == Closed("status", ("done",), 90)
    assert load("x-closed: {field: paid, values: [true], keep_days: 0}").closed == Closed("paid", (True,), 0)
    assert load("").closed is None


WRONG = {
    "x-closed: done": (11, HOW),
    "x-closed: {field: statuss, values: [x]}": (
        19, "x-closed names 'statuss', which is not in properties; did you mean 'status'?"
    ),
    "x-closed: {field: tags, values: [x]}": (
        19, "tags has no single value, so it cannot say that a record is closed"
    ),
    "x-closed: {field: status, values: [dome]}": (
        36, "x-closed names 'dome', which is not in the enum; did you mean 'done'?"
    ),
    "x-closed: {field: status, values: [1.5]}": (
        36, "a value by which a record is closed is a text, a whole number, true or false"
    ),
    "x-closed: {field: status, values: []}": (
        35, f"the values by which a record is closed are missing; {HOW}"
    ),
    "x-closed: {values: [done]}": (11, f"the field that says a record is closed is missing; {HOW}"),
    "x-closed: {field: status, values: [done], keep_days: -1}": (
        54, "keep_days is a whole number from 0, which is for good, to 36500"
    ),
    "x-closed: {field: status, values: [done], days: 9}": (
        43, "x-closed has no 'days'; did you mean 'keep_days'?"
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_named_where_it_stands(line: str) -> None:
    with pytest.raises(SchemaError) as caught:
        load(line)
    assert [(p.line, p.column, p.message) for p in caught.value.problems] == [(6, *WRONG[line])]


def test_another_time_is_a_safe_change() -> None:
    old, new = (load(f"x-closed: {{field: status, values: [done], keep_days: {n}}}") for n in (9, 8))
    assert ("closed", "safe") in [(change.kind, change.safety) for change in compare(old, new)]
