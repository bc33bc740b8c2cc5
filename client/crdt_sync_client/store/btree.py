"""Rows of SQLite's b-trees, taken out of pages, where SQLite itself would give up at the first bad page.

The format is that of https://www.sqlite.org/fileformat2.html, sections 1.5, 1.6 and 2. Every page is read for
itself: a bad one costs the rows on it (and on what only it leads to), never others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from crdt_sync_client.store.pages import USABLE_BYTES, Pages

TABLE_LEAF: Final = 0x0D
_TABLE_INNER: Final = 0x05
INDEX_LEAF: Final = 0x0A
_INDEX_INNER: Final = 0x02
LEAVES: Final = (TABLE_LEAF, INDEX_LEAF)
_FILE_HEADER_BYTES: Final = 100
_MAX_DEPTH: Final = 20
_MIN_LOCAL: Final = (USABLE_BYTES - 12) * 32 // 255 - 23
_MAX_LOCAL_TABLE: Final = USABLE_BYTES - 35
_MAX_LOCAL_INDEX: Final = (USABLE_BYTES - 12) * 64 // 255 - 23
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Row = tuple[int | None, list[Any]]
"""The rowid (None in an index or a table without) and the values as they are stored."""


class Unreadable(Exception):
    """A cell or a page is not of the form it should have."""


@dataclass(slots=True)
class Tree:
    """What could be read of one b-tree."""

    rows: list[Row] = field(default_factory=list)
    pages: set[int] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    """Pages that it leads to and that cannot be read."""
    broken_rows: int = 0
    """Rows on good pages of which another page is bad."""


def read_tree(pages: Pages, root: int) -> Tree:
    """All rows of the b-tree with that root page, in no particular order."""
    tree = Tree()
    waiting = [(root, 0)]
    while waiting:
        number, depth = waiting.pop()
        if number in tree.pages or depth > _MAX_DEPTH:
            continue
        content = pages.good.get(number)
        if content is None:
            tree.bad.add(number)
            continue
        tree.pages.add(number)
        try:
            waiting += [(child, depth + 1) for child in _children(content, number)]
            take_rows(pages, content, number, tree)
        except (Unreadable, IndexError, struct.error):
            tree.bad.add(number)
    return tree


def take_rows(pages: Pages, content: bytes, number: int, tree: Tree) -> None:
    """Add the rows of one page to `tree`."""
    kind, cells = _cells(content, number)
    if kind == _TABLE_INNER:
        return
    for at in cells:
        try:
            tree.rows.append(_row(pages, content, at, kind, tree))
        except (Unreadable, IndexError, struct.error, ValueError):
            tree.broken_rows += 1


def kind_of(content: bytes, number: int) -> int:
    """The first byte of the page's header."""
    return content[_FILE_HEADER_BYTES if number == 1 else 0]


def free_pages(pages: Pages) -> set[int]:
    """Pages that hold nothing any more, as far as the list of them can be read."""
    first = pages.good.get(1)
    found: set[int] = set()
    trunk = 0 if first is None else struct.unpack(">I", first[32:36])[0]
    while trunk and trunk not in found and trunk in pages.good:
        found.add(trunk)
        content = pages.good[trunk]
        trunk, count = struct.unpack(">II", content[:8])
        count = min(count, (USABLE_BYTES - 8) // 4)
        found.update(struct.unpack(f">{count}I", content[8 : 8 + 4 * count]))
    return found


def _cells(content: bytes, number: int) -> tuple[int, list[int]]:
    start = _FILE_HEADER_BYTES if number == 1 else 0
    kind = content[start]
    if kind not in (TABLE_LEAF, _TABLE_INNER, INDEX_LEAF, _INDEX_INNER):
        raise Unreadable
    (count,) = struct.unpack(">H", content[start + 3 : start + 5])
    first = start + (8 if kind in LEAVES else 12)
    if first + 2 * count > USABLE_BYTES:
        raise Unreadable
    return kind, list(struct.unpack(f">{count}H", content[first : first + 2 * count]))


def _children(content: bytes, number: int) -> Iterator[int]:
    kind, cells = _cells(content, number)
    if kind in LEAVES:
        return
    start = _FILE_HEADER_BYTES if number == 1 else 0
    yield struct.unpack(">I", content[start + 8 : start + 12])[0]
    for at in cells:
        yield struct.unpack(">I", content[at : at + 4])[0]


def _row(pages: Pages, content: bytes, at: int, kind: int, tree: Tree) -> Row:
    if kind == _INDEX_INNER:
        at += 4
    size, at = _varint(content, at)
    rowid: int | None = None
    if kind == TABLE_LEAF:
        rowid, at = _varint(content, at)
        if rowid >= 1 << 63:
            rowid -= 1 << 64
    most = _MAX_LOCAL_TABLE if kind == TABLE_LEAF else _MAX_LOCAL_INDEX
    if size <= most:
        return rowid, _values(content[at : at + size])
    local = _MIN_LOCAL + (size - _MIN_LOCAL) % (USABLE_BYTES - 4)
    if local > most:
        local = _MIN_LOCAL
    payload = bytearray(content[at : at + local])
    (following,) = struct.unpack(">I", content[at + local : at + local + 4])
    while len(payload) < size:
        more = pages.good.get(following)
        if more is None or following in tree.pages:
            if more is None:
                tree.bad.add(following)
            raise Unreadable
        tree.pages.add(following)
        (following,) = struct.unpack(">I", more[:4])
        payload += more[4 : 4 + min(size - len(payload), USABLE_BYTES - 4)]
    return rowid, _values(bytes(payload))


def _values(payload: bytes) -> list[Any]:
    header_size, at = _varint(payload, 0)
    values: list[Any] = []
    body = header_size
    while at < header_size:
        kind, at = _varint(payload, at)
        size = _size_of(kind)
        if body + size > len(payload):
            raise Unreadable
        values.append(_value(kind, payload[body : body + size]))
        body += size
    return values


def _size_of(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    if kind in _INTEGER_BYTES:
        return _INTEGER_BYTES[kind]
    if kind in (10, 11):
        raise Unreadable
    return 8 if kind == 7 else 0


def _value(kind: int, raw: bytes) -> Any:
    if kind >= 12:
        return raw.decode() if kind % 2 else raw
    if kind == 0:
        return None
    if kind == 7:
        return struct.unpack(">d", raw)[0]
    return kind - 8 if kind in (8, 9) else int.from_bytes(raw, "big", signed=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for index in range(8):
        byte = data[at + index]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at + index + 1
    return number << 8 | data[at + 8], at + 9


def looks_like(values: list[Any], columns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a stored row can be one of a table with these columns (of `PRAGMA table_info`, in order)."""
    if len(values) > len(columns):
        return False
    for value, column in zip(values, columns, strict=False):
        if value is None:
            if column["notnull"]:
                return False
        elif column["type"] and not isinstance(value, CLASSES[column["type"]]):
            return False
    return all(not column["notnull"] or column["default"] is not None for column in columns[len(values) :])


CLASSES: Final[Mapping[str, type]] = {"INTEGER": int, "TEXT": str, "BLOB": bytes}
