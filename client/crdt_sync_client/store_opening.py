"""Making and opening a store on a thread of its own, with a passphrase or a key.

Deriving a key from a passphrase takes a good part of a second on purpose; it happens on the store's
thread, so that the event loop goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from crdt_sync.errors import NoKey
from crdt_sync.membership.authoring import check_name

from .database_thread import DatabaseThread, OpenStore
from .engine import Engine
from .store.connection import KEY_BYTES, SALT_BYTES, Database

StorePath = str | os.PathLike[str]
Secret = str | bytes
"""A passphrase, or the key itself."""

_FILES: Final = ("", "-wal", "-shm")


def secret_of(passphrase: str | None, key: bytes | None) -> Secret:
    """The one of the two that was given. Raises NoKey unless it is exactly one and can be used."""
    if passphrase and key is None:
        return passphrase
    if passphrase is None and key is not None and len(key) == KEY_BYTES:
        return key
    raise NoKey(
        f"a store needs either a passphrase or a key of {KEY_BYTES} bytes",
        hint="give exactly one of passphrase= and key=",
    )


async def create_store(
    path: StorePath, secret: Secret, *, name: str, now_ms: Callable[[], int]
) -> DatabaseThread:
    """A new store with a new device in it. Raises StoreExists, ValidationError for the name."""
    check_name("device name", name)

    def create() -> OpenStore:
        db = Database.create(path, secret, salt=os.urandom(SALT_BYTES))
        try:
            return OpenStore(db, Engine.create(db, name=name, clock=now_ms, entropy=os.urandom))
        except BaseException:
            db.close()
            for suffix in _FILES:  # nothing is in it yet
                Path(f"{os.fspath(path)}{suffix}").unlink(missing_ok=True)
            raise

    return await _started(create, path)


async def open_store(path: StorePath, secret: Secret, *, now_ms: Callable[[], int]) -> DatabaseThread:
    """A store that is there. Raises StoreMissing, NotAStore, WrongPassphrase, StoreInUse, StoreTooNew."""

    def open_it() -> OpenStore:
        db = Database.open(path, secret)
        try:
            return OpenStore(db, Engine.open(db, clock=now_ms, entropy=os.urandom))
        except BaseException:
            db.close()
            raise

    return await _started(open_it, path)


async def _started(open_it: Callable[[], OpenStore], path: StorePath) -> DatabaseThread:
    thread = DatabaseThread(open_it, path)
    await thread
    return thread
