"""`crdt-sync scope`, `fetch`: which records are on this device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import Command, Group, Target, space_option, store_options
from .conditions import in_words, parse_conditions
from .failures import UsageProblem
from .output import Output

if TYPE_CHECKING:
    from crdt_sync_client import Device


@click.group(cls=Group, name="scope")
def command_scope() -> None:
    """Choose which records of a space are on this device."""


@command_scope.command(
    name="ls",
    examples=("crdt-sync scope ls --store tablet7.db", "crdt-sync scope ls --store tablet7.db --json"),
)
@store_options
@space_option
def scope_ls(out: Output, target: Target, space: str | None) -> None:
    """Say what is kept here."""
    from . import opening

    async def work(device: Device) -> None:
        scope = await device.scope(space)
        if out.as_json:
            out.result(scope.to_json())
            return
        rows = [("condition", name, in_words(each)) for name, each in sorted(scope.conditions.items())]
        rows += [("picked", name, id) for name, id in scope.picks]
        out.table(("what", "type", "which"), rows, none="All records are kept.")
        for count, what in (
            (scope.absent, "are in the space only"),
            (scope.wanted, "of them are fetched at the next sync"),
            (scope.leaving, "leave once what was written in them is sent"),
        ):
            if count:
                out.say(f"{count} {what}.")

    opening.run(target, work)


@command_scope.command(
    name="set",
    examples=(
        "crdt-sync scope set work_order status!=closed --store tablet7.db",
        "crdt-sync scope set work_order --all --store tablet7.db",
        "crdt-sync scope set asset --none --store tablet7.db",
    ),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("conditions", nargs=-1, metavar="[CONDITION]...")
@click.option("--all", "everything", is_flag=True, help="Keep all of them.")
@click.option("--none", "nothing_at_all", is_flag=True, help="Keep none but what is picked.")
@store_options
@space_option
def scope_set(
    out: Output,
    target: Target,
    record_type: str,
    conditions: tuple[str, ...],
    everything: bool,
    nothing_at_all: bool,
    space: str | None,
) -> None:
    """Keep only records of a type for which all conditions hold.

    Conditions are written as for crdt-sync ls --where. The rest leaves this device, not the space; what has
    work that is not sent leaves afterwards. What belongs here and is missing comes with the next sync.
    """
    from . import opening

    if bool(conditions) + everything + nothing_at_all != 1:
        raise UsageProblem("give conditions, --all or --none", hint="such as status!=closed")

    async def work(device: Device) -> None:
        from crdt_sync_client.engine.filters import nothing

        where = None
        if conditions:
            where = parse_conditions(await device.schema(record_type, space), conditions)
        elif nothing_at_all:
            where = nothing
        left = await device.set_scope(record_type, where, space=space)
        scope = await device.scope(space)
        if out.as_json:
            out.result({"left": left, "wanted": scope.wanted, "leaving": scope.leaving})
            return
        out.say(f"{left} {'record' if left == 1 else 'records'} left this device.")
        if scope.wanted:
            out.say(f"{scope.wanted} to look at with the next sync: crdt-sync sync")

    opening.run(target, work)


def _pick(out: Output, target: Target, record_type: str, id: str, space: str | None, keep: bool) -> None:
    from . import opening

    async def work(device: Device) -> None:
        left = 0
        if keep:
            await device.pick(record_type, id, space=space)
        else:
            left = await device.unpick(record_type, id, space=space)
        if out.as_json:
            out.result({"type": record_type, "id": id, "picked": keep, "left": left})
        elif keep:
            out.say(f"{record_type} {id} is kept here, with what belongs to it.")
        else:
            out.say(f"{record_type} {id} is not picked; {left} left this device.")

    opening.run(target, work)


@command_scope.command(
    name="pick", examples=("crdt-sync scope pick work_order 6f1c9f0e-… --store tablet7.db",)
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@store_options
@space_option
def scope_pick(out: Output, target: Target, record_type: str, record_id: str, space: str | None) -> None:
    """Keep a record, and what belongs to it, in any case."""
    _pick(out, target, record_type, record_id, space, keep=True)


@command_scope.command(
    name="unpick", examples=("crdt-sync scope unpick work_order 6f1c9f0e-… --store tablet7.db",)
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@store_options
@space_option
def scope_unpick(out: Output, target: Target, record_type: str, record_id: str, space: str | None) -> None:
    """Keep a record only if the conditions say so."""
    _pick(out, target, record_type, record_id, space, keep=False)


@click.command(
    cls=Command, name="fetch", examples=("crdt-sync fetch work_order 6f1c9f0e-… --store tablet7.db",)
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@store_options
@space_option
def command_fetch(out: Output, target: Target, record_type: str, record_id: str, space: str | None) -> None:
    """Fetch a record that is not on this device.

    It stays as crdt-sync scope says; crdt-sync scope pick keeps it for good.
    """
    from . import opening

    async def work(device: Device) -> None:
        record = await device.fetch(record_type, record_id, space=space)
        if out.as_json:
            out.result(record.to_json())
        else:
            out.say(f"{record_type} {record.id} is here.")

    opening.run(target, work)
