"""The local database cannot be used as asked."""

from __future__ import annotations

from crdt_sync.errors.base import CrdtSyncError


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
