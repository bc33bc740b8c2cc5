"""What a device's engine costs: `python benchmarks/engine_writes.py [--json] [--file]`.

Microseconds of CPU (process time) for one call, medians over rounds: a write of one field, a save of eight,
the same eight as eight writes, a seal with its acknowledgement, a write with both as a connected device does
them, and an open in a process that has seen the space's record types before. The database is in memory, so
that what is measured is the engine; `--file` takes an encrypted file instead.

To compare two versions, run the two in turns with `PYTHONPATH` naming the folders of one or the other.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import click

from crdt_sync.ids import RecordId, RelayId, SpaceId
from crdt_sync_client import find_schema
from crdt_sync_client.engine import Engine
from crdt_sync_client.engine.model import CreateOp, Operation, UpdateOp, WriteResult
from crdt_sync_client.store.connection import Database

CALLS: Final = 200
"""In one round. The records take turns, as in an app that has several open."""
RECORDS: Final = 20
MAX_PUSH_BYTES: Final = 1 << 20
FIELDS: Final = (
    "title",
    "description",
    "assigned_to",
    "site_id",
    "asset_id",
    "completion_notes",
    "root_cause",
    "cost",
)
KEY: Final = bytes(32)


def work_order(number: int) -> dict[str, Any]:
    """A work order of 16 fields."""
    return {
        "title": f"Replace hydraulic hose on boom cylinder, unit {number}",
        "description": "Oil below the left boom cylinder. Isolate, replace hose and O-rings, test.",
        "type": "PM01",
        "priority": "high",
        "status": "assigned",
        "site_id": f"site-{number % 7}",
        "asset_id": f"EX-{number:03}",
        "assigned_to": f"technician-{number}",
        "cost": 180.5 + number,
        "scheduled_start": "2026-03-01T06:00:00Z",
        "scheduled_end": "2026-03-01T10:00:00Z",
        "meter_reading": 12_000 + number,
        "tags": ["hydraulics", "boom"],
        "parts_used": {"HOSE-34": {"qty": 1}},
        "completion_notes": "Hose chafed through at the clamp.",
        "root_cause": "Missing clamp rubber",
    }


class Bench:
    """One engine with a founded space, and the calls that are timed."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "device.db"
        self._now_ms = 1_772_000_000_000
        if self._path is not None:
            database = Database.create(self._path, KEY, salt=os.urandom(16))
        else:
            self._memory = _memory()
            database = Database(self._memory)
        self.engine = Engine.create(database, name="bench", clock=self._clock, entropy=os.urandom)
        schema = find_schema("work_order")
        self.space: SpaceId = self.engine.begin_space("bench", "wss://localhost", [schema])[0]
        self.engine.confirm_space(self.space)
        done = self.engine.write([CreateOp("work_order", work_order(n)) for n in range(RECORDS)])
        self.records = [result.id for result in done if isinstance(result, WriteResult)]
        assert len(self.records) == RECORDS
        self._count = 0
        self._sequence = 0
        self.start_session()
        self.settle()

    def _clock(self) -> int:
        self._now_ms += 1
        return self._now_ms

    def start_session(self) -> None:
        """As after the welcome of a relay that has nothing of ours to compare with."""
        start = self.engine.session_start(self.space)
        self.engine.welcome(self.space, RelayId(bytes(16)), 0, bytes(32), 0)
        self._incarnation = start.incarnation

    def settle(self) -> None:
        """Everything written is acknowledged."""
        while self.push():
            pass
        self.ack()

    def change(self, fields: int) -> tuple[RecordId, dict[str, Any]]:
        """The next record, and new values for its first fields."""
        self._count += 1
        number = self._count
        values = {name: number + 0.5 if name == "cost" else f"{name} {number}" for name in FIELDS[:fields]}
        return self.records[number % RECORDS], values

    def write_one(self) -> None:
        self._write([UpdateOp("work_order", *self.change(1))])

    def save_eight(self) -> None:
        self._write([UpdateOp("work_order", *self.change(8))])

    def eight_writes(self) -> None:
        id, values = self.change(8)
        for name, value in values.items():
            self._write([UpdateOp("work_order", id, {name: value})])

    def create(self) -> None:
        self._count += 1
        self._write([CreateOp("work_order", work_order(self._count))])

    def push(self) -> int:
        sealed = self.engine.next_push(self.space, max_count=1, max_bytes=MAX_PUSH_BYTES)
        self._sequence += len(sealed)
        return len(sealed)

    def ack(self) -> None:
        self.engine.acked(self.space, self._incarnation, self._sequence)

    def push_and_ack(self) -> None:
        assert self.push() == 1
        self.ack()

    def live_edit(self) -> None:
        """As a connected device does it: one commit for a write and its envelope, then the answer."""
        op = UpdateOp("work_order", *self.change(1))
        results, sealed = self.engine.write_and_push([op], {self.space: (8, MAX_PUSH_BYTES)})
        assert isinstance(results[0], WriteResult)
        self._sequence += len(sealed[self.space])
        self.ack()

    def status(self) -> None:
        self.engine.status_counts(self.space)

    def _write(self, ops: list[Operation]) -> None:
        (result,) = self.engine.write(ops)
        assert isinstance(result, WriteResult), result

    def open_again(self) -> float:
        """Microseconds for opening the store; SQLite's own part (and the key's) is not in it."""
        if self._path is None:
            image = self._memory.serialize() if self.engine is not None else b""
            self.engine.close()
            # What `close` writes is in the store that is opened, as after a clean end.
            self._memory = _memory()
            self._memory.deserialize(image)
            self._memory.execute("UPDATE meta SET value = 1 WHERE name = 'clean'")
            database = Database(self._memory)
        else:
            self.engine.close()
            database = Database.open(self._path, KEY)
        started = time.process_time_ns()
        self.engine = Engine.open(database, clock=self._clock, entropy=os.urandom)
        elapsed = time.process_time_ns() - started
        self.start_session()
        return elapsed / 1000


