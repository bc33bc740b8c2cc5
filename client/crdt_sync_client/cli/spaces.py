"""`crdt-sync space`, `invite`, `join`: who shares records with whom."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import Command, Duration, Group, Target, space_option, store_options
from .failures import UsageProblem
from .leaving import space_leave, space_off, space_on
from .output import Output, iso_time, local_time

if TYPE_CHECKING:
    from crdt_sync_client import Device

ROLES = ("field", "office", "supervisor", "admin", "reader")


@click.group(cls=Group, name="space")
def command_space() -> None:
    """Make, list and leave the spaces this device is in.

    A space is what people share: a site, a rig, a team. It has its own keys, members and records.
    """


def _relay_url(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value)
        good = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise click.BadParameter(f"{value!r} is no relay's address; write ws://HOST:PORT or wss://HOST")
    return value


@command_space.command(
    name="create",
    examples=(
        "crdt-sync space create 'Pit 4' --store office.db --relay ws://127.0.0.1:8787 --schema work_order",
        "crdt-sync space create 'Pit 4' --store office.db --relay wss://relay.example.org "
        "--token-file token.txt",
    ),
)
@click.argument("name")
@store_options
@click.option(
    "--relay",
    callback=_relay_url,
    required=True,
    metavar="URL",
    help="Address of the relay: ws://HOST:PORT or wss://HOST.",
)
@click.option(
    "--token",
    envvar="CRDT_SYNC_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="The relay's setup token, which it printed when it was first started.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Read the setup token from FILE, so that it is in no shell history.",
)
@click.option(
    "--schema",
    "schemas",
    multiple=True,
    metavar="FILE_OR_TYPE",
    help="A record type for the space: a schema file or a shipped type. Can be given again.",
)
def space_create(
    out: Output,
    target: Target,
    name: str,
    relay: str,
    token: str | None,
    token_file: Path | None,
    schemas: tuple[str, ...],
) -> None:
    """Make a space at a relay; this device becomes its admin."""
    from crdt_sync_client.shipped import find_schema

    from . import opening

    if token_file is not None:
        token = opening.read_secret_file(token_file, "--token-file")
    if not token:
        raise UsageProblem(
            "the relay's setup token is missing",
            hint="`crdt-sync relay serve` printed it; give it with --token-file, CRDT_SYNC_TOKEN or --token",
        )
    setup_token = token
    loaded = [find_schema(schema) for schema in schemas]

    async def work(device: Device) -> None:
        space = await device.create_space(name, relay=relay, token=setup_token, schemas=loaded)
        if out.as_json:
            out.result(
                {"id": space.id, "name": space.name, "relay": relay, "types": [s.type for s in loaded]}
            )
            return
        out.say(f"{space.name} is ready at {relay}. You are its admin.")
        if loaded:
            out.say("Record types: " + ", ".join(schema.type for schema in loaded))
        else:
            out.note("It has no record types yet; --schema FILE_OR_TYPE adds them.")

    opening.run(target, work)


@command_space.command(name="ls", examples=("crdt-sync space ls --store office.db",))
@store_options
def space_ls(out: Output, target: Target) -> None:
    """List the spaces this device is in, with its role in each."""
    from . import opening

    async def work(device: Device) -> None:
        spaces = (await device.status()).spaces
        if out.as_json:
            out.result([{"id": s.space_id, "name": s.name, "role": s.role, "relay": s.relay} for s in spaces])
            return
        out.table(
            ("space", "role", "relay", "id"),
            [(s.name, s.role, s.relay, s.space_id) for s in spaces],
            none="This device is in no space. Make one with crdt-sync space create, or crdt-sync join LINK.",
        )

    opening.run(target, work)


@command_space.command(name="members", examples=("crdt-sync space members --store office.db",))
@store_options
@space_option
def space_members(out: Output, target: Target, space: str | None) -> None:
    """List the devices of a space and their roles."""
    from . import opening

    async def work(device: Device) -> None:
        members = await device.members(space)
        if out.as_json:
            out.result([member.to_json() for member in members])
            return
        out.table(
            ("device", "role", "id"),
            [(member.name, member.role, member.device_id) for member in members],
            none="No members are known yet. Run crdt-sync sync.",
        )

    opening.run(target, work)


@click.command(
    cls=Command,
    name="invite",
    examples=(
        "crdt-sync invite --store office.db --role field",
        "crdt-sync invite --store office.db --space 'Pit 4' --role supervisor --expires 12h --json",
    ),
)
@store_options
@space_option
@click.option("--role", required=True, type=click.Choice(ROLES), help="What the new device will be.")
@click.option(
    "--expires", type=Duration(), default="7d", show_default=True, metavar="SPAN", help="30m, 12h, 7d, 2w."
)
def command_invite(out: Output, target: Target, space: str | None, role: str, expires: int) -> None:
    """Print a link that lets one more device into a space.

    The link works once, also while this device is offline. Whoever has it can join: send it privately. The
    relay never learns its secret part.
    """
    import time

    from . import opening

    async def work(device: Device) -> None:
        link = await device.invite(space, role=role, expires_s=expires)
        expires_at_ms = int((time.time() + expires) * 1000)
        if out.as_json:
            out.result({"link": link, "role": role, "expires_at": iso_time(expires_at_ms)})
            return
        out.say(link)
        out.note(f"One device can join with it as {role} until {local_time(expires_at_ms)}.")

    opening.run(target, work)


@click.command(
    cls=Command,
    name="join",
    examples=(
        "crdt-sync join --store tablet7.db 'crdt-sync://127.0.0.1:8787/join/…#…'",
        "crdt-sync join --store tablet7.db - < link.txt",
    ),
)
@click.argument("link")
@store_options
def command_join(out: Output, target: Target, link: str) -> None:
    """Enter a space with an invite link.

    LINK may be `-`: then it is read from standard input. Afterwards `crdt-sync sync` brings the records.
    """
    from . import opening

    if link == "-":
        link = sys.stdin.readline()
    link = link.strip()

    async def work(device: Device) -> None:
        space = await device.join(link)
        if out.as_json:
            out.result({"id": space.id, "name": space.name, "role": space.role})
            return
        out.say(f"This device is now in {space.name}, as {space.role}.")
        out.note("Next: crdt-sync sync brings its records.")

    opening.run(target, work)


command_space.add_command(space_off)
command_space.add_command(space_on)
command_space.add_command(space_leave)
