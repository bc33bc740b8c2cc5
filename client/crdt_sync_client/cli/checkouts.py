"""`crdt-sync checkout`, `checkin`, `renew`, `checkouts`: records for this device alone, for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from crdt_sync.errors import UnknownType

from .checkout_words import who_until
from .command import Command, Duration, Group, Target, space_option, store_options
from .failures import PARTIAL, UsageProblem
from .output import Output, local_time

if TYPE_CHECKING:
    from crdt_sync_client import Device
    from crdt_sync_client.checkout_values import CheckoutResult
    from crdt_sync_client.engine.queries import Where

_NOTHING: Final = "Nothing is checked out on this device."
_ttl_option = click.option(
    "--ttl", type=Duration(), default="24h", metavar="TIME", help="For how long, as in 8h or 2d; at most 7d."
)


@click.command(
    cls=Command,
    name="checkout",
    examples=(
        "crdt-sync checkout work_order --where 'asset_id=RIG-7' --ttl 24h --store tablet.db",
        "crdt-sync checkout work_order 6f1c9f0e-… --ttl 8h --store tablet.db",
    ),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--where", multiple=True, metavar="CONDITION", help="Records that meet it, as with `ls`.")
@click.option("--no-children", is_flag=True, help="Not the records that belong to them.")
@_ttl_option
@store_options
@space_option
def command_checkout(
    out: Output,
    target: Target,
    record_type: str,
    ids: tuple[str, ...],
    where: tuple[str, ...],
    no_children: bool,
    ttl: int,
    space: str | None,
) -> None:
    """Check records out: others cannot send changes to them.

    What belongs to them comes along. Each is granted or refused by itself, with who has it and until when;
    exit code 8 when some were refused. Syncs first.
    """
    from . import conditions, opening

    if not ids and not where:
        raise UsageProblem("name records by id, or say which with --where")

    async def work(device: Device) -> int:
        condition: Where = None
        if where:
            try:
                schema = await device.schema(record_type, space)
            except UnknownType:  # it may have joined a moment ago
                await device.sync()
                schema = await device.schema(record_type, space)
            condition = conditions.parse_conditions(schema, where)
        results = await device.check_out(
            record_type, ids, where=condition, ttl_s=ttl, children=not no_children, space=space
        )
        return _tell(out, results, "checked out")

    click.get_current_context().exit(opening.run(target, work))


@click.command(
    cls=Command,
    name="checkin",
    examples=(
        "crdt-sync checkin --store tablet.db",
        "crdt-sync checkin work_order 6f1c9f0e-… --store tablet.db",
    ),
)
@click.argument("record_type", metavar="[TYPE]", required=False)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@store_options
@space_option
def command_checkin(
    out: Output, target: Target, record_type: str | None, ids: tuple[str, ...], space: str | None
) -> None:
    """Send everything and give records back.

    What belongs to them goes with them. Says of each what was delivered; exit code 8 when something was not.
    """
    from . import opening

    async def work(device: Device) -> int:
        results = await device.check_in(record_type, ids, space=space)
        code = PARTIAL if any(each.pending or each.refused for each in results) else 0
        if out.as_json:
            out.result([result.to_json() for result in results])
            return code
        out.table(
            ("type", "id", "state", "sent", "pending", "refused", "late", "conflicts"),
            [
                (
                    *(each.type, each.id, each.state, each.sent, each.pending, each.refused, each.late),
                    len(each.conflicts),
                )
                for each in results
            ],
            none=_NOTHING,
        )
        return code

    click.get_current_context().exit(opening.run(target, work))


@click.command(cls=Command, name="renew", examples=("crdt-sync renew --ttl 12h --store tablet.db",))
@_ttl_option
@store_options
@space_option
def command_renew(out: Output, target: Target, ttl: int, space: str | None) -> None:
    """Keep what is checked out for longer."""
    from . import opening

    async def work(device: Device) -> int:
        results = await device.renew_checkouts(ttl_s=ttl, space=space)
        return _tell(out, results, "renewed", none=_NOTHING)

    click.get_current_context().exit(opening.run(target, work))


@click.group(cls=Group, name="checkouts")
def command_checkouts() -> None:
    """See who has which record; break a checkout."""


@command_checkouts.command(name="ls", examples=("crdt-sync checkouts ls --store office.db",))
@store_options
@space_option
def checkouts_ls(out: Output, target: Target, space: str | None) -> None:
    """List checkouts, as far as this device knows.

    Those of this device stay in the list until they are checked in: expired, broken by an admin, or taken by
    another device since.
    """
    from . import opening

    async def work(device: Device) -> None:
        found = await device.checkouts(space)
        if out.as_json:
            out.result([each.to_json() for each in found])
            return
        out.table(
            ("type", "id", "device", "state", "until"),
            [
                (
                    each.type or "?",
                    each.id or "(not on this device)",
                    f"{each.device} (this device)" if each.own else each.device,
                    each.state,
                    local_time(each.until_at),
                )
                for each in found
            ],
            none="Nothing is checked out.",
        )

    opening.run(target, work)


@command_checkouts.command(
    name="break",
    examples=(
        "crdt-sync checkouts break work_order 6f1c9f0e-… --store office.db",
        "crdt-sync checkouts break --holder 'Rig 7' --store office.db",
    ),
)
@click.argument("record_type", metavar="[TYPE", required=False)
@click.argument("ids", nargs=-1, metavar="ID...]")
@click.option("--holder", metavar="DEVICE", help="All that this device has, by its name or id.")
@store_options
@space_option
def checkouts_break(
    out: Output,
    target: Target,
    record_type: str | None,
    ids: tuple[str, ...],
    holder: str | None,
    space: str | None,
) -> None:
    """End checkouts of others. Admins only.

    With what belongs to the records. What their holders send afterwards is merged all the same, and marked
    as late.
    """
    from . import opening

    if (holder is None) is not bool(ids):
        raise UsageProblem("name records by type and id, or a device with --holder")

    async def work(device: Device) -> int:
        results = await device.break_checkouts(record_type, ids, holder=holder, space=space)
        return _tell(out, results, "broken")

    click.get_current_context().exit(opening.run(target, work))


def _tell(
    out: Output, results: list[CheckoutResult], word: str, *, none: str = "No record on this device matches."
) -> int:
    """Say what became of each; the exit code."""
    refused = [result for result in results if not result.done]
    if out.as_json:
        out.result([result.to_json() for result in results])
    elif not results:
        out.say(none)
    else:
        until = {each.checkout.until_at for each in results if each.done and each.checkout is not None}
        when = f" until {local_time(min(until))}" if until and word != "broken" else ""
        out.say(f"{len(results) - len(refused)} of {len(results)} {word}{when}.")
        for result in refused:
            held = result.checkout
            if result.code == "checked_out" and held is not None:
                why = f"checked out by {who_until(held)}"
            elif result.code == "permission":
                why = "your role may not do that"
            else:
                why = "nobody has it checked out"
            name = f"{result.type} {result.id}" if result.id else "a record that is not on this device"
            out.say(f"  {name}: {why}")
    return PARTIAL if refused else 0
