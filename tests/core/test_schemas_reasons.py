"""The reasons for rules, taken from the comments of a schema."""

from __future__ import annotations

from crdt_sync.rules import RULE_NAMES
from crdt_sync.schemas import load_schema
from crdt_sync.schemas.loader import without_comments
from crdt_sync.schemas.reasons import RULE_SENTENCES, reasons

TEXT = """\
# About the type.
x-type: pump
properties:
  # The office plans,
  # and it alone.
  start: {type: string, x-merge: server_wins}
  end: {type: string, x-merge: server_wins}
  done: {type: boolean, x-merge: client_wins}

  crew: {type: string, x-merge: server_wins}
  color: {type: string, x-merge: manual}   # nobody knows
  note: {type: string, pattern: ' # no', default: " # no"}
  code: {type: string, pattern: 'a#b'}  # with # in it
  plain: {type: string}
  parts:  # by number
    type: object
    x-merge: rows
    additionalProperties:
      type: object
      properties:
        # Counted in the field.
        qty: {type: number, x-merge: client_wins}
        unit: {type: string, x-merge: client_wins}
"""


def test_reasons_stand_above_a_field_or_behind_it() -> None:
    assert reasons(load_schema(TEXT, source="pump.yaml")) == {
        ("start",): "The office plans, and it alone.",
        ("end",): "The office plans, and it alone.",
        ("color",): "nobody knows",
        ("code",): "with # in it",
        ("parts",): "by number",
        ("parts", "qty"): "Counted in the field.",
        ("parts", "unit"): "Counted in the field.",
    }


def test_a_schema_that_has_travelled_has_none() -> None:
    travelled = load_schema(without_comments(TEXT), source="the space")
    assert set(reasons(travelled)) <= {("color",), ("code",), ("parts",)}  # comments behind stay


def test_every_rule_has_a_sentence_of_its_own() -> None:
    assert RULE_SENTENCES.keys() == set(RULE_NAMES)
