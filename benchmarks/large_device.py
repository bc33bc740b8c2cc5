"""One thing that a device with very many records does, in a process of its own, for the `large` workload.

A process of its own because its peak memory is the figure. It prints one JSON line: `seconds` and `cpu_s` of
the thing itself, `peak_mb`, the most that was resident in the whole life of the process (MiB, by getrusage),
and `start_mb`, what Python and our modules took before.

    import    make the store's records from rows, as `Device.import_rows` does
    push      send all of them to the relay
    fetch     the first sync of a device that has joined
    open      open the store, until the first record can be read; open_unsent: the same before the push
    vacuum    give back what the store has free
    use       open, then 200 of each: a page of an asset's, a record by id, a write of a field; and count all
              It adds medians: `page_ms`, `get_ms`, `write_ms` of these calls, `status_ms` of the status after
              each write, and `live_us`, what a live query costs per write that does not concern it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import psutil

from benchmarks.harness import sample_work_order
from crdt_sync_client import Device, Query, field
from crdt_sync_client.engine.model import CreateOp, UpdateOp, WriteResult

KEY_VARIABLE = "CRDT_SYNC_BENCH_KEY"
TYPE = "work_order"
TIMES = 200
LIVE_ROUNDS = 15

T = TypeVar("T")


def rows(records: int) -> Iterator[dict[str, Any]]:
    for number in range(records):
        yield sample_work_order(number) | {"asset_id": f"EX-{number // 100:04}"}


async def use(device: Device, records: int) -> dict[str, float]:
    """Do what a screen asks for; the medians."""
    chance = random.Random(1)
    assert await device.count(TYPE) == records
    took: dict[str, list[float]] = {"page_ms": [], "get_ms": [], "write_ms": [], "status_ms": []}

    async def timed(name: str, call: Awaitable[T]) -> T:
        began = time.perf_counter()
        result = await call
        took[name].append((time.perf_counter() - began) * 1000)
        return result

    for _ in range(TIMES):
        asset = f"EX-{chance.randrange(records // 100):04}"
        page = await timed("page_ms", device.page(Query(TYPE, field("asset_id") == asset, limit=50)))
        one = chance.choice(page.records)
        assert await timed("get_ms", device.get(TYPE, one.id)) is not None
        changes = {"meter_reading": chance.randrange(100_000)}
        await timed("write_ms", device.update(TYPE, one.id, changes))
        await timed("status_ms", device.status())
    return {name: statistics.median(each) for name, each in took.items()} | {"live_us": await live_us(device)}


async def live_us(device: Device) -> float:
    """CPU microseconds of a live query of an asset per change of the type that cannot matter to it."""
    live = device.live(Query(TYPE, field("asset_id") == "EX-0001", order="-scheduled_start", limit=50))
    shown = await anext(live)
    assert shown.records
    engine, values = device._engine, sample_work_order(1) | {"asset_id": "elsewhere"}
    (made,) = await device._thread.run(lambda: engine.write([CreateOp(TYPE, values)]))
    assert isinstance(made, WriteResult)
    edit = UpdateOp(TYPE, made.id, {"root_cause": "worn"})
    (edited,) = await device._thread.run(lambda: engine.write([edit]))
    assert isinstance(edited, WriteResult)
    assert edited.change is not None
    hub, rounds = device._live_hub, []
    for _ in range(LIVE_ROUNDS):
        began = time.process_time()
        for _ in range(1_000):
            hub.publish((edited.change,))
        rounds.append((time.process_time() - began) * 1000)
    live.close()
    return statistics.median(rounds)


async def act(what: str, store: str, records: int) -> None:
    start_mb = psutil.Process().memory_info().rss / 2**20
    key = bytes.fromhex(os.environ[KEY_VARIABLE])
    began, cpu = time.perf_counter(), time.process_time()
    further: dict[str, float] = {}
    async with await Device.open(store, key=key) as device:
        if what.startswith("open"):
            await device.page(Query(TYPE, limit=1))
            took = time.perf_counter() - began, time.process_time() - cpu
        else:
            began, cpu = time.perf_counter(), time.process_time()
            if what == "import":
                assert (await device.import_rows(TYPE, rows(records))).imported == records
            elif what == "use":
                further = await use(device, records)
            elif what == "vacuum":
                await device.vacuum()
            else:
                await device.sync(timeout_s=900)  # patient, for the relay limits what one device may send
            took = time.perf_counter() - began, time.process_time() - cpu
        if what in ("import", "push", "fetch"):
            assert await device.count(TYPE) == records
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"seconds": took[0], "cpu_s": took[1], "peak_mb": peak_mb, "start_mb": start_mb}
    print(json.dumps(figures | further))


if __name__ == "__main__":
    asyncio.run(act(sys.argv[1], sys.argv[2], int(sys.argv[3])))
