"""Whatever a schema file holds, loading it gives a usable schema or a `SchemaError`, and nothing else."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdt_sync.errors import SchemaError, ValidationError
from crdt_sync.schemas import load_schema

WORK_ORDER = (Path(__file__).resolve().parents[2] / "schemas" / "work_order.yaml").read_text("utf-8")
LINES = WORK_ORDER.splitlines(keepends=True)

PIECES = st.sampled_from(
    [
        "x-merge", "x-transitions", "x-delete", "x-type", "x-version", "properties", "additionalProperties",
        "items", "type", "enum", "default", "required", "rule", "prefer", "order", "roles", "pattern",
        "format", "contentEncoding", "base64", "propertyNames", "$ref", "anyOf", "not", "if",
        "maxLength", "minimum", "x-write", "x-parent", "x-aliases", "field", "on_delete", "cascade", "refuse",
        "once", "text", "max", "min", "correct", "date",
        "set", "rows", "counter", "manual", "register", "client_wins", "string", "object", "array", "number",
        "integer", "null", "true", "~", "[", "]", "{", "}", ": ", ", ", "- ", "\n", "\n  ", "\n    ", "? ",
        "&a ", "*a", "!!str ", "|\n", ">\n", "'", '"', "#", "---\n", "...\n", "%YAML 1.2\n", "\t", "\x00",
        "\ud800", "\ufeff", "\u2028", "0", "-1", "1e999", ".inf", "9" * 30, "0x", "(", "(?=a)", "[]", "{}",
        "<<",
    ]
)  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | PIECES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PIECES, inner, max_size=4),
    max_leaves=12,
)


LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def load(text: str) -> None:
    try:
        schema = load_schema(text, source="fuzz.yaml")
    except SchemaError as refused:
        check_problems(refused, text)
        return
    assert schema.fields
    assert schema.with_defaults({}).keys() <= schema.fields.keys()
    values: list[object] = [None, "x", 1, 1.5, [], {}, b"x"]
    for name, spec in schema.fields.items():
        assert schema.field_at((name,)) is spec
        for value in values:
            with contextlib.suppress(ValidationError):
                spec.check(value, name)


def check_problems(refused: SchemaError, text: str) -> None:
    assert refused.problems
    assert list(refused.problems) == sorted(set(refused.problems))
    lines = LINE_BREAK.split(text)
    for problem in refused.problems:
        assert 1 <= problem.line <= len(lines)
        assert problem.column >= 1
        assert problem.message


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    load(text)


@given(st.lists(PIECES, max_size=30).map("".join))
@example("? x-delete")  # the parser puts the missing value on a line after the last
def test_any_yaml(text: str) -> None:
    load(text)


@settings(max_examples=200)
@given(st.integers(0, len(WORK_ORDER)), st.integers(0, 40), st.lists(PIECES, max_size=3).map("".join))
def test_a_work_order_with_one_place_overwritten(at: int, length: int, piece: str) -> None:
    load(WORK_ORDER[:at] + piece + WORK_ORDER[at + length :])


@given(st.lists(st.integers(0, len(LINES) - 1), max_size=len(LINES)))
def test_a_work_order_with_lines_lost_and_doubled(numbers: list[int]) -> None:
    load("".join(LINES[number] for number in numbers))


@settings(max_examples=300)
@given(JSON, st.none() | PIECES, st.none() | JSON)
def test_a_field_with_anything_in_it(field: object, rule: str | None, kind: object) -> None:
    """JSON is YAML: a structured way to reach deep into the readers."""
    if isinstance(field, dict):
        field = {**field, **({"x-merge": rule} if rule else {}), **({"type": kind} if kind else {})}
    load(_yaml({"x-type": "pump", "properties": {"a": field}}))


@given(st.dictionaries(PIECES, JSON, max_size=5))
def test_a_record_type_with_anything_in_it(root: dict[str, object]) -> None:
    load(_yaml({"x-type": "pump", "properties": {"a": {"type": "string"}}, **root}))


def _yaml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() or c in "_$-" else f"\\U{ord(c):08x}" for c in value) + '"'
    return "null" if value is None else str(value).lower()
