"""Every error the product raises, in one place.

    CrdtSyncError
    ├── LocalError                the caller asked for something that cannot be
    │   ├── SchemaError             a schema file is wrong (one problem per line)
    │   ├── SchemaRefused           a schema that may not follow the one that a space carries
    │   ├── ValidationError         a value does not fit its field
    │   │   ├── TransitionError       a status may not follow the one before
    │   │   └── MergeFailed           a merge function that raised, or gave what does not fit
    │   ├── PermissionDenied        this device's role may not do that
    │   ├── UnknownType, UnknownSpace, RecordNotFound, RecordAbsent, RecordDeleted
    │   ├── NotReady                a space that was not received whole yet
    │   ├── ConflictNotFound, ConflictClosed, RecordTooLarge
    │   ├── UnsyncedWork            a logout that would lose work no relay has
    │   ├── TransactionError        a transaction that is over, too long or in two spaces
    │   ├── RecordHasChildren       it cannot be deleted while there are records below it
    │   ├── ImportFileError         a file to import that cannot be read as asked
    │   └── InviteError             InviteGarbled, InviteExpired, InviteUsed, InviteWithdrawn
    ├── StoreError                the local database
    │   ├── StoreExists, StoreMissing, NotAStore, WrongPassphrase, StoreInUse, StoreTooNew, NoKey
    │   ├── StoreDamaged, StoreFull, StoreReadOnly, StoreDiskError
    │   └── StoreClosed (StoreLocked)
    ├── RemoteError               the peer sent something that cannot be
    │   ├── MalformedFrame (DamagedFrame), FrameTooLarge, ProtocolViolation (VersionMismatch)
    │   ├── MalformedEnvelope, BadSignature, DecryptionFailed, UnknownMember, UnknownEpoch
    │   ├── ChainBroken, Equivocation, BadUpdate (the CRDT update inside an envelope)
    │   ├── NotAllowed, TypeNotKnown  it is no update for this role, or not yet for this device
    │   └── BadMembership           an entry of the membership log
    └── ConnectionFailed          the relay cannot be reached or said no
        ├── RelayUnreachable, SyncTimeout, PortTaken
        ├── RelayRefused            carries the relay's code and reason
        │   └── ShutOut               its operator has shut this device out
        └── WorkRefused             it did not take something that was sent; that is kept
            ├── InvalidWork, NotPermitted, WorkTooLarge, Revoked, SpaceGone   a person has to act
            └── CheckedOut, OverQuota, RateLimited                            sent again by itself

An error says what failed, why, and in `hint` what to do next. None carries a key, a passphrase, an
invite's secret or a value out of a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class CrdtSyncError(Exception):
    """Base of all. `code` is stable and for programs, the text and `hint` are for people."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LocalError(CrdtSyncError):
    """The caller asked for something that cannot be; nothing was changed."""

    code = "local"


@dataclass(frozen=True, slots=True, order=True)
class SchemaProblem:
    """One thing wrong in a schema file. Lines and columns count from 1."""

    source: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}: {self.message}"


class SchemaError(LocalError):
    """A schema that cannot be used, with everything wrong in it."""

    code = "schema"

    def __init__(self, problems: Sequence[SchemaProblem]) -> None:
        super().__init__(
            "\n".join(str(problem) for problem in problems),
            hint="correct the file and run `crdt-sync schema check FILE`",
        )
        self.problems = tuple(problems)


class ValidationError(LocalError):
    """A value that does not fit its field. `field` is the dotted path."""

    code = "validation"

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {message}", hint=hint)
        self.field = field


class TransitionError(ValidationError):
    """A status that may not follow the one before."""

    code = "transition"


class MergeFailed(ValidationError):
    """A function that was to decide a conflict raised (it is the cause), or returned what does not fit."""

    code = "merge_function"


class PermissionDenied(LocalError):
    """This device's role may not do that."""

    code = "permission"


class UnknownType(LocalError):
    code = "unknown_type"


class UnknownSpace(LocalError):
    code = "unknown_space"


