"""`crdt-sync outbox life`: what became of what was written here; and its words, for other commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .checkout_words import who_until
from .command import Command, Target, space_option, store_options
from .output import Output, iso_time, local_time

if TYPE_CHECKING:
    from crdt_sync_client import Device, WriteLife


@click.command(
    cls=Command,
    name="life",
    examples=(
        "crdt-sync outbox life work_order 6f1c9f0e-… --store office.db",
        "crdt-sync outbox life 0b8e…:2613401-2613402:work_order:6f1c… --ask --store office.db --json",
    ),
)
@click.argument("what", metavar="TYPE|REF")
@click.argument("record_id", metavar="[ID]", required=False)
@store_options
@click.option("--ask", "ask", is_flag=True, help="Sync, and ask the relay how many others have it.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most N writes.")
@space_option
def outbox_life(
    out: Output,
    target: Target,
    what: str,
    record_id: str | None,
    ask: bool,
    limit: int,
    space: str | None,
) -> None:
    """Show what became of what was written here to a record.

    The newest first: when it was written, sealed, at the relay, on all others; or why it was refused. REF
    is one write, as `create` and `set` give it with --json. Kept are the newest 10,000 sendings.
    """
    from . import opening
    from .failures import UsageProblem

    if (record_id is None) is not (":" in what):
        raise UsageProblem("name a record by type and id, or one write by its ref")

    async def work(device: Device) -> None:
        if ask:
            await device.connect()
            await device.sync()
        if record_id is None:
            lives = [await device.life(what)]
        else:
            lives = await device.lives(what, record_id, space=space, limit=limit)
        if out.as_json:
            listed = [life_json(each) for each in lives]
            out.result(listed if record_id is not None else listed[0])
            return
        out.table(
            ("written", "stage", "priority", "sealed", "attempts", "fields that stand", ""),
            [_row(each) for each in lives],
            none="Nothing was written here, or it is not kept any more.",
        )

    opening.run(target, work)


def life_json(life: WriteLife) -> dict[str, Any]:
    """A life for programs."""
    values = life.values
    return {
        "type": life.type,
        "id": life.id,
        "stage": life.stage,
        "written": iso_time(life.written_ms),
        "priority": life.priority,
        "sealed": iso_time(life.sealed_ms),
        "envelope": life.envelope,
        "attempts": life.attempts,
        "code": None if life.refusal is None else life.refusal.relay_code,
        "error": life.error,
        "retry_at": iso_time(life.retry_at_ms),
        "waits_for": None if life.waits_for is None else life.waits_for.to_json(),
        "discarded": iso_time(life.discarded_ms),
        "relayed": iso_time(life.relayed_ms),
        "relay_row": life.relay_row,
        "delivered": iso_time(life.delivered_ms),
        "delivered_to": life.delivered_to,
        "others": life.others,
        "overwritten": life.overwritten,
        "values": None
        if values is None
        else [{"field": each.field, "part": each.part, "conflict": each.conflict} for each in values],
    }


def how_far(life: WriteLife) -> str:
    """How far it has come, in a few words."""
    match life.stage:
        case "pending":
            if life.waits_for is not None:
                return f"waits: checked out by {who_until(life.waits_for)}"
            return f"not sent yet{_again(life)}"
        case "sending":
            return f"on its way{_again(life)}"
        case "waiting":
            return f"refused: {life.error}{_again(life)}"
        case "failed":
            return f"refused: {life.error}; `outbox retry` or `outbox discard`"
        case "discarded":
            return f"given up at {local_time(life.discarded_ms)}"
        case "delivered":
            return f"on all other devices, known since {local_time(life.delivered_ms)}"
        case "relayed":
            since = "" if life.relayed_ms is None else f" since {local_time(life.relayed_ms)}"
            known = "" if life.others is None else f", on {life.delivered_to} of {life.others} other devices"
            return f"at the relay{since}{known}"


def _again(life: WriteLife) -> str:
    if life.retry_at_ms is None:
        return ""
    why = f"; {life.error}" if life.error and life.stage != "waiting" else ""
    return f"{why}; again at {local_time(life.retry_at_ms)}"


def _row(life: WriteLife) -> tuple[Any, ...]:
    standing = {value.field: value for value in life.values or ()}
    fields = ", ".join(
        field if value.part in ("shown", "counts", "deletes") else f"{field} ({value.part})"
        for field, value in standing.items()
    )
    sealed = None if life.sealed_ms is None else local_time(life.sealed_ms)
    over = "none: overwritten" if life.overwritten else fields
    return (
        local_time(life.written_ms),
        life.stage,
        life.priority,
        sealed,
        life.attempts,
        over,
        how_far(life),
    )
