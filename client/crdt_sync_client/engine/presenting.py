"""Records as apps get them: from what the store keeps of each to one value.

What a record says about others, that its parent is not there, is not stored with it but looked up.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync_client.engine.holders import held_now
from crdt_sync_client.engine.model import Origin, Record, RecordChange, SyncState
from crdt_sync_client.engine.open_records import OpenRecord, StandingState, decode_standing
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_decode = msgspec.json.Decoder(dict[str, Any]).decode
COLUMNS: Final = "no, id, json, deleted, standing, parent, opaque"
"""Of the table `records`: what a record is made from."""
_THERE: Final = (
    "SELECT 1 FROM records WHERE space = ? AND opaque = ? AND deleted = 0"
    " AND (json IS NOT NULL OR absent IS NOT NULL) LIMIT 1"
)
_CHILDREN: Final = (
    f"SELECT {COLUMNS} FROM records WHERE space = ? AND parent = ? AND type = ?"
    " AND json IS NOT NULL AND deleted = 0"
)


def sync_state(replica: Replica, no: int, standing: StandingState) -> SyncState:
    """The most telling of a record's states."""
    if standing.conflicts and any(conflict.kind == "open" for conflict in standing.conflicts):
        return "conflict"
    if no in replica.failed:
        return "failed"
    return "pending" if no in replica.unsent else "synced"


def snapshot_of(replica: Replica, record: OpenRecord, values: dict[str, Any]) -> Record:
    """The record as it is now. `values` is shared with the engine's next view: not to be changed."""
    return make_record(
        replica,
        record.space,
        record.type,
        record.id,
        record.no,
        record.opaque,
        values,
        record.deleted,
        record.standing,
    )


def make_record(
    replica: Replica,
    space: Space,
    record_type: str,
    id: RecordId,
    no: int,
    opaque: OpaqueId,
    values: dict[str, Any],
    deleted: bool,
    standing: StandingState,
    *,
    orphaned: bool = False,
) -> Record:
    """A record from its parts."""
    return Record(
        id=id,
        type=record_type,
        space=space.id,
        values=values,
        sync_state=sync_state(replica, no, standing),
        conflicts=tuple([c.id for c in standing.conflicts if c.kind == "open"]),
        provisional=tuple([".".join(path) for path in standing.provisional]),
        deleted=deleted,
        orphaned=orphaned,
        checkout=held_now(replica, space, opaque, (record_type, id)) if space.leases.rows else None,
    )


def record_of_row(
    replica: Replica,
    space: Space,
    schema: RecordSchema,
    row: Any,
    orphans: Orphans | None,
    fields: Collection[str] | None = None,
) -> Record:
    """A record from a row that begins with COLUMNS; with `fields`, only these of its values.

    Without `orphans` it is not looked up whether it is one.
    """
    no, id, json, deleted, standing, parent, opaque = row[:7]
    values = _decode(json)
    if fields is not None:
        values = {name: value for name, value in values.items() if name in fields}
    for name, spec in schema.with_bytes:
        _restore_bytes(values, name, spec)
    return make_record(
        replica,
        space,
        schema.type,
        RecordId(id),
        no,
        opaque,
        values,
        bool(deleted),
        decode_standing(standing),
        orphaned=orphans is not None and not deleted and orphans.lacks(schema, parent),
    )


def _restore_bytes(values: dict[str, Any], name: str, spec: FieldSpec) -> None:
    """JSON has no bytes: they stand in it as base64 text, and become bytes again by their schema."""
    value = values.get(name)
    if spec.is_bytes and isinstance(value, str):
        values[name] = base64.b64decode(value)
    elif spec.row is not None and isinstance(value, dict):
        for row in value.values():
            if isinstance(row, dict):
                for sub, subspec in spec.row.items():
                    _restore_bytes(row, sub, subspec)


def parent_of(schema: RecordSchema, values: dict[str, Any]) -> str | None:
    """The id of the parent that a record names; None when it names none."""
    if schema.parent is None:
        return None
    id = values.get(schema.parent.field)
    return id if isinstance(id, str) and id else None


class Orphans:
    """Tells whose parent is not there; looks once for each parent. Use it within one transaction or query."""

    def __init__(self, replica: Replica, space: Space) -> None:
        self._replica = replica
        self._space = space
        self._there: dict[tuple[str, str], bool] = {}

    def lacks(self, schema: RecordSchema, parent: str | None) -> bool:
        """Whether a record that names this parent names one that is deleted, or not known here."""
        if parent is None or schema.parent is None:
            return False
        key = (schema.parent.type, parent)
        there = self._there.get(key)
        if there is None:
            opaque = self._space.keys.opaque_id(*key)
            found = self._replica.db.value(_THERE, (self._space.no, opaque))
            there = self._there[key] = found is not None
        return not there


def tell_of_orphans(
    replica: Replica, changes: list[RecordChange], came_or_went: list[OpenRecord], origin: Origin
) -> None:
    """Mark the orphans among the changes of a transaction, and add those whose parent came or went in it.

    What is added changes no field: only what the record says of its parent is different.
    """
    if came_or_went:
        told = {(change.space, change.type, change.id) for change in changes}
        for parent in came_or_went:
            below = _changes_below(replica, parent, origin)
            changes += [each for each in below if (each.space, each.type, each.id) not in told]
    known: dict[int, Orphans] = {}
    for at, change in enumerate(changes):
        space = replica.spaces[change.space]
        schema = space.schemas[change.type]
        if schema.parent is None or change.record.deleted:
            continue
        orphans = known.get(space.no) or known.setdefault(space.no, Orphans(replica, space))
        if orphans.lacks(schema, parent_of(schema, change.record.values)):
            orphan = msgspec.structs.replace(change.record, orphaned=True)
            changes[at] = msgspec.structs.replace(change, record=orphan)


def _changes_below(replica: Replica, parent: OpenRecord, origin: Origin) -> Iterator[RecordChange]:
    space = parent.space
    for schema in space.record_types.children_of(parent.type):
        for row in replica.db.rows(_CHILDREN, (space.no, parent.id, schema.type)):
            record = record_of_row(replica, space, schema, row, None)
            yield RecordChange(space.id, schema.type, record.id, origin, (), record)
