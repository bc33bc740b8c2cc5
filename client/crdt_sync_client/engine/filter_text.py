"""Conditions as text, to be kept in a store: JSON that says what a condition is made of.

["=", ["status"], "open"]          a comparison; "in" has a list of values
["and", …], ["or", …], ["not", …]   of further conditions
"""

from __future__ import annotations

from typing import Any, Final, cast, get_args

import msgspec

from crdt_sync.errors import ValidationError
from crdt_sync_client.engine.filters import AllOf, AnyOf, Compare, Filter, Not, Op

_OPS: Final = frozenset(get_args(Op))
_encode: Final = msgspec.json.Encoder().encode


def encode_filter(condition: Filter) -> str:
    """The text of a condition. Raises ValidationError for values that have none, such as bytes."""
    return _encode(_plain(condition)).decode()


def decode_filter(text: str) -> Filter:
    """The condition of a text that `encode_filter` made. Raises ValueError for any other."""
    try:
        return _condition(msgspec.json.decode(text))
    except (msgspec.DecodeError, TypeError, IndexError, RecursionError) as exc:
        raise ValueError("not the text of a condition") from exc


def _plain(node: Filter) -> list[Any]:
    if isinstance(node, Compare):
        if isinstance(node.value, bytes):
            raise ValidationError(".".join(node.path), "bytes cannot be part of a condition that is kept")
        return [node.op, list(node.path), node.value]
    if isinstance(node, Not):
        return ["not", _plain(node.part)]
    assert isinstance(node, (AllOf, AnyOf))
    return ["and" if isinstance(node, AllOf) else "or", *map(_plain, node.parts)]


def _condition(node: Any) -> Filter:
    kind, rest = node[0], node[1:]
    if kind == "not":
        (part,) = rest
        return Not(_condition(part))
    if kind in ("and", "or"):
        return (AllOf if kind == "and" else AnyOf)(tuple(_condition(part) for part in rest))
    path, value = rest
    if kind not in _OPS or not all(isinstance(step, str) for step in path):
        raise ValueError("not the text of a condition")
    return Compare(tuple(path), cast(Op, kind), tuple(value) if kind == "in" else value)
