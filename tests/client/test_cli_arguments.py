"""Arguments: from what is typed to what is asked of the device."""

from __future__ import annotations

from typing import Any

import click
import pytest

from crdt_sync.errors import ValidationError
from crdt_sync.records.changes import AddElement, Increment
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.cli.command import Duration
from crdt_sync_client.cli.failures import UsageProblem
from crdt_sync_client.cli.importing import parse_maps
from crdt_sync_client.cli.records import parse_assignments, parse_conditions

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
    ("typed", "where"),
    [
        (["title=2"], {"title": "2"}),
        (["count=2", "done=yes"], {"count": 2, "done": True}),
        (["tags=urgent"], {"tags": "urgent"}),
        (["parts.A.qty=2"], {"parts.A.qty": 2}),
        (["title=null"], {"title": None}),
    ],
)
def test_conditions_are_typed_by_the_schema(
    schema: RecordSchema, typed: list[str], where: dict[str, Any]
) -> None:
    assert parse_conditions(schema, typed) == where


@pytest.mark.parametrize("typed", [["tags=a,b"], ["title=a", "title=b"], ["tags+=a"], ['parts={"A": {}}']])
def test_conditions_compare_one_value(schema: RecordSchema, typed: list[str]) -> None:
    with pytest.raises(UsageProblem, match="compared for equality"):
        parse_conditions(schema, typed)


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
