"""Local writes: each operation by itself, all of a call in one durable transaction.

An operation is planned first, against the open document: every check is there, and one that fails has
changed nothing. Then the document is edited, and what the edit's transaction hands out goes to the
outbox. Each record of the call is viewed and stored once, at the end, however many operations it had.

The operations of a `Transaction` are planned one upon the other before the first document is edited, so
one that fails undoes nothing and the others of the call do not notice. `Draft` plans like that and stops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.errors import (
    ConflictClosed,
    CrdtSyncError,
    PermissionDenied,
    RecordDeleted,
    RecordTooLarge,
    TransactionError,
    ValidationError,
)
from crdt_sync.hlc import Hlc
from crdt_sync.ids import OpaqueId, RecordId, SpaceId, is_record_id, new_record_id
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.editing import (
    Edit,
    edited,
    plan_create,
    plan_delete,
    plan_edit,
    plan_resolve_all,
    plan_restore,
)
from crdt_sync.records.planning import Tick
from crdt_sync.records.view import DELETED_PATH
from crdt_sync.records.writes import DocWrites, Path, Write
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync.schemas.model import RecordSchema
from crdt_sync.schemas.priorities import check_priority
from crdt_sync_client.engine import absent, deciding, preferences, scoping, trail
from crdt_sync_client.engine.family import Family
from crdt_sync_client.engine.held_up import held_up, write_held_up
from crdt_sync_client.engine.materialising import Materialiser, sync_state
from crdt_sync_client.engine.model import (
    ConflictEntry,
    CreateOp,
    DeleteOp,
    Operation,
    Outcome,
    RecordChange,
    ResolveOp,
    ResolveRecordOp,
    RestoreOp,
    RestoreVersionOp,
    Transaction,
    TransactionResult,
    UpdateOp,
    WriteResult,
)
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.outbox_order import NewRow
from crdt_sync_client.engine.refused import hold_back
from crdt_sync_client.engine.space import Space
from crdt_sync_client.engine.write_plans import Done, Plan, Seen

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

MAX_RECORD_BYTES: Final = MAX_ENVELOPE_BYTES * 3 // 4
"""A whole record must fit one snapshot envelope, with its padding and its cover vector."""

MAX_TRANSACTION: Final = 500
"""Operations in one transaction. Two that wrote to one record become one group, which may have twice as many
envelopes; and while it is stored, some 50 ms, every other write waits."""
MAX_TRANSACTION_BYTES: Final = 16 * 1024 * 1024
"""Of values in one transaction: a receiver has them all in memory at once."""


class LocalWrites:
    """One call of `Engine.write`. Use once."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._seen = Seen()
        self._outbox: list[NewRow] = []
        self._now_ms = replica.now_ms()
        self._tick: Tick = partial(replica.hlc.tick, self._now_ms)

    def run(self, ops: Sequence[Operation | Transaction]) -> list[Outcome]:
        """Do all of `ops`; results and errors in their order."""
        replica = self._replica
        done: list[Done | list[Done] | CrdtSyncError] = []
        with replica.transaction(durable=True):
            for op in ops:
                try:
                    if isinstance(op, Transaction):
                        done.append(self._do_together(op.ops, op.priority))
                    else:
                        done.append(self._apply(self._plan(op), None, op.priority))
                except CrdtSyncError as error:
                    done.append(error)
            if self._outbox:
                rows = hold_back(replica, self._outbox) if replica.refused else self._outbox
                replica.outbox.add(replica, rows)
                for row in rows:
                    if row.error is None:
                        replica.unsent[row.record] += 1
                    else:
                        replica.count_unsent(row.record)
            changes = self._save() if self._outbox else []
        return [held_up(replica, result) for result in self._results(done, changes)]

    def _save(self) -> list[RecordChange]:
        replica = self._replica
        materialiser = Materialiser(replica, "local")
        edited = self._seen.edited()
        schemas = [record for record in edited if record.type == SCHEMA_TYPE]
        for record in schemas:
            materialiser.take(record)
            materialiser.take_schemas(record.space, [record])
        for record in edited:
            if record.type != SCHEMA_TYPE:
                materialiser.take(record)
        result = materialiser.save()
        scoping.note_edited(replica, edited, result)
        replica.save_clock()
        for record in edited:
            replica.records.keep(record)
        return result.changes

    def _results(
        self, done: list[Done | list[Done] | CrdtSyncError], changes: Iterable[RecordChange]
    ) -> list[Outcome]:
        """Each result with its record's state now, and each change on the last result of its record."""
        pending = {(change.space, change.type, change.id): change for change in changes}
        results: list[Outcome] = []
        for each in reversed(done):
            if isinstance(each, CrdtSyncError):
                results.append(each)
            elif isinstance(each, list):
                together = [self._result(one, pending) for one in reversed(each)]
                results.append(TransactionResult(tuple(reversed(together))))
            else:
                results.append(self._result(each, pending))
        results.reverse()
        return _with_further(results, pending.values())

    def _result(self, done: Done, pending: dict[tuple[SpaceId, str, RecordId], RecordChange]) -> WriteResult:
        record, resolved, changed, below, first, clock = done
        space = record.space.id
        state = sync_state(self._replica, record.no, record.standing)
        change = pending.pop((space, record.type, record.id), None)
        known = (record.id, record.type, space, resolved, state, changed, change, below)
        return WriteResult(*known, first=first, clock=clock)

    # Several operations together --------------------------------------------------------------------

    def _do_together(self, ops: Sequence[Operation], priority: int | None) -> list[Done]:
        """All of them or, when one fails, none. Nothing is edited before all are planned."""
        before, self._seen = self._seen, self._seen.copy()
        try:
            plans = self._plan_together(ops)
        finally:
            self._seen = before
        tied = self._replica.tick()
        return [self._apply(plan, tied, op.priority or priority) for plan, op in zip(plans, ops, strict=True)]

    def _plan_together(self, ops: Sequence[Operation]) -> list[Plan]:
        """Each upon those before it. Raises the error of the first that cannot be done."""
        if not ops:
            raise TransactionError("a transaction without operations")
        plans: list[Plan] = []
        size = 0
        for op in ops:
            plan = self._plan(op)
            plans.append(plan)
            size += 1 + len(plan.below)
            check_transaction(size, plans[0].record.space, plan.record.space)
            self._foresee(plan)
        return plans

    def _foresee(self, plan: Plan) -> tuple[str, ...]:
        """Take the plan as done, for those that follow; the conflicts that it resolves."""
        for below in plan.below:
            self._foresee(below)
        seen, record, edit = self._seen, plan.record, plan.edit
        resolved = self._resolved(record, edit.resolves)
        if not edit:
            return resolved
        added, long_bytes = seen.added_bytes, _long_bytes(edit.add)
        _check_size(record, added.get(record.no, 0) + long_bytes)
        if sum(added.values()) + long_bytes > MAX_TRANSACTION_BYTES:
            raise TransactionError(
                f"a transaction writes values of up to {MAX_TRANSACTION_BYTES // 1024**2} MiB",
                hint="do it in several transactions",
            )
        added[record.no] = added.get(record.no, 0) + long_bytes
        seen.planned[record.no] = edited(self._writes(record), edit)
        seen.note(plan, resolved)
        return resolved

    # One operation ----------------------------------------------------------------------------------

    def _plan(self, op: Operation) -> Plan:
        if op.priority is not None:
            check_priority(op.priority)
        plan = self._plan_alone(op)
        if plan.deleted is None or isinstance(op, CreateOp):
            return plan
        family = Family(self._replica, self._seen_now, find=self._find)
        return plan._replace(below=family.below(plan, self._tick))

    def _plan_alone(self, op: Operation) -> Plan:
        match op:
            case CreateOp():
                return self._create(op)
            case UpdateOp():
                space, schema, role = self._ground(op.space, op.type)
                record = self._existing(space, op.type, op.id)
                self._refuse_deleted(record)
                edit = plan_edit(
                    schema,
                    self._writes(record),
                    op.changes,
                    **self._as(role),
                    typing_since=self._replica.opened,
                )
                return Plan(record, schema, edit)
            case DeleteOp():
                space, schema, role = self._ground(op.space, op.type)
                record = self._existing(space, op.type, op.id)
                self._refuse_deleted(record)
                edit = plan_delete(schema, self._writes(record), **self._as(role))
                return Plan(record, schema, edit, deleted=True)
            case RestoreOp():
                space, schema, role = self._ground(op.space, op.type)
                record = self._existing(space, op.type, op.id)
                edit = plan_restore(schema, self._writes(record), **self._as(role))
                return Plan(record, schema, edit, deleted=False)
            case ResolveOp():
                return self._resolve(op)
            case ResolveRecordOp():
                return self._resolve(*op.decisions)
            case RestoreVersionOp():
                return self._restore_version(op)

    def _create(self, op: CreateOp) -> Plan:
        space, schema, role = self._ground(op.space, op.type)
        id = op.id if op.id is not None else new_record_id(self._replica.entropy)
        if not is_record_id(id):
            raise ValidationError("id", "is not a UUID in lower case", hint="leave it out to get one")
        opaque = space.keys.opaque_id(op.type, id)
        record = self._find(space, opaque)
        exists = record is not None and (record.json is not None or record.no in self._seen.stale)
        if record is not None and exists and not self._is_deleted(record):
            edit = plan_edit(
                schema, self._writes(record), op.values, **self._as(role), typing_since=self._replica.opened
            )
            return Plan(record, schema, edit)
        writes = {} if record is None else self._writes(record)
        edit = plan_create(schema, writes, op.values, **self._as(role))
        if record is None:
            if absent.find(self._replica, space, opaque) is not None:
                raise absent.missing(self._replica, space, op.type, id)
            record = self._replica.records.new(space, op.type, id, opaque, self._replica.author, None)
        return Plan(record, schema, edit, deleted=False)

    def _resolve(self, *ops: ResolveOp) -> Plan:
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
        edit = plan_resolve_all(schema, self._writes(record), values, **self._as(role))
        remember = tuple(
            (preferences.field_of(decision.entry.path), decision.remember)
            for decision in decisions
            if decision.remember is not None
        )
        return Plan(record, schema, edit, self._deleted_by(record, edit), remember)

    def _restore_version(self, op: RestoreVersionOp) -> Plan:
        """While the conflict stands, this resolves it; else it is a write like any other."""
        entry = trail.entry(self._replica, op.conflict)
        chosen = deciding.alternative_of(entry, op.alternative)
        space, schema, role = self._ground(entry.space, entry.type)
        record = self._existing(space, entry.type, entry.record)
        if entry.id in self._standing(record):
            return self._resolve(ResolveOp(entry.id, alternative=op.alternative))
        writes = self._writes(record)
        if entry.path == DELETED_PATH and chosen.deletes:
            return Plan(record, schema, plan_delete(schema, writes, **self._as(role)), deleted=True)
        if entry.path == DELETED_PATH and self._is_deleted(record):
            return Plan(record, schema, plan_restore(schema, writes, **self._as(role)), deleted=False)
        self._refuse_deleted(record)
        changes = deciding.written_again(schema, chosen.path, chosen.value)
        return Plan(
            record,
            schema,
            plan_edit(schema, writes, changes, **self._as(role), typing_since=self._replica.opened),
        )

    def _seen_now(self) -> Seen:
        return self._seen

    def _standing(self, record: OpenRecord) -> set[str]:
        return {conflict.id for conflict in record.standing.conflicts} - self._seen.settled

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

    def _apply(self, plan: Plan, tied: int | None, priority: int | None) -> Done:
        """Edit the document, and those of records below. Nothing before this has changed anything.

        `tied`: the number of the transaction that it is a part of.
        """
        if not plan.below:
            return self._edit(plan, tied, priority)
        if tied is None:
            tied = self._replica.tick()
        done = self._edit(plan, tied, priority)
        for below in plan.below:
            self._edit(below, tied, priority)
        named = tuple((below.record.type, below.record.id) for below in plan.below)
        return done._replace(changed=True, below=named)

    def _edit(self, plan: Plan, tied: int | None, priority: int | None) -> Done:
        """Edit one document and queue what that gives."""
        record, schema, edit, _, remember, _ = plan
        space, replica = record.space, self._replica
        resolved = self._resolved(record, edit.resolves)
        changed, first = bool(edit), replica.hlc.last
        if changed:
            # What only clears something gets a time of its own, for people who ask about it.
            first = edit.add[0].hlc if edit.add else replica.tick()
            if tied is None:
                _check_size(record, _long_bytes(edit.add))
            change = record.doc.edit(remove=edit.remove, add=edit.add)
            self._seen.note(plan, resolved)
            place = (space.no, record.no, replica.author.incarnation, schema.version)
            urgency = priority or schema.priorities.of(edit.add)
            self._outbox.append(NewRow(*place, change, self._now_ms, tied, first, urgency))
        else:
            self._seen.touched.setdefault((space.no, record.opaque), record)
        for field, side in remember:
            preferences.remember(replica, record.type, field, side)
        return Done(record, resolved, changed, first=first, clock=replica.hlc.last)

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
        return {"author": self._replica.author, "role": role, "tick": self._tick}

    def _find(self, space: Space, opaque: OpaqueId) -> OpenRecord | None:
        """Touched ones first: they may have left the cache, and the store does not have them yet."""
        touched = self._seen.touched.get((space.no, opaque))
        return touched or self._replica.records.find(space, opaque, self._replica.author)

    def _writes(self, record: OpenRecord) -> DocWrites:
        return self._seen.writes(record)

    def _existing(self, space: Space, record_type: str, id: RecordId) -> OpenRecord:
        record = self._find(space, space.keys.opaque_id(record_type, id))
        if record is None:
            raise absent.missing(self._replica, space, record_type, id)
        return record

    def _is_deleted(self, record: OpenRecord) -> bool:
        return self._seen.deleted.get(record.no, record.deleted)

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
            if conflict.path in resolved_paths and conflict.id not in self._seen.settled
        )


