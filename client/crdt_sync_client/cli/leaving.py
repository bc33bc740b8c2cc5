"""`crdt-sync space off`, `on`, `leave`: spaces that this device does not sync, or does not have any more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import Command, Target, store_options
from .output import Output
from .removing import confirm, removal_options, say_what_became

if TYPE_CHECKING:
    from crdt_sync_client import Device


def _switch(out: Output, target: Target, space: str, on: bool) -> None:
    from . import opening

    async def work(device: Device) -> None:
        await device.switch_space(space, on)
        if out.as_json:
            out.result({"space": space, "on": on})
        elif on:
            out.say(f"{space} is synced again: crdt-sync sync")
        else:
            out.say(f"{space} is off: its records stay here, and what is written waits.")

    opening.run(target, work)


@click.command(cls=Command, name="off", examples=("crdt-sync space off 'Pit 4' --store tablet7.db",))
@click.argument("space")
@store_options
def space_off(out: Output, target: Target, space: str) -> None:
    """Do not sync a space on this device.

    Its records stay and can be worked with; what is written waits until `crdt-sync space on`.
    """
    _switch(out, target, space, False)


@click.command(cls=Command, name="on", examples=("crdt-sync space on 'Pit 4' --store tablet7.db",))
@click.argument("space")
@store_options
def space_on(out: Output, target: Target, space: str) -> None:
    """Sync a space again that was off."""
    _switch(out, target, space, True)


@click.command(
    cls=Command,
    name="leave",
    examples=(
        "crdt-sync space leave 'Pit 4' --store tablet7.db --yes",
        "crdt-sync space leave 'Pit 4' --store tablet7.db --export unsent.jsonl --yes",
    ),
)
@click.argument("space")
@store_options
@removal_options
def space_leave(
    out: Output, target: Target, space: str, force: bool, export_to: Path | None, yes: bool
) -> None:
    """Remove a space from this device: records, keys, queue.

    Refused while there is work in it that no relay has, unless it is exported or given up with --force. The
    others of the space are not told: this device stays a member until an admin removes it. Coming back takes
    a new invite.
    """
    from . import opening

    if not yes:
        confirm(f"{space} and everything in it from this device", refused="this removes the space from here")

    async def work(device: Device) -> None:
        report = await device.leave(space, force=force, export_to=export_to)
        if out.as_json:
            out.result(report.to_json())
            return
        out.say(f"{report.name} is gone from this device.")
        say_what_became(out, report)

    opening.run(target, work)
