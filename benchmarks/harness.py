"""What every workload needs: a relay process, encrypted stores in a temporary folder, the machine's name.

Each workload starts its own relay on loopback and stops it. Stores are SQLCipher files with a random key
(no passphrase, so that no key derivation is timed), the relay commits durably before it acknowledges.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from crdt_sync.schemas import RecordSchema
from crdt_sync_client import Device, WriteResult, find_schema

START_TIMEOUT_S = 20.0
REST_TIMEOUT_S = 180.0


@dataclass(slots=True)
class Relay:
    """A running relay process."""

    url: str
    token: str
    data: Path
    process: asyncio.subprocess.Process

    def cpu_s(self) -> float:
        """CPU seconds the process has used so far, user and system."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def rss_mb(self) -> float:
        """Resident memory of the process now, in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    async def at_rest(self) -> None:
        """Wait until the relay has asked for the snapshots it wants and got them.

        It asks when a record has been idle for two seconds, so: until it has used next to no CPU for a
        while, four seconds at least. Some device has to be connected meanwhile.
        """
        started, quiet = time.monotonic(), 0
        while quiet < 4 or time.monotonic() - started < 4:
            before = self.cpu_s()
            await asyncio.sleep(0.5)
            quiet = quiet + 1 if self.cpu_s() - before < 0.02 else 0
            assert time.monotonic() - started < REST_TIMEOUT_S, "the relay does not come to rest"

    async def stop(self) -> None:
        """SIGTERM, then wait: the relay closes its database cleanly."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.wait(), START_TIMEOUT_S)


@asynccontextmanager
async def bench_folder() -> AsyncIterator[Path]:
    """A temporary folder that goes away with the workload."""
    with tempfile.TemporaryDirectory(prefix="crdt-sync-bench-") as name:
        yield Path(name)


@asynccontextmanager
async def running_relay(folder: Path) -> AsyncIterator[Relay]:
    """A relay process of its own on a free port of the loopback interface."""
    command = Path(sys.executable).with_name("crdt-sync")
    data = folder / "relay"
    process = await asyncio.create_subprocess_exec(
        *(str(command), "relay", "serve", "--data", str(data), "--port", "0", "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
    announced = json.loads(line)
    relay = Relay(announced["url"], announced["setup_token"], data, process)
    try:
        yield relay
    finally:
        await relay.stop()


async def new_device(folder: Path, name: str, *, key: bytes | None = None) -> Device:
    """A device with an empty encrypted store."""
    return await Device.create(folder / f"{name}.db", name=name, key=key or os.urandom(32))


def work_order_schema() -> RecordSchema:
    """The work order type that ships with the product."""
    return find_schema("work_order")


async def new_space(folder: Path, relay: Relay, *, name: str = "office") -> Device:
    """A device that has founded the space "bench" with the work order type."""
    device = await new_device(folder, name)
    await device.create_space("bench", relay=relay.url, token=relay.token, schemas=[work_order_schema()])
    return device


async def space_with_orders(folder: Path, relay: Relay, records: int) -> tuple[Device, list[WriteResult]]:
    """As `new_space`, with that many work orders, which the relay has."""
    office = await new_space(folder, relay)
    orders = (sample_work_order(number) for number in range(records))
    created = await asyncio.gather(*(office.create("work_order", order) for order in orders))
    await office.sync()
    return office, created


async def joined_device(
    folder: Path, admin: Device, name: str, *, role: str = "field", key: bytes | None = None
) -> Device:
    """A device that has joined the admin's space by an invite and is not connected."""
    link = await admin.invite("bench", role=role)
    device = await new_device(folder, name, key=key)
    await device.join(link)
    await device.disconnect()
    return device


def sample_work_order(number: int) -> dict[str, Any]:
    """A work order of 20 fields, about 1 KB as JSON; the same number always gives the same one."""
    day = number % 28 + 1
    return {
        "title": f"Replace hydraulic hose on boom cylinder, unit {number}",
        "description": (
            f"Operator reports oil below the left boom cylinder after the night shift. Order {number}. "
            "Isolate, release pressure, replace hose and O-rings, check the clamp, bleed, test under load."
        ),
        "type": "PM01",
        "priority": "high" if number % 3 else "medium",
        "status": "assigned",
        "site_id": f"site-{number % 7}",
        "asset_id": f"EX-{number % 50:03}",
        "assigned_to": f"technician-{number % 20}",
        "cost": 180.5 + number,
        "scheduled_start": f"2026-03-{day:02}T06:00:00Z",
        "scheduled_end": f"2026-03-{day:02}T10:00:00Z",
        "actual_start": f"2026-03-{day:02}T06:20:00Z",
        "actual_end": f"2026-03-{day:02}T09:40:00Z",
        "meter_reading": 12_000 + number,
        "tags": ["hydraulics", "boom"],
        "tasks": {"1": {"title": "Isolate and release pressure", "done": True}},
        "parts_used": {"HOSE-34": {"qty": 1}, "ORING-12": {"qty": 2}},
        "labor_records": {"L1": {"worker": f"technician-{number % 20}", "hours": 3.5}},
        "completion_notes": "Hose chafed through at the clamp; clamp rubber replaced as well.",
        "root_cause": "Missing clamp rubber",
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """The percentile of a sample by linear interpolation (statistics.quantiles, inclusive)."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }
