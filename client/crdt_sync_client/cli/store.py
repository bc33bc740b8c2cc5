"""`crdt-sync store`, `logout`: the file on this machine: its passphrase, its size, and its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import Command, Group, Target, store_options
from .failures import UsageProblem
from .output import Output
from .removing import confirm, removal_options, say_what_became

if TYPE_CHECKING:
    from crdt_sync_client import Device


@click.group(cls=Group, name="store")
def command_store() -> None:
    """Look after the encrypted file that holds this device."""


@command_store.command(
    name="passphrase",
    examples=(
        "crdt-sync store passphrase --store tablet7.db",
        "crdt-sync store passphrase --store tablet7.db --passphrase-file old.txt "
        "--new-passphrase-file new.txt",
        "crdt-sync store passphrase --store tablet7.db --to-keychain",
    ),
)
@store_options
@click.option(
    "--new-passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Read the new passphrase from FILE. Otherwise: CRDT_SYNC_NEW_PASSPHRASE, a hidden prompt.",
)
@click.option("--to-keychain", is_flag=True, help="A random key in the system's keychain instead.")
def store_passphrase(
    out: Output, target: Target, new_passphrase_file: Path | None, to_keychain: bool
) -> None:
    """Change the passphrase, or go over to the keychain or back.

    With --to-keychain a store that the keychain opens gets another key there.
    The whole file is encrypted again: about 1 s per 100 MB, with as much room on the disk for that time. If
    the machine stops meanwhile, the old passphrase or the new one opens it.
    Afterwards the old one opens nothing but older copies of the file.
    """
    from . import opening

    if to_keychain and new_passphrase_file is not None:
        raise UsageProblem(
            "--to-keychain and --new-passphrase-file exclude each other", hint="give one of the two"
        )

    async def work(device: Device, old: str | bytes) -> None:
        from crdt_sync_client import keychain
        from crdt_sync_client.store.wiping import salt_of

        salt = salt_of(target.store)
        if to_keychain:
            await _to_keychain(device, old, salt)
        else:
            await device.change_passphrase(old, opening.new_passphrase(new_passphrase_file))
            keychain.forget_key(salt)  # last: until here it may be what opens the store
        if out.as_json:
            out.result({"store": str(target.store), "opened_by": "keychain" if to_keychain else "passphrase"})
        elif to_keychain:
            out.say(f"A new key in the keychain opens {target.store} now; what did before does not any more.")
        else:
            out.say(f"The new passphrase opens {target.store} now; what did before does not any more.")

    opening.run_with_secret(target, work)


async def _to_keychain(device: Device, old: str | bytes, salt: bytes) -> None:
    """The key is in the keychain before it is the store's: at no point is it nowhere."""
    import os

    from crdt_sync.errors import CrdtSyncError
    from crdt_sync_client import keychain

    key = os.urandom(keychain.KEY_BYTES)
    exchanged = keychain.load_key(salt) == old  # one key of the keychain for another one
    (keychain.save_next_key if exchanged else keychain.save_key)(salt, key)
    try:
        await device.change_passphrase(old, key)
    except CrdtSyncError:
        if not device.locked:  # it was refused; when it broke off, either may be the key
            if isinstance(old, bytes) and exchanged:
                keychain.settle(salt, old)
            else:
                keychain.forget_key(salt)
        raise
    keychain.settle(salt, key)


@command_store.command(
    name="info",
    examples=("crdt-sync store info --store tablet7.db", "crdt-sync store info --store tablet7.db --json"),
)
@store_options
def store_info(out: Output, target: Target) -> None:
    """Say how large the store is, and what takes the room."""
    from . import opening

    async def work(device: Device) -> None:
        report = await device.store_size()
        if out.as_json:
            out.result(report.to_json())
            return
        out.say(f"{target.store}: {_size(report.file_bytes + report.wal_bytes)} on the disk.")
        if report.free_bytes:
            out.say(f"{_size(report.free_bytes)} of it is free; crdt-sync store vacuum gives it back.")
        out.table(
            ("what", "rows", "size"),
            [(part.name, part.rows, _size(part.size_bytes)) for part in report.parts],
            none="There is nothing in it.",
        )

    opening.run(target, work)


