"""What a field takes, what it makes of it, and what it says about what it does not take."""

from __future__ import annotations

import datetime
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.errors import PermissionDenied, ValidationError
from crdt_sync.records.writes import check_value
from crdt_sync.roles import Role
from crdt_sync.schemas import load_schema, to_json
from crdt_sync.schemas.builtin import schema_type

SCHEMA = load_schema(
    """\
x-type: pump
required: [title]
properties:
  title: {type: string, minLength: 2, maxLength: 10}
  code: {type: string, pattern: "^[A-Z]+$"}
  state: {type: string, enum: [draft, done], default: draft}
  day: {type: string, anyOf: [{format: date}, {format: date-time}]}
  at: {type: string, format: date-time}
  count: {type: integer, minimum: 0, exclusiveMaximum: 100}
  cost: {type: [number, "null"], multipleOf: 0.5}
  done: {type: boolean, default: false}
  either: {type: [integer, string]}
  any: {}
  photo: {type: string, contentEncoding: base64}
  points: {type: array, items: {type: number}, maxItems: 3, uniqueItems: true}
  place: {type: object, properties: {x: {type: number}}, required: [x], additionalProperties: false}
  total: {type: integer, x-merge: counter}
  tags: {type: array, items: {type: string, maxLength: 2000}, x-merge: set, default: [new]}
  parts:
    type: object
    x-merge: rows
    propertyNames: {pattern: "^[A-Z]"}
    additionalProperties:
      type: object
      properties:
        qty: {type: number, minimum: 0}
        pic: {type: string, contentEncoding: base64}
""",
    source="pump.yaml",
)
MIB = 1024 * 1024


