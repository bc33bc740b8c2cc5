"""`crdt-sync conflicts prefer`: which side is kept in conflicts about a field, remembered and suggested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import Group, Target, store_options
from .output import Output, iso_time, local_time

if TYPE_CHECKING:
    from crdt_sync_client import Device


@click.group(cls=Group, name="prefer")
def conflicts_prefer() -> None:
    """Remember which side to keep in conflicts about a field.

    A preference belongs to this device. It is shown with open conflicts as a suggestion and never applied by
    itself; `conflicts resolve --suggested` does what it says.
    """


@conflicts_prefer.command(
    name="set",
    examples=(
        "crdt-sync conflicts prefer set work_order root_cause --keep theirs --store office.db",
        "crdt-sync conflicts prefer set work_order 'parts_used.*.qty' --keep field --store office.db",
    ),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("field", metavar="FIELD")
@store_options
@click.option(
    "--keep",
    required=True,
    metavar="SIDE",
    help="mine, theirs, or what a role wrote: field, office, supervisor, admin. For $deleted also deleted and"
    " record.",
)
def prefer_set(out: Output, target: Target, record_type: str, field: str, keep: str) -> None:
    """Remember a side for a field.

    A field of a row is named for all rows, as in parts_used.*.qty; $deleted is the deletion of a record.
    """
    from . import opening

    async def work(device: Device) -> None:
        made = await device.preferences.set(record_type, field, keep=keep)
        if out.as_json:
            out.result({"type": made.type, "field": made.field, "keep": made.keep})
        else:
            out.say(f"In conflicts about {made.field} of {made.type} {made.keep} will be suggested.")

    opening.run(target, work)


@conflicts_prefer.command(name="ls", examples=("crdt-sync conflicts prefer ls --store office.db",))
@store_options
def prefer_ls(out: Output, target: Target) -> None:
    """List what is remembered."""
    from . import opening

    async def work(device: Device) -> None:
        known = await device.preferences.ls()
        if out.as_json:
            out.result(
                [
                    {"type": each.type, "field": each.field, "keep": each.keep, "since": iso_time(each.at_ms)}
                    for each in known
                ]
            )
            return
        out.table(
            ("type", "field", "keep", "since"),
            [(each.type, each.field, each.keep, local_time(each.at_ms)) for each in known],
            none="No preferences are remembered.",
        )

    opening.run(target, work)


@conflicts_prefer.command(
    name="clear", examples=("crdt-sync conflicts prefer clear work_order root_cause --store office.db",)
)
@click.argument("record_type", metavar="TYPE")
@click.argument("field", metavar="[FIELD]", required=False)
@store_options
def prefer_clear(out: Output, target: Target, record_type: str, field: str | None) -> None:
    """Forget the side for a field, or for all fields of a type."""
    from . import opening

    async def work(device: Device) -> None:
        count = await device.preferences.clear(record_type, field)
        if out.as_json:
            out.result({"cleared": count})
        else:
            out.say(f"{count} preference{'s' * (count != 1)} forgotten.")

    opening.run(target, work)
