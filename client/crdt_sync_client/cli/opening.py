"""Opens the device a command works on: where its passphrase comes from, and running async work to its end.

The passphrase is taken from the first of these that is there:

1. `--passphrase-file FILE` (one line);
2. the environment variable `CRDT_SYNC_PASSPHRASE`;
3. the operating system's keychain, which holds a random key instead of a passphrase;
4. a hidden prompt, when standard input is a terminal.

It is never an argument: arguments are visible to every user of the machine and stay in shell histories.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from crdt_sync.errors import NoKey, StoreMissing, WrongPassphrase

from .command import Target
from .failures import UsageProblem

if TYPE_CHECKING:
    from crdt_sync_client import Device

T = TypeVar("T")

UNLOCK_VARIABLE: Final = "CRDT_SYNC_PASSPHRASE"
NEW_UNLOCK_VARIABLE: Final = "CRDT_SYNC_NEW_PASSPHRASE"
"""The environment variables with the passphrase that opens a store, and with the one it is to get."""
_WRONG_HINT: Final = (
    "check the passphrase; when the keychain's key is meant and a change of it was broken off, give the"
    " passphrase from before or after with --passphrase-file"
)
SALT_BYTES: Final = 16
"""SQLCipher keeps its salt, random and not secret, in the first bytes of the file."""


def run(target: Target, work: Callable[[Device], Awaitable[T]]) -> T:
    """Open the device, await `work(device)`, close the device; return what the work returned."""
    return run_with_secret(target, lambda device, _: work(device))


def run_with_secret(target: Target, work: Callable[[Device, str | bytes], Awaitable[T]]) -> T:
    """As `run`; `work` also gets the passphrase or key that opened the store."""
    if not target.store.exists():
        raise StoreMissing(
            f"there is no store {target.store}",
            hint=f"make one: crdt-sync init --store {target.store} --name NAME",
        )
    secret = _key_of(target)

    async def opened() -> T:
        from crdt_sync_client import Device

        given = secret()
        try:
            device = await Device.open(target.store, **given)
        except WrongPassphrase as exc:
            key = _next_key(target)
            if key is None:
                raise WrongPassphrase(exc.message, hint=_WRONG_HINT) from None
            given = {"key": key}
            device = await Device.open(target.store, **given)
            _settle_key(target, key)
        async with device:
            return await work(device, next(iter(given.values())))

    return asyncio.run(opened())


def _next_key(target: Target) -> bytes | None:
    """The key that opens the store if an exchange of keys was broken off after it was done."""
    if given_passphrase(target) is not None or not _keychain_available():
        return None
    from crdt_sync_client import keychain

    return keychain.load_next_key(_salt(target.store))


def _settle_key(target: Target, key: bytes) -> None:
    from crdt_sync_client import keychain

    keychain.settle(_salt(target.store), key)


def secret_for(target: Target) -> dict[str, Any]:
    """The passphrase or key of a store as an argument, for what does not open it as a device."""
    if not target.store.exists():
        raise StoreMissing(f"there is no store {target.store}", hint="name the store's file")
    return _key_of(target)()


def create(target: Target, name: str) -> Device:
    """Make a new store and return its device, closed. A keychain gets a random key of its own."""

    async def made() -> Device:
        from crdt_sync_client import Device

        secret = given_passphrase(target)
        if secret is None and not _keychain_available():
            secret = _prompt(confirm=True)
        if secret is not None:
            device = await Device.create(target.store, name=name, passphrase=secret)
        else:
            device = await _create_with_keychain(target.store, name)
        await device.close()
        return device

    return asyncio.run(made())


async def _create_with_keychain(path: Path, name: str) -> Device:
    from crdt_sync_client import Device, keychain

    key = os.urandom(keychain.KEY_BYTES)
    device = await Device.create(path, name=name, key=key)
    try:
        keychain.save_key(_salt(path), key)
    except NoKey:
        # Nobody could ever open this store again, and nothing is in it yet.
        await device.close()
        _remove_store(path)
        raise
    return device


def _key_of(target: Target) -> Callable[[], dict[str, Any]]:
    """What gives the argument for `Device.open`: a passphrase, or the key out of the keychain."""
    passphrase = given_passphrase(target)
    if passphrase is None and _keychain_available():
        from crdt_sync_client import keychain

        key = keychain.load_key(_salt(target.store))
        if key is not None:
            return lambda: {"key": key}
    return _derived(passphrase or _prompt(confirm=False), target.store)


def _derived(passphrase: str, store: Path) -> Callable[[], dict[str, Any]]:
    """Begin to derive the store's key; what is returned waits for it.

    Deriving takes 0.1 s outside of Python, about as long as importing what the command needs: the two happen
    at the same time. A file that is no store is told from one by opening it, as ever.
    """
    from concurrent.futures import ThreadPoolExecutor

    from crdt_sync_client.store.connection import derive_key

    salt = _salt(store)
    if len(salt) < SALT_BYTES:
        return lambda: {"passphrase": passphrase}
    with_thread = ThreadPoolExecutor(1, thread_name_prefix="key")
    key = with_thread.submit(derive_key, passphrase, salt)
    with_thread.shutdown(wait=False)
    return lambda: {"key": key.result()}


def given_passphrase(target: Target) -> str | None:
    """The passphrase from the file or the environment; None when neither was given."""
    if target.passphrase_file is not None:
        return read_secret_file(target.passphrase_file, "--passphrase-file")
    text = os.environ.get(UNLOCK_VARIABLE)
    if text is None:
        return None
    if not text:
        raise UsageProblem(
            f"{UNLOCK_VARIABLE} is set but empty", hint="unset it, or put the passphrase in it"
        )
    return text


def new_passphrase(file: Path | None) -> str:
    """The passphrase to come: from the file, the environment, or typed twice."""
    if file is not None:
        return read_secret_file(file, "--new-passphrase-file")
    text = os.environ.get(NEW_UNLOCK_VARIABLE)
    if text:
        return text
    if not at_a_terminal():
        raise UsageProblem(
            "no new passphrase was given",
            hint=f"use --new-passphrase-file FILE, the variable {NEW_UNLOCK_VARIABLE}, or --to-keychain",
        )
    typed = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
    assert isinstance(typed, str)
    return typed


def read_secret_file(path: Path, option: str) -> str:
    """The first line of a file that holds one secret."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise UsageProblem(
            f"{option} {path} cannot be read: {reason}", hint="give a text file of one line"
        ) from None
    secret, _, rest = text.partition("\n")
    secret = secret.removesuffix("\r")
    if not secret or rest.strip():
        raise UsageProblem(
            f"{option} {path} must hold one line, the secret", hint="write it with: umask 077; cat > FILE"
        )
    return secret


def _prompt(*, confirm: bool) -> str:
    if not at_a_terminal():
        raise NoKey(
            "no passphrase was given, and the keychain has no key for this store",
            hint=f"use --passphrase-file FILE or the environment variable {UNLOCK_VARIABLE}",
        )
    text = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    assert isinstance(text, str)
    return text


def at_a_terminal() -> bool:
    """Whether a person could answer a question."""
    return sys.stdin.isatty()


def _keychain_available() -> bool:
    from crdt_sync_client import keychain

    return keychain.available()


def _remove_store(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _salt(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SALT_BYTES)
