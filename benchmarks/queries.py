"""What finding records costs: `python benchmarks/queries.py [--json] [--records N]`.

An encrypted store with 100,000 work orders of 20 fields, of a type with indexes by status and scheduled
start, by asset and by site. Milliseconds for a call of the engine, medians over rounds, in real time: what
an app waits for. Beside each query stands the same without an index. A live query's cost per unrelated
write is in microseconds of CPU, and so is what an index costs the write of a field in it.

The records' rows are made by SQL, without documents: a query reads nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.harness import sample_work_order, work_order_schema
from crdt_sync.ids import RecordId, new_record_id
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine import Engine
from crdt_sync_client.engine.filters import field
from crdt_sync_client.engine.live_matching import LiveAnswer
from crdt_sync_client.engine.model import CreateOp, RecordChange, UpdateOp, WriteResult
from crdt_sync_client.engine.queries import Query
from crdt_sync_client.live import LiveHub
from crdt_sync_client.store.connection import Database

KEY: Final = bytes(32)
ROUNDS: Final = 15
WRITES: Final = 300
INDEXES: Final = "x-indexes: [[status, scheduled_start], asset_id, [site_id, cost]]\n"
TYPE: Final = "work_order"

ASSET: Final = field("asset_id") == "EX-0042"
RANGE: Final = (field("site_id") == "site-3") & (field("cost") > 99_950)
QUERIES: Final = {
    "100 of an asset": Query(TYPE, ASSET),
    "the first 20 of a status by start": Query(
        TYPE, field("status") == "assigned", order="-scheduled_start", limit=20
    ),
    "a site's with a cost above": Query(TYPE, RANGE, order="cost"),
    "of an asset, unsent": Query(TYPE, ASSET, state="pending"),
}
COUNTED: Final = Query(TYPE, ASSET)


def _clock() -> int:
    return time.time_ns() // 1_000_000


def _store(folder: Path, name: str, records: int, *, indexed: bool) -> Engine:
    """A store with that many work orders, and one that was written as apps do."""
    schema = work_order_schema()
    if indexed:
        schema = load_schema(schema.text + INDEXES, source="bench")
    db = Database.create(folder / name, KEY, salt=bytes(16))
    engine = Engine.create(db, name=name, clock=_clock, entropy=os.urandom)
    space, _ = engine.begin_space("bench", "ws://localhost:1", [schema])
    engine.confirm_space(space)
    statuses = schema.fields["status"].json_schema["enum"]
    with db.transaction(durable=True):
        db.executemany(
            "INSERT INTO records (space, opaque, type, id, json) VALUES (1, ?, ?, ?, ?)",
            (
                (n.to_bytes(16, "big"), TYPE, new_record_id(os.urandom), _json(n, records, statuses))
                for n in range(records)
            ),
        )
    engine._replica.reload()
    return engine


def _json(number: int, records: int, statuses: list[str]) -> str:
    values = sample_work_order(number)
    values["asset_id"] = f"EX-{number % max(records // 100, 1):04}"
    values["status"] = statuses[number % len(statuses)]
    values["cost"] = number
    return json.dumps(values)


def _ms(call: Callable[[], object]) -> float:
    """The median of some calls, in milliseconds, after one that fills the caches."""
    call()
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return round(statistics.median(took) * 1000, 3)


def _pages(engine: Engine, query: Query, count: int) -> float:
    """Milliseconds per page, of that many pages one after another."""
    token = None
    took = []
    for _ in range(count):
        start = time.perf_counter()
        _, token = engine.page(query, token)
        took.append(time.perf_counter() - start)
    return round(statistics.median(took) * 1000, 3)


def _writes_us(engine: Engine, changed: str) -> float:
    """CPU of a write of one field that is in an index or, without one, of the same field."""
    (made,) = engine.write([CreateOp(TYPE, sample_work_order(1))])
    assert isinstance(made, WriteResult)
    took = []
    for n in range(WRITES):
        start = time.process_time()
        engine.write([UpdateOp(TYPE, made.id, {changed: f"EX-{n}"})])
        took.append(time.process_time() - start)
    return round(statistics.median(took) * 1e6, 1)


async def _live_us(engine: Engine, query: Query) -> dict[str, float]:
    """Microseconds of CPU per change that cannot matter, through the hub, with one live query."""

    async def read(asked: Query) -> LiveAnswer:
        return engine.live_answer(asked)

    hub = LiveHub(read)
    live = hub.query(query)
    await anext(live)
    changes: dict[str, RecordChange] = {}
    (made,) = engine.write([CreateOp(TYPE, sample_work_order(2))])
    assert isinstance(made, WriteResult)
    (other,) = engine.write([UpdateOp(TYPE, RecordId(made.id), {"root_cause": "worn"})])
    assert isinstance(other, WriteResult)
    assert other.change is not None
    changes["of the type, not in the result"] = other.change
    costs = {}
    for name, change in changes.items():
        rounds = []
        for _ in range(ROUNDS):
            start = time.process_time()
            for _ in range(1000):
                hub.publish((change,))
            rounds.append((time.process_time() - start) * 1000)
        costs[f"live, a write {name}, us"] = round(statistics.median(rounds), 2)
    assert not live._stale
    return costs


def measure(records: int) -> dict[str, Any]:
    """All figures by name."""
    figures: dict[str, Any] = {"records": records}
    with tempfile.TemporaryDirectory() as folder:
        engines = {
            kind: _store(Path(folder), f"{kind}.db", records, indexed=kind == "indexed")
            for kind in ("indexed", "plain")
        }
        for name, query in QUERIES.items():
            for kind, engine in engines.items():
                figures[f"{name}, {kind}, ms"] = _ms(partial(engine.find, query))
        for kind, engine in engines.items():
            figures[f"count of an asset, {kind}, ms"] = _ms(partial(engine.count, COUNTED))
        for way in ("", "-"):
            paged = Query(TYPE, field("status") == "assigned", order=f"{way}scheduled_start", limit=50)
            figures[f"a page of 50, {way}start, ms"] = _pages(engines["indexed"], paged, 100)
        for kind, engine in engines.items():
            figures[f"write of an indexed field, {kind}, us"] = _writes_us(engine, "asset_id")
        figures |= asyncio.run(_live_us(engines["indexed"], Query(TYPE, ASSET, order="-scheduled_start")))
        for engine in engines.values():
            engine.close()
    return figures


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
@click.option("--records", type=click.IntRange(min=1_000), default=100_000, help="In each store.")
def main(as_json: bool, records: int) -> None:
    """Measure queries, as docs/benchmarks.md says."""
    figures = measure(records)
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        click.echo(f"{name:50} {value:>12}")


if __name__ == "__main__":
    main()
