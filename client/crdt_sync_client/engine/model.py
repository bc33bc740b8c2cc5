"""What goes into the engine and what comes out: plain values, no behaviour beyond their own shape.

Operations describe one intended change each. Results and changes describe what happened. Nothing here
holds a database handle or a live document, so every value may cross threads. What is made for every
record that is received is a `msgspec.Struct`, three times as fast to make as a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import DeviceId, Incarnation, InviteId, RecordId, RelayId, SpaceId
from crdt_sync.records.writes import same_value
from crdt_sync.roles import Role
from crdt_sync_client.engine.holders import Checkout
from crdt_sync_client.engine.operations import UNSET as UNSET
from crdt_sync_client.engine.operations import CreateOp as CreateOp
from crdt_sync_client.engine.operations import DeleteOp as DeleteOp
from crdt_sync_client.engine.operations import Keep as Keep
from crdt_sync_client.engine.operations import Operation as Operation
from crdt_sync_client.engine.operations import Path as Path
from crdt_sync_client.engine.operations import ResolveOp as ResolveOp
from crdt_sync_client.engine.operations import ResolveRecordOp as ResolveRecordOp
from crdt_sync_client.engine.operations import RestoreOp as RestoreOp
from crdt_sync_client.engine.operations import RestoreVersionOp as RestoreVersionOp
from crdt_sync_client.engine.operations import Transaction as Transaction
from crdt_sync_client.engine.operations import UpdateOp as UpdateOp
from crdt_sync_client.engine.unfinished import UnfinishedGroup as UnfinishedGroup

SyncState = Literal["synced", "pending", "conflict", "failed"]
Origin = Literal["local", "remote"]
OutboxState = Literal["pending", "sending", "waiting", "failed"]
ConflictState = Literal["open", "auto", "closed"]


# Records and changes ------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True):
    """A record as the app sees it.

    `conflicts` are the ids of its open conflicts, `provisional` the dotted paths whose value is shown until
    one is resolved. `sync_state`: "conflict" while one is open, else "failed", "pending" or "synced".
    `orphaned`: it names a parent that is deleted, or that this device does not have. `checkout`: who has it
    to itself now, this device or another.
    """

    id: RecordId
    type: str
    space: SpaceId
    values: dict[str, Any]
    sync_state: SyncState = "synced"
    conflicts: tuple[str, ...] = ()
    provisional: tuple[str, ...] = ()
    deleted: bool = False
    orphaned: bool = False
    checkout: Checkout | None = None


class RecordChange(msgspec.Struct, frozen=True):
    """One record that changed in one transaction. `fields` are the top-level names whose value differs.

    `opened` and `closed` are the ids of conflicts that stand in it since then, or no longer do. `left`: it is
    not on this device any more, though in the space; `record` is as it was, marked deleted. The
    record's values are shared with the engine: copy them before handing them to an app.
    """

    space: SpaceId
    type: str
    id: RecordId
    origin: Origin
    fields: tuple[str, ...]
    record: Record
    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    left: bool = False


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What one operation did. `resolved` are the ids of conflicts that this write settled.

    `below` are the types and ids of the records that were deleted or restored together with this one, as
    belonging to it. `further` are the changes of other records that came with it.

    Several operations of one call on one record make one change: the last of them carries it, the
    others have None, so publishing every `change` that is not None tells each change once.
    """

    id: RecordId
    type: str
    space: SpaceId
    resolved: tuple[str, ...] = ()
    state: SyncState = "pending"
    changed: bool = True
    change: RecordChange | None = None
    below: tuple[tuple[str, RecordId], ...] = ()
    further: tuple[RecordChange, ...] = ()
    first: int = 0
    """This device's clock at its first write."""
    clock: int = 0
    """The same just after it, see `Engine.is_relayed`."""
    waits_for: Checkout | None = None
    """Another device's checkout of what was written, until whose end it stays here."""
    late: bool = False
    """This device's own checkout of the record ended before it was checked in: the relay will mark this."""


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What a transaction did, in the order of its operations; there is one at least."""

    results: tuple[WriteResult, ...]

    @property
    def space(self) -> SpaceId:
        return self.results[0].space

    @property
    def changed(self) -> bool:
        return any(result.changed for result in self.results)


Outcome = WriteResult | TransactionResult | CrdtSyncError
"""Of an operation or a transaction."""


def changes_of(outcomes: Iterable[Outcome]) -> list[RecordChange]:
    """The changes to tell apps of, each once."""
    changes: list[RecordChange] = []
    for outcome in outcomes:
        if isinstance(outcome, CrdtSyncError):
            continue
        results = outcome.results if isinstance(outcome, TransactionResult) else (outcome,)
        for result in results:
            changes += result.further if result.change is None else (result.change, *result.further)
    return changes


# Conflicts ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of the concurrent writes. `at_ms` is in Unix milliseconds, `author` names device and incarnation.

    `field` is the dotted path it wrote; that is the conflict's own, but for a deletion that met an edit.
    `deletes`: the write is the deletion that the conflict is about. `removes`: it is that, or the removal of
    something inside; then `value` is what its author had seen.
    """

    value: Any
    device: DeviceId
    device_name: str
    role: Role
    at_ms: int
    mine: bool
    author: str
    path: Path
    deletes: bool = False

    @property
    def field(self) -> str:
        return ".".join(self.path)

    @property
    def removes(self) -> bool:
        return self.path[-1] == "$deleted"


