"""Arguments: from what is typed to what is asked of the device."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.errors import ValidationError
from crdt_sync.records.changes import AddElement, Increment
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.cli.command import Duration
from crdt_sync_client.cli.conditions import parse_conditions
from crdt_sync_client.cli.failures import UsageProblem
from crdt_sync_client.cli.importing import parse_maps
from crdt_sync_client.cli.records import parse_assignments
from crdt_sync_client.engine.filters import AllOf, Compare, Filter, field

SCHEMA = """
$schema: https://json-schema.org/draft/2020-12/schema
title: Visit
x-type: visit
x-version: 1
type: object
properties:
  title: {type: string}
  count: {type: integer}
  done: {type: boolean}
  hours: {type: number, x-merge: counter}
  tags: {type: array, items: {type: string}, uniqueItems: true, x-merge: set}
  parts:
    type: object
    x-merge: rows
    additionalProperties: {type: object, properties: {qty: {type: number}}}
"""


@pytest.fixture(scope="module")
def schema() -> RecordSchema:
    return load_schema(SCHEMA, source="visit.yaml")


@pytest.mark.parametrize(
    ("typed", "changes"),
    [
        (["title=2", "count=2"], {("title",): "2", ("count",): 2}),
        (["title=a=b"], {("title",): "a=b"}),
        (["parts.A.qty=2", "parts.B.qty=1.5"], {("parts", "A", "qty"): 2, ("parts", "B", "qty"): 1.5}),
        (["tags+=x"], {("tags",): AddElement("x")}),
        (["tags+=x", "tags+=y", "tags-=old"], {("tags",): ["kept", "x", "y"]}),
        (["tags=a,b", "tags+=c"], {("tags",): ["a", "b", "c"]}),
        (["hours+=2", "hours-=0.5"], {("hours",): Increment(1.5)}),
        (["title=null"], {("title",): None}),
    ],
)
def test_assignments_become_the_changes_of_one_write(
    schema: RecordSchema, typed: list[str], changes: dict[Any, Any]
) -> None:
    assert parse_assignments(schema, typed, {"tags": ["kept", "old"]}) == changes


def test_one_field_given_twice_is_a_mistake(schema: RecordSchema) -> None:
    with pytest.raises(UsageProblem, match="title is given twice"):
        parse_assignments(schema, ["title=a", "title=b"])


def test_an_unknown_field_is_named(schema: RecordSchema) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_assignments(schema, ["titel=x"])
    assert caught.value.field == "titel"
    assert "title" in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "condition"),
    [
        ("title=2", field("title") == "2"),
        ("count=2", field("count") == 2),
        ("done=yes", Compare(("done",), "=", True)),
        ("tags=urgent", field("tags") == "urgent"),
        ("parts.A.qty=2", field("parts.A.qty") == 2),
        ("title=null", field("title").is_null()),
        ("title!=a = b", field("title") != "a = b"),
        ("count>1", field("count") > 1),
        ("count >= 1.5", field("count") >= 1.5),
        ("count<-1", field("count") < -1),
        ("count<=1", field("count") <= 1),
        ("title^=Re", field("title").starts_with("Re")),
        ("title in a, b", field("title").one_of("a", "b")),
        ('parts."seal 1.2".qty=2', field("parts", "seal 1.2", "qty") == 2),
    ],
)
def test_conditions_are_typed_by_the_schema(schema: RecordSchema, typed: str, condition: Filter) -> None:
    assert parse_conditions(schema, [typed]) == AllOf((condition,))


@pytest.mark.parametrize("typed", ["title", "=a", "tags+=a", "title~a", 'parts."A.qty=1', ""])
def test_what_is_no_condition_is_told(schema: RecordSchema, typed: str) -> None:
    with pytest.raises((UsageProblem, ValidationError)):
        parse_conditions(schema, [typed])


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_a_mistake_that_is_told(text: str) -> None:
    with suppress(UsageProblem, ValidationError):
        parse_conditions(load_schema(SCHEMA, source="test"), [text])


def test_maps() -> None:
    assert parse_maps(["title=Short text", "cost=Cost=AUD"]) == {"title": "Short text", "cost": "Cost=AUD"}
    for wrong in (["title"], ["=Cost"], ["title="], [], ["title=A", "title=B"]):
        with pytest.raises(UsageProblem):
            parse_maps(wrong)


@pytest.mark.parametrize(
    ("typed", "seconds"), [("90s", 90), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_time_spans(typed: str, seconds: int) -> None:
    assert Duration().convert(typed, None, None) == seconds


@pytest.mark.parametrize("typed", ["", "d", "7", "0d", "-1d", "1.5h", "7 d", "٣d", "1y"])
def test_wrong_time_spans(typed: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(typed, None, None)
