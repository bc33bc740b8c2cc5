"""The storage port: what the relay's engine asks of a database, and nothing else.

Per space there is one log, a map from sequence numbers (from 1) to rows. Appending takes the next number.
Numbers are never given twice: a row may be pruned, but the last row of a log never goes without another in
its place.

A *snapshot row* stands at the place of the newest row it covers, instead of it. Thereby a reader who goes
through the log in order and stands before that place meets the snapshot and whatever of the covered rows it
has not had; a reader beyond it has already met every covered row, or an older snapshot of it. A cursor says
which of the two it is, and pruning underneath a reader takes nothing from it. (A snapshot under a new number
at the end, delivered to those whose cursor is before what it covers, loses data: a reader halfway through
the pruned stretch has a cursor beyond the covered rows by the time it comes to the snapshot.)

Everything is synchronous and belongs to one thread. Writes happen inside `transaction()`; when that ends
without an error they are durable. The port does not know envelopes: it stores what the engine says of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, NewType, Protocol

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.errors import StoreError
from crdt_sync.ids import Author, DeviceId, OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.frames import Row, RowKind

SpaceKey = NewType("SpaceKey", int)
"""The storage's own number of a space."""
AuthorKey = NewType("AuthorKey", int)
"""The storage's own number of an author in a space."""


class DataDirError(StoreError):
    """The relay's data directory cannot be used."""

    code = "data_dir"


class NewUpdate(NamedTuple):
    """An update to append."""

    author: AuthorKey
    chain_sequence: int
    record: OpaqueId
    envelope: bytes


class TailRow(NamedTuple):
    """An update of a record that no snapshot covers yet. `sequence` is its place in the log."""

    sequence: int
    author: Author
    chain_sequence: int


class StoredSnapshot(NamedTuple):
    """The current snapshot of a record and its place in the log."""

    sequence: int
    envelope: bytes


class Page(NamedTuple):
    """A stretch of a log. Whoever has read it stands at `cursor`; `at_end` says that was the log's end."""

    rows: list[Row]
    cursor: int
    at_end: bool


class SpaceEntry(NamedTuple):
    """A space that is there."""

    id: SpaceId
    key: SpaceKey


class Visit(NamedTuple):
    """A device was here. None leaves what is known as it is."""

    space: SpaceKey
    device: DeviceId
    at_ms: int
    agent: str | None = None
    cursor: int | None = None
    synced_ms: int | None = None


class SeenDevice(NamedTuple):
    """What is known of a device in a space. `cursor` is what it has confirmed, as far as it was noted."""

    device: DeviceId
    first_seen_ms: int
    last_seen_ms: int
    last_sync_ms: int | None
    cursor: int
    agent: str
    label: str


class AuditEvent(NamedTuple):
    """Something that happened. `detail` is JSON."""

    at_ms: int
    space: SpaceKey
    device: DeviceId | None
    event: str
    detail: str


class AuditRow(NamedTuple):
    """An event with its number, which grows."""

    number: int
    event: AuditEvent


class Books(Protocol):
    """What a relay keeps for people beside the logs. Written inside the storage's transactions."""

    def visit(self, visits: Sequence[Visit]) -> None: ...

    def set_label(self, space: SpaceKey, device: DeviceId, label: str, now_ms: int) -> None:
        """Name a device, seen before or not."""
        ...

    def devices(self, space: SpaceKey) -> list[SeenDevice]: ...

    def note(self, events: Sequence[AuditEvent]) -> None: ...

    def audit(self, space: SpaceKey, after: int, limit: int) -> list[AuditRow]:
        """Events of a space with a number above `after`, the oldest first."""
        ...

    def forget_audit(self, before_ms: int, limit: int) -> int:
        """Of the `limit` oldest events drop those before that time; how many it were."""
        ...


class StoredLease(NamedTuple):
    """A lease and its row in the log; what it says is in the payload."""

    record: OpaqueId
    sequence: int
    payload: bytes


class Leases(Protocol):
    """Rows of a log that tell who has which record: one per record, the newest."""

    def all(self, space: SpaceKey) -> list[StoredLease]:
        """In the order of the log."""
        ...

    def put(self, space: SpaceKey, lease: StoredLease) -> None:
        """Append it at its sequence number, the log's next, and take out the record's row before it."""
        ...

    def drop(self, space: SpaceKey, record: OpaqueId) -> None:
        """Take the record's row out. Never the last of the log, see the module."""
        ...

    def newest_token(self, space: SpaceKey) -> int:
        """The greatest token that was given, 0 if none was."""
        ...

    def set_newest_token(self, space: SpaceKey, token: int) -> None: ...


class Revocation(NamedTuple):
    """A device that the operator has shut out of a space, here or not, or with None of all."""

    device: DeviceId
    space: SpaceId | None
    at_ms: int
    reason: str


