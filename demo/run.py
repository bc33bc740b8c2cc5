"""Three devices, one relay that can read nothing, and a day without a network. A few seconds.

    make demo

Starts a real relay process and three real devices in a temporary folder, lets all three edit the same work
orders while apart, brings them together again, and then proves what it claims: equal content everywhere, and
no plaintext in the relay's files. Ends with code 1 if any proof fails. Leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crdt_sync_client import ConflictEntry, Device
from crdt_sync_client.shipped import find_schema

TYPE: Final = "work_order"
SPACE: Final = "Quarry Nine excavators"
PIPE_COLUMNS: Final = 118
SHORTEST_SECRET: Final = 5
"""Characters. Shorter texts turn up in ciphertext by chance: 4 bytes once in 4 GiB, 2 bytes all the time."""
LIVE_EDITS: Final = 40
SHOWN: Final = ("status", "scheduled_start", "meter_reading", "parts_used", "tags", "completion_notes")

Values = dict[str | tuple[str, ...], Any]

ORDERS: Final[tuple[Values, ...]] = (
    {
        "title": "Boom cylinder seal weeps",
        "asset_id": "EX-RH120-3",
        "status": "in_progress",
        "scheduled_start": "2026-03-02",
        "assigned_to": "Night crew",
        "tags": ["hydraulics"],
    },
    {"title": "Bucket tooth missing, left corner", "asset_id": "EX-RH120-1", "priority": "before shift"},
    {"title": "Grease line to slew ring torn off", "asset_id": "EX-RH120-3", "cost": 183.05},
    {"title": "Air conditioning blows warm", "asset_id": "EX-RH120-2", "tags": ["cabin"]},
    {"title": "Track tension uneven", "asset_id": "EX-RH120-4", "scheduled_start": "2026-03-04"},
    {"title": "Engine derates above 1800 rpm", "asset_id": "EX-RH120-4", "tags": ["engine", "urgent"]},
    {"title": "Replace return filter", "asset_id": "EX-RH120-2", "parts_required": {"FILTER-88": {"qty": 1}}},
    {"title": "Handrail bent at rear walkway", "asset_id": "EX-RH120-1"},
    {"title": "Fire suppression, annual inspection", "asset_id": "EX-RH120-3", "status": "assigned"},
    {"title": "Swing motor noisy when cold", "asset_id": "EX-RH120-2"},
    {"title": "Work lights flicker", "asset_id": "EX-RH120-1", "tags": ["electrical"]},
    {"title": "Oil sample 500 hours", "asset_id": "EX-RH120-4", "cost": 42},
)

OFFLINE: Final[dict[str, Values]] = {
    "Office": {"scheduled_start": "2026-03-05", "status": "on_hold", "tags": ["hydraulics", "warranty"]},
    "Tablet Ana": {
        "scheduled_start": "2026-03-03",
        "meter_reading": 18242,
        "parts_used": {"SEAL-12": {"qty": 2}},
        "tags": ["hydraulics", "leak"],
        "completion_notes": "Rod seal replaced, holds pressure",
    },
    "Tablet Ben": {
        "status": "completed",
        "parts_used": {"HOSE-37": {"qty": 1}, "SEAL-12": {"qty": 3}},
        "completion_notes": "Hose was cut too, replaced it",
    },
}
DECISION: Final = "Rod seal and cut hose replaced, holds pressure"

WHY: Final = {
    "status": "register: the latest",
    "scheduled_start": "server_wins: the office",
    "meter_reading": "client_wins: the field",
    "parts_used": "rows: united",
    "tags": "set: united",
    "completion_notes": "manual: a person",
}


class Lines:
    """Standard output without the blanks with which tables fill up their lines in a pipe."""

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(r"[ ]+$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        sys.stdout.flush()


console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=PIPE_COLUMNS, file=cast(IO[str], Lines()))


@dataclass
class Figures:
    """What is measured on the way."""

    started: float = field(default_factory=time.perf_counter)
    first_sync_s: float = 0.0
    merge_s: float = 0.0
    envelopes: int = 0
    live_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Relay:
    """A relay process and where it keeps its files."""

    process: subprocess.Popen[str]
    url: str
    setup_token: str
    data: Path


def main() -> int:
    """The exit code: 0 when everything shown was also proved."""
    with tempfile.TemporaryDirectory(prefix="crdt-sync-demo-") as folder:
        relay = start_relay(Path(folder) / "relay")
        try:
            proved = asyncio.run(asyncio.wait_for(play(Path(folder), relay), timeout=60))
        finally:
            relay.process.terminate()
            relay.process.communicate(timeout=10)
    return 0 if proved else 1


def start_relay(data: Path) -> Relay:
    """Start `crdt-sync relay serve` on a free port and wait until it says that it listens."""
    command = [sys.executable, "-m", "crdt_sync_client.cli", "relay", "serve"]
    command += ["--data", str(data), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the relay did not start: exit code {process.wait()}")
    listening = json.loads(line)
    return Relay(process, listening["url"], listening["setup_token"], data)


async def play(folder: Path, relay: Relay) -> bool:
    figures = Figures()
    devices = {
        name: await Device.create(folder / f"{name}.db", name=name, key=os.urandom(32))
        for name in ("Office", "Tablet Ana", "Tablet Ben")
    }
    try:
        links = await meet(devices, relay, figures)
        order = await work_apart(devices)
        await come_together(devices, order, figures)
        await decide(devices, order)
        await measure_live(devices, order, figures)
        proved = await prove(devices, relay, links)
        show_figures(devices, relay, figures)
        return proved
    finally:
        for device in devices.values():
            await device.close()


async def meet(devices: Mapping[str, Device], relay: Relay, figures: Figures) -> list[str]:
    """The office starts a space and invites two technicians; returns the invite links."""
    heading(1, "One relay, three devices")
    office = devices["Office"]
    await office.create_space(SPACE, relay=relay.url, token=relay.setup_token, schemas=[find_schema(TYPE)])
    for order in ORDERS:
        await office.create(TYPE, order)
    await office.sync(timeout_s=20)
    links = [await office.invite(role="field") for _ in range(2)]
    began = time.perf_counter()
    for name, link in zip(("Tablet Ana", "Tablet Ben"), links, strict=True):
        await devices[name].join(link)
        await devices[name].sync(timeout_s=20)
    figures.first_sync_s = (time.perf_counter() - began) / 2
    table = plain_table()
    table.add_row("relay", f"{relay.url}  its own process; holds no key")
    table.add_row("Office", f"made the space “{SPACE}” and {len(ORDERS)} work orders")
    table.add_row("Tablet Ana", "technician, joined with a one-time link")
    table.add_row("Tablet Ben", "technician, joined with a one-time link")
    console.print(table)
    return links


async def work_apart(devices: Mapping[str, Device]) -> str:
    """All three edit one work order without a network; returns its id."""
    title = ORDERS[0]["title"]
    heading(2, f"The network is gone. Everyone works on “{title}”")
    (order,) = await devices["Office"].query(TYPE, where={"title": title})
    for name, changes in OFFLINE.items():
        await devices[name].update(TYPE, order.id, changes)
    # More work on other orders, so that there is something to merge that does not meet.
    for name, device in devices.items():
        for other in await device.query(TYPE, order_by="title"):
            if other.id != order.id:
                await device.update(
                    TYPE, other.id, {"tags": [*other.values.get("tags", []), f"seen by {name}"]}
                )
    table = plain_table()
    for name, changes in OFFLINE.items():
        for index, (path, value) in enumerate(changes.items()):
            table.add_row(name if index == 0 else "", str(path), brief(value))
    console.print(table)
    waiting = [f"{name} {(await device.status()).pending}" for name, device in devices.items()]
    console.print(Text("  waiting to be sent: " + ", ".join(waiting) + " records", style="dim"))
    return str(order.id)


async def come_together(devices: Mapping[str, Device], order: str, figures: Figures) -> None:
    heading(3, "The network is back. The rule of each field decides")
    began = time.perf_counter()
    # The second round brings everyone what the later ones sent in the first.
    for _ in range(2):
        for device in devices.values():
            report = await device.sync(timeout_s=20)
            figures.envelopes += report.sent
    figures.merge_s = time.perf_counter() - began
    seen = await devices["Tablet Ana"].get(TYPE, order)
    assert seen is not None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("field", "all three have now", "by the rule"):
        table.add_column(column, overflow="fold")
    for name in SHOWN:
        provisional = name in seen.provisional
        value = Text(brief(seen.values.get(name)), style="yellow" if provisional else "green")
        if provisional:
            value.append("  provisional")
        table.add_row(name, value, Text(WHY[name], style="dim"))
    console.print(table)


async def decide(devices: Mapping[str, Device], order: str) -> None:
    """Show the one open conflict side by side, resolve it at the office, bring it to everyone."""
    heading(4, "One conflict waits for a person")
    office = devices["Office"]
    (conflict,) = [entry for entry in await office.conflicts(open_only=True) if entry.record == order]
    console.print(side_by_side(conflict))
    await office.resolve(conflict.id, field=conflict.field, value=DECISION)
    for _ in range(2):
        for device in devices.values():
            await device.sync(timeout_s=20)
    console.print(Text.assemble("  Office decides: ", (DECISION, "green"), ". No text was lost."))


def side_by_side(conflict: ConflictEntry) -> Table:
    """The versions as columns, oldest first."""
    table = Table(box=box.ROUNDED, title=f"{conflict.field}: written at the same time", title_justify="left")
    table.add_column("")
    winner = conflict.alternatives[conflict.winner]
    versions = sorted(conflict.alternatives, key=lambda version: version.at_ms)
    for version in versions:
        table.add_column(version.device_name)
    clock = [time.strftime("%H:%M:%S", time.localtime(version.at_ms / 1000)) for version in versions]
    table.add_row("value", *(Text(str(version.value), style="yellow") for version in versions))
    table.add_row("role", *(version.role.text for version in versions))
    table.add_row("at", *clock)
    marks = ["shown until decided" if version is winner else "" for version in versions]
    table.add_row("", *(Text(mark, style="dim") for mark in marks))
    return table


async def measure_live(devices: Mapping[str, Device], order: str, figures: Figures) -> None:
    """All are connected: how long an edit at the office takes to be readable on Ana's tablet."""
    office, ana = devices["Office"], devices["Tablet Ana"]
    for device in devices.values():
        await device.connect()
    watch = ana.watch(TYPE, order)
    await until_idle(devices)
    for number in range(LIVE_EDITS):
        began = time.perf_counter()
        await office.update(TYPE, order, {"description": f"Inspection round {number + 1}"})
        await asyncio.wait_for(anext(watch), timeout=10)
        figures.live_ms.append((time.perf_counter() - began) * 1000)
    watch.close()
    for device in devices.values():
        await device.disconnect()
    for device in devices.values():
        await device.sync(timeout_s=20)


