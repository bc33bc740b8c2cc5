"""`restore`: a backup put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from crdt_sync_server.cli.shape import Command, json_option, print_json
from crdt_sync_server.setting_sources import setting_options


@click.command(
    cls=Command,
    examples=(
        "crdt-sync relay restore /backup/crdt-sync-2026-11-21 --data /var/lib/crdt-sync",
        "crdt-sync relay restore /backup/crdt-sync-2026-11-21 --data /var/lib/crdt-sync --force",
    ),
)
@click.argument("backup", type=click.Path(path_type=Path, readable=False))
@setting_options("data")
@click.option("--force", is_flag=True, help="Also in place of data that is newer than the backup.")
@json_option
def restore(data: Path, backup: Path, force: bool, as_json: bool) -> None:
    """Put a backup in place of the relay's data.

    The relay has to be stopped. The backup is checked first, and what was in the directory is kept aside in
    it. Devices notice by themselves that the relay is behind them, and send what it lacks.
    """
    from crdt_sync_server.operating.restoring import restore as put_back

    done = put_back(backup, data, force=force)
    if as_json:
        print_json(done)
        return
    for line in _said(done):
        click.echo(line)


def _said(done: dict[str, Any]) -> list[str]:
    rows = f"{done['rows']:,} rows in {done['spaces']:,} spaces"
    lines = [f"{done['data']}: {rows} put back from {done['from']}; checked"]
    if done["kept_aside"]:
        lines.append(f"What was there is kept in {done['kept_aside']}; delete it when all is well.")
    if done["damaged"]:
        lines.append("It could not be read, so nobody can say what of it is newer than the backup.")
    if done["newer_rows"]:
        lines.append(
            f"{done['newer_rows']:,} rows are newer than the backup: devices that have them send them again."
        )
    if done["missing_spaces"]:
        lines.append(
            f"{done['missing_spaces']:,} spaces are newer than the backup. Let their members bring them back:"
        )
        lines.append(f"  crdt-sync relay take-back --data {done['data']}")
    if done["revoked"]:
        lines.append("Devices that were shut out still are.")
    lines.append(f"Next: crdt-sync relay serve --data {done['data']}")
    return lines


COMMANDS: Final = (restore,)
