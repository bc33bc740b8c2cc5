"""`crdt-sync conflicts`: what people wrote at the same time, side by side, and which of it stays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from crdt_sync.errors import ConflictNotFound

from .command import Group, Target, store_options
from .failures import UsageProblem
from .output import Output, iso_time, local_time, new_table, print_rich, show, to_json

if TYPE_CHECKING:
    from rich.text import Text

    from crdt_sync_client import Alternative, ConflictEntry, Device

_SHORTEST: Final = 4
"""Fewest characters of a conflict's id that stand for the whole of it."""


@click.group(cls=Group, name="conflicts")
def command_conflicts() -> None:
    """List, compare and resolve conflicts.

    A conflict is two or more values for one field, written by people who had not seen each other's. An ID may
    be shortened to its first characters, as long as only one conflict starts with them.
    """


@command_conflicts.command(
    name="ls",
    examples=(
        "crdt-sync conflicts ls --store office.db",
        "crdt-sync conflicts ls --store office.db --all --json",
    ),
)
@store_options
@click.option(
    "--all", "everything", is_flag=True, help="Also those a rule settled, and those resolved already."
)
def conflicts_ls(out: Output, target: Target, everything: bool) -> None:
    """List the conflicts that wait for a decision."""
    from . import opening

    async def work(device: Device) -> None:
        conflicts = await device.conflicts(open_only=not everything)
        if out.as_json:
            out.result([conflict_json(conflict) for conflict in conflicts])
            return
        out.table(
            ("conflict", "type", "record", "field", "state", "versions", "since"),
            [
                (c.id, c.type, c.record, c.field, c.state, len(c.alternatives), local_time(c.seen_at_ms))
                for c in conflicts
            ],
            none="No conflicts." if everything else "No conflicts wait for a decision.",
        )

    opening.run(target, work)


@command_conflicts.command(name="show", examples=("crdt-sync conflicts show 5f0c21aa --store office.db",))
@click.argument("conflict_id", metavar="ID")
@store_options
def conflicts_show(out: Output, target: Target, conflict_id: str) -> None:
    """Show the versions of a conflict side by side.

    Who wrote what, when, and which one is in use now.
    """
    from . import opening

    async def work(device: Device) -> None:
        conflict = await find_conflict(device, conflict_id)
        if out.as_json:
            out.result(conflict_json(conflict))
        else:
            print_conflict(conflict)

    opening.run(target, work)


@command_conflicts.command(
    name="resolve",
    examples=(
        "crdt-sync conflicts resolve 5f0c21aa --store office.db --field root_cause --keep theirs",
        "crdt-sync conflicts resolve 5f0c21aa --store office.db --field root_cause --value 'Seal worn'",
    ),
)
@click.argument("conflict_id", metavar="ID")
@store_options
@click.option(
    "--field", metavar="FIELD", help="The field it is about; checked, so that the right one is resolved."
)
@click.option(
    "--keep", type=click.Choice(("mine", "theirs")), help="Keep this device's version, or the other one."
)
@click.option(
    "--keep-version", type=click.IntRange(min=1), metavar="N", help="Keep version N of `conflicts show`."
)
@click.option("--value", metavar="VALUE", help="A value of your own, read by the field's type.")
def conflicts_resolve(
    out: Output,
    target: Target,
    conflict_id: str,
    field: str | None,
    keep: str | None,
    keep_version: int | None,
    value: str | None,
) -> None:
    """Decide a conflict.

    Keep one of its versions, or give a value of your own.
    For one that a rule had settled already, this brings the losing version back.
    """
    from . import opening

    if sum(choice is not None for choice in (keep, keep_version, value)) != 1:
        raise UsageProblem(
            "say what should stay",
            hint="give exactly one of --keep mine, --keep theirs, --keep-version N and --value VALUE",
        )

    async def work(device: Device) -> None:
        conflict = await find_conflict(device, conflict_id)
        choice: dict[str, Any] = {}
        if value is not None:
            schema = await device.schema(conflict.type, conflict.space.hex())
            choice["value"] = schema.parse_assignment(f"{conflict.field}={value}")[1]
        elif keep_version is not None:
            numbered = versions(conflict)
            if keep_version > len(numbered):
                raise UsageProblem(
                    f"there is no version {keep_version}",
                    hint=f"this conflict has {len(numbered)}; `conflicts show` numbers them",
                )
            choice["alternative"] = numbered[keep_version - 1][0]
        else:
            choice["keep"] = keep
        written = await device.resolve(conflict.id, field=field, **choice)
        settled = await device.conflict(conflict.id)
        if out.as_json:
            out.result(conflict_json(settled) | {"record_state": written.state})
            return
        out.say(f"{conflict.field} of {conflict.type} {conflict.record} is now: {show(settled.resolution)}")
        out.note("Saved on this device; crdt-sync sync sends it.")

    opening.run(target, work)


