"""Everything that can still be read of a damaged store, table by table, and what each bad page has cost.

A table's b-tree is followed from its root. Where a page on the way is bad, the pages that only it leads to
are found by what stands on them: no two tables have rows of one shape. The same goes for all tables when the
first page is bad, which says where they begin. Free pages still hold old rows; they are left out where the
list of them can be read, and where it cannot, an old row does no harm: documents merge, and what was sent is
known by the relay.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from crdt_sync_client.store import tables
from crdt_sync_client.store.btree import (
    INDEX_LEAF,
    LEAVES,
    TABLE_LEAF,
    Row,
    Tree,
    Unreadable,
    free_pages,
    kind_of,
    looks_like,
    read_tree,
    take_rows,
)
from crdt_sync_client.store.connection import Database
from crdt_sync_client.store.pages import Pages, read_pages

UNKNOWN: Final = "unknown"
"""Owner of a bad page that nothing readable leads to."""
SCHEMA: Final = "sqlite_master"
_FREE: Final = "free"
_INDEX: Final = "index "
_NOT_BY_SHAPE: Final = frozenset({"held"})
"""Its rows look like those of an index; it follows from the outbox."""

Values = dict[str, Any]


@dataclass(slots=True)
class Layout:
    """A table's columns as `PRAGMA table_info` has them, in the order in which they are stored."""

    columns: Sequence[Mapping[str, Any]]
    rowid_column: str | None
    without_rowid: bool

    def values(self, row: Row) -> Values:
        """The stored row by column names, with defaults for columns that came later."""
        rowid, stored = row
        named: Values = {}
        for place, column in enumerate(self.columns):
            named[column["name"]] = stored[place] if place < len(stored) else _default(column["default"])
        if self.rowid_column is not None:
            named[self.rowid_column] = rowid
        return named


@dataclass(slots=True)
class Salvage:
    """See the module. `damage` names bad pages by what they belonged to: a table, `index …` or UNKNOWN."""

    rows: dict[str, list[Values]] = field(default_factory=dict)
    damage: dict[str, set[int]] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    """What each page belongs to, the bad ones too."""
    broken_rows: dict[str, int] = field(default_factory=dict)
    """Rows that stood on a good page and went on on a bad one, by table."""
    page_count: int = 0
    bad_frames: int = 0

    @property
    def sound(self) -> bool:
        return not self.damage and not self.bad_frames

    def lost(self, *names: str) -> bool:
        """Whether rows of one of these tables may be missing.

        A bad page of which nothing says whose it is belongs to a tree with another bad page, unless it cannot
        be told where trees begin.
        """
        anywhere = SCHEMA in self.damage and UNKNOWN in self.damage
        return anywhere or any(name in self.damage or self.broken_rows.get(name) for name in names)


def read_salvage(path: str | os.PathLike[str], key: bytes, salt: bytes) -> Salvage:
    """All there is. Nothing is written. Raises OSError."""
    pages = read_pages(path, key, salt)
    found = Salvage(page_count=pages.count, bad_frames=pages.bad_frames)
    schema = read_tree(pages, 1)
    found.owners.update(dict.fromkeys(schema.pages | schema.bad, SCHEMA))
    if schema.bad:
        found.damage[SCHEMA] = schema.bad
    listed = [values for _, values in schema.rows if len(values) == 5 and isinstance(values[3], int)]
    layouts = layouts_of([str(values[4]) for values in listed if values[0] == "table" and values[4]])
    for kind, name, _, root, _ in listed:
        if not root or (kind == "table" and name not in layouts):
            continue
        owner = name if kind == "table" else _INDEX + name
        _take_tree(found, read_tree(pages, root), owner, layouts.get(name) if kind == "table" else None)
    free = free_pages(pages)
    found.owners.update((page, _FREE) for page in free if page not in found.owners)
    if found.damage or pages.bad & set(found.owners):
        _take_orphans(found, pages, layouts)
    unreached = pages.bad - set(found.owners)
    if unreached and found.damage:
        found.damage.setdefault(UNKNOWN, set()).update(unreached)
        found.owners.update(dict.fromkeys(unreached, UNKNOWN))
    return found


