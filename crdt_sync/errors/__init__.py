"""Every error the product raises. Import them from here; a file holds each family.

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
    │       └── ForkedLog           a relay lost what let this device in
    └── ConnectionFailed          the relay cannot be reached or said no
        ├── RelayUnreachable (RelayBusy), SyncTimeout, PortTaken
        ├── RelayRefused            carries the relay's code and reason
        │   └── ShutOut               its operator has shut this device out
        └── WorkRefused             it did not take something that was sent; that is kept
            ├── InvalidWork, NotPermitted, WorkTooLarge, Revoked, SpaceGone   a person has to act
            └── CheckedOut, OverQuota, RateLimited                            sent again by itself

An error says what failed, why, and in `hint` what to do next. None carries a key, a passphrase, an
invite's secret or a value out of a record.
"""

from __future__ import annotations

from crdt_sync.errors.base import (
    CrdtSyncError,
)
from crdt_sync.errors.connection import (
    ConnectionFailed,
    PortTaken,
    RelayBusy,
    RelayRefused,
    RelayUnreachable,
    ShutOut,
    SyncTimeout,
)
from crdt_sync.errors.local import (
    ConflictClosed,
    ConflictNotFound,
    ImportFileError,
    InviteError,
    InviteExpired,
    InviteGarbled,
    InviteUsed,
    InviteWithdrawn,
    LocalError,
    MergeFailed,
    NotReady,
    PermissionDenied,
    RecordAbsent,
    RecordDeleted,
    RecordHasChildren,
    RecordNotFound,
    RecordTooLarge,
    SchemaError,
    SchemaProblem,
    SchemaRefused,
    TransactionError,
    TransitionError,
    UnknownSpace,
    UnknownType,
    UnsyncedWork,
    ValidationError,
)
from crdt_sync.errors.refused_work import (
    CheckedOut,
    InvalidWork,
    NotPermitted,
    OverQuota,
    RateLimited,
    Revoked,
    SpaceGone,
    WorkRefused,
    WorkTooLarge,
)
from crdt_sync.errors.remote import (
    BadMembership,
    BadSignature,
    BadUpdate,
    ChainBroken,
    DamagedFrame,
    DecryptionFailed,
    Equivocation,
    ForkedLog,
    FrameTooLarge,
    MalformedEnvelope,
    MalformedFrame,
    NotAllowed,
    ProtocolViolation,
    RemoteError,
    TypeNotKnown,
    UnknownEpoch,
    UnknownMember,
    VersionMismatch,
)
from crdt_sync.errors.store import (
    NoKey,
    NotAStore,
    StoreClosed,
    StoreDamaged,
    StoreDiskError,
    StoreError,
    StoreExists,
    StoreFull,
    StoreInUse,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreTooNew,
    WrongPassphrase,
)

__all__ = [
    "BadMembership",
    "BadSignature",
    "BadUpdate",
    "ChainBroken",
    "CheckedOut",
    "ConflictClosed",
    "ConflictNotFound",
    "ConnectionFailed",
    "CrdtSyncError",
    "DamagedFrame",
    "DecryptionFailed",
    "Equivocation",
    "ForkedLog",
    "FrameTooLarge",
    "ImportFileError",
    "InvalidWork",
    "InviteError",
    "InviteExpired",
    "InviteGarbled",
    "InviteUsed",
    "InviteWithdrawn",
    "LocalError",
    "MalformedEnvelope",
    "MalformedFrame",
    "MergeFailed",
    "NoKey",
    "NotAStore",
    "NotAllowed",
    "NotPermitted",
    "NotReady",
    "OverQuota",
    "PermissionDenied",
    "PortTaken",
    "ProtocolViolation",
    "RateLimited",
    "RecordAbsent",
    "RecordDeleted",
    "RecordHasChildren",
    "RecordNotFound",
    "RecordTooLarge",
    "RelayBusy",
    "RelayRefused",
    "RelayUnreachable",
    "RemoteError",
    "Revoked",
    "SchemaError",
    "SchemaProblem",
    "SchemaRefused",
    "ShutOut",
    "SpaceGone",
    "StoreClosed",
    "StoreDamaged",
    "StoreDiskError",
    "StoreError",
    "StoreExists",
    "StoreFull",
    "StoreInUse",
    "StoreLocked",
    "StoreMissing",
    "StoreReadOnly",
    "StoreTooNew",
    "SyncTimeout",
    "TransactionError",
    "TransitionError",
    "TypeNotKnown",
    "UnknownEpoch",
    "UnknownMember",
    "UnknownSpace",
    "UnknownType",
    "UnsyncedWork",
    "ValidationError",
    "VersionMismatch",
    "WorkRefused",
    "WorkTooLarge",
    "WrongPassphrase",
]
