"""`crdt-sync outbox`: what no relay has yet, trying it again, giving it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .checkout_words import who_until
from .command import Group, Target, space_option, store_options
from .output import Output, iso_time, local_time
from .write_life import outbox_life

if TYPE_CHECKING:
    from crdt_sync_client import Device, OutboxItem


@click.group(cls=Group, name="outbox")
def command_outbox() -> None:
    """See, retry or give up what is not sent yet."""


command_outbox.add_command(outbox_life)


@command_outbox.command(
    name="ls",
    examples=("crdt-sync outbox ls --store office.db", "crdt-sync outbox ls --store office.db --json"),
)
@store_options
def outbox_ls(out: Output, target: Target) -> None:
    """List what waits to be sent, with attempts and errors.

    pending waits for its turn, sending is on its way, waiting was refused and is tried again by itself,
    failed was refused for good: `outbox retry` or `outbox discard`.
    """
    from . import opening

    async def work(device: Device) -> None:
        items = await device.outbox()
        if out.as_json:
            out.result([_json(item) for item in items])
            return
        out.table(
            ("type", "record", "state", "priority", "changes", "since", "sealed", "attempts", "error"),
            [
                (
                    *(i.type, i.id, i.state, i.priority, i.updates, local_time(i.since_ms)),
                    None if i.sealed_ms is None else local_time(i.sealed_ms),
                    i.attempts,
                    _why(i),
                )
                for i in items
            ],
            none="Nothing waits; everything is sent.",
        )

    opening.run(target, work)


def _json(item: OutboxItem) -> dict[str, object]:
    return {
        "type": item.type,
        "id": item.id,
        "state": item.state,
        "priority": item.priority,
        "updates": item.updates,
        "bytes": item.size_bytes,
        "since": iso_time(item.since_ms),
        "sealed": iso_time(item.sealed_ms),
        "attempts": item.attempts,
        "code": item.code,
        "error": item.error,
        "retry_at": None if item.retry_at_ms is None else iso_time(item.retry_at_ms),
        "waits_for": None if item.waits_for is None else item.waits_for.to_json(),
    }


def _why(item: OutboxItem) -> str:
    if item.waits_for is not None:
        return f"checked out by {who_until(item.waits_for)}"
    if item.retry_at_ms is None:
        return item.error or ""
    return f"{item.error}; again at {local_time(item.retry_at_ms)}"


@command_outbox.command(
    name="retry",
    examples=(
        "crdt-sync outbox retry --store office.db",
        "crdt-sync outbox retry work_order 6f1c9f0e-… --store office.db",
    ),
)
@click.argument("record_type", metavar="[TYPE", required=False)
@click.argument("record_id", metavar="ID]", required=False)
@store_options
@space_option
def outbox_retry(
    out: Output, target: Target, record_type: str | None, record_id: str | None, space: str | None
) -> None:
    """Line up again what the relay refused, of one record or all.

    The next sync sends it.
    """
    from . import opening
    from .failures import UsageProblem

    if record_type is not None and record_id is None:
        raise UsageProblem("name the record's type and its id, or neither for all")

    async def work(device: Device) -> None:
        count = 1
        if record_type is None or record_id is None:
            count = await device.retry_failed()
        else:
            await device.retry(record_type, record_id, space=space)
        if out.as_json:
            out.result({"records": count})
            return
        out.say(f"{count:,} {'record' if count == 1 else 'records'} lined up again: crdt-sync sync")

    opening.run(target, work)


@command_outbox.command(
    name="discard",
    examples=("crdt-sync outbox discard work_order 6f1c9f0e-… --store office.db --export given-up.jsonl",),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@click.option("--export", "export_to", metavar="FILE", help="Write it to FILE first, as JSON lines.")
@click.option("--lose", is_flag=True, help="Give it up without a file.")
@store_options
@space_option
def outbox_discard(
    out: Output,
    target: Target,
    record_type: str,
    record_id: str,
    export_to: str | None,
    lose: bool,
    space: str | None,
) -> None:
    """Give up what is unsent of a record.

    With it goes what transactions wrote together with it. The record comes back from the relay as everybody
    else has it, with the next sync; one that was never sent is gone. FILE is not encrypted.
    """
    from . import opening
    from .failures import UsageProblem

    if (export_to is None) is not lose:
        raise UsageProblem("say what becomes of the work: --export FILE, or --lose")

    async def work(device: Device) -> None:
        dropped = await device.discard(record_type, record_id, export_to=export_to, space=space)
        records = sorted({(each.type, each.id) for each in dropped})
        if out.as_json:
            out.result({"records": [{"type": kind, "id": id} for kind, id in records], "export": export_to})
            return
        for kind, id in records:
            out.say(f"What was unsent of {kind} {id} is given up.")
        if export_to is not None:
            out.note(f"It is in {export_to}.")

    opening.run(target, work)
