"""`size`: one status field edited 10,000 times; what the relay keeps and what a fresh device downloads.

`relay_bytes` is the size of all files in the relay's data folder after it was stopped, database pages,
indexes and membership log included. `download_bytes` is everything the fresh device receives for the
record space between `sync()` and being up to date: handshake, membership log, snapshot and tail.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness import bench_folder, joined_device, new_space, running_relay
from benchmarks.relay_files import log_rows, stored_bytes


async def run(edits: int = 10_000) -> dict[str, Any]:
    """Figures: `relay_bytes`, `download_bytes`."""
    async with bench_folder() as folder:
        async with running_relay(folder) as relay:
            office = await new_space(folder, relay)
            empty = stored_bytes(relay.data)
            order = await office.create("work_order", {"title": "Bucket will not open", "status": "on_hold"})
            await office.connect()
            for number in range(edits):
                status = "in_progress" if number % 2 == 0 else "on_hold"
                await office.update("work_order", order.id, {"status": status})
            await office.sync()
            await office.connect()
            await relay.at_rest()
            fresh = await joined_device(folder, office, "fresh")
            report = await fresh.sync()
            assert await fresh.get("work_order", order.id) is not None
            await fresh.close()
            await office.close()
        stored, rows = stored_bytes(relay.data), log_rows(relay.data)
    return {
        "relay_bytes": stored,
        "download_bytes": report.bytes_received,
        "log_rows_at_relay": rows,
        "relay_bytes_when_empty": empty,
        "edits": edits,
    }