def check(field: str, value: Any) -> Any:
    return SCHEMA.fields[field].check(value, field)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("title", "pump", "pump"),
        ("day", "2004-07-01", "2004-07-01"),
        ("day", "2004-07-01T10:00:00+02:00", "2004-07-01T10:00:00+02:00"),
        ("count", 3, 3),
        ("count", 3.0, 3),
        ("cost", 3, 3),
        ("cost", 3.0, 3.0),
        ("cost", None, None),
        ("code", None, None),
        ("either", "3", "3"),
        ("either", 3, 3),
        ("any", {"a": [1, 2.5, None, True, "é"]}, {"a": [1, 2.5, None, True, "é"]}),
        ("any", 2**63 - 1, 2**63 - 1),
        ("any", nested(32), nested(32)),
        ("any", "x" * MIB, "x" * MIB),
        ("photo", b"\x00\xff", b"\x00\xff"),
        ("photo", bytearray(b"a"), b"a"),
        ("photo", memoryview(b"a"), b"a"),
        ("points", (1, 2.5), [1, 2.5]),
        ("place", {"x": 1}, {"x": 1}),
        ("total", 5.0, 5),
        ("tags", ["b", "a", "b"], ["b", "a"]),
        ("tags", {"b", "a"}, ["a", "b"]),
        ("parts", {"A": {"qty": 1, "pic": b"p"}, "B": None, "C": {"qty": None}},
         {"A": {"qty": 1, "pic": b"p"}, "B": None, "C": {"qty": None}}),
    ],
)  # fmt: skip
def test_a_value_is_taken_in_its_stored_form(field: str, value: Any, stored: Any) -> None:
    taken = check(field, value)
    assert taken == stored
    assert type(taken) is type(stored)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("title", None, "title: is required and cannot be cleared"),
        ("title", 3, "title: takes text, got the number 3"),
        ("title", True, "title: takes text, got true"),
        ("title", b"abc", "title: does not hold bytes"),
        ("title", "x", "title: has 1 character, at least 2 are needed"),
        ("title", "x" * 11, "title: has 11 characters, at most 10 are allowed"),
        ("title", "a\ud800b", "title: is not valid Unicode text (it has half of a surrogate pair)"),
        ("code", "a b", "code: 'a b' does not match the pattern ^[A-Z]+$"),
        ("code", "x" * 99, "code: '" + "x" * 39 + "…' does not match the pattern ^[A-Z]+$"),
        ("state", "finished", "state: 'finished' is not one of draft, done"),
        ("state", "don", "state: 'don' is not one of draft, done; did you mean 'done'?"),
        ("state", 1, "state: takes text, got the number 1"),
        ("day", "tomorrow",
         "day: 'tomorrow' is not a date such as 2026-11-05 "
         "or a date and time with its zone such as 2026-11-05T14:30:00Z"),
        ("day", datetime.date(2004, 7, 1), "day: takes dates and times as ISO text, got a Python date"),
        ("at", "2004-07-01 10:00",
         "at: '2004-07-01 10:00' is not a date and time with its zone such as 2026-11-05T14:30:00Z"),
        ("count", True, "count: takes a whole number, got true"),
        ("count", "3", "count: takes a whole number, got text ('3')"),
        ("count", 2.5, "count: takes a whole number, got the number 2.5"),
        ("count", -1, "count: must be at least 0, got -1"),
        ("count", 100, "count: must be less than 100, got 100"),
        ("count", 1e300, "count: is too large a float to be read as a whole number"),
        ("count", 2**63, "count: is too large a whole number; 64 bits are the most"),
        ("cost", math.nan, "cost: must be a finite number, got NaN or infinity"),
        ("cost", -math.inf, "cost: must be a finite number, got NaN or infinity"),
        ("cost", 0.3, "cost: must be a multiple of 0.5, got 0.3"),
        ("done", 1, "done: takes true or false, got the number 1"),
        ("either", [1], "either: takes a whole number or text, got a list"),
        ("any", {"a": [math.inf]}, "any: must be a finite number, got NaN or infinity"),
        ("any", {1: 2}, "any: needs text as keys, got the number 1"),
        ("any", {"a": b"x"}, "any: does not hold bytes"),
        ("any", object(), "any: cannot store a Python object"),
        ("any", nested(33), "any: is nested more than 32 levels deep"),
        ("any", "x" * (MIB + 1), "any: is larger than 1 MiB"),
        ("any", ["é" * (MIB // 4)] * 3, "any: is larger than 1 MiB"),
        ("any", [0] * 10_001, "any: has more than 10,000 elements"),
        ("photo", "YQ==", "photo: takes bytes, got text ('YQ==')"),
        ("photo", b"x" * (MIB + 1), "photo: is larger than 1 MiB"),
        ("points", [1, "x"], "points[1]: takes a number, got text ('x')"),
        ("points", [1, 2, 3, 4], "points: has 4 elements, at most 3 are allowed"),
        ("points", [1, 1], "points: has an element twice"),
        ("place", {"x": 1, "y": 2}, "place: has no place for 'y'"),
        ("place", {}, "place: lacks 'x'"),
        ("total", 1.5, "total: takes a whole number, got the number 1.5"),
        ("tags", "a,b", "tags: takes a list of elements, got text ('a,b')"),
        ("tags", ["a", 1], "tags[1]: takes text, got the number 1"),
        ("tags", ["a", None], "tags[1]: an element of a set cannot be null"),
        ("tags", ["x" * 1023], "tags[0]: is too long for an element of a set: 1024 characters"),
        ("parts", [1], "parts: takes rows by key, got a list"),
        ("parts", {"A": 1}, "parts.A: takes a row of fields, got the number 1"),
        ("parts", {"A": {"qyt": 1}}, "parts.A.qyt: there is no such field; did you mean 'qty'?"),
        ("parts", {"A": {"qty": "1"}}, "parts.A.qty: takes a number, got text ('1')"),
        ("parts", {"A": {"pic": 3}}, "parts.A.pic: takes bytes, got the number 3"),
        ("parts", {"": {}}, "parts: needs row keys of 1 to 200 characters, got 0"),
        ("parts", {"A" * 201: {}}, "parts: needs row keys of 1 to 200 characters, got 201"),
        ("parts", {"$row": {}}, "parts: cannot have the row key '$row': keys that begin with $ are reserved"),
        ("parts", {"a": {}}, "parts (row key): 'a' does not match the pattern ^[A-Z]"),
        ("parts", {1: {}}, "parts: needs text as row keys, got the number 1"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_in_plain_words(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        check(field, value)
    assert str(caught.value) == message
    assert caught.value.field == message[: len(caught.value.field)]


def test_a_cyclic_value_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(ValidationError, match="nested more than 32 levels deep"):
        check("any", cycle)


def test_checking_does_not_change_nor_share_what_it_was_given() -> None:
    given_value = {"x": 1}
    taken = check("place", given_value)
    given_value["x"] = 2
    assert taken == {"x": 1}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=10,
)


@given(st.sampled_from(sorted(SCHEMA.fields)), VALUES)
def test_whatever_is_taken_can_be_written_to_a_document_and_read_back(field: str, value: Any) -> None:
    try:
        taken = check(field, value)
    except ValidationError:
        return
    check_value(taken)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(taken)) == taken
    assert check(field, taken) == taken
    assert SCHEMA.from_json({field: msgspec.json.decode(msgspec.json.encode(to_json(taken)))}) == {
        field: taken
    }


def test_an_element_and_a_subfield_are_checked_alone() -> None:
    tags = SCHEMA.fields["tags"]
    assert tags.check_element("a", "tags") == "a"
    with pytest.raises(ValidationError, match="tags: takes text, got the number 1"):
        tags.check_element(1, "tags")
    with pytest.raises(ValidationError, match="title: is not a set but merges by register"):
        SCHEMA.fields["title"].check_element("a", "title")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("title",), "title"),
        (("parts",), "parts"),
        (("parts", "A"), "parts"),
        (("parts", "A", "$deleted"), "parts"),
        (("parts", "A", "qty"), "qty"),
        (("tags", '"a"'), "tags"),
    ],
)
def test_every_path_of_a_document_has_its_field(path: tuple[str, ...], name: str) -> None:
    assert SCHEMA.field_at(path).name == name


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("titel",), "titel: a pump has no field 'titel'; did you mean 'title'?"),
        (("zzz", "A"), "zzz.A: a pump has no field 'zzz'"),
        ((), "(no field): a pump has no field ''"),
        (("title", "x"), "title.x: title has no fields of its own"),
        (("parts", "A", "qyt"), "parts.A.qyt: there is no such field; did you mean 'qty'?"),
        (("parts", "A", "qty", "x"), "parts.A.qty.x: parts.A.qty has no fields of its own"),
        (("tags", "a", "b"), "tags.a.b: tags has no fields of its own"),
        (("parts", "$x", "qty"), "parts: cannot have the row key '$x': keys that begin with $ are reserved"),
    ],
)
def test_a_path_without_field_names_the_nearest(path: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SCHEMA.field_at(path)
    assert str(caught.value) == message


def test_defaults_fill_what_is_missing_and_are_not_shared() -> None:
    values = SCHEMA.with_defaults({"title": "pump", "done": None})
    assert values == {"title": "pump", "done": None, "state": "draft", "tags": ["new"]}
    values["tags"].append("x")
    assert SCHEMA.with_defaults({})["tags"] == ["new"]


def test_what_is_required_must_be_there() -> None:
    SCHEMA.check_required({"title": "x"})
    for values in ({}, {"title": None}):
        with pytest.raises(ValidationError) as caught:
            SCHEMA.check_required(values)
        assert str(caught.value) == "title: is required for a pump"
        assert caught.value.hint == "give it a value: title=…"


def test_everything_that_is_missing_is_named() -> None:
    schema = load_schema(
        "x-type: pump\nrequired: [a, b, c]\nproperties: {a: {}, b: {}, c: {}}\n", source="pump.yaml"
    )
    with pytest.raises(ValidationError) as caught:
        schema.check_required({})
    assert str(caught.value) == "a: is required for a pump (and so are b, c)"
    with pytest.raises(ValidationError) as caught:
        schema.check_required({"a": 1})
    assert str(caught.value) == "b: is required for a pump (and so is c)"


def test_only_the_roles_of_a_type_may_write_it() -> None:
    SCHEMA.require_writer(Role.FIELD)
    with pytest.raises(PermissionDenied) as caught:
        SCHEMA.require_writer(Role.READER)
    assert str(caught.value) == "a device with role reader may not write records of type pump"
    with pytest.raises(PermissionDenied) as caught:
        schema_type().require_writer(Role.OFFICE)
    assert caught.value.hint == "ask a device with role admin"
