"""`real`: 5,485 real maintenance work orders imported, synced, joined, edited apart, converged.

The file is not part of the project: `excavators-cleaned.csv` is read from the folder CRDT_SYNC_DATA names, or
from `../shared/data` beside the checkout. One of its lines has a comma too many and is refused.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import bench_folder, joined_device, new_space, running_relay, work_order_schema
from crdt_sync_client import Device, read_csv

FOLDER = Path(os.environ.get("CRDT_SYNC_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
FILE = FOLDER / "excavators-cleaned.csv"
MAPPING = {
    "title": "OriginalShorttext",
    "asset_id": "Asset",
    "scheduled_start": "BscStartDate",
    "type": "PMType",
    "cost": "Cost",
}
SEED = 20_040_701


async def run(edits: int = 200) -> dict[str, Any]:
    """Figures in seconds: `import_s`, `push_s`, `join_s` (second device has all), `converge_s`."""
    if not FILE.is_file():
        raise SystemExit(f"there is no {FILE}; set CRDT_SYNC_DATA to the folder with that file")
    async with bench_folder() as folder, running_relay(folder) as relay:
        office = await new_space(folder, relay)
        started = time.perf_counter()
        report = await office.import_rows("work_order", read_csv(FILE, work_order_schema(), MAPPING))
        imported = time.perf_counter()
        await office.sync()
        pushed = time.perf_counter()
        tablet = await joined_device(folder, office, "tablet")
        joining = time.perf_counter()
        received = await tablet.sync()
        joined = time.perf_counter()

        chance = random.Random(SEED)
        for device, status in ((office, "assigned"), (tablet, "cancelled")):
            await device.disconnect()
            await _edit(device, chance, edits, status)
        apart = time.perf_counter()
        for device in (office, tablet, office):
            await device.sync()
        converged = time.perf_counter()
        assert await _content(office) == await _content(tablet)
        conflicts = len(await office.conflicts(open_only=False))
        await office.close()
        await tablet.close()
    return {
        "records": report.imported,
        "refused": len(report.failed),
        "import_s": round(imported - started, 3),
        "push_s": round(pushed - imported, 3),
        "join_s": round(joined - joining, 3),
        "join_bytes": received.bytes_received,
        "converge_s": round(converged - apart, 3),
        "conflicts": conflicts,
    }


async def _edit(device: Device, chance: random.Random, edits: int, status: str) -> None:
    records = sorted(await device.query("work_order"), key=lambda record: record.id)
    await asyncio.gather(
        *(
            device.update("work_order", one.id, {"status": status, "cost": chance.randrange(5_000)})
            for one in chance.sample(records, edits)
        )
    )


async def _content(device: Device) -> dict[str, Any]:
    return {record.id: record.values for record in await device.query("work_order")}
