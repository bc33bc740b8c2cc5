"""`crdt-sync import`: a CSV file becomes records, one per line.

The columns are checked before anything is written. After that each row stands for itself: those that fail are
listed with their line, field and reason, and the rest go in.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from . import failures
from .command import Command, Target, space_option, store_options
from .failures import UsageProblem
from .output import Output
from .progress import count_progress

if TYPE_CHECKING:
    from crdt_sync_client import Device

_LISTED: Final = 20
"""Failed rows shown on a terminal; --json lists them all."""


@click.command(
    cls=Command,
    name="import",
    examples=(
        "crdt-sync import work_order orders.csv --store office.db --map title=Text --map asset_id=Asset",
        "crdt-sync import work_order orders.csv --store office.db --map title=Text cost=Cost --key No --json",
    ),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE.csv")
@click.argument("more_maps", nargs=-1, metavar="[FIELD=COLUMN]...")
@store_options
@space_option
@click.option(
    "--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Fill FIELD from COLUMN. Repeat, or list."
)
@click.option(
    "--key", metavar="COLUMN", help="Column that identifies a row: a second import updates its record."
)
def command_import(
    out: Output,
    target: Target,
    record_type: str,
    file: Path,
    more_maps: tuple[str, ...],
    space: str | None,
    maps: tuple[str, ...],
    key: str | None,
) -> None:
    """Make a record of every row of a CSV file.

    Cells are read by the schema's types; an empty cell, or NA where the field is not text, leaves the field
    empty. Exit code 8 when rows failed: they are listed, the rest went in.
    """
    from . import opening

    mapping = parse_maps((*maps, *more_maps))

    async def work(device: Device) -> int:
        from crdt_sync_client.importing import read_csv

        schema = await device.schema(record_type, space)
        rows = read_csv(file, schema, mapping, key=key)
        with count_progress(f"importing {file.name}", len(rows), enabled=not out.as_json) as progress:
            report = await device.import_rows(record_type, rows, key=key, space=space, progress=progress)
        failed = [
            {"line": line, "field": field, "message": message} for line, field, message in report.failed
        ]
        if out.as_json:
            out.result({"imported": report.imported, "failed": failed})
        else:
            out.say(f"{report.imported:,} of {len(rows):,} rows of {file.name} are in.")
            if failed:
                out.table(
                    ("line", "field", "problem"),
                    [(row["line"], row["field"], row["message"]) for row in failed[:_LISTED]],
                    none="",
                )
            if len(failed) > _LISTED:
                out.say(f"and {len(failed) - _LISTED:,} more; --json lists all.")
        return failures.PARTIAL if failed else failures.OK

    click.get_current_context().exit(opening.run(target, work))


def parse_maps(texts: Iterable[str]) -> dict[str, str]:
    """`field=Column` arguments as field -> column."""
    mapping: dict[str, str] = {}
    for text in texts:
        field, equals, column = text.partition("=")
        if not (field and equals and column):
            raise UsageProblem(
                f"--map {text!r} is not FIELD=COLUMN", hint="for example: --map title=Description"
            )
        if field in mapping:
            raise UsageProblem(f"--map gives {field} two columns", hint="one column for each field")
        mapping[field] = column
    if not mapping:
        raise UsageProblem("no field is mapped to a column", hint="for example: --map title=Description")
    return mapping
