"""`--where`: conditions as text.

    status=assigned   status!=closed   cost>100   cost<=99.5   title^=Swap   root_cause=null
    tags=urgent                        a set contains it
    'status in open,assigned'          one of them
    'parts_used."seal 1.2".qty>=2'     a row key with a dot in it, in double quotes

Values are read by the field's type, as in `FIELD=VALUE` of the other commands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from .failures import UsageProblem

if TYPE_CHECKING:
    from crdt_sync.schemas.model import RecordSchema
    from crdt_sync_client.engine.filters import Compare, Filter

_PLAIN_STEP: Final = r'[^."=<>!^\s]+'
_STEP: Final = rf'(?:"(?:[^"\\]|\\.)*"|{_PLAIN_STEP})'
_CONDITION: Final = re.compile(
    rf"\s*({_STEP}(?:\.{_STEP})*)(?:\s*(!=|<=|>=|\^=|=|<|>)|\s+(in)\s)(.*)", re.DOTALL
)


def parse_conditions(schema: RecordSchema, conditions: Iterable[str]) -> Filter:
    """The condition that all of them hold. Raises UsageProblem and ValidationError."""
    from crdt_sync_client.engine.filters import AllOf

    return AllOf(tuple(_condition(schema, text) for text in conditions))


def in_words(condition: Filter) -> str:
    """As it would be typed, `and` between those that all must hold; what `--where` cannot say, in words."""
    from crdt_sync_client.engine.filters import AllOf, AnyOf, Compare, Not

    if isinstance(condition, Compare):
        return _compared(condition, "=")
    if isinstance(condition, Not):
        part = condition.part
        if isinstance(part, Compare) and part.op == "=":
            return _compared(part, "!=")
        return f"not ({in_words(part)})"
    assert isinstance(condition, (AllOf, AnyOf))
    if not condition.parts:
        return "all of them" if isinstance(condition, AllOf) else "none of them"
    word = " and " if isinstance(condition, AllOf) else " or "
    several = len(condition.parts) > 1
    return word.join(
        f"({in_words(part)})" if several and isinstance(part, (AllOf, AnyOf)) else in_words(part)
        for part in condition.parts
    )


def _compared(condition: Compare, equal: str) -> str:
    name = ".".join(step if re.fullmatch(_PLAIN_STEP, step) else json.dumps(step) for step in condition.path)
    if condition.op == "in":
        return f"{name} in {','.join(map(_value, condition.value))}"
    sign = {"=": equal, "contains": "=", "prefix": "^="}.get(condition.op, condition.op)
    return f"{name}{sign}{_value(condition.value)}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _condition(schema: RecordSchema, text: str) -> Filter:
    from crdt_sync.schemas.assignments import parse_operand
    from crdt_sync_client.engine.filters import field

    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageProblem(
            f"--where {text[:60]!r} is no condition",
            hint="write FIELD=VALUE, or != < <= > >= ^= in place of =, or 'FIELD in A,B'",
        )
    dotted, sign, word, value = match.groups()
    path = tuple(_step(step) for step in re.findall(_STEP, dotted))
    spec, name, here = schema.field_at(path), ".".join(path), field(*path)

    def operand(part: str) -> Any:
        return parse_operand(spec, name, part)

    if word:
        parts = [operand(part.strip()) for part in value.split(",") if part.strip()]
        return here.one_of(*parts)
    if sign == "^=":
        return here.starts_with(value)
    compared = operand(value if sign in ("=", "!=") else value.strip())
    signs: dict[str, Callable[[], Filter]] = {
        "=": lambda: here == compared,
        "!=": lambda: here != compared,
        "<": lambda: here < compared,
        "<=": lambda: here <= compared,
        ">": lambda: here > compared,
        ">=": lambda: here >= compared,
    }
    return signs[sign]()


def _step(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        step: str = json.loads(text)
    except ValueError:
        raise UsageProblem(f"--where has a quoted name that cannot be read: {text[:40]}") from None
    return step