@dataclass(frozen=True, slots=True)
class Preference:
    """Which side is kept in conflicts about a field of a type: `mine`, `theirs`, a role, or an outcome."""

    type: str
    field: str
    keep: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Which alternative the preference remembered on this device would keep (its index), and why."""

    alternative: int
    keep: str
    why: str


@dataclass(frozen=True, slots=True)
class ConflictEntry:
    """One entry of the audit trail.

    `kind` says how it arose (`open`: a person decides; `auto`: the rule decided), `state` how it is now.
    `winner` is the index of the alternative that the rule shows. A closed one names who closed it, where
    that is known: the author of the write that replaced all alternatives; `resolution` is the value of that
    write, "deleted" or "record" where the conflict was about a deletion. `superseded_by` is the conflict
    that a further alternative made of it, or that stands between two resolutions of it; `supersedes` are
    those that this one goes on from. `suggestion` is for open ones, see `preferences`.
    """

    id: str
    space: SpaceId
    type: str
    record: RecordId
    path: Path
    rule: str
    kind: Literal["open", "auto"]
    state: ConflictState
    alternatives: tuple[Alternative, ...]
    winner: int
    seen_at_ms: int
    closed_at_ms: int | None = None
    resolver: DeviceId | None = None
    resolver_name: str | None = None
    resolution: Any = None
    superseded_by: str | None = None
    supersedes: tuple[str, ...] = ()
    suggestion: Suggestion | None = None

    @property
    def field(self) -> str:
        return ".".join(self.path)

    @property
    def about_deletion(self) -> bool:
        """Whether a deletion met edits it had not seen."""
        return self.path[-1] == "$deleted"

    @property
    def kept(self) -> int | None:
        """The index of the alternative that the resolution kept; None for another value, or none known."""
        if self.resolver is None:
            return None
        for index, each in enumerate(self.alternatives):
            if self.about_deletion:
                if each.deletes == (self.resolution == "deleted"):
                    return index
            elif same_value(each.value, self.resolution):
                return index
        return None


@dataclass(frozen=True, slots=True)
class ConflictFilter:
    """Which entries of the trail. None, everywhere: any.

    `device` is the name or id (or its start) of a device with an alternative in it, `since_ms` the first
    moment at which it was seen or closed here.
    """

    state: ConflictState | None = "open"
    type: str | None = None
    record: str | None = None
    device: str | None = None
    space: SpaceId | None = None
    since_ms: int | None = None


# Spaces -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpaceState:
    """One space of this store. `stage`: `creating` and `joining` until the relay has taken the entry."""

    id: SpaceId
    name: str
    relay_url: str
    stage: Literal["creating", "joining", "active"]
    role: Role | None
    cursor: int
    types: tuple[str, ...]
    unreadable: Mapping[str, int] = field(default_factory=dict)
    """Types whose newest version this program cannot read, and that version."""
    unfinished: tuple[UnfinishedGroup, ...] = ()
    """What waits for the rest of what was written together."""
    pending_entry: bytes | None = field(default=None, repr=False)
    ready: bool = True
    """Whether this device has had everything of it once."""
    off: bool = False
    """Whether its user wants it not to be synced here."""
    absent: int = 0
    """Records that are not on this device."""
    wanted: int = 0
    """Those of them that are to be fetched."""
    checked_out: int = 0
    """Records that this device has to itself."""
    checkouts_ended: int = 0
    """Those that it had, and that were taken from it or ran out before it checked them in."""


@dataclass(frozen=True, slots=True)
class MemberInfo:
    device: DeviceId
    name: str
    role: Role
    is_self: bool
    is_founder: bool
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class JoinStart:
    """What the shell needs to connect as the bearer of an invite. `sign` uses the invite's key."""

    space: SpaceId
    relay_url: str
    invite: InviteId
    sign: Callable[[bytes], bytes] = field(repr=False)


