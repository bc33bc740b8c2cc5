"""Indexes on what records hold, one for each entry of the schemas' `x-indexes`.

They are partial indexes on expressions over the materialised JSON, for one record type each and without
deleted records, and end with the record's id, so that they give an order that is the same on every device.
They are made and dropped in the transaction in which a schema comes, changes or goes.

Which one a query uses is decided here and named in the query (INDEXED BY). SQLite would choose by guesses
about how many records have a type or a value, since nothing is counted in advance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine.checking import Checked
from crdt_sync_client.engine.filters import AllOf, Filter
from crdt_sync_client.engine.query_sql import key_of_field, literal

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.store.connection import Database

_PREFIX: Final = "records_by_x_"
_RANGES: Final = ("<", "<=", ">", ">=", "prefix")


def settle(replica: Replica) -> None:
    """Make the indexes that the schemas of all spaces ask for, and drop the others. In a transaction."""
    wanted = _wanted(schema for space in replica.spaces.values() for schema in space.schemas.values())
    there = _there(replica.db)
    for name in sorted(there - wanted.keys()):
        replica.db.execute(f"DROP INDEX {name}")
    for name, definition in wanted.items():
        if name not in there:
            replica.db.execute(definition)


def settled(replica: Replica) -> bool:
    """Whether `settle` has nothing to do."""
    schemas = (schema for space in replica.spaces.values() for schema in space.schemas.values())
    return _there(replica.db) == _wanted(schemas).keys()


def index_for(
    schema: RecordSchema, condition: Filter, order: Sequence[str], *, one_way: bool, limited: bool
) -> str | None:
    """The name of the index that helps the most, or None.

    `condition` is checked, `order` are the fields to order by; `one_way`: all in one direction, with
    nothing special about missing values. An order alone is worth an index when only the first are wanted.
    """
    equal, chosen, ranged = set(), set(), set()
    for part in condition.parts if isinstance(condition, AllOf) else (condition,):
        if isinstance(part, Checked) and len(part.path) == 1:
            if part.op == "=":  # no value, too, can be looked up
                equal.add(part.path[0])
            elif part.op == "in":
                chosen.add(part.path[0])
            elif part.op in _RANGES:
                ranged.add(part.path[0])
    best, best_score = None, 0
    for fields in schema.indexes:
        at = 0
        while at < len(fields) and fields[at] in equal:
            at += 1
        orders = one_way and list(fields[at : at + len(order)]) == list(order) and bool(order)
        orders = orders and len(fields) == at + len(order)
        found = at
        while found < len(fields) and (fields[found] in equal or fields[found] in chosen):
            found += 1
        score = 8 * found + 4 * (found < len(fields) and fields[found] in ranged)
        score += 2 * (orders and (limited or score > 0))
        if score > best_score:
            best, best_score = fields, score
    return None if best is None else _name(_definition(schema, best))


def _wanted(schemas: Iterable[RecordSchema]) -> dict[str, str]:
    found: dict[str, str] = {}
    for schema in schemas:
        for fields in schema.indexes:
            definition = _definition(schema, fields)
            name = _name(definition)
            found[name] = f"CREATE INDEX {name} {definition}"
    return found


def _definition(schema: RecordSchema, fields: tuple[str, ...]) -> str:
    keys = ", ".join(key_of_field(schema, (name,)).text for name in fields)
    return f"ON records (space, {keys}, id) WHERE type = {literal(schema.type)} AND deleted = 0"


def _name(definition: str) -> str:
    """Says what it is made of, so that one by another definition is another index."""
    return _PREFIX + hashlib.sha256(definition.encode()).hexdigest()[:16]


def _there(db: Database) -> set[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND name GLOB ?"
    return {name for (name,) in db.rows(sql, (f"{_PREFIX}*",))}
