"""A store's key in the operating system's keychain, where there is one.

The entry is found by the store's salt, the first 16 bytes of its file, which are random, not secret and
never change: a store that is moved or renamed keeps its key, and two stores never share an entry.
Without a keychain (a server, a container) a passphrase opens the store instead; `available` tells.
"""

from __future__ import annotations

import binascii
from typing import Final

import keyring
import keyring.errors

from crdt_sync.errors import NoKey

SERVICE: Final = "crdt-sync"
KEY_BYTES: Final = 32


def available() -> bool:
    """Whether this machine has a keychain that can hold a key."""
    try:
        backend = keyring.get_keyring()
    except (keyring.errors.KeyringError, RuntimeError):
        return False
    return backend.priority > 0


def load_key(salt: bytes) -> bytes | None:
    """The 32-byte key of the store with that salt, or None where the keychain has none."""
    try:
        text = keyring.get_password(SERVICE, salt.hex())
    except (keyring.errors.KeyringError, RuntimeError):
        return None
    if text is None:
        return None
    try:
        key = binascii.unhexlify(text)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise NoKey(
            "the keychain's entry for this store is damaged",
            hint=f"open the store with its passphrase, or restore the entry {SERVICE}/{salt.hex()}",
        )
    return key


def save_key(salt: bytes, key: bytes) -> None:
    """Keep a store's key; raises NoKey where the keychain does not take it."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a store's key has {KEY_BYTES} bytes")
    try:
        keyring.set_password(SERVICE, salt.hex(), key.hex())
    except (keyring.errors.KeyringError, RuntimeError) as exc:
        raise NoKey(
            "this machine's keychain did not take the store's key",
            hint="use a passphrase: --passphrase-file FILE, or CRDT_SYNC_PASSPHRASE",
        ) from exc


def forget_key(salt: bytes) -> None:
    """Remove a store's key; nothing happens where there is none."""
    try:
        keyring.delete_password(SERVICE, salt.hex())
    except (keyring.errors.KeyringError, RuntimeError):
        return
