"""`fanout`: one writer, 100 and then 300 connected readers of one record, 50 edits.

The writer is a full device with its encrypted store. The readers are connections with device keys of their
own, in two processes; what a reader does with an edit stands in `benchmarks/readers.py`. The clock runs from
before the call on the writer (its durable commit is inside) until the last reader can read the value; then
comes the next edit.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Relay, bench_folder, new_space, percentile, running_relay, sample_work_order
from benchmarks.peer import read_line

READERS = (100, 300)
PROCESSES = 2
WARM_UP = 5


async def run(edits: int = 50) -> dict[str, Any]:
    """Figures: `p50_ms_100`, `p99_ms_100`, `p50_ms_300`, `p99_ms_300`; relay's CPU and memory (300)."""
    figures: dict[str, Any] = {}
    for readers in READERS:
        async with bench_folder() as folder, running_relay(folder) as relay:
            figures |= await _with_readers(folder, relay, readers, edits)
    return figures


async def _with_readers(folder: Path, relay: Relay, readers: int, edits: int) -> dict[str, Any]:
    office = await new_space(folder, relay)
    order = await office.create("work_order", sample_work_order(1))
    await office.sync()
    links = [await office.invite("bench", role="reader") for _ in range(readers)]
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(_reader_process(links[number::PROCESSES]))
            for number in range(PROCESSES)
        ]
        for process in processes:
            await read_line(process, timeout_s=200)
        await office.connect()
        await office.sync()
        cpu_before = relay.cpu_s()
        delays_ms: list[float] = []
        for number in range(1, edits + WARM_UP + 1):
            started = time.monotonic()
            await office.update("work_order", order.id, {"meter_reading": 20_000 + number})
            answers = [await read_line(process) for process in processes]
            assert all(answer["edit"] == 20_000 + number for answer in answers)
            delays_ms.append((max(answer["last"] for answer in answers) - started) * 1e3)
        cpu_s, rss_mb = relay.cpu_s() - cpu_before, relay.rss_mb()
    await office.close()
    measured = delays_ms[WARM_UP:]
    return {
        f"p50_ms_{readers}": round(percentile(measured, 50), 2),
        f"p99_ms_{readers}": round(percentile(measured, 99), 2),
        "relay_cpu_s": round(cpu_s, 2),
        "relay_rss_mb": round(rss_mb, 1),
    }


@asynccontextmanager
async def _reader_process(links: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of readers; its first line says that all of them have joined and caught up."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).resolve().parents[1] / "readers.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        process.stdin.write("".join(f"{link}\n" for link in [*links, ""]).encode())
        await process.stdin.drain()
        yield process
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)