class Revocations(Protocol):
    """Whom the operator has shut out. Written inside the storage's transactions."""

    def all(self) -> list[Revocation]: ...

    def put(self, revocation: Revocation) -> None:
        """In place of the one of that device and space, if there is one."""
        ...

    def drop(self, device: DeviceId, space: SpaceId | None) -> None: ...


class Storage(Protocol):
    """See the module."""

    @property
    def leases(self) -> Leases:
        """Who has checked out what."""
        ...

    @property
    def revocations(self) -> Revocations:
        """Whom the operator has shut out."""
        ...

    @property
    def books(self) -> Books:
        """What is kept beside the logs."""
        ...

    @property
    def relay_id(self) -> RelayId:
        """Drawn whenever the database is opened to be served: one life of the relay.

        A database that was put back from a copy does not know the lives that came after the copy was made,
        and knows where the logs ended when the next one began: so what a device has seen of a log can
        always be told from what only looks like it.
        """
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside happens and is durable, or (on an error) nothing of it."""
        ...

    def find_space(self, space: SpaceId) -> SpaceKey | None: ...

    def add_space(self, space: SpaceId) -> SpaceKey: ...

    def spaces(self) -> list[SpaceEntry]:
        """All of them, the oldest first."""
        ...

    def size_bytes(self, space: SpaceKey) -> int:
        """Bytes of everything stored for the space, superseded snapshots too."""
        ...

    def record_bytes(self, space: SpaceKey, record: OpaqueId) -> int:
        """Bytes of the record's rows in the log."""
        ...

    def life_end(self, space: SpaceKey, life: RelayId) -> int | None:
        """Where the space's log ended when that life did, or ends now; None for an unknown life."""
        ...

    def head(self, space: SpaceKey) -> int:
        """The last sequence number of the log, 0 when it is empty."""
        ...

    def membership(self, space: SpaceKey) -> list[bytes]:
        """The entries of the membership log in order."""
        ...

    def membership_sequence(self, space: SpaceKey, index: int) -> int:
        """The row of the membership entry of that index, which is there."""
        ...

    def append_membership(self, space: SpaceKey, sequence: int, entry: bytes) -> None: ...

    def author(self, space: SpaceKey, author: Author) -> tuple[AuthorKey, ChainHead] | None:
        """An author's number and the head of its chain."""
        ...

    def add_author(self, space: SpaceKey, author: Author, head: ChainHead) -> AuthorKey: ...

    def append_updates(self, space: SpaceKey, sequence: int, updates: Sequence[NewUpdate]) -> None:
        """Append at `sequence`, `sequence + 1`, …"""
        ...

    def set_chain_heads(self, heads: Sequence[tuple[AuthorKey, ChainHead]]) -> None: ...

    def update_hash(self, author: AuthorKey, chain_sequence: int) -> bytes | None:
        """SHA-256 of the stored update, None if it was pruned or never there."""
        ...

    def tail(self, space: SpaceKey, record: OpaqueId) -> list[TailRow]:
        """The record's updates that are in the log, in its order."""
        ...

    def tail_length(self, space: SpaceKey, record: OpaqueId) -> int: ...

    def long_tails(self, space: SpaceKey, at_least: int) -> list[tuple[OpaqueId, int]]:
        """Records with that many updates in the log, and how many."""
        ...

    def snapshot(self, space: SpaceKey, record: OpaqueId) -> StoredSnapshot | None: ...

    def replace_by_snapshot(
        self, space: SpaceKey, record: OpaqueId, sequence: int, envelope: bytes, covered: Sequence[int]
    ) -> int:
        """Take the rows `covered` out and put the snapshot at `sequence`: one of theirs, or the next to be.

        The snapshot before it is kept as the superseded one, which is not part of the log any more; the
        superseded one before that goes. Gives how many bytes the space takes more than before.
        """
        ...

    def superseded(self, space: SpaceKey, record: OpaqueId) -> StoredSnapshot | None:
        """The snapshot before the current one."""
        ...

    def read(
        self,
        space: SpaceKey,
        after: int,
        *,
        max_rows: int,
        max_bytes: int,
        without: AuthorKey | None = None,
        only: RowKind | None = None,
    ) -> Page:
        """Rows behind `after` in order; at least one if there is one, however large.

        `without` leaves out one author's updates, `only` all but one kind; both still move the cursor.
        """
        ...

    def read_record(
        self, space: SpaceKey, record: OpaqueId, after: int, *, max_rows: int, max_bytes: int
    ) -> tuple[list[Row], bool]:
        """A record's rows behind `after` in the log's order, and whether those are all.

        At least one if there is one, however large.
        """
        ...

    def tidy(self) -> None:
        """Give back space that pruning left. Called when there is nothing else to do."""
        ...

    def copy_to(self, path: Path) -> None:
        """Copy everything, as it is at one moment, into an empty file. Others may go on meanwhile.

        The only method that may be called from another thread. Raises OSError or what the database raises.
        """
        ...

    def close(self) -> None: ...
