"""Taking a store off a machine."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from crdt_sync_client.store.connection import PAGE_BYTES, SALT_BYTES

SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
"""What SQLite puts beside a database file, and the file itself."""


def salt_of(path: str | os.PathLike[str]) -> bytes:
    """The salt of a store's file, under which a keychain knows it. Raises OSError."""
    with Path(path).open("rb") as file:
        return file.read(SALT_BYTES)


def wipe(path: str | os.PathLike[str]) -> None:
    """Remove a store that nobody has open, with all that belongs to it. Raises OSError.

    The names go first, so that a machine that stops halfway leaves no damaged store; then the first page is
    overwritten, and with it the salt, without which a passphrase gives no key. On flash memory and on disks
    that keep snapshots the old page may stay: what protects it there is the passphrase, or that the keychain
    has forgotten the key.
    """
    path = os.fspath(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        if sys.platform != "win32":
            _unlink(path)
        os.write(descriptor, os.urandom(PAGE_BYTES))  # from the beginning: nothing was read
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if sys.platform == "win32":  # an open file cannot be removed there
        _unlink(path)


def _unlink(path: str) -> None:
    for suffix in reversed(SUFFIXES):  # the store itself last: what is left at any moment opens, or is none
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with suppress(OSError):  # not every file system lets a directory be synced
        directory = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
