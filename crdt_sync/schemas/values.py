"""What a value may be, before and beyond what its schema says.

Every value must survive msgpack, JSON and SQLite unchanged, on every device: text without lone
surrogates, whole numbers of 64 bits, finite floats, lists and objects of bounded depth and size, bytes
only where the schema declares them (JSON has none: they travel as base64 text there).

A whole number that comes as a float (2.0 for an integer field) is taken as the whole number it is:
JSON writers in other languages cannot tell the two apart. True and False are never numbers.

JSON Schema does the rest: `ValueCheck` holds a compiled validator for one field and puts what it finds
into plain sentences (`sentences.py`). It knows nothing of rules and documents.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any, Final, cast

import jsonschema_rs

from crdt_sync.errors import ValidationError
from crdt_sync.records.changes import Value
from crdt_sync.schemas.sentences import describe, sentence, type_sentence

MAX_VALUE_BYTES: Final = 1024 * 1024
"""1 MiB, all text and bytes of one value together. A write is part of one frame; files are attachments."""
MAX_DEPTH: Final = 32
"""Levels of lists and objects; far below what msgpack, JSON parsers and SQLite's JSON (1000) take."""
MAX_ITEMS: Final = 10_000
"""Elements of one value at all levels together; more belongs into rows or records."""
MAX_ROW_KEY_LENGTH: Final = 200
MIN_INT: Final = -(2**63)
MAX_INT: Final = 2**63 - 1
"""64 bits signed: what SQLite stores whole. (JavaScript reads up to 2**53 exactly.)"""

_SCALAR_BYTES: Final = 8


class _Budget:
    """What one value may still use."""

    __slots__ = ("items", "size_bytes")

    def __init__(self) -> None:
        self.items = MAX_ITEMS
        self.size_bytes = MAX_VALUE_BYTES

    def spend(self, size_bytes: int, field: str) -> None:
        self.items -= 1
        self.size_bytes -= size_bytes
        if self.size_bytes < 0:
            raise ValidationError(
                field,
                "is larger than 1 MiB",
                hint="keep files outside of records and store where they are",
            )
        if self.items < 0:
            raise ValidationError(
                field,
                f"has more than {MAX_ITEMS:,} elements",
                hint="use rows, or records of their own",
            )


def check_plain(value: Any, field: str) -> Value:
    """A copy of the value made of plain lists, dicts and scalars; raises ValidationError when it has none."""
    kind = type(value)
    if kind is str:
        if len(value) <= MAX_VALUE_BYTES and value.isascii():
            return cast(str, value)
    elif kind is bool or value is None or (kind is int and MIN_INT <= value <= MAX_INT):
        return cast(Value, value)
    return _plain(value, field, 0, _Budget())


