"""The device without its network: everything a device does, as plain synchronous calls over one database.

One engine owns one open `Database` and lives on the thread that opened it. Every public method is one
transaction or none: it returns after the commit, or raises and has changed nothing, in the database as
in memory. It knows neither sockets nor tasks nor wall clocks; the shell and the simulator call it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import overload

import msgspec

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import Author, DeviceId, Entropy, Incarnation, OpaqueId, RecordId, SpaceId
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import (
    compacting,
    explaining,
    history,
    joining,
    live_matching,
    preferences,
    publishing,
    reading,
    scoping,
    sending,
    trail,
    upkeep,
)
from crdt_sync_client.engine.absent_calls import AbsentCalls
from crdt_sync_client.engine.checkout_calls import CheckoutCalls
from crdt_sync_client.engine.explaining import Explanation
from crdt_sync_client.engine.history import HistoryEntry
from crdt_sync_client.engine.leaving_calls import LeavingCalls
from crdt_sync_client.engine.live_matching import LiveAnswer
from crdt_sync_client.engine.local_writes import Draft, LocalWrites
from crdt_sync_client.engine.materialising import Materialised
from crdt_sync_client.engine.model import (
    ConflictEntry,
    ConflictFilter,
    ConflictState,
    JoinStart,
    MemberInfo,
    Operation,
    Outcome,
    Preference,
    Quarantined,
    Received,
    Record,
    RecordChange,
    SpaceState,
    StatusCounts,
    Transaction,
    Upkept,
    WriteResult,
    changes_of,
)
from crdt_sync_client.engine.outbox_calls import OutboxCalls
from crdt_sync_client.engine.pausing import collector_paused
from crdt_sync_client.engine.place import move_cursor
from crdt_sync_client.engine.queries import OrderBy, Query, Where
from crdt_sync_client.engine.receiving import ReceivedBatch, brings_nothing
from crdt_sync_client.engine.replica import Replica
from crdt_sync_client.engine.session_calls import SessionCalls
from crdt_sync_client.engine.taking_entries import take_entry
from crdt_sync_client.engine.verifying import VerifyMany, verify_on_two_threads
from crdt_sync_client.store.connection import Database


@contextmanager
def _closing_on_error(db: Database) -> Iterator[None]:
    """A database whose engine cannot start is of no use to anyone."""
    try:
        yield
    except BaseException:
        db.close()
        raise


class Engine(AbsentCalls, CheckoutCalls, LeavingCalls, OutboxCalls, SessionCalls):
    """See the module. Make one with `create` or `open`, end it with `close`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @property
    def device_id(self) -> DeviceId:
        return self._replica.device_id

    @property
    def name(self) -> str:
        """The name this device was given when its store was made."""
        return self._replica.name

    @property
    def author(self) -> Author:
        """As whom new writes are made: this device in its present incarnation."""
        return self._replica.author

    @property
    def incarnation(self) -> Incarnation:
        return self._replica.author.incarnation

    def _no(self, space: SpaceId | None) -> int | None:
        return None if space is None else self._replica.space(space).no

    @classmethod
    def create(cls, db: Database, *, name: str, clock: Callable[[], int], entropy: Entropy) -> Engine:
        """Set up a new, empty store in `db`. `clock` gives Unix milliseconds."""
        with _closing_on_error(db):
            Replica.initialise(db, name=name, entropy=entropy)
            return cls(Replica(db, clock=clock, entropy=entropy, verify_many=verify_on_two_threads))

    @classmethod
    def open(
        cls,
        db: Database,
        *,
        clock: Callable[[], int],
        entropy: Entropy,
        verify_many: VerifyMany | None = None,
    ) -> Engine:
        """Take up an existing store. After an unclean end, new writes get a new incarnation."""
        with _closing_on_error(db):
            Replica.check(db)
            return cls(
                Replica(db, clock=clock, entropy=entropy, verify_many=verify_many or verify_on_two_threads)
            )

    def close(self) -> None:
        """Mark the store cleanly closed and close the database. Again is harmless."""
        self._replica.close()

    # Spaces and membership --------------------------------------------------------------------------

    def begin_space(
        self, name: str, relay_url: str, schemas: Sequence[RecordSchema]
    ) -> tuple[SpaceId, bytes]:
        """Found a space with this device as admin; returns its id and genesis entry, for the relay."""
        return joining.begin_space(self._replica, name, relay_url, schemas)

    def confirm_space(self, space: SpaceId) -> None:
        """The relay has taken the genesis entry."""
        joining.confirm(self._replica, self._replica.space(space))

    def abandon_space(self, space: SpaceId) -> None:
        """Forget a space that the relay has never taken (`creating` or `joining`), with all in it."""
        joining.abandon(self._replica, self._replica.space(space))

    def make_invite(self, space: SpaceId, role: Role, expires_at_ms: int) -> tuple[bytes, str]:
        """The entry to append at the relay and the link to hand over; nothing is stored.

        Call `apply_membership` with the entry once the relay has taken it. When the relay refuses it because
        its log has moved on, receive the rest of the log and make a new one.
        """
        return joining.invite(self._replica, self._replica.space(space), role, expires_at_ms)

    def begin_join(self, link: str) -> JoinStart:
        """What is needed to fetch the membership log as the bearer of `link`. Raises InviteGarbled."""
        return joining.begin_join(link)

    def join_from_log(self, link: str, entries: Sequence[bytes], now_ms: int) -> bytes:
        """Check the log, take the space's keys and return the join entry to append at the relay.

        The space is stored as `joining` until `confirm_join`. Raises InviteUsed, InviteExpired,
        InviteWithdrawn, BadMembership.
        """
        return joining.join_from_log(self._replica, link, entries, now_ms)

    def confirm_join(self, space: SpaceId) -> None:
        """The relay has appended the join entry."""
        joining.confirm(self._replica, self._replica.space(space))

    def apply_membership(self, space: SpaceId, entry: bytes) -> None:
        """Take an entry of the membership log; one already applied changes nothing."""
        found = self._replica.space(space)
        with self._replica.transaction(durable=True):
            take_entry(self._replica, found, entry)

    def spaces(self) -> list[SpaceState]:
        return [joining.state_of(self._replica, space) for space in self._replica.spaces.values()]

    def space(self, name_or_id: str | SpaceId | None = None) -> SpaceState:
        """The space of that name, id or hex id; None is the only one. Raises UnknownSpace."""
        return joining.state_of(self._replica, joining.find_space(self._replica, name_or_id))

    def members(self, space: SpaceId) -> list[MemberInfo]:
        return joining.members(self._replica, self._replica.space(space))

    def schemas(self, space: SpaceId | None = None) -> dict[str, RecordSchema]:
        """The record types there are, by name."""
        found = self._replica.space(space)
        return {name: found.schemas[name] for name in found.types}

    def add_schema(self, space: SpaceId, schema: RecordSchema, *, force: bool = False) -> WriteResult:
        """Carry a record type, or a newer version of one, in the space. Admins only.

        Raises SchemaRefused for a version that is not newer, and unless `force` for one with unsafe changes.
        """
        return publishing.add_schema(self._replica, self._replica.space(space), schema, force=force)

    # Records ----------------------------------------------------------------------------------------

    @overload
    def write(self, ops: Sequence[Operation]) -> Sequence[WriteResult | CrdtSyncError]: ...

    @overload
    def write(self, ops: Sequence[Operation | Transaction]) -> Sequence[Outcome]: ...

    def write(self, ops: Sequence[Operation | Transaction]) -> Sequence[Outcome]:
        """Do them in one durable transaction of the store. One that fails stands as its error, alone."""
        return LocalWrites(self._replica).run(ops)

    def draft(self) -> Draft:
        """A transaction to be made up operation by operation; nothing is written before `write` gets it."""
        return Draft(self._replica)

    @overload
    def write_and_push(
        self, ops: Sequence[Operation], pushes: Mapping[SpaceId, tuple[int, int]]
    ) -> tuple[Sequence[WriteResult | CrdtSyncError], dict[SpaceId, list[bytes]]]: ...

    @overload
    def write_and_push(
        self, ops: Sequence[Operation | Transaction], pushes: Mapping[SpaceId, tuple[int, int]]
    ) -> tuple[Sequence[Outcome], dict[SpaceId, list[bytes]]]: ...

    def write_and_push(
        self, ops: Sequence[Operation | Transaction], pushes: Mapping[SpaceId, tuple[int, int]]
    ) -> tuple[Sequence[Outcome], dict[SpaceId, list[bytes]]]:
        """`write`, and `next_push` for those spaces that were written to, with one durable commit for both.

        `pushes` gives `max_count` and `max_bytes` of each space that is ready to send. What is on its way
        is worth one wait for the disk, not two.
        """
        with self._replica.transaction(durable=True):
            results = self.write(ops)
            written = {result.space for result in results if not isinstance(result, CrdtSyncError)}
            return results, {
                space: self.next_push(space, max_count=count, max_bytes=size_bytes)
                for space, (count, size_bytes) in pushes.items()
                if space in written
            }

    def get(
        self, type: str, id: str, *, space: SpaceId | None = None, deleted: bool = False
    ) -> Record | None:
        """The record, or None. Deleted ones only with `deleted=True`."""
        return reading.get(self._replica, self._replica.space(space), type, id, deleted=deleted)

    def query(
        self,
        type: str,
        where: Where = None,
        *,
        order_by: OrderBy | None = None,
        limit: int | None = None,
        offset: int = 0,
        space: SpaceId | None = None,
        deleted: bool = False,
    ) -> list[Record]:
        """Records for which `where` holds (see `queries`); `order_by` "-field" descends."""
        wanted = Query(type, where, order_by or (), limit, deleted=deleted)
        return self.find(wanted, offset=offset, space=space)

    def find(self, query: Query, *, offset: int = 0, space: SpaceId | None = None) -> list[Record]:
        """All records of a query. Raises UnknownType, and ValidationError for what does not fit the type."""
        return reading.find(self._replica, self._replica.space(space), query, offset=offset)

    def page(
        self, query: Query, after: str | None = None, *, space: SpaceId | None = None
    ) -> tuple[list[Record], str | None]:
        """The first `limit` records, or those after the page with that token; and the token of the next."""
        return reading.page(self._replica, self._replica.space(space), query, after)

    def live_answer(self, query: Query, *, space: SpaceId | None = None) -> LiveAnswer:
        """The first page of a query, and what can change it."""
        return live_matching.answer(self._replica, self._replica.space(space), query)

    def count(self, type: str | Query, where: Where = None, *, space: SpaceId | None = None) -> int:
        """How many records `query` or `find` would give without a limit."""
        wanted = type if isinstance(type, Query) else Query(type, where)
        return reading.count(self._replica, self._replica.space(space), wanted)

    def conflicts(
        self, *, open_only: bool = True, type: str | None = None, record: str | None = None
    ) -> list[ConflictEntry]:
        """The audit trail, oldest first; by default only what a person has to decide."""
        state: ConflictState | None = "open" if open_only else None
        return trail.entries(self._replica, ConflictFilter(state, type=type, record=record))

    def find_conflicts(self, wanted: ConflictFilter) -> list[ConflictEntry]:
        """The entries that fit, oldest first."""
        return trail.entries(self._replica, wanted)

    def conflict_page(
        self, wanted: ConflictFilter, *, after: int = 0, limit: int = trail.PAGE
    ) -> tuple[list[ConflictEntry], int | None]:
        """Entries that fit, oldest first, and what to give as `after` for the next page; None: no more."""
        return trail.page(self._replica, wanted, after=after, limit=limit)

    def count_conflicts(self, wanted: ConflictFilter) -> int:
        return trail.count(self._replica, wanted)

    def conflict_counts(self, wanted: ConflictFilter, by: trail.CountBy) -> dict[str, int]:
        """How many fit by device, type, record, field or state, the most first."""
        return trail.count_by(self._replica, wanted, by)

    def conflict(self, id: str) -> ConflictEntry:
        """One entry, by its id or an unambiguous start of it. Raises ConflictNotFound."""
        return trail.entry(self._replica, id)

    def explain(
        self, type: str, id: str, field: str | None = None, *, space: SpaceId | None = None
    ) -> Explanation:
        """Why the record, or that field of it, is as it is."""
        return explaining.explain(self._replica, self._replica.space(space), type, id, field)

    def history(
        self, type: str, id: str, *, space: SpaceId | None = None, limit: int = 50
    ) -> list[HistoryEntry]:
        """What each transaction here changed in the record, the newest first, as far as it is kept."""
        return history.read(self._replica, self._replica.space(space), type, id, limit)

    def set_preference(self, type: str, field: str, keep: str) -> Preference:
        """Remember which side is kept in conflicts about a field. Raises UnknownType, ValidationError."""
        with self._replica.transaction(durable=True):
            return preferences.remember(self._replica, type, field, keep)

    def preferences(self) -> list[Preference]:
        return preferences.ls(self._replica)

    def clear_preferences(self, type: str, field: str | None = None) -> int:
        """Forget one, or all of a type; returns how many there were."""
        with self._replica.transaction(durable=True):
            return preferences.clear(self._replica, type, field)

    def quarantined(self, space: SpaceId) -> list[Quarantined]:
        """Updates that came and were not merged, oldest first; none of them is lost."""
        return reading.quarantined(self._replica, self._replica.space(space))

    def status_counts(self, space: SpaceId | None = None) -> StatusCounts:
        return reading.status_counts(self._replica, self._no(space))

    def content_hash(self, type: str, id: str, *, space: SpaceId | None = None) -> bytes:
        """32 bytes that are equal on every device with the same content of this record."""
        found = self._replica.space(space)
        opaque = found.keys.opaque_id(type, id)
        record = self._replica.records.find(found, opaque, self._replica.author)
        if record is None:
            raise self.missing(type, id, space=found.id)
        return record.doc.content_hash()

    # Synchronisation of one space -------------------------------------------------------------------

    def next_push(self, space: SpaceId, *, max_count: int, max_bytes: int) -> list[bytes]:
        """The next envelopes to send in this session, already durable; empty when there are none.

        Each is handed out once per session (`welcome` begins one): first those sealed in an earlier
        session and not acknowledged, then pending updates, merged per record and sealed now.
        """
        found = self._replica.space(space)
        return sending.next_push(self._replica, found, max_count=max_count, max_bytes=max_bytes)

    def has_more_to_push(self, space: SpaceId) -> bool:
        """Whether `next_push` may give something, though nothing is written and no lease ends meanwhile."""
        session = self._replica.space(space).session
        return bool(session.resend) or session.more

    def refused(
        self,
        space: SpaceId,
        incarnation: Incarnation,
        sequence: int,
        code: str,
        reason: str,
    ) -> list[tuple[str, RecordId]]:
        """The relay did not take that envelope; the records whose work is set aside now, see `refusals`.

        The first times none: the next session sends the same bytes again.
        """
        found = self._replica.space(space)
        return sending.refused(self._replica, found, incarnation, sequence, code, reason)

    def pause_s(self, space: SpaceId) -> float | None:
        """How long nothing may be sent after the last refusal, in seconds; None: the rest goes on at once."""
        return self._replica.space(space).session.pause_s

    def receive(
        self,
        space: SpaceId,
        rows: Sequence[tuple[int, int, bytes]],
        cursor: int,
        *,
        caught_up: bool = True,
        acks: Sequence[tuple[Incarnation, int, int]] = (),
    ) -> Received:
        """Merge rows (log sequence, kind, bytes; in log order) in one transaction that also moves the cursor.

        `caught_up`: the log had no more rows than up to `cursor`. Until then what was written together may
        be incomplete. `acks` are settled in the same transaction, each as by `acked`. Raises a RemoteError,
        and changes nothing, when a row cannot be what an honest relay delivers.
        """
        replica, found = self._replica, self._replica.space(space)
        quiet = brings_nothing(found, rows, caught_up=caught_up)
        if quiet and cursor <= found.cursor and not acks:
            return Received(duplicates=len(rows))
        with collector_paused(len(rows)), replica.transaction(durable=False):
            if quiet:
                move_cursor(replica, found, cursor)
                received = Received(duplicates=len(rows))
            else:
                received = ReceivedBatch(replica, found, caught_up=caught_up).run(rows, cursor)
            if not received.reconnect:
                for ack in acks:
                    sending.acked(replica, found, *ack)
            if not found.record_types.remaking or not received.schemas_changed:
                return received
            return _with_upkeep(received, upkeep.step(replica, found))

    @property
    def upkeep_due(self) -> bool:
        """Whether `keep_up` has something to do."""
        for space in self._replica.spaces.values():
            if space.record_types.remaking or (space.scope.leaving and scoping.is_due(self._replica, space)):
                return True
        return False

    def keep_up(self) -> Upkept | None:
        """Do a bit of what changed record types ask for: some 25 ms of work, in one transaction.

        Returns what became visible by it, None when there is nothing to do. Whoever owns the engine calls
        it until then, whenever record types may have changed, and first when a store was opened.
        """
        for space in self._replica.spaces.values():
            if space.record_types.remaking:
                with self._replica.transaction(durable=False):
                    done = upkeep.step(self._replica, space)
                return Upkept(space.id, tuple(done.changes), tuple(done.opened), tuple(done.closed))
            if scoping.is_due(self._replica, space):
                with self._replica.transaction(durable=False):
                    return Upkept(space.id, tuple(scoping.settle(self._replica, space)))
        return None

    def session_over(self, space: SpaceId) -> bool:
        """Whether the session must be opened again before anything more can be sent."""
        return sending.session_over(self._replica, self._replica.space(space))

    def make_snapshots(self, space: SpaceId, records: Iterable[OpaqueId]) -> list[bytes]:
        """Snapshot envelopes of those records that this device can vouch for now; others are left out."""
        return compacting.make_snapshots(self._replica, self._replica.space(space), records)

    def changes_of(self, outcomes: Iterable[Outcome]) -> list[RecordChange]:
        """The changes to publish after a `write`."""
        return changes_of(outcomes)


def _with_upkeep(received: Received, more: Materialised) -> Received:
    return msgspec.structs.replace(
        received,
        changes=(*received.changes, *more.changes),
        conflicts_opened=(*received.conflicts_opened, *more.opened),
        conflicts_closed=(*received.conflicts_closed, *more.closed),
    )
