"""A keychain in memory, in the place of the machine's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import keyring
import keyring.backend
import keyring.errors

K = TypeVar("K", bound=keyring.backend.KeyringBackend)


class MemoryKeychain(keyring.backend.KeyringBackend):
    """Takes, gives and forgets passwords; `full` refuses to take more."""

    priority = 1

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.full = False

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.full:
            raise keyring.errors.PasswordSetError("full")
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.entries:
            raise keyring.errors.PasswordDeleteError("none")
        del self.entries[service, username]


@contextmanager
def in_use(keychain: K) -> Iterator[K]:
    """The machine's keychain is out of reach meanwhile."""
    before = keyring.get_keyring()
    keyring.set_keyring(keychain)
    try:
        yield keychain
    finally:
        keyring.set_keyring(before)
