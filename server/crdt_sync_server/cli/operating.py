"""`status`, `spaces`, `devices`, `backup`, `check`: the relay looked at and kept, running or stopped."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from crdt_sync_server.cli.shape import Command, json_option, print_json, print_table
from crdt_sync_server.setting_sources import setting_options

DAMAGED: Final = 5
"""Exit code, as for a store that cannot be used."""


@click.command(
    cls=Command,
    examples=("crdt-sync relay status --data ./relay", "crdt-sync relay status --data ./relay --json"),
)
@setting_options("data")
@json_option
def status(data: Path, as_json: bool) -> None:
    """Show whether the relay runs, what it holds and how busy it is.

    Asks the running relay, or reads the database of a stopped one.
    """
    from crdt_sync_server.operating.asking import relay_at

    with relay_at(data) as relay:
        found = relay.status()
    if as_json:
        print_json(found)
        return
    rows = [("relay", "running" if found["running"] else "stopped")]
    if found["running"]:
        rows.append(("up for", span(found["uptime_s"])))
        rows.append(("connections", f"{found['connections']:,}"))
        rows.append(("frames waiting", f"{found['frames_waiting']:,}"))
        rows.append(("furthest behind", f"{found['lag_rows_max']:,} rows"))
    rows.append(("spaces", f"{found['spaces']:,}"))
    rows.append(("logs", size(found["log_bytes"])))
    rows.append(("on disk", size(found["disk_bytes"])))
    rows.append(("relay id", found["relay_id"]))
    print_table(("", ""), rows)


@click.command(cls=Command, examples=("crdt-sync relay spaces --data ./relay",))
@setting_options("data")
@json_option
def spaces(data: Path, as_json: bool) -> None:
    """List the spaces: rows, size, members, connections.

    A relay knows spaces by id only; their names are encrypted.
    """
    from crdt_sync_server.operating.asking import relay_at

    with relay_at(data) as relay:
        found = relay.spaces()
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("No spaces yet: who has the setup token may create one.")
        return
    print_table(
        ("space", "rows", "size", "members", "connected"),
        [
            (
                one["space"],
                f"{one['head']:,}",
                size(one["size_bytes"]),
                str(one["members"]),
                str(one["connections"]),
            )
            for one in found
        ],
    )


@click.command(
    cls=Command,
    examples=(
        "crdt-sync relay devices --data ./relay",
        "crdt-sync relay devices --data ./relay --space 4d8c0b4b6c1a2f9e0d7c5b3a19283746 --json",
    ),
)
@setting_options("data")
@click.option("--space", default="", metavar="ID", help="Only this space's.")
@json_option
def devices(data: Path, space: str, as_json: bool) -> None:
    """List the devices: when seen, how far behind, app and system.

    The name is the label given over the HTTP API; what people call a device is encrypted.
    """
    from crdt_sync_server.operating.asking import relay_at

    with relay_at(data) as relay:
        found = relay.devices(space)
    if as_json:
        print_json(found)
        return
    print_table(
        ("device", "label", "role", "last seen", "last sync", "behind", "app", "system"),
        list(map(device_row, found)),
    )


def device_row(one: dict[str, Any]) -> tuple[str, ...]:
    """A device as a row of a table."""
    return (
        one["device"],
        printable(one["label"]),
        "revoked" if one["revoked"] else one["role"],
        "now" if one["connected"] else moment(one["last_seen_ms"]),
        moment(one["last_sync_ms"]),
        f"{one['lag']:,}",
        printable(one["app"]),
        printable(one["os"]),
    )


@click.command(
    cls=Command,
    examples=("crdt-sync relay backup --data /var/lib/crdt-sync --to /backup/crdt-sync-2026-11-21",),
)
@setting_options("data")
@click.option(
    "--to",
    type=click.Path(path_type=Path, readable=False),
    required=True,
    metavar="DIR",
    help="A new directory for the copy.",
)
@json_option
def backup(data: Path, to: Path, as_json: bool) -> None:
    """Copy the relay's data, also while it runs, and check the copy.

    The copy is a data directory; `crdt-sync relay restore` puts it back. Devices find out what it lacks, and
    send it.
    """
    from crdt_sync_server.operating.asking import relay_at

    with relay_at(data) as relay:
        made = relay.back_up(to)
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made['to']}: {made['rows']:,} rows, {size(made['size_bytes'])}; opened and checked")


@click.command(
    cls=Command, examples=("crdt-sync relay check --data ./relay", "crdt-sync relay check --data /backup/x")
)
@setting_options("data")
@json_option
@click.pass_context
def check(ctx: click.Context, /, data: Path, as_json: bool) -> None:
    """Read every row again and say what is damaged. Exit code 5 if anything is.

    Beside a running relay the rows are checked between its commits; the database file itself is checked when
    the relay is stopped. Works on backups too.
    """
    from crdt_sync_server.operating.asking import relay_at

    with relay_at(data) as relay:
        found = relay.check()
    if as_json:
        print_json(found)
    elif not found["findings"]:
        spaces = "space" if found["spaces"] == 1 else "spaces"
        click.echo(f"{found['rows']:,} rows in {found['spaces']:,} {spaces}: nothing is damaged")
    else:
        print_table(
            ("space", "row", "problem"),
            [
                (one["space"] or "–", str(one["row"] or "–"), printable(one["problem"]))
                for one in found["findings"]
            ],
        )
        click.echo(
            "Next: put a backup back (crdt-sync relay restore), or start on an empty directory", err=True
        )
        click.echo("(crdt-sync relay take-back): devices send what a relay lacks.", err=True)
    if found["findings"]:
        ctx.exit(DAMAGED)


def size(size_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:,.1f} GiB"


def span(seconds: float) -> str:
    """A time span for people."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def moment(at_ms: int | None) -> str:
    """A moment for people, in the local time zone."""
    if at_ms is None:
        return "never"
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%d %b %Y %H:%M:%S")


def printable(text: str) -> str:
    """What a device says of itself, unable to steer the terminal."""
    return "".join(char if char.isprintable() else "�" for char in text) or "–"


COMMANDS: Final = (status, spaces, devices, backup, check)