def _memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, cached_statements=256)


def _per_call(calls: Iterable[Callable[[], object]]) -> float:
    """Microseconds for one of the calls."""
    taken = list(calls)
    started = time.process_time_ns()
    for call in taken:
        call()
    return (time.process_time_ns() - started) / len(taken) / 1000


def _round(bench: Bench) -> dict[str, float]:
    figures = {}
    for name, call in (
        ("write_one_us", bench.write_one),
        ("save_eight_us", bench.save_eight),
        ("eight_writes_us", bench.eight_writes),
        ("create_us", bench.create),
    ):
        calls = CALLS // 4 if call in (bench.create, bench.eight_writes) else CALLS
        figures[name] = _per_call([call] * calls)
        bench.settle()
    pushes = []
    for _ in range(CALLS):
        bench.write_one()
        pushes.append(_per_call([bench.push_and_ack]))
    figures["push_and_ack_us"] = statistics.median(pushes)
    figures["live_edit_us"] = _per_call([bench.live_edit] * CALLS)
    figures["status_us"] = _per_call([bench.status] * CALLS)
    figures["open_us"] = statistics.median(bench.open_again() for _ in range(20))
    return figures


def run(*, rounds: int = 9, file: bool = False) -> dict[str, float]:
    """Medians over rounds, in microseconds, by name."""
    with tempfile.TemporaryDirectory(prefix="crdt-sync-bench-") as name:
        found: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            folder = Path(name, str(number))
            folder.mkdir()
            bench = Bench(folder if file else None)
            for key, value in _round(bench).items():
                if number:  # the first warms up
                    found.setdefault(key, []).append(value)
            bench.engine.close()
        return {key: round(statistics.median(values), 1) for key, values in found.items()}


@click.command(epilog="Example: python benchmarks/engine_writes.py --json")
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
@click.option("--file", is_flag=True, help="An encrypted file instead of memory.")
@click.option("--rounds", type=int, default=9, help="Rounds the medians are over.")
def main(as_json: bool, file: bool, rounds: int) -> None:
    """Measure the engine's writes, seals, acknowledgements and opening."""
    figures = run(rounds=rounds, file=file)
    if as_json:
        click.echo(json.dumps(figures))
    else:
        for key, value in figures.items():
            click.echo(f"{key:20} {value:>10}")


if __name__ == "__main__":
    main()
