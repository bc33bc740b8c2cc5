"""A write: one assignment of a value to a field path, by one author at one time in one role.

On the wire and in a document a write is the MessagePack array `[path, value, hlc, role]`; its author is
the array it stands in. The encoding is canonical: map keys sorted, shortest integer forms. A write that
is not its own canonical encoding is refused, so equal writes are equal bytes everywhere.

Paths, with `$` names reserved:

    ("status",)                            a single-value field, a counter
    ("tags", '"urgent"')                   a set element, named by its canonical JSON text
    ("parts_used", "A", "qty")             a field of the row "A"
    ("parts_used", "A", "$row")            the row exists, though it has no field
    ("parts_used", "A", "$deleted")        the row was removed; the value is the context of the removal
    ("$record",)                           the record exists, though it has no field
    ("$deleted",)                          the record was deleted; the value is the context

A *context* is a map from array name to the last time seen from that author under the path. Times of one
author strictly grow and arrive in order, so a context says exactly which writes its author had seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

import msgspec

from crdt_sync.hlc import MAX_HLC, Hlc
from crdt_sync.ids import Author
from crdt_sync.records.changes import Value
from crdt_sync.roles import Role

Path: TypeAlias = tuple[str, ...]
DocWrites: TypeAlias = Mapping[Path, tuple["Write", ...]]
"""The visible writes of a document per path, each tuple in canonical order (author, then time)."""

DELETED: Final = "$deleted"
RECORD_MARK: Final = "$record"
ROW_MARK: Final = "$row"
RESERVED: Final = frozenset({DELETED, RECORD_MARK, ROW_MARK})
MARKS: Final = frozenset({RECORD_MARK, ROW_MARK})

MAX_PATH_LENGTH: Final = 8
"""Rows within rows within rows; the deepest path a sensible schema has is 5."""
MAX_NAME_LENGTH: Final = 1024
"""Characters in one path element: a set element is named by its whole JSON text."""
MAX_VALUE_DEPTH: Final = 32
"""Nesting of lists and maps in one value; far below where a recursive reader would fail."""


class Write(msgspec.Struct, frozen=True, gc=True, eq=True):
    """One assignment. `(author, hlc)` is its id; a struct, because a document may hold thousands."""

    path: Path
    value: Value
    hlc: Hlc
    role: Role
    author: Author

    def encode(self) -> bytes:
        """The canonical bytes that stand in the author's array."""
        return _encoder.encode((self.path, self.value, self.hlc, self.role))

    def __hash__(self) -> int:
        return hash((self.author, self.hlc))


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    path: Path
    value: Any
    hlc: Hlc
    role: Role


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decode_wire = msgspec.msgpack.Decoder(_Wire).decode
_SIMPLE: Final = frozenset({str, float, bool, bytes, type(None)})
"""Types of which every value is a `Value`."""


def read_write(raw: bytes, author: Author) -> Write:
    """The write in bytes that `check_write` let pass; raises ValueError when they are no write at all."""
    wire = _decode_wire(raw)
    return Write(wire.path, wire.value, wire.hlc, wire.role, author)


def check_write(raw: bytes, author: Author) -> Write:
    """The write in bytes that a peer sent, after every check; raises ValueError with the reason."""
    try:
        wire = _decode_wire(raw)
    except (ValueError, RecursionError) as exc:
        raise ValueError("not a write: a MessagePack array of path, value, time and role") from exc
    if not 0 < wire.hlc <= MAX_HLC:
        raise ValueError("its time is outside the clock's range")
    path, value = wire.path, wire.value
    _check_path(path)
    if type(value) not in _SIMPLE:
        check_value(value)
    last = path[-1]
    if last == DELETED and not is_context(value):
        raise ValueError("a deletion without its context")
    if last in MARKS and value is not True:
        raise ValueError("a mark whose value is not true")
    if _encoder.encode(wire) != raw:
        raise ValueError("not in canonical form")
    return Write(path, value, wire.hlc, wire.role, author)


def _check_path(path: Path) -> None:
    if len(path) == 1:  # a field of the record, which nearly all are
        name = path[0]
        if 0 < len(name) <= MAX_NAME_LENGTH and (name[0] != "$" or name in RESERVED):
            return
    if not 0 < len(path) <= MAX_PATH_LENGTH:
        raise ValueError(f"a path has 1 to {MAX_PATH_LENGTH} elements")
    for name in path:
        if not 0 < len(name) <= MAX_NAME_LENGTH:
            raise ValueError(f"a path element has 1 to {MAX_NAME_LENGTH} characters")
    for name in path[:-1]:
        if name[0] == "$":
            raise ValueError("a name starting with $ in the middle of a path")
    if path[-1][0] == "$" and path[-1] not in RESERVED:
        raise ValueError("an unknown name starting with $")


def check_value(value: object, depth: int = 0) -> None:
    """Raises ValueError for anything that is not a `Value`."""
    kind = type(value)
    if kind in _SIMPLE:
        return
    if kind is int:
        if not -(2**63) <= cast(int, value) < 2**64:
            raise ValueError("an integer outside -2**63 to 2**64 - 1")
        return
    if depth >= MAX_VALUE_DEPTH:
        raise ValueError(f"nested deeper than {MAX_VALUE_DEPTH} levels")
    if isinstance(value, list):
        for item in value:
            check_value(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise ValueError("a map key that is not text")
            check_value(item, depth + 1)
    else:
        raise ValueError(f"a value of type {kind.__name__}")


def is_context(value: object) -> bool:
    """Whether a value is the context of a deletion: array name -> last time seen."""
    return isinstance(value, dict) and all(
        type(name) is str and type(time) is int for name, time in value.items()
    )


def same_value(one: Value, other: Value) -> bool:
    """Equal in type and value: `1`, `1.0` and `True` are three different values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (str, bytes, bool, int)) or one is None:
        return one == other
    return _encoder.encode(one) == _encoder.encode(other)


def value_bytes(value: Value) -> bytes:
    """The canonical encoding of a value, equal exactly when `same_value` says so."""
    return _encoder.encode(value)


def element_key(element: Value) -> str:
    """The path element that names a set element: its canonical JSON text (bytes as base64)."""
    return _json_encoder.encode(element).decode()


_json_encoder = msgspec.json.Encoder(order="deterministic")