def _plain(value: Any, field: str, depth: int, budget: _Budget) -> Value:
    if isinstance(value, str):
        budget.spend(_text_bytes(value, field), field)
        return value if type(value) is str else str(value)
    if value is None or isinstance(value, bool):
        budget.spend(_SCALAR_BYTES, field)
        return value
    if isinstance(value, int):
        budget.spend(_SCALAR_BYTES, field)
        if not MIN_INT <= value <= MAX_INT:
            raise ValidationError(field, "is too large a whole number; 64 bits are the most")
        return int(value)
    if isinstance(value, float):
        budget.spend(_SCALAR_BYTES, field)
        if not math.isfinite(value):
            raise ValidationError(field, "must be a finite number, got NaN or infinity")
        return float(value)
    if isinstance(value, (list, tuple, Mapping)):
        if depth == MAX_DEPTH:
            raise ValidationError(field, f"is nested more than {MAX_DEPTH} levels deep")
        budget.spend(_SCALAR_BYTES, field)
        if isinstance(value, Mapping):
            return {_key(key, field, budget): _plain(v, field, depth + 1, budget) for key, v in value.items()}
        return [_plain(element, field, depth + 1, budget) for element in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise ValidationError(
            field,
            "does not hold bytes",
            hint="declare the field as `type: string` with `contentEncoding: base64`",
        )
    if hasattr(value, "isoformat"):
        raise ValidationError(
            field, f"takes dates and times as ISO text, got {describe(value)}", hint="call .isoformat() on it"
        )
    raise ValidationError(field, f"cannot store {describe(value)}")


def _key(key: object, field: str, budget: _Budget) -> str:
    if not isinstance(key, str):
        raise ValidationError(field, f"needs text as keys, got {describe(key)}")
    budget.spend(_text_bytes(key, field), field)
    return key if type(key) is str else str(key)


def _text_bytes(text: str, field: str) -> int:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValidationError(field, "is not valid Unicode text (it has half of a surrogate pair)") from None


def check_row_key(key: object, field: str) -> str:
    """A row's key: text of 1 to 200 characters that does not begin with `$`. Raises ValidationError."""
    if not isinstance(key, str):
        raise ValidationError(field, f"needs text as row keys, got {describe(key)}")
    if not 0 < len(key) <= MAX_ROW_KEY_LENGTH:
        raise ValidationError(
            field, f"needs row keys of 1 to {MAX_ROW_KEY_LENGTH} characters, got {len(key)}"
        )
    if key.startswith("$"):
        raise ValidationError(field, f"cannot have the row key {key!r}: keys that begin with $ are reserved")
    _text_bytes(key, field)
    return key if type(key) is str else str(key)


_HOW_TO_WRITE: Final = {
    "string": "write it as text",
    "number": "write a number, as in 12.5",
    "integer": "write a whole number, as in 3",
    "boolean": "write true or false",
    "array": 'write a list, as in ["a", "b"]',
    "object": 'write an object, as in {"a": 1}',
    "null": "leave it empty",
}


class ValueCheck:
    """The compiled check of one value. Call it with the value and the dotted path for messages."""

    __slots__ = ("_integral", "_is_bytes", "_validator", "types")

    def __init__(
        self, validator: jsonschema_rs.Draft202012Validator, types: tuple[str, ...], *, is_bytes: bool = False
    ) -> None:
        self._validator = validator
        self.types = types
        self._is_bytes = is_bytes
        self._integral = "integer" in types and "number" not in types

    def __call__(self, value: Any, field: str) -> Value:
        """The value in the form it is stored in. Raises ValidationError."""
        if self._is_bytes:
            return _check_bytes(value, field)
        checked: Value = check_plain(value, field)
        if self._integral and isinstance(checked, float) and checked.is_integer():
            # Beyond 2**53 a float no longer says which whole number was meant.
            if abs(checked) > 2**53:
                raise ValidationError(field, "is too large a float to be read as a whole number")
            checked = int(checked)
        if self._validator.is_valid(checked):
            return checked
        raise self._error(checked, field)

    def accepts(self, value: Any) -> bool:
        """Whether the value would pass."""
        try:
            self(value, "")
        except ValidationError:
            return False
        return True

    def _error(self, value: Value, field: str) -> ValidationError:
        for error in self._validator.iter_errors(value):
            if not error.instance_path and error.kind.name == "type":
                return ValidationError(
                    field, type_sentence(self.types, value), hint=_HOW_TO_WRITE[self.types[0]]
                )
        error = next(iter(self._validator.iter_errors(value)))
        return ValidationError(_deeper(field, error.instance_path), sentence(error))


def _deeper(field: str, path: list[str | int]) -> str:
    return field + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _check_bytes(value: Any, field: str) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        hint = "base64 text is its form in JSON and on the command line" if isinstance(value, str) else ""
        raise ValidationError(field, f"takes bytes, got {describe(value)}", hint=hint)
    raw = bytes(value)
    _Budget().spend(len(raw), field)
    return raw


def bytes_from_base64(text: Any, field: str) -> bytes:
    """The bytes a base64 text stands for (RFC 4648, with padding). Raises ValidationError."""
    if not isinstance(text, str):
        raise ValidationError(field, f"takes base64 text, got {describe(text)}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValidationError(field, "is not base64 text") from None


def to_json(value: Value) -> Any:
    """The value as JSON carries it: bytes become base64 text, all else stays as it is."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {key: to_json(element) for key, element in value.items()}
    if isinstance(value, list):
        return [to_json(element) for element in value]
    return value
