"""Conditions against a schema: that their fields exist and their values fit, in the form they are compared.

Values are compared as the store's JSON has them: bytes as base64 text, true and false as 1 and 0, dates as
their ISO text. A field of format date-time is compared by the moment it names, to the millisecond, so that
08:00+02:00 equals 06:00Z; a text in it that names no moment compares like no value.

Numbers are only compared with numbers and text with text: what another version of a schema left in a field
is neither less nor greater than what it is compared with.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

from crdt_sync.errors import ValidationError
from crdt_sync.records.writes import element_key
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync.schemas.sentences import describe, shown, type_sentence
from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync_client.engine.filters import AllOf, AnyOf, Compare, Filter, Not, Op, Path, comparisons

MAX_COMPARISONS: Final = 200
MAX_DEPTH: Final = 50
"""Conditions within conditions. SQLite takes expressions of 1,000 levels; one of ours needs a few of them."""
MAX_CHOICES: Final = 1_000
"""Values of one `one_of`."""
_MAX_SQL_INT: Final = 2**63 - 1
_to_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Checked(Filter):
    """A comparison that fits its schema. `value` is as SQLite has it; for `in` and `all` a tuple of those.

    Op `all` is for whole sets: it has these elements and no others. `moment`: both sides are points in time.
    """

    path: Path
    op: Op | str
    value: Any
    moment: bool = False


def check_filter(schema: RecordSchema, condition: Filter) -> Filter:
    """The condition with every comparison a `Checked`. Raises ValidationError naming the field."""
    if sum(1 for _ in comparisons(condition)) > MAX_COMPARISONS:
        raise ValidationError("where", f"has more than {MAX_COMPARISONS} comparisons")
    return _check(schema, condition, 0)


def is_moment(spec: FieldSpec) -> bool:
    """Whether the field's values are points in time, compared as such."""
    return spec.shape == "value" and spec.json_schema.get("format") == "date-time"


def json_path(path: Path) -> str:
    """SQLite's path to a field: names as JSON text, so that any character can be in them."""
    return "$" + "".join("." + _to_json(name).decode() for name in path)


def spec_at(schema: RecordSchema, path: Path) -> FieldSpec:
    """The field, or the subfield of a row. Raises ValidationError for others, naming what is near."""
    if not all(isinstance(step, str) and step for step in path):
        raise ValidationError(".".join(map(str, path)) or "(no field)", "is not the name of a field")
    return schema.field_at(path)