async def until_idle(devices: Mapping[str, Device]) -> None:
    deadline = time.monotonic() + 20
    while {(await device.status()).state for device in devices.values()} != {"idle"}:
        if time.monotonic() > deadline:
            raise SystemExit("the devices did not connect within 20 s")
        await asyncio.sleep(0.01)


async def prove(devices: Mapping[str, Device], relay: Relay, links: list[str]) -> bool:
    """Check what was claimed, on what is really there; True when all of it holds."""
    heading(5, "Proof")
    digests = {name: await digest(device) for name, device in devices.items()}
    same = len(set(digests.values())) == 1
    records = await devices["Office"].count(TYPE)
    claim(
        same,
        f"{records} records have the same content on all three devices",
        next(iter(digests.values()))[:16],
    )
    decided = not any([await device.conflicts(open_only=True) for device in devices.values()])
    claim(decided, "the conflict is resolved on all three", "")
    secrets = {text async for text in plaintexts(devices)} | {link.rpartition("#")[2] for link in links}
    files = [path for path in relay.data.rglob("*") if path.is_file()]
    content = b"\0".join(path.read_bytes() for path in files)
    found = sorted(text for text in secrets if text.encode() in content)
    detail = f"{len(files)} files, {len(content) / 1024:,.0f} KiB searched"
    claim(not found, f"none of {len(secrets)} texts, names and field names is in the relay's files", detail)
    if found:
        console.print(f"    found: {found[:5]}", style="red")
    space = (await devices["Office"].status()).spaces[0].space_id
    known = bytes.fromhex(space) in content
    claim(known, "and the search does find what the relay has to know: the space's id", space[:16])
    return same and decided and not found and known


