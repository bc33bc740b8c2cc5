"""`crdt-sync status --watch`: the status now and whenever it differs, one line each."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .output import Output, iso_time, printable

if TYPE_CHECKING:
    from crdt_sync_client import Device, SpaceStatus, Status


def status_json(status: Status) -> dict[str, Any]:
    """For programs, with times as text."""
    body = status.to_json()
    for part in (body, *body["spaces"]):
        part["last_synced_at"] = iso_time(part["last_synced_at"])
    for group in (group for space in body["spaces"] for group in space["unfinished"]):
        group["since_at"] = iso_time(group["since_at"])
    return body


async def watch_status(device: Device, out: Output, for_s: float | None) -> None:
    """Connect, and print the status until the time is over; Ctrl-C ends it by KeyboardInterrupt."""
    import asyncio

    await device.connect()
    with suppress(TimeoutError):
        async with asyncio.timeout(for_s), device.watch_status() as watch:
            async for status in watch:
                if out.as_json:
                    out.result(status_json(status))
                    continue
                stamp = time.strftime("%H:%M:%S")
                for space in status.spaces:
                    out.say(f"{stamp}  {printable(space.name)}: {_line(space)}")


def _line(space: SpaceStatus) -> str:
    parts: list[str] = [space.state]
    if space.state == "syncing" and space.total:
        parts.append(f"{space.done:,} of {space.total:,}")
    if space.retry_in_s is not None:
        parts.append(f"next try in {space.retry_in_s:.0f} s")
    parts += [
        f"{count:,} {what}"
        for count, what in (
            (space.pending, "to send"),
            (space.failed, "failed"),
            (space.conflicts, "in conflict"),
        )
        if count
    ]
    parts.append(f"{size_text(space.bytes_sent)} up, {size_text(space.bytes_received)} down")
    if space.problem is not None:
        parts.append(printable(space.problem))
    return "; ".join(parts)


def size_text(count: int) -> str:
    """Bytes, for people."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"
