"""`latency`: 500 sequential single-field edits on A, time until B's watcher sees each.

A and B are in processes of their own. The clock starts before the call on A, so that both durable
commits (on A, at the relay) are inside.
"""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.harness import (
    bench_folder,
    joined_device,
    new_space,
    percentile,
    running_relay,
    sample_work_order,
)
from benchmarks.peer import peer_process, read_line

WARM_UP = 20


async def run(edits: int = 500) -> dict[str, Any]:
    """Figures: `p50_ms`, `p99_ms`."""
    async with bench_folder() as folder, running_relay(folder) as relay:
        office = await new_space(folder, relay)
        order = await office.create("work_order", sample_work_order(1))
        await office.sync()
        key = os.urandom(32)
        tablet = await joined_device(folder, office, "tablet", key=key)
        await tablet.close()
        delays_ms: list[float] = []
        async with peer_process(folder / "tablet.db", key, "latency", "cost") as peer:
            await office.connect()
            for number in range(edits + WARM_UP):
                started = time.monotonic()
                await office.update("work_order", order.id, {"cost": 10_000 + number})
                answer = await read_line(peer)
                while answer["seen"] != 10_000 + number:
                    answer = await read_line(peer)
                delays_ms.append((answer["at"] - started) * 1e3)
        await office.close()
    measured = delays_ms[WARM_UP:]
    return {"p50_ms": round(percentile(measured, 50), 3), "p99_ms": round(percentile(measured, 99), 3)}