async def digest(device: Device) -> str:
    """SHA-256 over all records and conflicts of a device, in one canonical form."""
    records = [record.to_json() for record in await device.query(TYPE)]
    for record in records:
        record["_sync"].pop("state")  # what waits to be sent is the device's own affair
    conflicts = sorted((entry.id, entry.state) for entry in await device.conflicts(open_only=False))
    body = json.dumps([sorted(records, key=lambda record: record["id"]), conflicts], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


async def plaintexts(devices: Mapping[str, Device]) -> Any:
    """Every text that a reader of the relay's files should not find."""
    for text in (SPACE, TYPE, DECISION, *devices, *find_schema(TYPE).fields):
        yield text
    for changes in (*ORDERS, *OFFLINE.values()):
        for text in texts_in(changes):
            yield text
    for device in devices.values():
        for record in await device.query(TYPE):
            for text in texts_in(record.values):
                yield text


def texts_in(value: Any) -> Iterator[str]:
    """Keys and texts in nested values, long enough not to turn up by chance."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts_in(key)
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
    elif isinstance(value, str) and len(value) >= SHORTEST_SECRET:
        yield value


def show_figures(devices: Mapping[str, Device], relay: Relay, figures: Figures) -> None:
    heading(6, "Figures, on this machine")
    stored = sum(path.stat().st_size for path in relay.data.rglob("*") if path.is_file())
    live = sorted(figures.live_ms)
    table = plain_table()
    table.add_row(
        "join and first sync", f"{figures.first_sync_s * 1000:,.0f} ms a device, {len(ORDERS)} records"
    )
    table.add_row(
        "three devices merge", f"{figures.merge_s * 1000:,.0f} ms, {figures.envelopes} envelopes sent"
    )
    table.add_row(
        "edit to other device",
        f"{statistics.median(live):.1f} ms median, {live[-1]:.1f} ms worst of {len(live)}, stored first",
    )
    table.add_row("relay's files", f"{stored / 1024:,.0f} KiB, all of it ciphertext and bookkeeping")
    table.add_row("whole demo", f"{time.perf_counter() - figures.started:.1f} s")
    console.print(table)


def heading(number: int, text: str) -> None:
    console.print()
    console.print(Text.assemble((f"{number} ", "bold cyan"), (text, "bold")))


def claim(holds: bool, text: str, detail: str) -> None:
    mark, style = ("✓", "green") if holds else ("✗ NOT PROVED:", "bold red")
    console.print(Text.assemble((f"  {mark} ", style), text, (f"  {detail}", "dim")))


def plain_table() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=True)
    table.add_column(style="cyan", no_wrap=True)
    return table


def brief(value: Any) -> str:
    """A value in a few words: rows as `KEY qty 2`, lists with commas."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} " + " ".join(f"{name} {cell}" for name, cell in row.items()) for key, row in value.items()
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