def _take_tree(found: Salvage, tree: Tree, owner: str, layout: Layout | None) -> None:
    found.owners.update(dict.fromkeys(tree.pages | tree.bad, owner))
    if tree.bad:
        found.damage.setdefault(owner, set()).update(tree.bad)
    if layout is None:
        return
    found.rows.setdefault(owner, []).extend(layout.values(row) for row in tree.rows)
    if tree.broken_rows:
        found.broken_rows[owner] = found.broken_rows.get(owner, 0) + tree.broken_rows


def _take_orphans(found: Salvage, pages: Pages, layouts: Mapping[str, Layout]) -> None:
    """Leaf pages to which nothing readable leads: whose they are shows in their rows."""
    for number, content in pages.good.items():
        if number in found.owners or kind_of(content, number) not in LEAVES:
            continue
        tree = Tree()
        try:
            take_rows(pages, content, number, tree)
        except (Unreadable, IndexError, struct.error):
            continue
        owner = _owner_by_shape(tree.rows, kind_of(content, number), layouts)
        if owner is not None:
            tree.pages.add(number)
            _take_tree(found, tree, owner, layouts[owner])


def _owner_by_shape(rows: list[Row], kind: int, layouts: Mapping[str, Layout]) -> str | None:
    if not rows:
        return None
    for name, layout in layouts.items():
        if name in _NOT_BY_SHAPE or kind != (INDEX_LEAF if layout.without_rowid else TABLE_LEAF):
            continue
        if all(looks_like(_keyed(row, layout), layout.columns) for row in rows):
            if name == "meta" and any(_is_conflict_id(values[0]) for _, values in rows):
                continue  # the index of the audit trail: text and a number, too
            return name
    return None


def _keyed(row: Row, layout: Layout) -> list[Any]:
    """The stored values, with the rowid in its column's place."""
    rowid, values = row
    return [
        rowid if column["name"] == layout.rowid_column else value
        for column, value in zip(layout.columns, values, strict=False)
    ] + values[len(layout.columns) :]


def _is_conflict_id(name: Any) -> bool:
    return isinstance(name, str) and len(name) >= 16 and set(name) <= set("0123456789abcdef")


def layouts_of(create_statements: list[str]) -> dict[str, Layout]:
    """The tables of a store: those of this program's format, as `create_statements` have them if they do."""
    # A database of its own in memory knows best what SQL means; it never holds a row.
    fresh, stored = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
    try:
        tables.create_tables(Database(fresh))
        for statement in create_statements:
            with suppress(sqlite3.Error):
                stored.execute(statement)
        return {**_layouts(fresh), **_layouts(stored)}
    finally:
        fresh.close()
        stored.close()


def _layouts(memory: sqlite3.Connection) -> dict[str, Layout]:
    return {
        name: _layout(memory.execute(f"PRAGMA table_info({name})").fetchall(), sql)
        for name, sql in memory.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    }


def _layout(info: list[tuple[Any, ...]], statement: str) -> Layout:
    columns = [
        {"name": name, "type": kind, "notnull": bool(notnull), "default": default, "pk": place}
        for _, name, kind, notnull, default, place in info
    ]
    without_rowid = "WITHOUT ROWID" in statement.upper()
    keys = [column for column in columns if column["pk"]]
    rowid_column = None
    if without_rowid:  # its key comes first
        keys.sort(key=lambda column: column["pk"])
        columns = keys + [column for column in columns if not column["pk"]]
    elif len(keys) == 1 and keys[0]["type"] == "INTEGER":
        rowid_column = keys[0]["name"]
    return Layout(columns, rowid_column, without_rowid)


def _default(text: str | None) -> Any:
    if text is None or text.upper() == "NULL":
        return None
    return text.strip("'") if text.startswith("'") else int(text)
