"""Conditions as people type them, and as they are shown again."""

from __future__ import annotations

import pytest

from crdt_sync_client import field, find_schema
from crdt_sync_client.cli.conditions import in_words, parse_conditions
from crdt_sync_client.engine.filters import ALWAYS, Filter, nothing


@pytest.mark.parametrize(
    "typed",
    [
        ("status=assigned",),
        ("status!=closed", "cost>100"),
        ("cost<=99.5",),
        ("title^=Swap",),
        ("root_cause=null",),
        ("tags=urgent",),
        ("status in open,assigned",),
        ('parts_used."seal 1.2".qty>=2',),
    ],
)
def test_a_condition_is_shown_as_it_was_typed(typed: tuple[str, ...]) -> None:
    schema = find_schema("work_order")
    shown = in_words(parse_conditions(schema, typed))
    assert shown == " and ".join(typed)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (ALWAYS, "all of them"),
        (nothing, "none of them"),
        ((field("cost") > 5) | (field("status") == "open"), "cost>5 or status=open"),
        (~(field("cost") > 5), "not (cost>5)"),
        (
            (field("cost") > 5) & ((field("status") == "open") | (field("title") == "A")),
            "cost>5 and (status=open or title=A)",
        ),
    ],
)
def test_what_cannot_be_typed_is_said_in_words(condition: Filter, words: str) -> None:
    assert in_words(condition) == words
