"""What a validator found, in plain sentences.

A sentence goes after `field: `. It shows the value where it is short and says something (a wrong enum
value, a number out of range) and never more than `_SHOWN` characters of it: notes and descriptions do
not belong into error messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jsonschema_rs

from crdt_sync.schemas.suggest import did_you_mean

_SHOWN: Final = 40
_OPTIONS_SHOWN: Final = 20

TYPE_WORDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
FORMAT_WORDS: Final = {
    "date": "a date such as 2026-11-05",
    "date-time": "a date and time with its zone such as 2026-11-05T14:30:00Z",
    "time": "a time with its zone such as 14:30:00Z",
    "duration": "a duration such as P1DT2H",
    "email": "an e-mail address",
    "hostname": "a host name",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "uri": "a URI",
    "uri-reference": "a URI or a relative reference",
    "uuid": "a UUID",
    "json-pointer": "a JSON pointer",
    "regex": "a regular expression",
}


def shown(value: Any) -> str:
    """A scalar as a person would write it, cut to a bounded length; a collection by its kind."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…")
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, (int, float)):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**_SHOWN else "a huge number"
        return text.removesuffix(".0") if isinstance(value, int) else text
    return describe(value)


def describe(value: Any) -> str:
    """What kind of thing a value is, with the value itself where it is a short scalar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"text ({shown(value)})"
    if isinstance(value, (int, float)):
        return f"the number {shown(value)}"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(bytes(value))} bytes"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, (set, frozenset)):
        return "a set"
    if isinstance(value, Mapping):
        return "an object"
    return f"a Python {type(value).__name__}"


def type_sentence(types: Sequence[str], value: Any) -> str:
    """`takes text or a number, got true`."""
    words = [TYPE_WORDS.get(name, name) for name in types if name != "null"] or ["null"]
    return f"takes {listed(words)}, got {describe(value)}"


def sentence(error: jsonschema_rs.ValidationError) -> str:
    """What one error of a validator says, without the field."""
    write = _BY_KEYWORD.get(error.kind.name)
    return write(error, error.kind) if write else f"does not fit its schema ({error.kind.name})"


def keyword_sentence(error: jsonschema_rs.ValidationError) -> str:
    """What one error about a schema itself says, by the meta-schema or by the compiler, with its keyword."""
    keyword = next((step for step in reversed(error.instance_path) if isinstance(step, str)), "the schema")
    found = error.kind.as_dict()
    if found.get("types") == ["boolean", "object"]:
        return f"{keyword} must be a schema, such as {{type: string}}"
    if found.get("format") == "regex":
        return f"pattern {shown(error.instance)} is not a regular expression (look-around is not supported)"
    return f"{keyword} {sentence(error)}"


def listed(words: Sequence[str], last: str = " or ") -> str:
    """`a, b or c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + last + words[-1]


def _enum(error: jsonschema_rs.ValidationError, kind: Any) -> str:
    options = [option if isinstance(option, str) else shown(option) for option in kind.options]
    listed = ", ".join(options[:_OPTIONS_SHOWN]) + (", …" if len(options) > _OPTIONS_SHOWN else "")
    near = did_you_mean(error.instance, options) if isinstance(error.instance, str) else ""
    return f"{shown(error.instance)} is not one of {listed}{near}"


def _format(error: jsonschema_rs.ValidationError, kind: Any) -> str:
    return f"{shown(error.instance)} is not {FORMAT_WORDS.get(kind.format, f'of the format {kind.format}')}"


def _alternatives(error: jsonschema_rs.ValidationError, kind: Any) -> str:
    found = [errors[0] for errors in kind.context if errors]
    if found and all(each.kind.name == "format" and not each.instance_path for each in found):
        formats = [FORMAT_WORDS.get(each.kind.format, each.kind.format) for each in found]
        return f"{shown(error.instance)} is not {listed(formats)}"
    if found and all(each.kind.name == "type" and not each.instance_path for each in found):
        return type_sentence([name for each in found for name in each.kind.types], error.instance)
    each_says = "; or ".join(dict.fromkeys(sentence(each) for each in found))
    return f"fits none of the allowed forms: {each_says}"


def _length(bound: str, word: str) -> Callable[[jsonschema_rs.ValidationError, Any], str]:
    def write(error: jsonschema_rs.ValidationError, kind: Any) -> str:
        instance: Any = error.instance
        unit = "character" if isinstance(instance, str) else "element"
        plural = "s" * (len(instance) != 1)
        verb = "is" if kind.limit == 1 else "are"
        return f"has {len(instance):,} {unit}{plural}, {bound} {kind.limit:,} {verb} {word}"

    return write


def _range(word: str) -> Callable[[jsonschema_rs.ValidationError, Any], str]:
    return lambda error, kind: f"must be {word} {shown(kind.limit)}, got {shown(error.instance)}"


_BY_KEYWORD: Final[Mapping[str, Callable[[jsonschema_rs.ValidationError, Any], str]]] = {
    "type": lambda error, kind: type_sentence(kind.types, error.instance),
    "enum": _enum,
    "const": lambda error, kind: f"must be {shown(kind.expected_value)}, got {shown(error.instance)}",
    "format": _format,
    "pattern": lambda error, kind: f"{shown(error.instance)} does not match the pattern {kind.pattern}",
    "minLength": _length("at least", "needed"),
    "maxLength": _length("at most", "allowed"),
    "minItems": _length("at least", "needed"),
    "maxItems": _length("at most", "allowed"),
    "minProperties": _length("at least", "needed"),
    "maxProperties": _length("at most", "allowed"),
    "minimum": _range("at least"),
    "maximum": _range("at most"),
    "exclusiveMinimum": _range("more than"),
    "exclusiveMaximum": _range("less than"),
    "multipleOf": lambda error, kind: (
        f"must be a multiple of {shown(kind.multiple_of)}, got {shown(error.instance)}"
    ),
    "required": lambda error, kind: f"lacks {shown(kind.property)}",
    "additionalProperties": lambda error, kind: (
        f"has no place for {listed([shown(name) for name in kind.unexpected[:_OPTIONS_SHOWN]], ' and ')}"
    ),
    "uniqueItems": lambda error, kind: "has an element twice",
    "contains": lambda error, kind: "lacks an element it must contain",
    "not": lambda error, kind: f"{shown(error.instance)} is not allowed",
    "falseSchema": lambda error, kind: "is not allowed",
    "anyOf": _alternatives,
    "oneOf": lambda error, kind: (
        _alternatives(error, kind)
        if not isinstance(kind, jsonschema_rs.ValidationErrorKind.OneOfMultipleValid)
        else "fits more than one of the allowed forms"
    ),
    "propertyNames": lambda error, kind: f"has a key that does not fit: {sentence(kind.error)}",
}
