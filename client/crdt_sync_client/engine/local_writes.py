"""Local writes: each operation by itself, all of a call in one durable transaction.

An operation is planned first, against the open document: every check is there, and one that fails has
changed nothing. Then the document is edited, and what the edit's transaction hands out goes to the
outbox. Each record of the call is viewed and stored once, at the end, however many operations it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crdt_sync.errors import (
    ConflictClosed,
    CrdtSyncError,
    PermissionDenied,
    RecordDeleted,
    RecordNotFound,
    RecordTooLarge,
    ValidationError,
)
from crdt_sync.ids import OpaqueId, RecordId, SpaceId, is_record_id, new_record_id
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.editing import (
    Edit,
    plan_create,
    plan_delete,
    plan_edit,
    plan_resolve_all,
    plan_restore,
)
from crdt_sync.records.view import DELETED_PATH
from crdt_sync.records.writes import Path, Write
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import deciding, preferences, trail
from crdt_sync_client.engine.materialising import Materialiser, sync_state
from crdt_sync_client.engine.model import (
    ConflictEntry,
    CreateOp,
    DeleteOp,
    Operation,
    RecordChange,
    ResolveOp,
    ResolveRecordOp,
    RestoreOp,
    RestoreVersionOp,
    UpdateOp,
    WriteResult,
)
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

MAX_RECORD_BYTES: Final = MAX_ENVELOPE_BYTES * 3 // 4
"""A whole record must fit one snapshot envelope, with its padding and its cover vector."""

INSERT_OUTBOX: Final = (
    "INSERT INTO outbox (space, record, incarnation, schema_version, change, at_ms) VALUES (?, ?, ?, ?, ?, ?)"
)


class _Done(NamedTuple):
    """What one operation did, before the record is viewed."""

    record: OpenRecord
    resolved: tuple[str, ...]
    changed: bool


class LocalWrites:
    """One call of `Engine.write`. Use once."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._touched: dict[tuple[int, OpaqueId], OpenRecord] = {}
        self._stale: set[int] = set()
        """Numbers of records edited in this call: `json` and `standing` are from before it."""
        self._deleted: dict[int, bool] = {}
        self._settled: set[str] = set()
        self._outbox: list[tuple[Any, ...]] = []
        self._now_ms = replica.now_ms()

    def run(self, ops: Sequence[Operation]) -> list[WriteResult | CrdtSyncError]:
        """Do all of `ops`; results and errors in their order."""
        replica = self._replica
        done: list[_Done | CrdtSyncError] = []
        with replica.transaction(durable=True):
            for op in ops:
                try:
                    done.append(self._do(op))
                except CrdtSyncError as error:
                    done.append(error)
            for row in self._outbox:
                replica.unsent[row[1]] += 1
            changes = self._save() if self._outbox else []
        return self._results(done, changes)

    def _save(self) -> list[RecordChange]:
        replica = self._replica
        materialiser = Materialiser(replica, "local")
        edited = [record for record in self._touched.values() if record.no in self._stale]
        for record in edited:
            materialiser.take(record)
        schemas = [record for record in edited if record.type == SCHEMA_TYPE]
        for space in {record.space.id: record.space for record in schemas}.values():
            materialiser.take_schemas(space, (record for record in schemas if record.space is space))
            materialiser.view_waiting(space)
        changes = materialiser.save().changes
        replica.db.many(INSERT_OUTBOX, self._outbox)
        replica.save_clock()
        for record in edited:
            replica.records.keep(record)
        return changes

    def _results(
        self, done: list[_Done | CrdtSyncError], changes: Iterable[RecordChange]
    ) -> list[WriteResult | CrdtSyncError]:
        """Each result with its record's state now, and each change on the last result of its record."""
        pending = {(change.space, change.type, change.id): change for change in changes}
        results: list[WriteResult | CrdtSyncError] = []
        for each in reversed(done):
            if isinstance(each, CrdtSyncError):
                results.append(each)
                continue
            record, resolved, changed = each
            space = record.space.id
            state = sync_state(self._replica, record.no, record.standing)
            change = pending.pop((space, record.type, record.id), None)
            results.append(WriteResult(record.id, record.type, space, resolved, state, changed, change))
        results.reverse()
        return results

    # One operation ----------------------------------------------------------------------------------

    def _do(self, op: Operation) -> _Done:
        match op:
            case CreateOp():
                return self._create(op)
            case UpdateOp():
                space, schema, role = self._ground(op.space, op.type)
                record = self._existing(space, op.type, op.id)
                self._refuse_deleted(record)
                edit = plan_edit(schema, record.doc.writes(), op.changes, **self._as(role))
                return self._apply(record, schema, edit)
            case DeleteOp():
                space, schema, role = self._ground(op.space, op.type)
                record = self._existing(space, op.type, op.id)
                self._refuse_deleted(record)
                edit = plan_delete(schema, record.doc.writes(), **self._as(role))
                return self._apply(record, schema, edit, deleted=True)
            case RestoreOp():
                space, schema, role = self._ground(op.space, op.type)
                record = self._existing(space, op.type, op.id)
                edit = plan_restore(schema, record.doc.writes(), **self._as(role))
                return self._apply(record, schema, edit, deleted=False)
            case ResolveOp():
                return self._resolve(op)
            case ResolveRecordOp():
                return self._resolve(*op.decisions)
            case RestoreVersionOp():
                return self._restore_version(op)

    def _create(self, op: CreateOp) -> _Done:
        space, schema, role = self._ground(op.space, op.type)
        id = op.id if op.id is not None else new_record_id(self._replica.entropy)
        if not is_record_id(id):
            raise ValidationError("id", "is not a UUID in lower case", hint="leave it out to get one")
        opaque = space.keys.opaque_id(op.type, id)
        record = self._find(space, opaque)
        exists = record is not None and (record.json is not None or record.no in self._stale)
        if record is not None and exists and not self._is_deleted(record):
            edit = plan_edit(schema, record.doc.writes(), op.values, **self._as(role))
            return self._apply(record, schema, edit)
        writes = {} if record is None else record.doc.writes()
        edit = plan_create(schema, writes, op.values, **self._as(role))
        if record is None:
            record = self._replica.records.new(space, op.type, id, opaque, self._replica.author, None)
        return self._apply(record, schema, edit, deleted=False)

    def _resolve(self, *ops: ResolveOp) -> _Done:
        """Decide conflicts of one record, all in one edit."""
        decisions = [deciding.decided(self._replica, op) for op in ops]
        deciding.of_one_record(decisions)
        entry = decisions[0].entry
        space, schema, role = self._ground(entry.space, entry.type)
        record = self._existing(space, entry.type, entry.record)
        standing = self._standing(record)
        for decision in decisions:
            if decision.entry.id not in standing:
                raise self._closed(decision.entry)
        values = [(decision.entry.path, decision.value) for decision in decisions]
        edit = plan_resolve_all(schema, record.doc.writes(), values, **self._as(role))
        done = self._apply(record, schema, edit, deleted=self._deleted_by(record, edit))
        for decision in decisions:
            if decision.remember is not None:
                field = preferences.field_of(decision.entry.path)
                preferences.remember(self._replica, entry.type, field, decision.remember)
        return done

    def _restore_version(self, op: RestoreVersionOp) -> _Done:
        """While the conflict stands, this resolves it; else it is a write like any other."""
        entry = trail.entry(self._replica, op.conflict)
        chosen = deciding.alternative_of(entry, op.alternative)
        space, schema, role = self._ground(entry.space, entry.type)
        record = self._existing(space, entry.type, entry.record)
        if entry.id in self._standing(record):
            return self._resolve(ResolveOp(entry.id, alternative=op.alternative))
        writes = record.doc.writes()
        if entry.path == DELETED_PATH and chosen.deletes:
            return self._apply(record, schema, plan_delete(schema, writes, **self._as(role)), deleted=True)
        if entry.path == DELETED_PATH and self._is_deleted(record):
            return self._apply(record, schema, plan_restore(schema, writes, **self._as(role)), deleted=False)
        self._refuse_deleted(record)
        changes = deciding.written_again(schema, chosen.path, chosen.value)
        return self._apply(record, schema, plan_edit(schema, writes, changes, **self._as(role)))

    def _standing(self, record: OpenRecord) -> set[str]:
        return {conflict.id for conflict in record.standing.conflicts} - self._settled

    def _closed(self, entry: ConflictEntry) -> ConflictClosed:
        """Closed earlier in this very call, the trail does not know it yet."""
        if entry.state != "closed":
            return ConflictClosed(f"the conflict about {entry.field} was closed by the write before")
        return trail.closed_error(entry)

    def _deleted_by(self, record: OpenRecord, edit: Edit) -> bool | None:
        """What deciding about its deletion made of the record; None where nothing was decided about it."""
        if DELETED_PATH not in edit.resolves:
            return None
        return any(write.path == DELETED_PATH for write in edit.add)

    def _apply(
        self, record: OpenRecord, schema: RecordSchema, edit: Edit, *, deleted: bool | None = None
    ) -> _Done:
        """Edit the document and queue what that gives. Nothing before this has changed anything."""
        space = record.space
        resolved = self._resolved(record, edit.resolves)
        if not edit.remove and not edit.add:
            self._touched.setdefault((space.no, record.opaque), record)
            return _Done(record, resolved, changed=False)
        _check_size(record, edit.add)
        change = record.doc.edit(remove=edit.remove, add=edit.add)
        self._touched[(space.no, record.opaque)] = record
        self._stale.add(record.no)
        self._settled.update(resolved)
        if deleted is not None:
            self._deleted[record.no] = deleted
        self._outbox.append(
            (space.no, record.no, self._replica.author.incarnation, schema.version, change, self._now_ms)
        )
        return _Done(record, resolved, changed=True)

    # What operations need ---------------------------------------------------------------------------

    def _ground(self, space_id: SpaceId | None, record_type: str) -> tuple[Space, RecordSchema, Role]:
        """Where the operation happens and by which right. Raises PermissionDenied and the like."""
        space = self._replica.space(space_id)
        schema = space.schema(record_type)
        role = space.role_of(self._replica.device_id)
        if role is None:
            raise PermissionDenied(
                f"this device is not a member of space {space.name} yet", hint="let it join first"
            )
        if not role.may_write:
            raise PermissionDenied(
                f"a {role.text} may not write records in space {space.name}",
                hint="ask an admin for another role",
            )
        schema.require_writer(role)
        return space, schema, role

    def _as(self, role: Role) -> dict[str, Any]:
        return {"author": self._replica.author, "role": role, "tick": self._replica.tick}

    def _find(self, space: Space, opaque: OpaqueId) -> OpenRecord | None:
        """Touched ones first: they may have left the cache, and the store does not have them yet."""
        touched = self._touched.get((space.no, opaque))
        return touched or self._replica.records.find(space, opaque, self._replica.author)

    def _existing(self, space: Space, record_type: str, id: RecordId) -> OpenRecord:
        record = self._find(space, space.keys.opaque_id(record_type, id))
        if record is None:
            raise RecordNotFound(
                f"there is no {record_type} {id}", hint="sync, or list them with `crdt-sync ls`"
            )
        return record

    def _is_deleted(self, record: OpenRecord) -> bool:
        return self._deleted.get(record.no, record.deleted)

    def _refuse_deleted(self, record: OpenRecord) -> None:
        if self._is_deleted(record):
            raise RecordDeleted(
                f"{record.type} {record.id} is deleted", hint="restore it first if it should come back"
            )

    def _resolved(self, record: OpenRecord, paths: Iterable[Path]) -> tuple[str, ...]:
        if not record.standing.conflicts:
            return ()
        resolved_paths = set(paths)
        return tuple(
            conflict.id
            for conflict in record.standing.conflicts
            if conflict.path in resolved_paths and conflict.id not in self._settled
        )


def _check_size(record: OpenRecord, add: Sequence[Write]) -> None:
    """Only long values are worth looking at: short ones cannot fill a record by themselves."""
    added = sum(len(write.encode()) for write in add if type(write.value) in _LONG)
    if added > 4096 and added + len(record.doc.state()) > MAX_RECORD_BYTES:
        raise RecordTooLarge(
            f"the record would take more than {MAX_RECORD_BYTES // 1024} KiB",
            hint="keep large files elsewhere and store a link, or make photos smaller",
        )


_LONG: Final = frozenset({str, bytes, list, dict})
