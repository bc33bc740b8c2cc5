"""`large`: what a device with 100,000 work orders takes of time and memory, each thing in its own process.

What is done stands in `benchmarks/large_device.py`. The type has indexes by status and by asset. Who fetches
is another device than who pushed, on its first sync.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import large_device
from benchmarks.harness import (
    bench_folder,
    joined_device,
    new_device,
    running_relay,
    work_order_schema,
)
from crdt_sync.schemas.loader import load_schema

KEY = bytes(range(32))
OPENINGS = 5


async def run(records: int = 100_000) -> dict[str, Any]:
    """Figures: `…_s`, `…_cpu_s` and `…_peak_mb` of importing, pushing, fetching, opening and using."""
    async with bench_folder() as folder, running_relay(folder) as relay:
        schema = load_schema(work_order_schema().text + "x-indexes: [status, asset_id]\n", source="bench")
        office = await new_device(folder, "office", key=KEY)
        await office.create_space("bench", relay=relay.url, token=relay.token, schemas=[schema])
        tablet = await joined_device(folder, office, "tablet", key=KEY)
        await tablet.close()
        await office.close()
        figures: dict[str, Any] = {"records": records}
        for what, store in (
            ("import", "office"),
            ("push", "office"),
            ("use", "office"),
            ("fetch", "tablet"),
        ):
            figures |= _named(what, await _act(what, folder / f"{store}.db", records))
        opened = [await _act("open", folder / "tablet.db", records) for _ in range(OPENINGS)]
        figures |= _named("open", {key: statistics.median(one[key] for one in opened) for key in opened[0]})
        figures["python_mb"] = round(opened[0]["start_mb"], 1)
        figures["store_mb"] = round((folder / "tablet.db").stat().st_size / 2**20, 1)
        figures["relay_rss_mb"] = round(relay.rss_mb(), 1)
    return figures


async def _act(what: str, store: Path, records: int) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(large_device.__file__)), what, str(store), str(records)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, large_device.KEY_VARIABLE: KEY.hex()},
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, what
    answer: dict[str, float] = json.loads(said)
    return answer


def _named(what: str, answer: dict[str, float]) -> dict[str, float]:
    return {
        f"{what}_s": round(answer["seconds"], 3),
        f"{what}_cpu_s": round(answer["cpu_s"], 3),
        f"{what}_peak_mb": round(answer["peak_mb"], 1),
    }
