"""`crdt-sync doctor`: looks at a store that something may be wrong with, and repairs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import Command, Target, store_options
from .failures import DAMAGED
from .output import Output

if TYPE_CHECKING:
    from crdt_sync_client.doctor import Examination, Finding, Repair


@click.command(
    cls=Command,
    name="doctor",
    examples=(
        "crdt-sync doctor --store tablet7.db",
        "crdt-sync doctor --store tablet7.db --repair",
        "crdt-sync doctor --store tablet7.db --repair --no-sync --json",
    ),
)
@store_options
@click.option("--repair", is_flag=True, help="Save all that can be read in a new store at its place.")
@click.option("--no-sync", is_flag=True, help="After a repair, leave the relay for later.")
@click.pass_context
def command_doctor(context: click.Context, out: Output, target: Target, repair: bool, no_sync: bool) -> None:
    """Examine the store; with --repair, save what is not damaged.

    Every page of the file is read and checked, then whether what stands in it fits together. Nothing is
    changed without --repair. With it, the damaged file is kept beside the new store under a name with the
    date; work that no relay has is kept as far as it can be read, and the relay is asked for everything else.

    Exits with 11 when something is wrong, and after a repair that could not save everything.
    """
    import asyncio  # here, so that help starts fast

    from crdt_sync_client import doctor

    from . import opening

    doctor.finish_repair(target.store)
    secret = opening.secret_for(target)
    if not repair:
        examined = asyncio.run(doctor.examine(target.store, **secret))
        _tell_examined(out, target, examined)
        context.exit(0 if examined.healthy else DAMAGED)
    repaired = asyncio.run(doctor.repair(target.store, **secret))
    synced: dict[str, Any] = {}
    if repaired.old_file is not None and not no_sync:
        synced = asyncio.run(_sync(target, secret))
    _tell_repaired(out, target, repaired, synced)
    context.exit(DAMAGED if repaired.unsaved else 0)


async def _sync(target: Target, secret: dict[str, Any]) -> dict[str, Any]:
    """Ask the relays for what was lost; whether that could be done."""
    from crdt_sync.errors import CrdtSyncError
    from crdt_sync_client import Device

    async with await Device.open(target.store, **secret) as device:
        try:
            await device.sync()
        except CrdtSyncError as exc:
            return {"synced": False, "sync_problem": exc.message}
    return {"synced": True}


def _tell_examined(out: Output, target: Target, examined: Examination) -> None:
    if out.as_json:
        out.result({"store": str(target.store), **examined.to_json()})
        return
    if examined.healthy:
        out.say(
            f"{target.store} is sound: {examined.records:,} records, {examined.unsent:,} unsent,"
            f" {examined.pages:,} pages."
        )
        return
    out.say(f"{target.store} is damaged:")
    _tell_findings(out, examined.findings)
    out.note(f"crdt-sync doctor --store {target.store} --repair saves what can be read.")


def _tell_findings(out: Output, findings: tuple[Finding, ...]) -> None:
    rows = [(finding.count, finding.message, finding.where) for finding in findings]
    out.table(("how many", "what", "where"), rows, none="")


def _tell_repaired(out: Output, target: Target, repaired: Repair, synced: dict[str, Any]) -> None:
    if out.as_json:
        out.result({"store": str(target.store), **repaired.to_json(), **synced})
        return
    if repaired.old_file is None:
        out.say(f"{target.store} is sound; there was nothing to repair.")
        return
    out.say(f"{target.store} is repaired: {repaired.records:,} records and {repaired.unsent:,} unsent saved.")
    out.say(f"The damaged file is {repaired.old_file}; delete it when you miss nothing.")
    for sentence in repaired.unsaved:
        out.say(f"Not saved: {sentence}.")
    for change in repaired.lost_changes:
        out.say(f"  {_in_words(change.values)}")
    if synced.get("synced"):
        out.say("What the relay has is here again.")
    elif repaired.to_fetch or repaired.from_start:
        why = f" ({synced['sync_problem']})" if "sync_problem" in synced else ""
        out.note(f"What was lost comes from the relay{why}: crdt-sync sync --store {target.store}")


def _in_words(values: dict[str, Any]) -> str:
    """`field=value` for each, for people."""
    from .output import show

    return ", ".join(f"{name}={show(value)}" for name, value in values.items())
