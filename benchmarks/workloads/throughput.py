"""`throughput`: 5,000 single-field writes over 100 records, as fast as the API takes them.

64 tasks write at the same time, each awaiting its own durable commit before its next write, as the
request handlers of an app would. The clock runs until the other device, in a process of its own, has the
last value of all 100 records and the writer's outbox is empty.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from benchmarks.harness import bench_folder, joined_device, new_space, running_relay, sample_work_order
from benchmarks.peer import peer_process, read_line

RECORDS = 100
WRITERS = 64


async def run(writes: int = 5_000) -> dict[str, Any]:
    """Figures: `writes_per_s`; `local_writes_per_s` is the part until the last write was durable locally."""
    async with bench_folder() as folder, running_relay(folder) as relay:
        office = await new_space(folder, relay)
        created = await asyncio.gather(
            *(office.create("work_order", sample_work_order(number)) for number in range(RECORDS))
        )
        await office.sync()
        key = os.urandom(32)
        tablet = await joined_device(folder, office, "tablet", key=key)
        await tablet.close()
        per_record = writes // RECORDS
        # Round by round over the records; a record's rounds stay in order because one task writes them all.
        mine = [created[number::WRITERS] for number in range(WRITERS)]

        async def write(own: list[Any]) -> None:
            for value in range(1, per_record + 1):
                for one in own:
                    await office.update("work_order", one.id, {"meter_reading": value})

        async with peer_process(
            folder / "tablet.db", key, "throughput", "meter_reading", RECORDS, per_record
        ) as peer:
            await office.connect()
            started = time.monotonic()
            await asyncio.gather(*(write(own) for own in mine))
            locally = time.monotonic()
            await office.sync()
            empty = time.monotonic()
            arrived = (await read_line(peer))["at"]
        await office.close()
    seconds = max(empty, arrived) - started
    return {
        "writes_per_s": round(RECORDS * per_record / seconds),
        "local_writes_per_s": round(RECORDS * per_record / (locally - started)),
        "writers": WRITERS,
    }