@command_store.command(
    name="cleanup",
    examples=(
        "crdt-sync store cleanup --store tablet7.db --dry-run",
        "crdt-sync store cleanup --store tablet7.db",
    ),
)
@store_options
@click.option("--dry-run", is_flag=True, help="Only say what would leave.")
def store_cleanup(out: Output, target: Target, dry_run: bool) -> None:
    """Take records off this device that were closed long ago.

    How long is said by x-closed of their schema, or here: crdt-sync settings set keep_days.TYPE=30. The space
    keeps them; crdt-sync fetch brings one back. What is picked, unsent or in conflict stays.
    """
    from . import opening

    async def work(device: Device) -> None:
        found = [each for space in await device.spaces() for each in await device.finished(space.id)]
        if not dry_run:
            for space in await device.spaces():
                await device.clean_up(space.id)
        if out.as_json:
            named = [{"type": each.type, "id": each.id, "since_at": each.since_at} for each in found]
            out.result({"records": named, "left": 0 if dry_run else len(found)})
            return
        if dry_run:
            out.table(("type", "id"), [(each.type, each.id) for each in found], none="Nothing would leave.")
        else:
            out.say(f"{len(found)} {'record' if len(found) == 1 else 'records'} left this device.")

    opening.run(target, work)


@command_store.command(name="clear-cache", examples=("crdt-sync store clear-cache --store tablet7.db",))
@store_options
def store_clear_cache(out: Output, target: Target) -> None:
    """Have fresh copies of all records fetched at the next sync.

    What was written here and is not sent stays as it is.
    """
    from . import opening

    async def work(device: Device) -> None:
        count = sum([await device.clear_cache(space.id) for space in await device.spaces()])
        if out.as_json:
            out.result({"left": count})
        else:
            out.say(f"{count} {'record' if count == 1 else 'records'} left; crdt-sync sync fetches them.")

    opening.run(target, work)


@command_store.command(name="vacuum", examples=("crdt-sync store vacuum --store tablet7.db",))
@store_options
def store_vacuum(out: Output, target: Target) -> None:
    """Give room that is not used any more back to the disk.

    Needs as much room as the store takes beside it, and again among the system's temporary files (TMPDIR),
    for as long as it takes. The copy there is encrypted as the store is.
    """
    from . import opening

    async def work(device: Device) -> None:
        freed = await device.vacuum()
        if out.as_json:
            out.result({"freed_bytes": freed})
        else:
            out.say(f"{_size(freed)} given back.")

    opening.run(target, work)


@click.command(
    cls=Command,
    name="logout",
    examples=(
        "crdt-sync logout --store tablet7.db --yes",
        "crdt-sync logout --store tablet7.db --export unsent.jsonl --yes",
    ),
)
@store_options
@removal_options
def command_logout(out: Output, target: Target, force: bool, export_to: Path | None, yes: bool) -> None:
    """Remove the store, its keys and all that is in it from here.

    Refused while there is work that no relay has, unless it is exported or given up with --force. What the
    relay has, the other devices keep. Coming back takes a new invite. An admin removes the device from its
    spaces; this command does not.
    """
    from . import opening

    if not yes:
        confirm(
            f"{target.store} and everything in it from this machine",
            refused="this removes the store for good",
        )

    async def work(device: Device) -> None:
        report = await device.logout(force=force, export_to=export_to)
        if out.as_json:
            out.result(report.to_json())
            return
        out.say(f"{target.store} is gone from this machine.")
        say_what_became(out, report)

    opening.run(target, work)


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    return f"{count / 1024:,.0f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:,.1f} MiB"
