"""Values as text: `field=value` on the command line, cells of a CSV file, and JSON's form of bytes.

    title=Replace the seal            text as it stands
    cost=183.05  done=true            numbers, true and false (or yes and no) by the field's type
    cost=null                         clears the field
    parts_used.A.qty=2                a field of the row A
    parts_used."seal 1.2".qty=2       a row key with a dot in it, in double quotes
    parts_used.A={"qty": 2}           several fields of a row as JSON; null removes the row
    tags=pump,urgent                  a set as a whole; a JSON list for elements with commas
    tags+=urgent  tags-=urgent        one element of a set
    hours=+2  hours+=2  hours-=0.5    what to add to a counter
    photo=iVBORw0KGgo=                bytes as base64

The field's type decides how text is read, never how it looks: `title=2` is the text "2".
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.errors import ValidationError
from crdt_sync.records.changes import AddElement, Increment, RemoveElement, Value
from crdt_sync.schemas.values import bytes_from_base64, check_plain

if TYPE_CHECKING:
    from crdt_sync.records.writes import Path
    from crdt_sync.schemas.model import FieldSpec, RecordSchema

_SEGMENT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^."=]+')
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,30}")
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_TRUTH: Final = {"true": True, "yes": True, "false": False, "no": False}
_NOT_AVAILABLE: Final = ("NA", "N/A")
"""How R, pandas and spreadsheets write a missing value."""


def parse_assignment(schema: RecordSchema, text: str) -> tuple[Path, Any]:
    """The path and the value (or `Increment`, `AddElement`, `RemoveElement`) of one assignment.

    Raises ValidationError.
    """
    path, operator, value_text = _split(text)
    spec = schema.field_at(path)
    dotted = ".".join(path)
    # Names of fields and of what is in them (row keys, elements) alternate.
    inside = len(path) % 2 == 0
    if operator != "=" and not inside:
        return path, _relative(spec, dotted, operator, value_text)
    if inside and spec.shape == "set":
        name = ".".join(path[:-1])
        raise ValidationError(
            dotted, "is an element of a set", hint=f"add it with {name}+=… and remove it with {name}-=…"
        )
    if inside:
        return path, spec.check_row(_json(value_text, dotted, "a JSON object of the row's fields"), dotted)
    if spec.shape == "counter" and value_text[:1] in ("+", "-"):
        return path, _relative(spec, dotted, "+=", value_text)
    return path, parse_text(spec, dotted, value_text)


def _split(text: str) -> tuple[Path, str, str]:
    path: list[str] = []
    at = 0
    while match := _SEGMENT.match(text, at):
        segment = match.group()
        at = match.end()
        if segment.startswith('"'):
            try:
                segment = json.loads(segment)
            except ValueError:
                raise ValidationError(text[:40], "has a quoted name that cannot be read") from None
        elif text[at : at + 1] == "=" and segment[-1] in "+-":
            segment, at = segment[:-1], at - 1
        path.append(segment)
        if text[at : at + 1] != ".":
            break
        at += 1
    for operator in ("+=", "-=", "="):
        if text.startswith(operator, at) and path and all(path):
            return tuple(path), operator, text[at + len(operator) :]
    raise ValidationError(text[:40], "is not an assignment", hint="write it as field=value")


def _relative(spec: FieldSpec, field: str, operator: str, text: str) -> Any:
    if spec.shape == "counter":
        amount = parse_text(spec, field, text.removeprefix("+"))
        if not isinstance(amount, (int, float)):
            raise ValidationError(field, "needs an amount to add")
        return Increment(-amount if operator == "-=" else amount)
    if spec.shape == "set":
        assert spec.element_check is not None
        element = spec.check_element(_scalar(spec.element_check.types, text, field), field)
        return AddElement(element) if operator == "+=" else RemoveElement(element)
    raise ValidationError(
        field, f"cannot be changed with {operator}, only sets and counters can", hint=f"write {field}=VALUE"
    )


def parse_text(spec: FieldSpec, field: str, text: str) -> Value:
    """The value that `text` stands for in that field, checked. Raises ValidationError."""
    if text == "null":
        return spec.check(None, field)
    if spec.is_bytes:
        return spec.check(bytes_from_base64(text, field), field)
    if spec.shape == "rows":
        return spec.check(_json(text, field, "a JSON object of rows"), field)
    if spec.element_check is not None:
        if text.lstrip().startswith("["):
            return spec.check(_json(text, field, "a JSON list"), field)
        types = spec.element_check.types
        return spec.check(
            [_scalar(types, each.strip(), field) for each in text.split(",") if each.strip()], field
        )
    return spec.check(_scalar(spec.types, text, field), field)


def parse_operand(spec: FieldSpec, field: str, text: str) -> Any:
    """What text stands for when the field is compared with it: for a set one element; None for `null`.

    It is of the field's type where it looks like it, and not checked further. Raises ValidationError.
    """
    if text == "null":
        return None
    if spec.is_bytes:
        return bytes_from_base64(text, field)
    types = spec.types if spec.element_check is None else spec.element_check.types
    return _scalar(types, text, field)


def parse_cell(spec: FieldSpec, field: str, text: str) -> Value:
    """The value of one CSV cell, checked. Raises ValidationError.

    An empty cell is no value. So is `NA`, unless the field takes it as a text of its own: a title may
    be "NA", a date or a cost may not.
    """
    text = text.strip()
    if not text:
        return None
    if text in _NOT_AVAILABLE:
        takes_text = (
            spec.shape in ("value", "text")
            and not spec.is_bytes
            and (not spec.types or "string" in spec.types)
        )
        return text if takes_text and spec.value_check.accepts(text) else None
    return parse_text(spec, field, text)


def _scalar(types: tuple[str, ...], text: str, field: str) -> Any:
    """Text by the types it may have; the text itself when it looks like none of them."""
    bare = text.strip()
    if ("integer" in types or "number" in types) and _WHOLE.fullmatch(bare):
        return int(bare)
    if ("integer" in types or "number" in types) and _NUMBER.fullmatch(bare):
        return float(bare)
    if "boolean" in types and bare.lower() in _TRUTH:
        return _TRUTH[bare.lower()]
    if ("array" in types and bare.startswith("[")) or ("object" in types and bare.startswith("{")):
        return _json(bare, field, "JSON")
    return text


def _json(text: str, field: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValidationError(field, f"needs {what}") from None


def from_json(spec: FieldSpec, value: Any, field: str) -> Value:
    """A value as JSON carries it, base64 text made bytes where the field holds bytes; not checked further."""
    if value is None:
        return None
    if spec.is_bytes:
        return bytes_from_base64(value, field)
    if spec.row is not None and isinstance(value, dict):
        return {
            key: {
                name: from_json(spec.subfield(name, f"{field}.{key}"), each, f"{field}.{key}.{name}")
                for name, each in row.items()
            }
            if isinstance(row, dict)
            else row
            for key, row in value.items()
        }
    return check_plain(value, field)