# Synchronisation ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionStart:
    """What the shell needs to say hello for one space."""

    space: SpaceId
    relay_url: str
    device: DeviceId
    incarnation: Incarnation
    cursor: int
    relay_seen: RelayId | None
    sign: Callable[[bytes], bytes] = field(repr=False)
    promised: int = 0
    acked: ChainHead = field(default=ChainHead(0, bytes(32)))
    revive: tuple[bytes, ...] = field(default=(), repr=False)
    """The membership log, where the relay does not know the space or this device any more."""


@dataclass(frozen=True, slots=True)
class Welcomed:
    """What the relay's welcome means for this store.

    `reconnect`: the relay has more of this device's chain than the store, so the store is an older
    copy; the session must be opened again. `failed` are the records whose unsent work is held until
    everything has come, `holding` says that there are such. `relay_behind`: the relay may have lost what
    it once acknowledged, and is compared with. `at_end`: nothing here waits for the end of the log.
    """

    resend: int
    synced: tuple[tuple[str, RecordId], ...] = ()
    reconnect: bool = False
    relay_behind: bool = False
    holding: bool = False
    at_end: bool = False
    failed: tuple[tuple[str, RecordId], ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantinedEnvelope:
    """An authentic envelope that could not be merged; it is kept, and blocks nothing."""

    seq: int
    device: DeviceId
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An update that is kept and was not merged: by whom, why, and when it came here (Unix ms).

    `code` is that of the error, `type` the record type where that is what is in the way.
    """

    space: SpaceId
    device: DeviceId
    device_name: str
    code: str
    reason: str
    at_ms: int
    type: str | None = None


class Received(msgspec.Struct, frozen=True):
    """What one received batch did, all of it in one transaction with its cursor.

    `reconnect`: the batch showed this store to be an older copy of itself (see `Welcomed`), or brought
    the last that was missing in it; the session must be opened again, and nothing more be received in it.
    """

    changes: tuple[RecordChange, ...] = ()
    conflicts_opened: tuple[str, ...] = ()
    conflicts_closed: tuple[str, ...] = ()
    quarantined: tuple[QuarantinedEnvelope, ...] = ()
    members_changed: bool = False
    schemas_changed: tuple[str, ...] = ()
    envelopes: int = 0
    duplicates: int = 0
    clocks_ahead: int = 0
    reconnect: bool = False


class Upkept(msgspec.Struct, frozen=True):
    """What became visible in a space because a record type changed, see `Engine.keep_up`."""

    space: SpaceId
    changes: tuple[RecordChange, ...] = ()
    conflicts_opened: tuple[str, ...] = ()
    conflicts_closed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """Local work the relay has not acknowledged.

    `pending` is not sealed yet, `sending` is; `waiting` was refused and is tried again by itself at
    `retry_at_ms` (Unix); `failed` waits for a person. `code` is the relay's for what it refused last.
    `since_ms` is when the oldest of it was written, or sealed where it is sealed; `sealed_ms` that alone.
    `waits_for` is another device's checkout, of the record or of what was written together with it.
    """

    space: SpaceId
    type: str
    id: RecordId
    state: OutboxState
    priority: int
    updates: int
    size_bytes: int
    since_ms: int
    attempts: int = 0
    error: str | None = None
    code: str | None = None
    retry_at_ms: int | None = None
    sealed_ms: int | None = None
    waits_for: Checkout | None = None


@dataclass(frozen=True, slots=True)
class StatusCounts:
    """`pending`, `failed`: records with such work. `conflicts`: open ones. `quarantined`: envelopes.

    `remaking`: at most so many records still show what an earlier version of their schema made of them.
    """

    pending: int
    failed: int
    conflicts: int
    quarantined: int
    records: int
    remaking: int = 0
