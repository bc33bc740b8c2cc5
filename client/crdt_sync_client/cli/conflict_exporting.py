"""`crdt-sync conflicts export`: the audit trail as JSON lines or CSV."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from .command import Command, Duration, Target, store_options
from .failures import UsageProblem
from .output import Output

if TYPE_CHECKING:
    from crdt_sync_client import Device
    from crdt_sync_client.conflict_export import ExportFormat


class _Moment(click.ParamType[int]):
    """A moment as Unix milliseconds: a date, a date and time (UTC without a zone), or a span before now."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value[-1:].isalpha() and value[:-1].isdigit():
            return int(time.time() * 1000) - Duration().convert(value, param, ctx) * 1000
        from datetime import UTC, datetime

        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no moment; write 2026-11-05, 2026-11-05T14:30:00Z or 7d", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command(
    cls=Command,
    name="export",
    examples=(
        "crdt-sync conflicts export --format csv --out conflicts.csv --store office.db",
        "crdt-sync conflicts export --since 7d --store office.db",
    ),
)
@store_options
@click.option(
    "--format",
    "format",
    type=click.Choice(("jsonl", "csv")),
    default="jsonl",
    show_default=True,
    help="One JSON object a line, or a table.",
)
@click.option(
    "--since",
    "since_ms",
    type=_Moment(),
    metavar="MOMENT",
    help="Only what was seen or closed since: 2026-11-05, 2026-11-05T14:30:00Z, or 7d for the last 7 days.",
)
@click.option(
    "--out",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE, which is replaced when all is written. Otherwise: standard output.",
)
def conflicts_export(
    out: Output, target: Target, format: ExportFormat, since_ms: int | None, file: Path | None
) -> None:
    """Write the audit trail of conflicts: how each stood and ended.

    \b
    The columns, and the keys of the JSON:
      conflictId, entityType, entityId, spaceId, detectedAt, deviceId, deviceName, conflictingFields,
      resolutionStrategy (the rule), state (open, auto, closed), versions (version, value, deviceId,
      deviceName, role, writtenAt, field, deletes, shown), resolution (per field: client-wins, server-wins,
      merged, deleted or kept), resolvedAt, resolvedBy, resolvedVersion, resolvedValue, supersededBy,
      supersedes.

    In CSV, lists and mappings are JSON text, and a text that a spreadsheet would run as a formula begins with
    an apostrophe.
    """
    from . import opening

    if out.as_json and file is None and format == "csv":
        raise UsageProblem(
            "--json and --format csv exclude each other", hint="leave one out, or add --out FILE"
        )

    async def work(device: Device) -> None:
        if file is None:
            sys.stdout.flush()
            await device.export_conflicts(_Stdout(), format=format, since_ms=since_ms)
            return
        part = file.with_name(f"{file.name}.part")
        try:
            with _open(part) as opened:
                count = await device.export_conflicts(opened, format=format, since_ms=since_ms)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        if out.as_json:
            out.result({"conflicts": count, "file": str(file)})
        else:
            out.say(f"{count:,} conflict{'s' * (count != 1)} written to {file}.")

    opening.run(target, work)


def _open(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as exc:
        raise UsageProblem(
            f"--out {path.with_suffix('')} cannot be written: {exc.strerror}", hint="name another file"
        ) from None


class _Stdout:
    """Standard output, UTF-8 whatever the locale."""

    def write(self, text: str) -> int:
        click.echo(text.encode(), nl=False)
        return len(text)
