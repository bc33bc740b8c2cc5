"""`delta`: a device that has all N records was away while another changed 10 of them, one field each.

The clock runs from `connect()` until the tenth change can be read from its store.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import (
    bench_folder,
    joined_device,
    running_relay,
    space_with_orders,
)
from crdt_sync_client import Device, WriteResult

CHANGED = 10
ROUNDS = 7


async def run(records: int = 1_000) -> dict[str, Any]:
    """Figures: `ms` (median of 7 rounds), `bytes_received` (of one more)."""
    async with bench_folder() as folder, running_relay(folder) as relay:
        office, created = await space_with_orders(folder, relay, records)
        tablet = await joined_device(folder, office, "tablet")
        await tablet.sync()
        await tablet.disconnect()

        rounds_ms: list[float] = []
        for number in range(ROUNDS):
            await _change_ten(office, created, number)
            seen: set[str] = set()
            started = time.perf_counter()
            async with tablet.watch("work_order") as changes:
                await tablet.connect()
                async for change in changes:
                    seen.add(change.id)
                    if len(seen) == CHANGED:
                        break
            assert await tablet.count("work_order", where={"priority": f"round-{number}"}) == CHANGED
            rounds_ms.append((time.perf_counter() - started) * 1e3)
            await tablet.disconnect()
        await _change_ten(office, created, ROUNDS)  # once more, for the bytes
        received = (await tablet.sync()).bytes_received
        await tablet.close()
        await office.close()
    return {"ms": round(statistics.median(rounds_ms), 2), "bytes_received": received, "rounds": ROUNDS}


async def _change_ten(office: Device, created: Sequence[WriteResult], number: int) -> None:
    """Ten other records each round, one field each, sent and acknowledged before the round begins."""
    for one in created[number * CHANGED : (number + 1) * CHANGED]:
        await office.update("work_order", one.id, {"priority": f"round-{number}"})
    await office.sync()
    await office.disconnect()
