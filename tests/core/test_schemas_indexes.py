"""`x-indexes`: which fields may be found fast, with every problem where it stands."""

from __future__ import annotations

import pytest

from crdt_sync.errors import SchemaError
from crdt_sync.schemas import load_schema
from crdt_sync.schemas.compare import compare

GOOD = """\
x-type: job
properties:
  status: {type: string}
  cost: {type: [number, "null"]}
  tags: {type: array, items: {type: string}, x-merge: set}
  parts: {type: object, x-merge: rows, additionalProperties: {properties: {qty: {type: number}}}}
  notes: {type: string, x-merge: text}
  photo: {type: string, contentEncoding: base64}
  place: {type: object}
"""
"""Nine lines; what follows is on line 10."""


def problem_of(line: str) -> tuple[int, int, str]:
    with pytest.raises(SchemaError) as caught:
        load_schema(GOOD + line, source="job.yaml")
    (problem,) = caught.value.problems
    return problem.line, problem.column, problem.message


def test_indexes_are_fields_or_lists_of_fields() -> None:
    assert load_schema(GOOD, source="job.yaml").indexes == ()
    schema = load_schema(GOOD + "x-indexes: [status, [status, cost]]\n", source="job.yaml")
    assert schema.indexes == (("status",), ("status", "cost"))


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        (
            "x-indexes: [statsu]",
            13,
            "x-indexes names 'statsu', which is not in properties; did you mean 'status'?",
        ),
        ("x-indexes: [cost, [status, tags]]", 28, "tags is a set: an index finds records by one value"),
        ("x-indexes: [parts]", 13, "parts has rows: an index finds records by one value"),
        ("x-indexes: [photo]", 13, "photo holds bytes and cannot be in an index"),
        ("x-indexes: [place]", 13, "place holds no single values and cannot be in an index"),
        (
            "x-indexes: [notes]",
            13,
            "notes is text that people edit together; index a field with one value",
        ),
        ("x-indexes: [[status, status]]", 22, "status stands twice in one index"),
        ("x-indexes: [status, status]", 21, "x-indexes has status twice"),
        ("x-indexes: [[]]", 13, "an index needs a field"),
        (
            "x-indexes: status",
            12,
            "x-indexes must be a list of fields or lists of fields, such as [status, [asset_id, due_on]]",
        ),
        ("x-indexes: [x" + ", x" * 16 + "]", 12, "x-indexes may have 16 entries, not 17"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(line: str, column: int, message: str) -> None:
    if "17" in message:
        with pytest.raises(SchemaError) as caught:
            load_schema(GOOD + line, source="job.yaml")
        assert (10, column, message) in [(p.line, p.column, p.message) for p in caught.value.problems]
    else:
        assert problem_of(line) == (10, column, message)


def test_another_index_is_a_safe_change() -> None:
    old = load_schema(GOOD + "x-version: 1\n", source="a")
    new = load_schema(GOOD + "x-version: 2\nx-indexes: [status]\n", source="b")
    (change,) = compare(old, new)
    assert (change.kind, change.safety) == ("indexes", "safe")