class RecordNotFound(LocalError):
    code = "not_found"


class RecordAbsent(LocalError):
    """The space has that record; this device does not hold it now, and can fetch it from the relay."""

    code = "absent"


class NotReady(LocalError):
    """A space was not received whole yet, and the app asked to be told."""

    code = "not_ready"


class SchemaRefused(LocalError):
    """A schema that may not follow the one that a space carries. `unsafe`: why its changes are, if so."""

    code = "schema_refused"

    def __init__(self, message: str, *, hint: str = "", unsafe: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.unsafe = tuple(unsafe)


class RecordDeleted(LocalError):
    code = "deleted"


class ConflictNotFound(LocalError):
    code = "conflict_not_found"


class ConflictClosed(LocalError):
    code = "conflict_closed"


class RecordTooLarge(LocalError):
    code = "too_large"


class TransactionError(LocalError):
    """A transaction that is over, too long, or goes from one space to another."""

    code = "transaction"


class UnsyncedWork(LocalError):
    """A logout that would lose work which no relay has. `records` says in how many records."""

    code = "unsynced"

    def __init__(self, message: str, *, records: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.records = records


class RecordHasChildren(LocalError):
    """A record that cannot be deleted while others belong to it. `children`: their types and ids, if told."""

    code = "has_children"

    def __init__(self, message: str, *, hint: str = "", children: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, hint=hint)
        self.children = tuple(children)


class ImportFileError(LocalError):
    code = "import_file"


class InviteError(LocalError):
    code = "invite"


class InviteGarbled(InviteError):
    code = "invite_garbled"


class InviteExpired(InviteError):
    code = "invite_expired"


class InviteUsed(InviteError):
    code = "invite_used"


class InviteWithdrawn(InviteError):
    code = "invite_withdrawn"


class StoreError(CrdtSyncError):
    """The local database cannot be used as asked; it was not changed."""

    code = "store"


class StoreExists(StoreError):
    code = "store_exists"


class StoreMissing(StoreError):
    code = "store_missing"


class NotAStore(StoreError):
    code = "not_a_store"


class WrongPassphrase(StoreError):
    code = "wrong_passphrase"


class StoreInUse(StoreError):
    code = "store_in_use"
    retryable = True


class StoreTooNew(StoreError):
    code = "store_too_new"


class StoreDamaged(StoreError):
    """A part of the store cannot be read. What else is in it can."""

    code = "store_damaged"


class StoreFull(StoreError):
    """The disk has no room; the write was not done and everything before it is there."""

    code = "store_full"
    retryable = True


class StoreReadOnly(StoreError):
    """The disk or the file takes no writes; the write was not done."""

    code = "store_read_only"
    retryable = True


class StoreDiskError(StoreError):
    """The disk failed; the write was not done."""

    code = "store_disk"
    retryable = True


class NoKey(StoreError):
    code = "no_key"


class StoreClosed(StoreError):
    code = "store_closed"


class StoreLocked(StoreClosed):
    """The device is locked: its store opens again with the passphrase, nothing is lost."""

    code = "store_locked"


class RemoteError(CrdtSyncError):
    """A peer sent something that cannot be; it was refused and changed nothing."""

    code = "remote"


class MalformedFrame(RemoteError):
    code = "malformed_frame"


class DamagedFrame(MalformedFrame):
    """Its checksum does not fit: not what the peer sent. Connecting again helps."""

    code = "damaged_frame"


class ProtocolViolation(RemoteError):
    """A well-formed frame at a moment when it may not be sent."""

    code = "protocol_violation"


class VersionMismatch(ProtocolViolation):
    """The two sides speak no version of the protocol in common; one has to be updated."""

    code = "version"


class FrameTooLarge(RemoteError):
    code = "too_large"


class MalformedEnvelope(RemoteError):
    code = "malformed_envelope"


class BadSignature(RemoteError):
    code = "bad_signature"


class DecryptionFailed(RemoteError):
    code = "decryption_failed"


class UnknownMember(RemoteError):
    code = "unknown_member"


class UnknownEpoch(RemoteError):
    code = "unknown_epoch"


class ChainBroken(RemoteError):
    """An envelope that does not follow its author's previous one."""

    code = "chain_broken"


class Equivocation(RemoteError):
    """Two different envelopes of one author with the same sequence number."""

    code = "equivocation"


class BadUpdate(RemoteError):
    code = "bad_update"


class NotAllowed(RemoteError):
    """An update by a device whose role may not write, or not delete, records of its type."""

    code = "not_allowed"


class TypeNotKnown(RemoteError):
    """An update of a record type whose schema has not come yet: nobody can say who may write it."""

    code = "type_unknown"


class BadMembership(RemoteError):
    code = "bad_membership"


class ConnectionFailed(CrdtSyncError):
    """The relay cannot be used now. Local work goes on; nothing was lost."""

    code = "connection"
    retryable = True


class RelayUnreachable(ConnectionFailed):
    code = "relay_unreachable"


class RelayRefused(ConnectionFailed):
    """The relay said no. `close_code` is the WebSocket close code, see `protocol.codes`."""

    code = "relay_refused"
    retryable = False

    def __init__(self, message: str, *, close_code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.close_code = close_code


class ShutOut(RelayRefused):
    """The relay's operator has shut this device out. It keeps everything and works on without the relay."""

    code = "revoked"


class WorkRefused(ConnectionFailed):
    """The relay did not take something this device sent. It is kept, and the rest goes on.

    `code` is the relay's, `reason` its words.
    """

    code = "refused"
    said: ClassVar[str] = "the relay did not take it"
    next_step: ClassVar[str] = "the device tries again by itself; `crdt-sync outbox ls` shows when"

    def __init__(self, code: str = "", reason: str = "") -> None:
        super().__init__(f"{self.said}: {reason}" if reason else self.said, hint=self.next_step)
        self.relay_code = code
        self.reason = reason


_BY_HAND = "`crdt-sync outbox retry` tries again, `crdt-sync outbox discard` gives it up"


class InvalidWork(WorkRefused):
    """What was sent cannot be right, to the relay."""

    code = "invalid"
    retryable = False
    said = "the relay finds something wrong with it"
    next_step = f"update crdt-sync here and at the relay; then {_BY_HAND}"


class NotPermitted(WorkRefused):
    """This device may not write there."""

    code = "not_permitted"
    retryable = False
    said = "this device may not write that"
    next_step = f"ask an admin of the space for another role; then {_BY_HAND}"


class WorkTooLarge(WorkRefused):
    """More than the relay takes of one record at once."""

    code = "work_too_large"
    retryable = False
    said = "it is larger than the relay takes"
    next_step = f"ask the relay's operator for a higher limit; then {_BY_HAND}"


class Revoked(WorkRefused):
    """This device is not a member of the space any more."""

    code = "revoked"
    retryable = False
    said = "this device was removed from the space"
    next_step = (
        "ask an admin for a new invite; `crdt-sync outbox discard --export FILE` keeps the work as text"
    )


class SpaceGone(WorkRefused):
    """The relay does not hold the space."""

    code = "space_gone"
    retryable = False
    said = "the relay does not hold the space"
    next_step = f"check the relay's address; then {_BY_HAND}"


class CheckedOut(WorkRefused):
    """Another device has the record checked out. It goes when the lease ends."""

    code = "checked_out"
    said = "another device has the record checked out"
    next_step = "it is sent by itself when the record is free again; an admin can break the lease"


class OverQuota(WorkRefused):
    """No room at the relay."""

    code = "over_quota"
    said = "there is no room left at the relay"
    next_step = "it is sent by itself when there is room; ask the relay's operator for some"


class RateLimited(WorkRefused):
    """More at once than one device may send."""

    code = "rate_limited"
    said = "this device sends more than its share"
    next_step = "the device goes on by itself in a moment"


class SyncTimeout(ConnectionFailed):
    code = "sync_timeout"


class PortTaken(ConnectionFailed):
    code = "port_taken"
    retryable = False
