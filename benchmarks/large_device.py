"""One thing that a device with very many records does, in a process of its own, for the `large` workload.

A process of its own because its peak memory is the figure. It prints one JSON line: `seconds` and `cpu_s` of
the thing itself, `peak_mb`, the most that was resident in the whole life of the process (MiB, by getrusage),
and `start_mb`, what Python and our modules took before.

    import    make the store's records from rows, as `Device.import_rows` does
    push      send all of them to the relay
    fetch     the first sync of a device that has joined
    open      open the store, until the first record can be read
    use       open, then 200 of each: a page of an asset's, a record by id, a write of a field; and count all
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import psutil

from benchmarks.harness import sample_work_order
from crdt_sync_client import Device, Query, field

KEY_VARIABLE = "CRDT_SYNC_BENCH_KEY"
TYPE = "work_order"
TIMES = 200


def rows(records: int) -> Iterator[dict[str, Any]]:
    for number in range(records):
        yield sample_work_order(number) | {"asset_id": f"EX-{number // 100:04}"}


async def use(device: Device, records: int) -> None:
    chance = random.Random(1)
    assert await device.count(TYPE) == records
    for _ in range(TIMES):
        asset = f"EX-{chance.randrange(records // 100):04}"
        page = await device.page(Query(TYPE, field("asset_id") == asset, limit=50))
        one = chance.choice(page.records)
        assert await device.get(TYPE, one.id) is not None
        await device.update(TYPE, one.id, {"meter_reading": chance.randrange(100_000)})


async def act(what: str, store: str, records: int) -> None:
    start_mb = psutil.Process().memory_info().rss / 2**20
    key = bytes.fromhex(os.environ[KEY_VARIABLE])
    began, cpu = time.perf_counter(), time.process_time()
    async with await Device.open(store, key=key) as device:
        if what == "open":
            await device.page(Query(TYPE, limit=1))
            took = time.perf_counter() - began, time.process_time() - cpu
        else:
            began, cpu = time.perf_counter(), time.process_time()
            if what == "import":
                assert (await device.import_rows(TYPE, rows(records))).imported == records
            elif what == "use":
                await use(device, records)
            else:
                await device.sync(timeout_s=900)  # patient, for the relay limits what one device may send
            took = time.perf_counter() - began, time.process_time() - cpu
        if what != "open":
            assert await device.count(TYPE) == records
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": took[0], "cpu_s": took[1], "peak_mb": peak_mb, "start_mb": start_mb}))


if __name__ == "__main__":
    asyncio.run(act(sys.argv[1], sys.argv[2], int(sys.argv[3])))
