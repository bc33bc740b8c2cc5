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

from crdt_sync.records.view import RecordView, view
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine import indexes
from crdt_sync_client.engine.audit import AuditRows
from crdt_sync_client.engine.history import HistoryRows
from crdt_sync_client.engine.model import Origin, RecordChange
from crdt_sync_client.engine.open_records import (
    NOTHING_STANDING,
    OpenRecord,
    Standing,
    StandingState,
    encode_heads,
    encode_standing,
)
from crdt_sync_client.engine.presenting import parent_of, snapshot_of, tell_of_orphans
from crdt_sync_client.engine.presenting import sync_state as sync_state
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_to_json = msgspec.json.Encoder().encode
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_INSERT_RECORD: Final = (
    "INSERT INTO records (no, space, opaque, type, id, json, deleted, standing, parent)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE_RECORD: Final = "UPDATE records SET json = ?, standing = ? WHERE no = ?"
_UPDATE_DELETED: Final = "UPDATE records SET deleted = ? WHERE no = ?"
_UPDATE_PARENT: Final = "UPDATE records SET parent = ? WHERE no = ?"
"""Apart, because they are in an index: naming them would write a page of that with every change."""
_INSERT_DOCUMENT: Final = "INSERT INTO documents (record, state, heads) VALUES (?, ?, ?)"
_UPDATE_DOCUMENT: Final = "UPDATE documents SET state = ?, heads = ? WHERE record = ?"


@dataclass(slots=True)
class Materialised:
    """What became visible: the changes, and the conflicts (by id) that stand or no longer stand."""

    changes: list[RecordChange] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    schemas_changed: list[str] = field(default_factory=list)
    moved: list[OpenRecord] = field(default_factory=list)
    """Those that have another parent than before, or are new and have one."""

    def add(self, other: Materialised) -> None:
        """This, and then the other."""
        self.changes += other.changes
        self.opened += other.opened
        self.closed += other.closed
        self.schemas_changed += other.schemas_changed
        self.moved += other.moved


class Materialiser:
    """Collects the rows of one transaction. Use once: `take` records, then `save`."""

    def __init__(self, replica: Replica, origin: Origin) -> None:
        self._replica = replica
        self._origin: Origin = origin
        self._now_ms = replica.now_ms()
        self._records: list[tuple[Any, ...]] = []
        self._record_updates: list[tuple[Any, ...]] = []
        self._deleted_updates: list[tuple[Any, ...]] = []
        self._parent_updates: list[tuple[Any, ...]] = []
        self._came_or_went: list[OpenRecord] = []
        """Records that others may belong to, and that were not there before or are not there now."""
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
                    record.parent,
                )
            )

    def take_schemas(self, space: Space, records: Iterable[OpenRecord]) -> None:
        """Use the schemas that these (taken) `_schema` records hold. `upkeep` then sees to their records."""
        for record in records:
            values = values_of_schema(record)
            changed = None if values is None else space.record_types.take(record.id, values)
            if changed is None:
                continue
            space.record_types.note(self._replica.db, changed)
            if changed.schema:
                self.result.schemas_changed.append(changed.type)

    def remake(self, record: OpenRecord) -> None:
        """View a stored record again, whose schema changed."""
        if record.no not in self._seen and self._look(record, remade=True):
            self._seen.add(record.no)
            standing = encode_standing(record.standing)
            self._record_updates.append((record.json, standing, record.no))

    def save(self) -> Materialised:
        """Write everything: one prepared statement per table."""
        db = self._replica.db
        for sql, rows in (
            (_INSERT_RECORD, self._records),
            (_UPDATE_RECORD, self._record_updates),
            (_UPDATE_DELETED, self._deleted_updates),
            (_UPDATE_PARENT, self._parent_updates),
            (_INSERT_DOCUMENT, self._documents),
            (_UPDATE_DOCUMENT, self._document_updates),
        ):
            if rows:
                db.many(sql, rows)
        if self.result.schemas_changed:
            indexes.settle(self._replica)
        self._audit.save()
        self._history.save()
        tell_of_orphans(self._replica, self.result.changes, self._came_or_went, self._origin)
        return self.result

    def _look(self, record: OpenRecord, *, remade: bool = False) -> bool:
        """View the record; whether anything that apps read is different now.

        `remade`: because of its schema, and not because anything was written.
        """
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
        self._note_parent(record, parent_of(schema, seen.values))
        before = record.standing
        if json == record.json and seen.deleted == record.deleted and standing == before:
            return False
        opened: tuple[str, ...] = ()
        closed: tuple[str, ...] = ()
        if before.conflicts or seen.conflicts:
            current, anew = schema.current(writes), past is None
            self._audit.note(
                record, before.conflicts, seen.conflicts, current, self._now_ms, by_another_schema=anew
            )
            opened, closed = self._note_conflicts(before, standing)
        if record.json is None:
            fields = () if json is None else tuple(seen.values)
        elif past is not None and touched is not None and json is not None:
            names = touched if schema.old_names is None else schema.old_names.touched(touched)
            fields = _touched_fields(past.values, seen.values, names)
        else:
            fields = _changed_fields(record.json, json)
        if schema.history and not remade:
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
        was_there, is_there = _is_there(record.json, record.deleted), _is_there(json, seen.deleted)
        if was_there != is_there and record.space.record_types.children_of(record.type):
            self._came_or_went.append(record)
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

    def _note_parent(self, record: OpenRecord, parent: str | None) -> None:
        if parent != record.parent:
            record.parent = parent
            self.result.moved.append(record)
            if record.stored:
                self._parent_updates.append((parent, record.no))

    def _note_conflicts(
        self, before: StandingState, now: StandingState
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The conflicts that stand now and did not, and those that did and do not."""
        now_standing = {conflict.id for conflict in now.conflicts}
        was_standing = {conflict.id for conflict in before.conflicts}
        opened = tuple(sorted(now_standing - was_standing))
        closed = tuple(sorted(was_standing - now_standing))
        self.result.opened += opened
        self.result.closed += closed
        return opened, closed


def _is_there(json: str | None, deleted: bool) -> bool:
    return json is not None and not deleted


def _standing(seen: RecordView) -> StandingState:
    if not seen.conflicts and not seen.provisional:
        return NOTHING_STANDING
    return StandingState(
        [Standing(conflict.id, conflict.path, conflict.kind) for conflict in seen.conflicts],
        list(seen.provisional),
    )


def values_of_schema(record: OpenRecord) -> dict[str, Any] | None:
    """What a `_schema` record says; None for any other, and for one that is deleted."""
    if record.type != SCHEMA_TYPE or record.json is None or record.deleted:
        return None
    values: dict[str, Any] = msgspec.json.decode(record.json)
    return values


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
    changed = {
        name
        for name in touched
        if (name in before) != (name in after)
        or (name in after and _to_json(before[name]) != _to_json(after[name]))
    }
    if len(changed) < 2:
        return tuple(changed)
    return tuple([name for name in {**before, **after} if name in changed])