def _check(schema: RecordSchema, node: Filter, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise ValidationError("where", f"has conditions within conditions more than {MAX_DEPTH} levels deep")
    if isinstance(node, Compare):
        return _check_comparison(schema, node)
    if isinstance(node, Not):
        return Not(_check(schema, node.part, depth + 1))
    if isinstance(node, (AllOf, AnyOf)):
        return type(node)(tuple(_check(schema, part, depth + 1) for part in node.parts))
    raise ValidationError("where", f"takes conditions, got {describe(node)}")


def _check_comparison(schema: RecordSchema, node: Compare) -> Filter:
    spec, name = spec_at(schema, node.path), ".".join(node.path)
    op, value = node.op, node.value
    whole = len(node.path) % 2 == 1  # a field, not a whole row or element
    if op == "=" and value is None:
        return Checked(node.path, "=", None)
    if not whole:
        raise ValidationError(name, "is not one value", hint=f"compare a field of it, as in {name}.FIELD")
    if op == "contains" or (op == "=" and spec.shape == "set" and not isinstance(value, (list, tuple, set))):
        return Checked(node.path, "contains", _element(spec, value, name))
    if spec.shape == "set":
        if op != "=":
            raise ValidationError(name, "is a set", hint="ask what it contains, or compare it as a whole")
        elements = {element_key(each): each for each in (_element(spec, each, name) for each in value)}
        return Checked(node.path, "all", tuple(elements.values()))
    if spec.shape == "rows":
        raise ValidationError(name, "has rows", hint=f"compare a field of a row, as in {name}.KEY.FIELD")
    if op == "in":
        if len(value) > MAX_CHOICES:
            raise ValidationError(name, f"is compared with more than {MAX_CHOICES:,} values")
        choices = tuple(_scalar(spec, "=", each, name) for each in value)
        return Checked(node.path, "in", choices, is_moment(spec))
    if op == "prefix":
        if not isinstance(value, str):
            raise ValidationError(name, f"can begin with a text, not with {describe(value)}")
        _require(spec, "string", value, name)
        return Checked(node.path, "prefix", _unicode(value, name))
    return Checked(node.path, op, _scalar(spec, op, value, name), is_moment(spec))


def _element(spec: FieldSpec, value: Any, name: str) -> Any:
    """One element of a set or list."""
    if spec.element_check is not None:
        types = spec.element_check.types
    elif spec.shape == "value" and (not spec.types or "array" in spec.types):
        types = ()
    else:
        raise ValidationError(name, "contains nothing: it is one value", hint="compare it with =")
    if value is None:
        raise ValidationError(name, "an element cannot be null")
    return _plain(types, _from_python(value, name, None), name)


def _scalar(spec: FieldSpec, op: str, value: Any, name: str) -> Any:
    if value is None:
        raise ValidationError(name, "null is neither less nor greater than anything", hint="ask for no value")
    if spec.is_bytes:
        if op != "=" or not isinstance(value, (bytes, bytearray, memoryview)):
            raise ValidationError(name, f"holds bytes, which only equal bytes, got {describe(value)}")
        return base64.b64encode(bytes(value)).decode()
    value = _from_python(value, name, spec.json_schema.get("format"))
    if op != "=" and isinstance(value, (list, tuple, Mapping)):
        raise ValidationError(name, f"{describe(value)} has no order")
    plain = _plain(spec.types, value, name)
    if isinstance(plain, str) and isinstance(value, str):
        _check_format(spec, plain, name)
    if op == "=":
        _check_enum(spec, value, name)
    return plain


def _from_python(value: Any, name: str, format: str | None) -> Any:
    """Python's own dates and times as the text they are stored as."""
    if isinstance(value, datetime):
        if format == "date":
            raise ValidationError(name, "is a date, got a date with a time", hint="give .date() of it")
        if value.tzinfo is None:
            raise ValidationError(name, "a time needs its zone", hint="as in datetime.now(UTC)")
        return value.isoformat()
    return value.isoformat() if isinstance(value, date) else value


def _plain(types: tuple[str, ...], value: Any, name: str) -> Any:
    """The value as SQLite's JSON functions give it, when it is of one of the types."""
    wanted: tuple[str, ...]
    plain: Any
    if isinstance(value, bool):
        wanted, plain = ("boolean",), int(value)
    elif isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise ValidationError(name, "can only be compared with a finite number")
        wanted, plain = ("number", "integer"), float(value) if abs(value) > _MAX_SQL_INT else value
    elif isinstance(value, str):
        wanted, plain = ("string",), _unicode(value, name)
    elif isinstance(value, (list, tuple)):
        wanted, plain = ("array",), _to_json(value).decode()
    elif isinstance(value, Mapping):
        wanted, plain = ("object",), _to_json(value).decode()
    else:
        raise ValidationError(name, f"cannot be compared with {describe(value)}")
    if types and not set(types) & set(wanted):
        raise ValidationError(name, type_sentence(types, value))
    return plain


def _require(spec: FieldSpec, type: str, value: Any, name: str) -> None:
    if spec.is_bytes or (spec.types and type not in spec.types):
        raise ValidationError(name, type_sentence(spec.types, value))


def _unicode(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError(name, "is not valid Unicode text (it has half of a surrogate pair)") from None
    return text


def _check_format(spec: FieldSpec, text: str, name: str) -> None:
    """A misspelt date would compare as some text, and find nonsense."""
    format = spec.json_schema.get("format")
    try:
        if format == "date":
            date.fromisoformat(text)
        elif is_moment(spec):
            moment_ms(text)
    except ValueError:
        example = "2026-03-01" if format == "date" else "2026-03-01T08:00:00Z"
        raise ValidationError(name, f"is not a {format} such as {example}") from None


def moment_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO time (without a zone: UTC) or date. Raises ValueError."""
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _check_enum(spec: FieldSpec, value: Any, name: str) -> None:
    choices = spec.json_schema.get("enum")
    if choices is None or value in choices:
        return
    words = [each for each in choices if isinstance(each, str)]
    near = did_you_mean(value, words) if isinstance(value, str) else ""
    choice = near or f"; its values are {', '.join(shown(each) for each in choices[:12])}"
    raise ValidationError(name, f"is never {shown(value)}{choice}")
