"""`crdt-sync init`: a new, empty, encrypted device."""

from __future__ import annotations

import click

from .command import Command, Target, store_options
from .output import Output


@click.command(
    cls=Command,
    name="init",
    examples=(
        "crdt-sync init --store tablet7.db --name 'Tablet 7'",
        "crdt-sync init --store tablet7.db --name 'Tablet 7' --passphrase-file pass.txt --json",
    ),
)
@store_options
@click.option("--name", required=True, metavar="NAME", help="What other people see this device called.")
def command_init(out: Output, target: Target, name: str) -> None:
    """Make this device: an encrypted store with keys of its own.

    Without a passphrase the store gets a random key in the operating system's keychain.
    """
    from . import opening

    device = opening.create(target, name)
    if out.as_json:
        out.result({"store": str(target.store), "device_id": device.device_id.hex(), "name": name})
        return
    out.say(f"{target.store} is ready. This device is called {name}.")
    out.note("Next: crdt-sync space create NAME … to start a space, or crdt-sync join LINK to enter one.")