class Draft(LocalWrites):
    """What a transaction is going to do, planned operation by operation while an app makes it up.

    Nothing is written. A record is seen as it was when the transaction came to it; at the end all is planned
    anew, upon what is there then.
    """

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        times = count(replica.hlc.last + 1)
        self._tick = lambda: Hlc(next(times))
        self._count = 0
        self._space: Space | None = None

    def add(self, op: Operation) -> tuple[Operation, WriteResult]:
        """The operation, with its id, and what it will do as things stand. Raises what it would raise."""
        if isinstance(op, CreateOp) and op.id is None:
            op = replace(op, id=new_record_id(self._replica.entropy))
        plan = self._plan(op)
        record, space = plan.record, plan.record.space
        check_transaction(self._count + 1 + len(plan.below), self._space or space, space)
        resolved, changed = self._foresee(plan), bool(plan.edit or plan.below)
        self._count, self._space = self._count + 1 + len(plan.below), space
        state = "pending" if changed else sync_state(self._replica, record.no, record.standing)
        below = tuple((each.record.type, each.record.id) for each in plan.below)
        result = WriteResult(record.id, record.type, space.id, resolved, state, changed, below=below)
        return op, write_held_up(self._replica, result)


def _with_further(outcomes: list[Outcome], further: Iterable[RecordChange]) -> list[Outcome]:
    """Changes of records that no operation named go with the last operation that was done."""
    rest = tuple(further)
    for at in reversed(range(len(outcomes)) if rest else ()):
        outcome = outcomes[at]
        if isinstance(outcome, WriteResult):
            outcomes[at] = replace(outcome, further=rest)
            break
        if isinstance(outcome, TransactionResult):
            *others, last = outcome.results
            outcomes[at] = TransactionResult((*others, replace(last, further=rest)))
            break
    return outcomes


def check_transaction(size: int, first: Space, space: Space) -> None:
    """Raises TransactionError for one that is too long, or goes from one space to another."""
    if size > MAX_TRANSACTION:
        raise TransactionError(
            f"a transaction has up to {MAX_TRANSACTION} operations", hint="do it in several transactions"
        )
    if first.id != space.id:
        raise TransactionError(
            f"a transaction writes to records of one space, and this one began in {first.name}",
            hint="make one for each space: what they write can reach others at different times",
        )


def _long_bytes(add: Sequence[Write]) -> int:
    """Only long values are worth looking at: short ones cannot fill a record by themselves."""
    return sum(len(write.encode()) for write in add if type(write.value) in _LONG)


def _check_size(record: OpenRecord, added: int) -> None:
    """Raises RecordTooLarge."""
    if added > 4096 and added + len(record.doc.state()) > MAX_RECORD_BYTES:
        raise RecordTooLarge(
            f"the record would take more than {MAX_RECORD_BYTES // 1024} KiB",
            hint="keep large files elsewhere and store a link, or make photos smaller",
        )


_LONG: Final = frozenset({str, bytes, list, dict})
