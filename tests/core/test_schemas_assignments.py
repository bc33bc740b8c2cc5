"""Values as text: the command line's `field=value` and the cells of a CSV file."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.errors import ValidationError
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.schemas import load_schema

SCHEMA = load_schema(
    """\
x-type: pump
required: [title]
properties:
  title: {type: string}
  state: {type: string, enum: [draft, done]}
  day: {type: string, format: date}
  count: {type: integer}
  cost: {type: number}
  done: {type: boolean}
  either: {type: [integer, string]}
  place: {type: object}
  points: {type: array, items: {type: number}}
  photo: {type: string, contentEncoding: base64}
  hours: {type: number, x-merge: counter}
  tags: {type: array, items: {type: string}, x-merge: set}
  sizes: {type: array, items: {type: integer}, x-merge: set}
  parts:
    type: object
    x-merge: rows
    additionalProperties:
      type: object
      properties:
        qty: {type: number}
        used: {type: integer, x-merge: counter}
        marks: {type: array, items: {type: string}, x-merge: set}
""",
    source="pump.yaml",
)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("title=Replace the seal", ("title",), "Replace the seal"),
        ("title=a=b", ("title",), "a=b"),
        ("title=", ("title",), ""),
        ("title=2", ("title",), "2"),
        ("title=true", ("title",), "true"),
        ("title= x ", ("title",), " x "),
        ('title="quoted"', ("title",), '"quoted"'),
        ("state=null", ("state",), None),
        ("day=2026-11-05", ("day",), "2026-11-05"),
        ("count=12", ("count",), 12),
        ("count=-12", ("count",), -12),
        ("count=2.0", ("count",), 2),
        ("cost=12", ("cost",), 12),
        ("cost=183.05", ("cost",), 183.05),
        ("cost=1e3", ("cost",), 1000.0),
        ("done=true", ("done",), True),
        ("done=No", ("done",), False),
        ("either=12", ("either",), 12),
        ("either=12a", ("either",), "12a"),
        ('place={"x": 1}', ("place",), {"x": 1}),
        ("points=[1, 2.5]", ("points",), [1, 2.5]),
        ("photo=AP8=", ("photo",), b"\x00\xff"),
        ("hours=5", ("hours",), 5),
        ("hours=+2", ("hours",), Increment(2)),
        ("hours=-0.5", ("hours",), Increment(-0.5)),
        ("hours+=2", ("hours",), Increment(2)),
        ("hours-=2", ("hours",), Increment(-2)),
        ("tags=a, b,", ("tags",), ["a", "b"]),
        ("tags=", ("tags",), []),
        ('tags=["a,b"]', ("tags",), ["a,b"]),
        ("tags+=a,b", ("tags",), AddElement("a,b")),
        ("tags-=a", ("tags",), RemoveElement("a")),
        ("sizes=1,2", ("sizes",), [1, 2]),
        ("sizes+=3", ("sizes",), AddElement(3)),
        ("parts.A.qty=2", ("parts", "A", "qty"), 2),
        ("parts.A-1.qty=2", ("parts", "A-1", "qty"), 2),
        ('parts."A.1=+".qty=2', ("parts", "A.1=+", "qty"), 2),
        ("parts.A.used+=1", ("parts", "A", "used"), Increment(1)),
        ("parts.A.marks+=x", ("parts", "A", "marks"), AddElement("x")),
        ("parts.A.marks=x,y", ("parts", "A", "marks"), ["x", "y"]),
        ('parts.A={"qty": 2}', ("parts", "A"), {"qty": 2}),
        ("parts.A=null", ("parts", "A"), None),
        ('parts={"A": {"qty": 2}}', ("parts",), {"A": {"qty": 2}}),
    ],
)
def test_an_assignment_is_read_by_the_type_of_its_field(text: str, path: tuple[str, ...], value: Any) -> None:
    got_path, got = SCHEMA.parse_assignment(text)
    assert (got_path, got) == (path, value)
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("title", "title: is not an assignment", "write it as field=value"),
        ("=x", "=x: is not an assignment", "write it as field=value"),
        ("", ": is not an assignment", "write it as field=value"),
        ("parts..qty=2", "parts..qty=2: is not an assignment", "write it as field=value"),
        ('parts."A.qty=2', 'parts."A.qty=2: is not an assignment', "write it as field=value"),
        ('parts."\\x".qty=2', 'parts."\\x".qty=2: has a quoted name that cannot be read', ""),
        ("titel=x", "titel: a pump has no field 'titel'; did you mean 'title'?", None),
        ("title=null", "title: is required and cannot be cleared", ""),
        ("count=2.5", "count: takes a whole number, got the number 2.5", "write a whole number, as in 3"),
        ("count=many", "count: takes a whole number, got text ('many')", "write a whole number, as in 3"),
        ("count=99999999999999999999", "count: is too large a whole number; 64 bits are the most", ""),
        ("cost=1e999", "cost: must be a finite number, got NaN or infinity", ""),
        ("cost=NaN", "cost: takes a number, got text ('NaN')", "write a number, as in 12.5"),
        ("done=maybe", "done: takes true or false, got text ('maybe')", "write true or false"),
        ("day=5.11.2026", "day: '5.11.2026' is not a date such as 2026-11-05", ""),
        ("place={x", "place: needs JSON", ""),
        ('points=["x"]', "points[0]: takes a number, got text ('x')", ""),
        ("photo=%%", "photo: is not base64 text", ""),
        ("title+=x", "title: cannot be changed with +=, only sets and counters can", "write title=VALUE"),
        ("hours+=null", "hours: needs an amount to add", ""),
        ("hours=+x", "hours: takes a number, got text ('x')", "write a number, as in 12.5"),
        ("tags=[", "tags: needs a JSON list", ""),
        ("tags.a=1", "tags.a: is an element of a set", "add it with tags+=… and remove it with tags-=…"),
        ("sizes+=x", "sizes: takes a whole number, got text ('x')", "write a whole number, as in 3"),
        ("parts=[]", "parts: takes rows by key, got a list", ""),
        ("parts.A=2", "parts.A: takes a row of fields, got the number 2", ""),
        ("parts.A=x", "parts.A: needs a JSON object of the row's fields", ""),
        ("parts.A.qyt=2", "parts.A.qyt: there is no such field; did you mean 'qty'?", ""),
        ("parts.$A.qty=2", "parts: cannot have the row key '$A': keys that begin with $ are reserved", ""),
    ],
)
def test_an_assignment_that_cannot_be_says_why(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(ValidationError) as caught:
        SCHEMA.parse_assignment(text)
    assert str(caught.value) == message
    if hint is not None:
        assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("title", "BUCKET WON'T OPEN", "BUCKET WON'T OPEN"),
        ("title", "NA", "NA"),
        ("title", "  ", None),
        ("cost", "183.05", 183.05),
        ("cost", "0", 0),
        ("cost", "NA", None),
        ("cost", "N/A", None),
        ("cost", "", None),
        ("day", "2004-07-01", "2004-07-01"),
        ("day", "NA", None),
        ("state", "NA", None),
        ("state", "done", "done"),
        ("photo", "NA", None),
        ("tags", "NA", None),
        ("tags", "a,b", ["a", "b"]),
        ("parts", '{"A": {"qty": 1}}', {"A": {"qty": 1}}),
    ],
)
def test_a_cell_is_read_by_the_type_of_its_field(field: str, text: str, value: Any) -> None:
    assert SCHEMA.parse_cell(field, text) == value


def test_a_cell_that_does_not_fit_names_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        SCHEMA.parse_cell("cost", "1,234.50")
    assert str(caught.value) == "cost: takes a number, got text ('1,234.50')"
    with pytest.raises(ValidationError, match="costs: a pump has no field 'costs'; did you mean 'cost'"):
        SCHEMA.parse_cell("costs", "1")


def test_json_carries_bytes_as_base64() -> None:
    values = SCHEMA.from_json({"photo": "AP8=", "cost": 1.5, "parts": {"A": {"qty": 1}, "B": None}})
    assert values == {"photo": b"\x00\xff", "cost": 1.5, "parts": {"A": {"qty": 1}, "B": None}}
    with pytest.raises(ValidationError, match="photo: takes base64 text, got the number 1"):
        SCHEMA.from_json({"photo": 1})


@given(st.text(max_size=30) | st.from_regex(r"(parts|tags|hours|cost|title)[.=+\-\"A$]{0,9}\w{0,5}=?.{0,5}"))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with contextlib.suppress(ValidationError):
        SCHEMA.parse_assignment(text)


@given(
    st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text(min_size=1)
)
def test_what_is_written_out_is_read_back(whole: int, number: float, text: str) -> None:
    assert SCHEMA.parse_assignment(f"count={whole}") == (("count",), whole)
    path, got = SCHEMA.parse_assignment(f"cost={number!r}")
    assert path == ("cost",)
    assert math.copysign(1, got) == math.copysign(1, number)
    assert got == number
    if text != "null":
        assert SCHEMA.parse_assignment(f"title={text}") == (("title",), text)
