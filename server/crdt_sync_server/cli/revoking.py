"""`revoke`: a device shut out of the relay, and let in again; `checkouts`: who has which record."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from crdt_sync_server.cli.operating import moment
from crdt_sync_server.cli.shape import Command, json_option, print_json, print_table
from crdt_sync_server.setting_sources import setting_options


@click.command(
    cls=Command,
    examples=(
        "crdt-sync relay revoke 9b1f0c3e5a7d4826b0c1d2e3f4a59687 --reason 'lost at Pit 4' --data ./relay",
        "crdt-sync relay revoke 9b1f0c3e5a7d4826b0c1d2e3f4a59687 --undo --data ./relay",
    ),
)
@click.argument("device")
@setting_options("data")
@click.option("--space", default="", metavar="ID", help="Only out of this space, not of all.")
@click.option("--reason", default="", metavar="TEXT", help="Shown to the device and its owner.")
@click.option("--undo", is_flag=True, help="Let the device in again.")
@json_option
def revoke(data: Path, device: str, space: str, reason: str, undo: bool, as_json: bool) -> None:
    """Shut a device out of this relay, at once and until undone.

    Its connections are closed, its access tokens are refused, nothing of it is taken. It stays a member of
    its spaces and keeps what it has. With --undo it goes on where it was and nothing is lost. Works while
    the relay runs and when it is stopped.
    """
    from crdt_sync_server.operating.asking import relay_at

    if undo and reason:
        raise click.UsageError("--reason is for shutting out, not for --undo")
    with relay_at(data) as relay:
        done = relay.revoke(device, space, reason, undo=undo)
    if as_json:
        print_json({"device": device, "space": space or None, "revoked": not undo, "closed": done["closed"]})
        return
    where = f"space {space}" if space else "all spaces of this relay"
    if undo:
        click.echo(f"Device {device} is let into {where} again.")
        click.echo("It comes back within an hour or so, or at once when its owner syncs.")
        return
    click.echo(f"Device {device} is shut out of {where}; connections closed: {done['closed']}.")
    click.echo("It can still read what it has. If it is lost, let an admin withdraw open invites too.")


@click.command(
    cls=Command,
    examples=("crdt-sync relay checkouts --data ./relay", "crdt-sync relay checkouts --data ./relay --json"),
)
@setting_options("data")
@click.option("--space", default="", metavar="ID", help="Only this space's.")
@json_option
def checkouts(data: Path, space: str, as_json: bool) -> None:
    """List who has checked out which record, until when.

    Records by the ids that a relay knows, which say nothing. Who holds one gives it back (crdt-sync checkin),
    or an admin of the space breaks it (crdt-sync checkouts break). An operator cannot.
    """
    from crdt_sync_server.operating.asking import relay_at

    with relay_at(data) as relay:
        found = relay.checkouts(space)
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("Nothing is checked out.")
        return
    print_table(
        ("space", "record", "device", "since", "until", "token"),
        [
            (
                one["space"],
                one["record"],
                one["device"],
                moment(one["since_ms"]),
                moment(one["expires_ms"]) if one["held"] else f"ran out {moment(one['expires_ms'])}",
                str(one["token"]),
            )
            for one in found
        ],
    )


COMMANDS: Final = (revoke, checkouts)
