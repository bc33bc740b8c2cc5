"""`crdt-sync sync`, `status`, `queue`: exchanging changes, and what still waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from .checkout_words import who_until
from .command import Command, Group, Target, space_option, store_options
from .output import Output, iso_time, local_time, printable, show
from .progress import sync_progress
from .status_lines import size_text, status_json, watch_status

if TYPE_CHECKING:
    from crdt_sync_client import Change, Device, SpaceStatus

_LOOK_S: Final = 0.5
"""How often `sync --watch` looks whether a connection came or went."""


@click.command(
    cls=Command,
    name="sync",
    examples=("crdt-sync sync --store office.db", "crdt-sync sync --store office.db --watch"),
)
@store_options
@click.option("--watch", is_flag=True, help="Stay connected and print changes as they arrive, until Ctrl-C.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up after it.",
)
def command_sync(out: Output, target: Target, watch: bool, timeout_s: float | None) -> None:
    """Send what waits and receive what is new.

    Ends when nothing waits any more and this device is up to date. Local work never waits for it: it is safe
    on this device before, and stays queued while the relay is away.
    """
    from . import opening

    opening.run(target, lambda device: _watch(device, out) if watch else _sync(device, out, timeout_s))


async def _sync(device: Device, out: Output, timeout_s: float | None) -> None:
    async with sync_progress(device, enabled=not out.as_json):
        report = await device.sync(timeout_s=timeout_s)
    status = await device.status()
    if out.as_json:
        out.result(report.to_json() | {"conflicts": status.conflicts, "failed": status.failed})
        return
    out.say(
        f"In sync: {report.sent:,} sent, {report.received:,} received "
        f"({size_text(report.bytes_sent)} up, {size_text(report.bytes_received)} down)"
        f" in {report.seconds:.2f} s."
    )
    if status.conflicts:
        out.say(f"{status.conflicts} open {_plural('conflict', status.conflicts)}: crdt-sync conflicts ls")
    if status.failed:
        out.say(f"{status.failed} {_plural('record', status.failed)} could not be sent: crdt-sync outbox ls")
    held = [item for item in await device.outbox() if item.waits_for is not None] if status.pending else []
    if held:
        wait = "waits" if len(held) == 1 else "wait"
        out.say(
            f"{len(held):,} {_plural('record', len(held))} {wait} for other devices' checkouts to end:"
            " crdt-sync outbox ls"
        )
    for space in status.spaces:
        _note_checkouts(out, space)


async def _watch(device: Device, out: Output) -> None:
    """Print changes until a signal asks to stop; that is a normal end."""
    import asyncio
    import signal

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    stopping = asyncio.create_task(stop.wait())
    changes = device.watch()
    printing = asyncio.create_task(_print_changes(changes, out))
    telling = asyncio.create_task(_tell_connections(device, out))
    try:
        await device.connect()
        out.note("Changes appear here; Ctrl-C ends.")
        await asyncio.wait((stopping, printing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        changes.close()
        stopping.cancel()
        telling.cancel()
        await device.disconnect()
        await asyncio.gather(stopping, printing, telling, return_exceptions=True)
    if not stop.is_set():
        printing.result()


async def _tell_connections(device: Device, out: Output) -> None:
    """Note for each space when it is in sync, and when its relay is away and why."""
    import asyncio

    told: dict[str, str] = {}
    while True:
        for space in (await device.status()).spaces:
            now = connection_line(space)
            if now and now != told.get(space.space_id):
                told[space.space_id] = now
                wait_s = space.retry_in_s or 0
                again = f"; next try in {wait_s:.0f} s" if wait_s >= 1 else ""
                out.note(f"{time.strftime('%H:%M:%S')}  {printable(space.name)}: {now}{again}")
        await asyncio.sleep(_LOOK_S)


def connection_line(space: SpaceStatus) -> str:
    """How the connection of a space stands, for people; empty while that is not known."""
    if space.state == "idle":
        return "in sync"
    return "" if space.problem is None else printable(space.problem)


async def _print_changes(changes: Any, out: Output) -> None:
    async for change in changes:
        if out.as_json:
            out.result(change_json(change))
        else:
            click.echo(_change_line(change))


def change_json(change: Change) -> dict[str, Any]:
    """One change for programs; `record` is null when it was deleted."""
    return {
        "type": change.type,
        "id": change.id,
        "origin": change.origin,
        "fields": list(change.fields),
        "record": change.record.to_json() if change.record is not None else None,
    }


def _change_line(change: Change) -> str:
    stamp = time.strftime("%H:%M:%S")
    head = f"{stamp}  {change.type} {change.id}"
    if change.record is None:
        return f"{head}  deleted"
    values = change.record.values
    shown = ", ".join(f"{name}={show(values.get(name))}" for name in change.fields)
    mark = "  in conflict" if change.record.conflicts else ""
    if change.record.checkout is not None:
        mark += f"  checked out by {show(who_until(change.record.checkout))}"
    return f"{head}  {shown}{mark}"


@click.command(
    cls=Command,
    name="status",
    examples=("crdt-sync status --store office.db", "crdt-sync status --store office.db --watch"),
)
@store_options
@click.option("--watch", is_flag=True, help="Connect, and print it whenever it differs, until Ctrl-C.")
@click.option(
    "--for",
    "for_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="With --watch: end after it.",
)
def command_status(out: Output, target: Target, watch: bool, for_s: float | None) -> None:
    """Show what waits, what is in conflict, and the last sync.

    Reads this device only. The state is therefore offline unless something is wrong; `sync` connects, and
    so does --watch.
    """
    from . import opening
    from .failures import UsageProblem

    if for_s is not None and not watch:
        raise UsageProblem("--for goes with --watch")
    if watch:
        opening.run(target, lambda device: watch_status(device, out, for_s))
        return

    async def work(device: Device) -> None:
        status = await device.status()
        if out.as_json:
            out.result(status_json(status))
            return
        out.say(f"{printable(status.name)}: {status.state}, last in sync {local_time(status.last_synced_at)}")
        out.table(
            ("space", "role", "to send", "failed", "conflicts", "last in sync", "relay"),
            [
                (s.name, s.role, s.pending, s.failed, s.conflicts, local_time(s.last_synced_at), s.relay)
                for s in status.spaces
            ],
            none="It is in no space yet: crdt-sync space create, or crdt-sync join LINK.",
        )
        if status.pending:
            out.note(f"{status.pending:,} {_plural('record', status.pending)} to send: crdt-sync sync")
        if status.conflicts:
            out.note(f"{status.conflicts} to decide: crdt-sync conflicts ls")
        for space in status.spaces:
            _note_types(out, space)
            _note_unfinished(out, space)
            _note_checkouts(out, space)

    opening.run(target, work)


def _note_types(out: Output, space: SpaceStatus) -> None:
    name = printable(space.name)
    for record_type, version in sorted(space.unreadable.items()):
        out.note(f"{name}: version {version} of {record_type} needs a newer crdt-sync; its records are kept")
    if space.absent:
        on_way = f", {space.wanted:,} of them on their way" if space.wanted else ""
        out.note(f"{name}: {space.absent:,} {_plural('record', space.absent)} only in the space{on_way}")
    if space.remaking:
        out.note(f"{name}: up to {space.remaking:,} records still show what an earlier version made of them")
    if space.quarantined:
        out.note(f"{name}: {space.quarantined:,} received changes were put aside: crdt-sync queue aside")


def _note_unfinished(out: Output, space: SpaceStatus) -> None:
    for group in space.unfinished:
        out.note(
            f"{printable(space.name)}: {group.arrived:,} of {group.size:,} changes that"
            f" {printable(group.device_name)} made together have come, since {local_time(group.since_ms)};"
            " they show when it has sent the rest"
        )


def _note_checkouts(out: Output, space: SpaceStatus) -> None:
    name, held, ended = printable(space.name), space.checked_out, space.checkouts_ended
    if held:
        out.note(f"{name}: {held:,} {_plural('record', held)} checked out here: crdt-sync checkouts ls")
    if ended:
        out.note(
            f"{name}: {ended:,} {_plural('checkout', ended)} ended before crdt-sync checkin;"
            " what is written there now is marked as late: crdt-sync checkouts ls"
        )


@click.group(cls=Group, name="queue")
def command_queue() -> None:
    """See what came and was put aside."""


@command_queue.command(
    name="aside",
    examples=("crdt-sync queue aside --store office.db", "crdt-sync queue aside --store office.db --json"),
)
@store_options
@space_option
def queue_aside(out: Output, target: Target, space: str | None) -> None:
    """List received changes that were put aside: by whom, and why.

    They are kept. Those whose author's role may not write records of the type are merged once a version of
    the type lets that role write.
    """
    from . import opening

    async def work(device: Device) -> None:
        items = await device.quarantined(space)
        if out.as_json:
            out.result(
                [
                    {
                        "device": item.device.hex(),
                        "device_name": item.device_name,
                        "type": item.type,
                        "code": item.code,
                        "reason": item.reason,
                        "at": iso_time(item.at_ms),
                    }
                    for item in items
                ]
            )
            return
        out.table(
            ("device", "when", "why"),
            [(item.device_name, local_time(item.at_ms), item.reason) for item in items],
            none="Nothing was put aside.",
        )

    opening.run(target, work)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
