"""The record types of a space as this device knows them, from the space's `_schema` records.

The newest version of a type may be one that this program cannot read, because it uses a keyword or a rule of
a later program. Then the last version it could read stays in use (the table `types` has its text), and
records go on being merged, kept and sent. Without such a version the type's records are kept and not shown.

When the schema in use changes, records that are stored still show what the former one made of them, until
they are made anew (`upkeep`); the table says how far that has come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from crdt_sync.errors import SchemaError
from crdt_sync.ids import SpaceId, keyed_record_id
from crdt_sync.schemas.builtin import SCHEMA_TYPE, schema_type, version_in
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from crdt_sync.schemas.rights import ALL, Rights, granted, rights_of

if TYPE_CHECKING:
    from crdt_sync_client.store.connection import Database

_SCHEMAS_KEPT: Final = 64
"""Compiling a schema of 30 fields takes 1.3 ms and gives the same immutable object every time."""
_TYPE: Final = re.compile(r"^x-type:[ \t]*[\"']?([a-z][a-z0-9_]{0,63})[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)


@lru_cache(maxsize=_SCHEMAS_KEPT)
def compiled(text: str) -> RecordSchema:
    """The schema of that text. Raises SchemaError."""
    return load_schema(text, source="schema")


@dataclass(slots=True)
class Remaking:
    """Records with a number greater than `after`, up to `until`, show what an earlier schema made of them.

    `judging`: the rights have grown since updates were put aside for who wrote them; those whose row has
    this number or a greater one are to be judged anew. 0 for none.
    """

    after: int = 0
    until: int = 0
    judging: int = 0

    @property
    def done(self) -> bool:
        return self.after >= self.until and not self.judging


class TypeChange(NamedTuple):
    """What a `_schema` record changed about its type: the schema in use, or who may write."""

    type: str
    schema: bool
    rights: bool


_RECORDS: Final = (
    "SELECT id, json FROM records WHERE space = ? AND type = ? AND deleted = 0 AND json IS NOT NULL"
)
_PROGRESS: Final = "SELECT type, source, after, until, judging FROM types WHERE space = ?"
_STORE: Final = "INSERT OR REPLACE INTO types VALUES (?, ?, ?, ?, ?, ?)"
_LAST: Final = "SELECT max(no) FROM records WHERE space = ? AND type = ?"


class RecordTypes:
    """The types of one space. A copy of what the store has, changed together with it."""

    def __init__(self, space: SpaceId, no: int) -> None:
        """`no` is the space's number in the store's tables."""
        self._space = space
        self._no = no
        self.schemas: dict[str, RecordSchema] = {SCHEMA_TYPE: schema_type()}
        self.rights: dict[str, Rights] = {}
        """Of every type that has come, also of those of which no version can be read."""
        self.unreadable: dict[str, int] = {}
        """Types whose newest version this program cannot read, and that version's number."""
        self.remaking: dict[str, Remaking] = {}
        self._by_parent: dict[str, tuple[RecordSchema, ...]] | None = None
        self._last_read: dict[str, str] = {}
        """Of a store that is opened: the text of each type's schema that was in use last."""

    @property
    def names(self) -> tuple[str, ...]:
        """The types apps use, without the one that carries schemas."""
        return tuple(sorted(name for name in self.schemas if name != SCHEMA_TYPE))

    def children_of(self, record_type: str) -> tuple[RecordSchema, ...]:
        """The types whose records belong to a record of that type, by name."""
        if self._by_parent is None:
            by_parent: dict[str, tuple[RecordSchema, ...]] = {}
            for name in sorted(self.schemas):
                parent = self.schemas[name].parent
                if parent is not None:
                    by_parent[parent.type] = (*by_parent.get(parent.type, ()), self.schemas[name])
            self._by_parent = by_parent
        return self._by_parent.get(record_type, ())

    def take(self, record_id: str, values: Mapping[str, Any]) -> TypeChange | None:
        """Use what a `_schema` record holds; None when that changes nothing.

        A text that stands under another type's id is left aside.
        """
        text = values.get("source")
        if not isinstance(text, str):
            return None
        name, schema = self._read(text)
        if name is None or keyed_record_id(self._space, SCHEMA_TYPE, name) != record_id:
            return None
        if schema is None:
            self.unreadable[name] = version_in(text)
            if name not in self.schemas and name in self._last_read:
                schema = self._read(self._last_read[name])[1]
        else:
            self.unreadable.pop(name, None)
        known = self.schemas.get(name)
        changed = schema is not None and (known is None or known.text != schema.text)
        if schema is not None and changed:
            self.schemas[name] = schema
            self._by_parent = None
        rights = granted(values) or (ALL if schema is None else rights_of(schema))
        grown = self.rights.get(name) != rights
        self.rights[name] = rights
        return TypeChange(name, changed, grown) if changed or grown else None

    # In the store

    def load(self, db: Database) -> None:
        """Take up what the store says."""
        self._last_read = {}
        for name, source, after, until, judging in db.rows(_PROGRESS, (self._no,)):
            progress = Remaking(after, until, judging)
            if not progress.done:
                self.remaking[name] = progress
            if source is not None:
                self._last_read[name] = source
        for id, json in db.rows(_RECORDS, (self._no, SCHEMA_TYPE)):
            self.take(id, msgspec.json.decode(json))

    @property
    def read_anew(self) -> list[TypeChange]:
        """Types of a store just opened whose schema this program reads, and the one before it did not."""
        known = self._last_read
        return [
            TypeChange(name, True, True) for name in self.names if known.get(name) != self.schemas[name].text
        ]

    def note(self, db: Database, change: TypeChange) -> None:
        """Begin what a change of a type asks for. Inside its transaction."""
        before = self.remaking.get(change.type, Remaking())
        after, until = before.after, before.until
        if change.schema:
            after, until = 0, db.value(_LAST, (self._no, change.type)) or 0
        self.keep(db, change.type, Remaking(after, until, 1 if change.rights else before.judging))

    def keep(self, db: Database, name: str, progress: Remaking) -> None:
        """Store how far a type has come. Inside a transaction."""
        if progress.done:
            self.remaking.pop(name, None)
        else:
            self.remaking[name] = progress
        schema = self.schemas.get(name)
        text = None if schema is None else schema.text
        db.execute(_STORE, (self._no, name, text, progress.after, progress.until, progress.judging))

    def _read(self, text: str) -> tuple[str | None, RecordSchema | None]:
        """Which type a text is about, and its schema if this program can read it."""
        try:
            schema = compiled(text)
        except SchemaError:
            found = _TYPE.search(text)
            return (None if found is None else found[1]), None
        return schema.type, schema
