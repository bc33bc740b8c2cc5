"""`merge`: what merging costs and how large a document becomes, without store and network: CPU time, bytes.

Five writers who have seen the same record of 20 fields each change four of them at the same time: one
that all five change, and three of their own. Their updates are checked, merged into a sixth device's open
document and read there: one after the other, or as one batch.

The sizes are of a record of 20 short text fields after 10,000 edits by devices in turn at random, who
exchange what they wrote after every tenth edit, so that some edits are always concurrent.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Final

from crdt_sync.hlc import HybridClock
from crdt_sync.ids import Author, DeviceId, Incarnation
from crdt_sync.records.document import RecordDocument, merge_updates
from crdt_sync.records.editing import plan_create, plan_edit
from crdt_sync.records.update_check import check_update
from crdt_sync.records.view import RecordView, view
from crdt_sync.roles import Role
from crdt_sync.schemas import load_schema

FIELDS: Final = (
    "title", "description", "type", "priority", "site_id", "asset_id", "assigned_to", "cost_centre", "status",
    "starts", "ends", "started", "ended", "meter", "root_cause", "notes", "zone", "depth", "shift", "crew",
)  # fmt: skip
SCHEMA: Final = load_schema(
    "x-type: order\nx-version: 1\nproperties:\n"
    + "".join(f"  {name}: {{type: string}}\n" for name in FIELDS),
    source="benchmark",
)
RECORD: Final = "00000000-0000-4000-8000-000000000001"
WRITERS: Final = 5
EXCHANGE_EVERY: Final = 10
START_MS: Final = 1_750_000_000_000


class Writer:
    """A device with a document of the record. `made` are its updates that nobody else has yet."""

    def __init__(self, number: int, state: bytes | None = None) -> None:
        digest = hashlib.sha256(f"writer {number}".encode()).digest()
        self.author = Author(DeviceId(digest[:16]), Incarnation(int.from_bytes(digest[16:20], "big")))
        self.doc = RecordDocument(state, author=self.author)
        self.made: list[bytes] = []
        self._clock = HybridClock()

    def create(self, values: dict[str, Any]) -> None:
        self._do(plan_create, values, START_MS)

    def change(self, values: dict[str, Any], at_ms: int) -> None:
        self._do(plan_edit, values, at_ms)

    def _do(self, plan: Any, values: dict[str, Any], at_ms: int) -> None:
        edit = plan(
            SCHEMA,
            self.doc.writes(),
            values,
            author=self.author,
            role=Role.FIELD,
            tick=lambda: self._clock.tick(at_ms),
        )
        self.made.append(self.doc.edit(remove=edit.remove, add=edit.add))


class Reader:
    """A device that has the record open and shown."""

    def __init__(self, state: bytes) -> None:
        self.doc = RecordDocument(state)
        self.doc.state()  # a document readies its bindings when they are first needed
        self.seen: RecordView | None = None
        self.read()

    def read(self) -> None:
        writes, touched = self.doc.writes(), self.doc.take_touched()
        self.seen = view(SCHEMA, SCHEMA.type, RECORD, writes, before=self.seen, touched=touched)


def concurrent_writers() -> tuple[bytes, list[Writer]]:
    """The record as all have seen it, and the writers, each with one update."""
    first = Writer(0)
    first.create({name: f"{name} at first" for name in FIELDS})
    state = first.doc.state()
    writers = [Writer(number, state) for number in range(1, WRITERS + 1)]
    for number, writer in enumerate(writers):
        own = FIELDS[1 + 3 * number : 4 + 3 * number]
        values = {name: f"{name} by {number}" for name in (FIELDS[0], *own)}
        writer.change(values, START_MS + 1_000 * (number + 1))
    return state, writers


def one_by_one(reader: Reader, writers: list[Writer], *, read_each: bool = False) -> None:
    """Check and merge the updates in turn; read at the end, or after each; give the state to be stored."""
    for writer in writers:
        update = writer.made[0]
        reader.doc.apply(update, check_update(update, writer.author, Role.FIELD))
        if read_each:
            reader.read()
    reader.read()
    reader.doc.state()


def in_one_batch(reader: Reader, writers: list[Writer]) -> None:
    """Check the updates, merge them at once and read, as for a record in a received batch."""
    for writer in writers:
        check_update(writer.made[0], writer.author, Role.FIELD)
    reader.doc.apply(merge_updates([writer.made[0] for writer in writers]))
    reader.read()
    reader.doc.state()


def merge_us(merge: Callable[[Reader, list[Writer]], None], rounds: int = 1_000) -> float:
    """Median microseconds of merging and reading the five updates."""
    state, writers = concurrent_writers()
    taken = []
    for _ in range(rounds):
        reader = Reader(state)
        started = time.process_time()
        merge(reader, writers)
        taken.append(time.process_time() - started)
        assert reader.seen is not None
        assert len(reader.seen.conflicts) == 1, "the title that all five wrote"
    return round(statistics.median(taken) * 1e6, 1)


def size_after(edits: int, devices: int) -> int:
    """Bytes of the document of a record when all have everything."""
    chance = Random(devices)
    writers = [Writer(number) for number in range(devices)]
    writers[0].create(dict.fromkeys(FIELDS, "value"))
    exchange(writers)
    for number in range(edits):
        values = {FIELDS[number % len(FIELDS)]: f"value {number}"}
        chance.choice(writers).change(values, START_MS + 700 * number)
        if number % EXCHANGE_EVERY == EXCHANGE_EVERY - 1:
            exchange(writers)
    exchange(writers)
    assert len({writer.doc.content_hash() for writer in writers}) == 1
    return len(writers[0].doc.state())


def exchange(writers: list[Writer]) -> None:
    """Everybody gets what the others have made."""
    for to in writers:
        others = [update for writer in writers if writer is not to for update in writer.made]
        if others:
            to.doc.apply(merge_updates(others))
    for writer in writers:
        writer.made.clear()


async def run(edits: int = 10_000) -> dict[str, Any]:
    """Figures: `merge_five_us`, with a reading after each `merge_read_five_us`, in one batch
    `merge_five_batch_us`; `bytes_5_devices`, `bytes_50_devices`.
    """
    return {
        "merge_five_us": merge_us(one_by_one),
        "merge_read_five_us": merge_us(partial(one_by_one, read_each=True)),
        "merge_five_batch_us": merge_us(in_one_batch),
        "bytes_5_devices": size_after(edits, 5),
        "bytes_50_devices": size_after(edits, 50),
    }
