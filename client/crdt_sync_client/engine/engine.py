"""The device without its network: everything a device does, as plain synchronous calls over one database.

One engine owns one open `Database` and lives on the thread that opened it. Every public method is one
transaction or none: it returns after the commit, or raises and has changed nothing, in the database as
in memory. It knows neither sockets nor tasks nor wall clocks; the shell and the simulator call it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import Author, DeviceId, Entropy, Incarnation, OpaqueId, RecordId, RelayId, SpaceId
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine.model import (
    ConflictEntry,
    JoinStart,
    MemberInfo,
    Operation,
    OutboxItem,
    Received,
    Record,
    RecordChange,
    SessionStart,
    SpaceState,
    StatusCounts,
    Welcomed,
    WriteResult,
)
from crdt_sync_client.store.connection import Database

VerifyMany = Callable[[Sequence[tuple[Any, bytes]]], list[bool]]
"""Given (envelope, public signing key) pairs, whether each signature is good. May use threads."""


class Engine:
    """See the module. Make one with `create` or `open`, end it with `close`."""

    device_id: DeviceId
    name: str
    author: Author

    @classmethod
    def create(cls, db: Database, *, name: str, clock: Callable[[], int], entropy: Entropy) -> Engine:
        """Set up a new, empty store in `db`. `clock` gives Unix milliseconds."""
        raise NotImplementedError

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
        raise NotImplementedError

    def close(self) -> None:
        """Mark the store cleanly closed and close the database. Again is harmless."""
        raise NotImplementedError

    # Spaces and membership --------------------------------------------------------------------------

    def begin_space(
        self, name: str, relay_url: str, schemas: Sequence[RecordSchema]
    ) -> tuple[SpaceId, bytes]:
        """Found a space with this device as admin; returns its id and genesis entry, for the relay."""
        raise NotImplementedError

    def confirm_space(self, space: SpaceId) -> None:
        """The relay has taken the genesis entry."""
        raise NotImplementedError

    def abandon_space(self, space: SpaceId) -> None:
        """Forget a space that the relay has never taken (`creating` or `joining`), with all in it."""
        raise NotImplementedError

    def make_invite(self, space: SpaceId, role: Role, expires_at_ms: int) -> tuple[bytes, str]:
        """The entry to append at the relay and the link to hand over; nothing is stored.

        Call `apply_membership` with the entry once the relay has taken it. When the relay refuses it because
        its log has moved on, receive the rest of the log and make a new one.
        """
        raise NotImplementedError

    def begin_join(self, link: str) -> JoinStart:
        """What is needed to fetch the membership log as the bearer of `link`. Raises InviteGarbled."""
        raise NotImplementedError

    def join_from_log(self, link: str, entries: Sequence[bytes], now_ms: int) -> bytes:
        """Check the log, take the space's keys and return the join entry to append at the relay.

        The space is stored as `joining` until `confirm_join`. Raises InviteUsed, InviteExpired,
        InviteWithdrawn, BadMembership.
        """
        raise NotImplementedError

    def confirm_join(self, space: SpaceId) -> None:
        """The relay has appended the join entry."""
        raise NotImplementedError

    def apply_membership(self, space: SpaceId, entry: bytes) -> None:
        """Take an entry of the membership log; one already applied changes nothing."""
        raise NotImplementedError

    def spaces(self) -> list[SpaceState]:
        raise NotImplementedError

    def space(self, name_or_id: str | SpaceId | None = None) -> SpaceState:
        """The space of that name, id or hex id; None is the only one. Raises UnknownSpace."""
        raise NotImplementedError

    def members(self, space: SpaceId) -> list[MemberInfo]:
        raise NotImplementedError

    def schemas(self, space: SpaceId | None = None) -> dict[str, RecordSchema]:
        """The record types there are, by name."""
        raise NotImplementedError

    def add_schema(self, space: SpaceId, schema: RecordSchema) -> WriteResult:
        """Carry a record type (or a new version of one) in the space. Admins only."""
        raise NotImplementedError

    # Records ----------------------------------------------------------------------------------------

    def write(self, ops: Sequence[Operation]) -> list[WriteResult | CrdtSyncError]:
        """Do the operations in one durable transaction. One that fails stands as its error, alone."""
        raise NotImplementedError

    def get(
        self, type: str, id: str, *, space: SpaceId | None = None, deleted: bool = False
    ) -> Record | None:
        """The record, or None. Deleted ones only with `deleted=True`."""
        raise NotImplementedError

    def query(
        self,
        type: str,
        where: Mapping[str, Any] | None = None,
        *,
        order_by: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        space: SpaceId | None = None,
        deleted: bool = False,
    ) -> list[Record]:
        """Records whose fields equal `where` (dotted paths allowed). `order_by` a field, "-field" descending."""
        raise NotImplementedError

    def count(
        self, type: str, where: Mapping[str, Any] | None = None, *, space: SpaceId | None = None
    ) -> int:
        raise NotImplementedError

    def conflicts(
        self, *, open_only: bool = True, type: str | None = None, record: str | None = None
    ) -> list[ConflictEntry]:
        """The audit trail, oldest first; by default only what a person has to decide."""
        raise NotImplementedError

    def conflict(self, id: str) -> ConflictEntry:
        """One entry, by its id or an unambiguous start of it. Raises ConflictNotFound."""
        raise NotImplementedError

    def outbox(self, space: SpaceId | None = None) -> list[OutboxItem]:
        """Local work not acknowledged by the relay, one item per record and state, oldest first."""
        raise NotImplementedError

    def retry_failed(self, space: SpaceId | None = None) -> int:
        """Put failed work that can be sent again back in line; returns how many items."""
        raise NotImplementedError

    def status_counts(self, space: SpaceId | None = None) -> StatusCounts:
        raise NotImplementedError

    def content_hash(self, type: str, id: str, *, space: SpaceId | None = None) -> bytes:
        """32 bytes that are equal on every device with the same content of this record."""
        raise NotImplementedError

    # Synchronisation of one space -------------------------------------------------------------------

    def session_start(self, space: SpaceId) -> SessionStart:
        raise NotImplementedError

    def welcome(
        self, space: SpaceId, relay: RelayId, own_sequence: int, own_hash: bytes, head: int
    ) -> Welcomed:
        """Compare with what the relay has of this device's chain. Call it first in every session."""
        raise NotImplementedError

    def next_push(self, space: SpaceId, *, max_count: int, max_bytes: int) -> list[bytes]:
        """The next envelopes to send in this session, already durable; empty when there are none.

        Each is handed out once per session (`welcome` begins one): first those sealed in an earlier
        session and not acknowledged, then pending updates, merged per record and sealed now.
        """
        raise NotImplementedError

    def acked(self, space: SpaceId, incarnation: Incarnation, sequence: int) -> list[tuple[str, RecordId]]:
        """Everything of that chain up to `sequence` is durable at the relay; the records now synced."""
        raise NotImplementedError

    def refused(
        self, space: SpaceId, incarnation: Incarnation, sequence: int, code: str, reason: str
    ) -> list[tuple[str, RecordId]]:
        """The relay will not take that envelope; the records whose work is now `failed`."""
        raise NotImplementedError

    def receive(self, space: SpaceId, rows: Sequence[tuple[int, int, bytes]], cursor: int) -> Received:
        """Merge rows (log sequence, kind, bytes) in one transaction that also moves the cursor.

        Raises a RemoteError, and changes nothing, when a row cannot be what an honest relay delivers.
        """
        raise NotImplementedError

    def make_snapshots(self, space: SpaceId, records: Iterable[OpaqueId]) -> list[bytes]:
        """Snapshot envelopes of those records that this device can vouch for now; others are left out."""
        raise NotImplementedError

    def changes_of(self, results: Iterable[WriteResult | CrdtSyncError]) -> list[RecordChange]:
        """The changes to publish after a `write`."""
        return [result.change for result in results if isinstance(result, WriteResult) and result.change]
