"""From documents to what apps read: JSON, standing conflicts and the audit trail, batch by batch.

Local writes and received batches both end here: each record that a transaction touched is viewed once,
written once, and told about once. A record whose type is not known yet keeps its document and has no
JSON; when the type's schema arrives, in the space's own `_schema` record, its records are viewed then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.records.view import RecordView, view
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine import indexes
from crdt_sync_client.engine.audit import AuditRows
from crdt_sync_client.engine.history import HistoryRows
from crdt_sync_client.engine.model import Origin, Record, RecordChange, SyncState
from crdt_sync_client.engine.open_records import (
    NOTHING_STANDING,
    OpenRecord,
    Standing,
    StandingState,
    encode_heads,
    encode_standing,
)
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_to_json = msgspec.json.Encoder().encode
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_INSERT_RECORD: Final = (
    "INSERT INTO records (no, space, opaque, type, id, json, deleted, standing)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE_RECORD: Final = "UPDATE records SET json = ?, standing = ? WHERE no = ?"
_UPDATE_DELETED: Final = "UPDATE records SET deleted = ? WHERE no = ?"
"""Apart, because it is in an index: naming it would write a page of that with every change of a record."""
_INSERT_DOCUMENT: Final = "INSERT INTO documents (record, state, heads) VALUES (?, ?, ?)"
_UPDATE_DOCUMENT: Final = "UPDATE documents SET state = ?, heads = ? WHERE record = ?"


@dataclass(slots=True)
class Materialised:
    """What became visible: the changes, and the conflicts (by id) that stand or no longer stand."""

    changes: list[RecordChange] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    schemas_changed: list[str] = field(default_factory=list)


class Materialiser:
    """Collects the rows of one transaction. Use once: `take` records, then `save`."""

    def __init__(self, replica: Replica, origin: Origin) -> None:
        self._replica = replica
        self._origin: Origin = origin
        self._now_ms = replica.now_ms()
        self._records: list[tuple[Any, ...]] = []
        self._record_updates: list[tuple[Any, ...]] = []
        self._deleted_updates: list[tuple[Any, ...]] = []
        self._documents: list[tuple[Any, ...]] = []
        self._document_updates: list[tuple[Any, ...]] = []
        self._audit = AuditRows(replica)
        self._history = HistoryRows(replica, origin)
        self._seen: set[int] = set()
        self.result = Materialised()

    def take(self, record: OpenRecord, *, state: bytes | None = None) -> None:
        """View a record whose document changed. `state` is its encoding, where the caller has it already."""
        self._seen.add(record.no)
        changed = self._look(record)
        encoded = record.doc.state() if state is None else state
        heads = encode_heads(record.heads)
        standing = encode_standing(record.standing)
        if record.stored:
            self._document_updates.append((encoded, heads, record.no))
            if changed:
                self._record_updates.append((record.json, standing, record.no))
        else:
            record.stored = True
            self._documents.append((record.no, encoded, heads))
            self._records.append(
                (
                    record.no,
                    record.space.no,
                    record.opaque,
                    record.type,
                    record.id,
                    record.json,
                    record.deleted,
                    standing,
                )
            )

    def take_schemas(self, space: Space, records: Iterable[OpenRecord]) -> None:
        """Use the schemas that these (taken) `_schema` records hold, and view what waited for them."""
        for record in records:
            text = _source_of(record)
            changed = None if text is None else space.take_schema(record.id, text)
            if changed is not None:
                self.result.schemas_changed.append(changed)

    def view_waiting(self, space: Space) -> None:
        """View stored records of types whose schema changed in this transaction. After all `take`s."""
        for record_type in self.result.schemas_changed:
            rows = self._replica.db.rows(
                "SELECT no, opaque FROM records WHERE space = ? AND type = ?", (space.no, record_type)
            )
            for no, opaque in rows:
                if no in self._seen:  # and not yet saved: the store has its past
                    continue
                record = self._replica.records.find(space, OpaqueId(opaque), self._replica.author)
                if record is not None and self._look(record):
                    standing = encode_standing(record.standing)
                    self._record_updates.append((record.json, standing, record.no))

    def save(self) -> Materialised:
        """Write everything: one prepared statement per table."""
        db = self._replica.db
        for sql, rows in (
            (_INSERT_RECORD, self._records),
            (_UPDATE_RECORD, self._record_updates),
            (_UPDATE_DELETED, self._deleted_updates),
            (_INSERT_DOCUMENT, self._documents),
            (_UPDATE_DOCUMENT, self._document_updates),
        ):
            if rows:
                db.many(sql, rows)
        if self.result.schemas_changed:
            indexes.settle(self._replica)
        self._audit.save()
        self._history.save()
        return self.result

    def _look(self, record: OpenRecord) -> bool:
        """View the record; whether anything that apps read is different now."""
        schema = record.space.schemas.get(record.type)
        if schema is None:
            return False
        writes = record.doc.writes()
        touched = record.doc.take_touched()
        past = record.seen if record.schema is schema else None
        seen = view(schema, record.type, record.id, writes, before=past, touched=touched)
        record.seen, record.schema = seen, schema
        json = _to_json(seen.values).decode() if seen.exists or seen.deleted else None
        standing = _standing(seen)
        before = record.standing
        if json == record.json and seen.deleted == record.deleted and standing == before:
            return False
        opened: tuple[str, ...] = ()
        closed: tuple[str, ...] = ()
        if before.conflicts or seen.conflicts:
            current = schema.current(writes)
            self._audit.note(record, before.conflicts, seen.conflicts, current, self._now_ms)
            now_standing = {conflict.id for conflict in standing.conflicts}
            was_standing = {conflict.id for conflict in before.conflicts}
            opened = tuple(sorted(now_standing - was_standing))
            closed = tuple(sorted(was_standing - now_standing))
            self.result.opened += opened
            self.result.closed += closed
        if record.json is None:
            fields = () if json is None else tuple(seen.values)
        elif past is not None and touched is not None and json is not None:
            names = touched if schema.old_names is None else schema.old_names.touched(touched)
            fields = _touched_fields(past.values, seen.values, names)
        else:
            fields = _changed_fields(record.json, json)
        if schema.history:
            self._history.note(
                record,
                json,
                fields,
                schema.current(writes),
                keep=schema.history,
                deleted=seen.deleted,
                opened=opened,
                closed=closed,
                now_ms=self._now_ms,
            )
        if seen.deleted != record.deleted:
            self._deleted_updates.append((seen.deleted, record.no))
        record.json, record.deleted, record.standing = json, seen.deleted, standing
        self.result.changes.append(
            RecordChange(
                space=record.space.id,
                type=record.type,
                id=record.id,
                origin=self._origin,
                fields=fields,
                record=snapshot_of(self._replica, record, seen.values),
                opened=opened,
                closed=closed,
            )
        )
        return True


def _standing(seen: RecordView) -> StandingState:
    if not seen.conflicts and not seen.provisional:
        return NOTHING_STANDING
    return StandingState(
        [Standing(conflict.id, conflict.path, conflict.kind) for conflict in seen.conflicts],
        list(seen.provisional),
    )


def _source_of(record: OpenRecord) -> str | None:
    if record.type != SCHEMA_TYPE or record.json is None or record.deleted:
        return None
    source = msgspec.json.decode(record.json).get("source")
    return source if isinstance(source, str) else None


def _changed_fields(before: str | None, after: str | None) -> tuple[str, ...]:
    """Top-level names whose JSON differs. Raw text is compared: nothing below is decoded."""
    if before == after:
        return ()
    old = {} if before is None else _raw_fields(before)
    new = {} if after is None else _raw_fields(after)
    return tuple(name for name in {**old, **new} if bytes(old.get(name, b"")) != bytes(new.get(name, b"")))


def _touched_fields(
    before: dict[str, Any], after: dict[str, Any], touched: Collection[str]
) -> tuple[str, ...]:
    """Those of the touched names whose value reads differently; JSON tells 1 from True and from 1.0."""
    changed = [
        name
        for name in touched
        if (name in before) != (name in after)
        or (name in after and _to_json(before[name]) != _to_json(after[name]))
    ]
    if len(changed) < 2:
        return tuple(changed)
    return tuple(name for name in {**before, **after} if name in changed)


def sync_state(replica: Replica, no: int, standing: StandingState) -> SyncState:
    """The most telling of a record's states."""
    if any(conflict.kind == "open" for conflict in standing.conflicts):
        return "conflict"
    if no in replica.failed:
        return "failed"
    return "pending" if no in replica.unsent else "synced"


def snapshot_of(replica: Replica, record: OpenRecord, values: dict[str, Any]) -> Record:
    """The record as it is now. `values` is shared with the engine's next view: not to be changed."""
    return make_record(
        replica, record.space, record.type, record.id, record.no, values, record.deleted, record.standing
    )


def make_record(
    replica: Replica,
    space: Space,
    record_type: str,
    id: RecordId,
    no: int,
    values: dict[str, Any],
    deleted: bool,
    standing: StandingState,
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
    )
