"""What SQLite says when a store fails, in our terms: what happened, why, and the command to run next.

sqlcipher3 gives texts and no codes; SQLite's texts are stable (`sqlite3ErrStr`). One of them misleads: after
a page did not verify, SQLCipher refuses every write with "attempt to write a readonly database".
"""

from __future__ import annotations

import os
from typing import Final

from crdt_sync.errors import (
    StoreDamaged,
    StoreDiskError,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreReadOnly,
)

_DRIVERS: Final = ("sqlcipher3", "sqlite3")
IN_USE_HINT: Final = "close the other program that has it open; one at a time can use a store"


def store_failure(error: BaseException, path: str | os.PathLike[str]) -> StoreError | None:
    """The error to raise for one of the database driver; None when it is none of its, or our own mistake."""
    kind = type(error)
    if kind.__module__.partition(".")[0] not in _DRIVERS:
        return None
    message = str(error)
    if "locked" in message:
        return StoreInUse(f"{path} is in use", hint=IN_USE_HINT)
    if "malformed" in message or "not a database" in message:
        return damaged(path)
    if "disk is full" in message:
        return StoreFull(
            f"the disk that holds {path} is full: this was not written, everything before it is there",
            hint="make room on the disk and try again",
        )
    if "readonly" in message:
        return _not_writable(path)
    if "disk I/O" in message or "unable to open" in message:
        if not _writable(path):
            return _not_writable(path)
        return StoreDiskError(
            f"the disk that holds {path} failed ({message}): this was not done, all before it is there",
            hint=f"check the disk and its room, then run: crdt-sync doctor --store {path}",
        )
    return None


def damaged(path: str | os.PathLike[str], *, opens: bool = True) -> StoreDamaged:
    """A page of the store cannot be read. `opens`: the store can be used apart from that."""
    outcome = (
        "what stands on other pages can be read and written"
        if opens
        else "it does not open; most of it can be saved"
    )
    return StoreDamaged(
        f"a part of {path} cannot be read: it was cut short, or its bytes are not those that were written;"
        f" {outcome}",
        hint=f"close the app, then run: crdt-sync doctor --store {path} --repair",
    )


def _not_writable(path: str | os.PathLike[str]) -> StoreError:
    if _writable(path):
        return damaged(path)
    return StoreReadOnly(
        f"{path} cannot be written: the disk or the file is read-only; this was not done, what was there is",
        hint="make the disk, the folder and the file writable for this user, then try again",
    )


def _writable(path: str | os.PathLike[str]) -> bool:
    folder = os.path.dirname(os.path.abspath(path))
    return os.access(path, os.W_OK) and os.access(folder, os.W_OK)
