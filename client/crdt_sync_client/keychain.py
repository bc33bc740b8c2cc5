"""A store's key in the operating system's keychain, where there is one.

The entry is found by the store's salt, the first 16 bytes of its file, which are random, not secret and
never change: a store that is moved or renamed keeps its key, and two stores never share an entry.
While one key takes another's place, the new one has an entry of its own beside the old one's, and takes its
place once it has opened the store (`settle`). So a machine that stops in between has the key of the store.
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
_NEXT: Final = ".next"


def available() -> bool:
    """Whether this machine has a keychain that can hold a key."""
    try:
        backend = keyring.get_keyring()
    except (keyring.errors.KeyringError, RuntimeError):
        return False
    return backend.priority > 0


def load_key(salt: bytes) -> bytes | None:
    """The 32-byte key of the store with that salt, or None where the keychain has none."""
    return _load(salt.hex())


def load_next_key(salt: bytes) -> bytes | None:
    """The key that was to take the place of another one; None where no such exchange was broken off."""
    return _load(salt.hex() + _NEXT)


def _load(entry: str) -> bytes | None:
    try:
        text = keyring.get_password(SERVICE, entry)
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
            hint=f"open the store with its passphrase, or restore the entry {SERVICE}/{entry}",
        )
    return key


def save_key(salt: bytes, key: bytes) -> None:
    """Keep a store's key; raises NoKey where the keychain does not take it."""
    _save(salt.hex(), key)


def save_next_key(salt: bytes, key: bytes) -> None:
    """Keep the key that is to take the place of the store's; raises NoKey as `save_key` does."""
    _save(salt.hex() + _NEXT, key)


def settle(salt: bytes, key: bytes) -> None:
    """This key opened the store: it is the store's, and no other is to take its place."""
    if load_key(salt) != key:
        save_key(salt, key)
    _forget(salt.hex() + _NEXT)


def _save(entry: str, key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a store's key has {KEY_BYTES} bytes")
    try:
        keyring.set_password(SERVICE, entry, key.hex())
    except (keyring.errors.KeyringError, RuntimeError) as exc:
        raise NoKey(
            "this machine's keychain did not take the store's key",
            hint="use a passphrase: --passphrase-file FILE, or CRDT_SYNC_PASSPHRASE",
        ) from exc


def forget_key(salt: bytes) -> None:
    """Remove a store's key; nothing happens where there is none."""
    _forget(salt.hex())
    _forget(salt.hex() + _NEXT)


def _forget(entry: str) -> None:
    try:
        if keyring.get_password(SERVICE, entry) is not None:
            keyring.delete_password(SERVICE, entry)
    except (keyring.errors.KeyringError, RuntimeError):
        return
