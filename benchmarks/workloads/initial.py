"""`initial`: a fresh, joined device syncs N work orders of 20 fields, each edited 5 times by another device.

The clock runs from `sync()` on the joined, empty store until a query on it returns all N records. The
relay is given time to have each record compacted first, as it would have been long ago in the field.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import (
    bench_folder,
    joined_device,
    running_relay,
    space_with_orders,
)

EDITS = 5
EDITED_FIELDS: tuple[Mapping[str, Any], ...] = (
    {"status": "in_progress"},
    {"meter_reading": 13_000},
    {"tasks": {"1": {"done": False}}},
    {"priority": "low"},
    {"status": "completed"},
)


async def run(records: int = 1_000) -> dict[str, Any]:
    """Figures: `seconds`, `bytes_received`, `records`."""
    async with bench_folder() as folder, running_relay(folder) as relay:
        office, created = await space_with_orders(folder, relay, records)
        editor = await joined_device(folder, office, "editor")
        await editor.sync()
        for changes in EDITED_FIELDS[:EDITS]:
            await asyncio.gather(*(editor.update("work_order", one.id, changes) for one in created))
            await editor.sync()
        # What one device compacted, another one has to find sound.
        await asyncio.gather(office.connect(), editor.connect())
        await relay.at_rest()
        await asyncio.gather(office.disconnect(), editor.disconnect())
        fresh = await joined_device(folder, office, "fresh")
        await office.close()
        await editor.close()

        started = time.perf_counter()
        report = await fresh.sync()
        found = await fresh.query("work_order", where={"status": "completed"})
        seconds = time.perf_counter() - started
        assert len(found) == records, f"{len(found)} of {records} records readable"
        await fresh.close()
    return {
        "seconds": round(seconds, 4),
        "bytes_received": report.bytes_received,
        "records": records,
        "rows_received": report.received,
    }
