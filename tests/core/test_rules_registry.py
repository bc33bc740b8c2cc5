"""Rules by name, as a schema's author meets them."""

from __future__ import annotations

from typing import Any

import pytest

from crdt_sync.rules import RULE_NAMES, RuleError, build_rule, suggest

TYPE_FOR = {"set": "array", "rows": "object", "counter": "number", "max": "number", "min": "number"}


def test_every_rule_can_be_built_and_knows_its_name() -> None:
    for name in RULE_NAMES:
        assert build_rule(name, {}, TYPE_FOR.get(name, "string")).name == name
    assert [
        name for name in RULE_NAMES if build_rule(name, {}, TYPE_FOR.get(name, "string")).opens_conflict
    ] == ["manual", "once"]


@pytest.mark.parametrize(
    ("name", "options", "json_type", "message"),
    [
        ("client_win", {}, "string", "there is no merge rule 'client_win'; did you mean 'client_wins'?"),
        ("xyz", {}, "string",
         "there is no merge rule 'xyz'; the rules are "
         "register, client_wins, server_wins, manual, set, rows, counter, max, min, once, text"),
        ("register", {"prefers": []}, "string",
         "rule 'register' has no option 'prefers'; its options are prefer, order"),
        ("manual", {"prefer": []}, "string", "rule 'manual' has no option 'prefer'; it has none"),
        ("register", {"prefer": "office"}, "string",
         "option 'prefer' of rule 'register' is a list of roles, such as [supervisor, office]"),
        ("register", {"prefer": ["boss"]}, "string",
         "option 'prefer' of rule 'register': there is no role 'boss'; "
         "the roles are field, office, supervisor, admin, reader"),
        ("register", {"prefer": ["reader"]}, "string",
         "option 'prefer' of rule 'register': a reader never writes"),
        ("register", {"prefer": ["office", "office"]}, "string",
         "option 'prefer' of rule 'register' names 'office' twice"),
        ("register", {"order": ["a", "a"]}, "string", "option 'order' of rule 'register' names 'a' twice"),
        ("register", {"order": [["a"]]}, "string",
         "option 'order' of rule 'register' is a list of plain values, the weakest first"),
        ("set", {}, "string", "rule 'set' needs a field of type array, not string"),
        ("set", {"remove_wins": 1}, "array", "option 'remove_wins' is true or false"),
        ("rows", {}, ["object", "string"], "rule 'rows' needs a field of type object, not object or string"),
        ("once", {"correct": ["boss"]}, "string",
         "option 'correct' of rule 'once': there is no role 'boss'; "
         "the roles are field, office, supervisor, admin, reader"),
        ("once", {"roles": ["admin"]}, "string",
         "rule 'once' has no option 'roles'; its options are correct"),
        ("text", {}, "number", "rule 'text' needs a field of type string, not number"),
        ("text", {}, ["string", "number"],
         "rule 'text' needs a field of type string, not string or number"),
        ("max", {}, "string",
         "rule 'max' needs a field of type integer or number, or string with format date or date-time, "
         "not string"),
        ("min", {}, [],
         "rule 'min' needs a field of type integer or number, or string with format date or date-time, "
         "not any type"),
        ("counter", {}, "string", "rule 'counter' needs a field of type integer or number, not string"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(name: str, options: dict[str, Any], json_type: Any, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        build_rule(name, options, json_type)
    assert str(caught.value) == message


def test_the_nearest_name_is_suggested() -> None:
    assert suggest("registr") == "register"
    assert suggest("counters") == "counter"
    assert suggest("qqq") is None


def test_dates_can_be_compared_and_other_texts_cannot() -> None:
    assert build_rule("max", {}, ["string", "null"], ["date", "date-time"]).name == "max"
    with pytest.raises(RuleError):
        build_rule("max", {}, "string", ["date", "time"])
    with pytest.raises(RuleError):
        build_rule("min", {}, ["string", "number"], ["date"])


def test_null_is_allowed_beside_a_fitting_type() -> None:
    assert build_rule("counter", {}, ["number", "null"]).shape == "counter"
