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
    """Figures: `…_s`, `…_cpu_s` and `…_peak_mb` of importing, pushing, fetching, opening, using
    and vacuuming, and medians of what a screen asks for (see `large_device`)."""
    async with bench_folder() as folder, running_relay(folder) as relay:
        schema = load_schema(work_order_schema().text + "x-indexes: [status, asset_id]\n", source="bench")
        office = await new_device(folder, "office", key=KEY)
        await office.create_space("bench", relay=relay.url, token=relay.token, schemas=[schema])
        tablet = await joined_device(folder, office, "tablet", key=KEY)
        await tablet.close()
        await office.close()
        figures: dict[str, Any] = {"records": records}
        figures |= await _take(folder, records)
        figures["store_mb"] = round((folder / "tablet.db").stat().st_size / 2**20, 1)
        figures["relay_rss_mb"] = round(relay.rss_mb(), 1)
    return figures


async def _take(folder: Path, records: int) -> dict[str, float]:
    """The figures of each thing; the store is opened with all of it unsent, and with all of it received."""
    figures: dict[str, float] = {}
    office, tablet = folder / "office.db", folder / "tablet.db"
    for what, store in (
        ("import", office),
        ("open_unsent", office),
        ("push", office),
        ("fetch", tablet),
        ("open", tablet),
        ("use", tablet),
        ("vacuum", office),
    ):
        begun = [await _act(what, store, records) for _ in range(OPENINGS if what.startswith("open") else 1)]
        middle = {name: statistics.median(each[name] for each in begun) for name in begun[0]}
        figures |= _named(what, middle)
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
    figures = {
        f"{what}_s": round(answer["seconds"], 3),
        f"{what}_cpu_s": round(answer["cpu_s"], 3),
        f"{what}_peak_mb": round(answer["peak_mb"], 1),
    }
    if what == "import":
        figures["python_mb"] = round(answer["start_mb"], 1)
    known = ("seconds", "cpu_s", "peak_mb", "start_mb")
    return figures | {name: round(value, 2) for name, value in answer.items() if name not in known}
