"""`crdt-sync conflicts ls`, `count`, `show`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .command import Command, Target, space_option, store_options
from .conflict_views import conflict_json, find_conflict, print_conflict, version_of
from .output import Output, local_time

if TYPE_CHECKING:
    from crdt_sync_client import Device
    from crdt_sync_client.engine.trail import CountBy

R = TypeVar("R")

_BY: Final = ("state", "type", "record", "device", "field")


def filter_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options that choose conflicts; the command receives `wanted`, for `Device.conflicts`."""

    @functools.wraps(command)
    def wrapper(
        *args: Any,
        everything: bool,
        state: str | None,
        record_type: str | None,
        record_id: str | None,
        device_name: str | None,
        space: str | None,
        **kwargs: Any,
    ) -> R:
        wanted = {
            "open_only": not everything,
            "state": state,
            "type": record_type,
            "id": record_id,
            "device": device_name,
            "space": space,
        }
        return command(*args, wanted=wanted, **kwargs)

    for option in (
        space_option,
        click.option(
            "--device", "device_name", metavar="NAME", help="In which that device (name or id) has a version."
        ),
        click.option("--record", "record_id", metavar="ID", help="Of that record."),
        click.option("--type", "record_type", metavar="TYPE", help="Of that record type."),
        click.option(
            "--state",
            type=click.Choice(("open", "auto", "closed")),
            help="open: waits for a decision; auto: settled by the rule; closed: over.",
        ),
        click.option(
            "--all", "everything", is_flag=True, help="Also those a rule settled, and those resolved already."
        ),
    ):
        wrapper = option(wrapper)
    return wrapper


@click.command(
    cls=Command,
    name="ls",
    examples=(
        "crdt-sync conflicts ls --store office.db",
        "crdt-sync conflicts ls --store office.db --device 'Tablet 7' --all --json",
    ),
)
@store_options
@filter_options
def conflicts_ls(out: Output, target: Target, wanted: dict[str, Any]) -> None:
    """List the conflicts that wait for a decision."""
    from . import opening

    async def work(device: Device) -> None:
        conflicts = await device.conflicts(**wanted)
        if out.as_json:
            out.result([conflict_json(conflict) for conflict in conflicts])
            return
        columns = ["conflict", "type", "record", "field", "state", "versions", "since"]
        rows: list[list[Any]] = [
            [c.id, c.type, c.record, c.field, c.state, len(c.alternatives), local_time(c.seen_at_ms)]
            for c in conflicts
        ]
        if any(conflict.suggestion for conflict in conflicts):
            columns.append("suggested")
            for row, conflict in zip(rows, conflicts, strict=True):
                row.append(conflict.suggestion and version_of(conflict, conflict.suggestion.alternative))
        out.table(columns, rows, none=_none(wanted))

    opening.run(target, work)


def _none(wanted: dict[str, Any]) -> str:
    if any(wanted[name] for name in ("state", "type", "id", "device")):
        return "No such conflicts."
    return "No conflicts wait for a decision." if wanted["open_only"] else "No conflicts."


@click.command(
    cls=Command,
    name="count",
    examples=(
        "crdt-sync conflicts count --store office.db",
        "crdt-sync conflicts count --store office.db --by device --all",
    ),
)
@store_options
@filter_options
@click.option("--by", type=click.Choice(_BY), help="One number for each instead, the most first.")
def conflicts_count(out: Output, target: Target, wanted: dict[str, Any], by: CountBy | None) -> None:
    """Count the conflicts that wait for a decision.

    By device a conflict counts for every device that has a version in it.
    """
    from . import opening

    async def work(device: Device) -> None:
        if by is None:
            count = await device.count_conflicts(**wanted)
            out.result({"count": count}) if out.as_json else out.say(str(count))
            return
        counts = await device.conflict_counts(by, **wanted)
        if out.as_json:
            out.result({"by": by, "counts": counts})
        else:
            out.table((by, "conflicts"), list(counts.items()), none=_none(wanted))

    opening.run(target, work)


@click.command(cls=Command, name="show", examples=("crdt-sync conflicts show 5f0c21aa --store office.db",))
@click.argument("conflict_id", metavar="ID")
@store_options
def conflicts_show(out: Output, target: Target, conflict_id: str) -> None:
    """Show the versions of a conflict side by side.

    Who wrote what, when, which one is in use now, and how the conflict ended.
    """
    from . import opening

    async def work(device: Device) -> None:
        conflict = await find_conflict(device, conflict_id)
        if out.as_json:
            out.result(conflict_json(conflict))
        else:
            print_conflict(conflict)

    opening.run(target, work)