async def find_conflict(device: Device, wanted: str) -> ConflictEntry:
    """The conflict of that id, or the only one whose id starts so; raises ConflictNotFound."""
    if _SHORTEST <= len(wanted) < 32:
        found = [c for c in await device.conflicts(open_only=False) if c.id.startswith(wanted.lower())]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise UsageProblem(
                f"{len(found)} conflicts start with {wanted}", hint="give more characters of the id"
            )
    elif len(wanted) == 32:
        return await device.conflict(wanted.lower())
    raise ConflictNotFound(
        f"this device knows no conflict {wanted}", hint="`crdt-sync conflicts ls --all` lists them"
    )


def versions(conflict: ConflictEntry) -> list[tuple[int, Alternative]]:
    """The versions as people number them, from 1: oldest first. With each its index in `alternatives`."""
    return sorted(enumerate(conflict.alternatives), key=lambda entry: (entry[1].at_ms, entry[0]))


def conflict_json(conflict: ConflictEntry) -> dict[str, Any]:
    """A conflict for programs. Times are ISO 8601 in UTC; `chosen` marks the version in use."""
    closed = conflict.state == "closed"
    return {
        "id": conflict.id,
        "type": conflict.type,
        "record": conflict.record,
        "field": conflict.field,
        "rule": conflict.rule,
        "kind": conflict.kind,
        "state": conflict.state,
        "since": iso_time(conflict.seen_at_ms),
        "alternatives": [
            {
                "value": to_json(version.value),
                "device": version.device_name,
                "device_id": version.device.hex(),
                "role": version.role.text,
                "at": iso_time(version.at_ms),
                "mine": version.mine,
                "chosen": index == conflict.winner,
            }
            for index, version in versions(conflict)
        ],
        "resolved_at": iso_time(conflict.closed_at_ms),
        "resolved_by": conflict.resolver_name,
        "resolution": to_json(conflict.resolution) if closed else None,
    }


def print_conflict(conflict: ConflictEntry) -> None:
    """Versions as columns: a person compares by looking across."""
    from rich.text import Text

    table = new_table(show_lines=False)
    table.add_column("", style="bold")
    for number, (_, version) in enumerate(versions(conflict), start=1):
        who = f"{version.device_name} (this device)" if version.mine else version.device_name
        table.add_column(Text(f"{number}. {show(who)}"), overflow="fold")
    for label, cells in _rows(conflict):
        table.add_row(label, *cells)
    print_rich(Text(f"{conflict.field} of {conflict.type} {conflict.record}", style="bold"))
    print_rich(Text(_explanation(conflict), style="dim"))
    print_rich(table)
    if conflict.state == "closed":
        by = f" by {show(conflict.resolver_name)}" if conflict.resolver_name else ""
        print_rich(Text(f"Resolved{by}: {show(conflict.resolution)}", style="green"))
    elif conflict.state == "open":
        print_rich(
            Text(f"crdt-sync conflicts resolve {conflict.id[:8]} --field {conflict.field} --keep mine|theirs")
        )


def _rows(conflict: ConflictEntry) -> Iterable[tuple[str, list[Text]]]:
    from rich.text import Text

    in_use = "provisional" if conflict.state == "open" else "chosen"
    shown = [(version, index == conflict.winner) for index, version in versions(conflict)]
    yield "value", [Text(show(version.value), style="bold" if wins else "") for version, wins in shown]
    yield "role", [Text(version.role.text) for version, _ in shown]
    yield "written", [Text(local_time(version.at_ms)) for version, _ in shown]
    if conflict.state != "closed":
        yield "", [Text(in_use if wins else "", style="green") for _, wins in shown]


def _explanation(conflict: ConflictEntry) -> str:
    if conflict.state == "closed":
        return f"conflict {conflict.id}, closed"
    if conflict.kind == "auto":
        return f"conflict {conflict.id}, settled by the rule {conflict.rule}"
    return f"conflict {conflict.id}, waits for a decision (rule {conflict.rule})"
