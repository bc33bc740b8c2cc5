"""`receive`: what an engine spends on receiving, without network and disk: CPU time, stores in memory.

A joined device receives what the office wrote: single edits of one field, a batch of 100 such edits of
100 records, and 1,000 new work orders of 20 fields in one batch. Signatures are verified; what one takes
is also measured by itself, because nothing in the engine can make it faster.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness import sample_work_order, work_order_schema
from crdt_sync.crypto.envelope import Kind, parse
from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import RecordId, RelayId, SpaceId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.roles import Role
from crdt_sync_client.engine import Engine
from crdt_sync_client.engine.model import CreateOp, Operation, UpdateOp, WriteResult
from crdt_sync_client.store.connection import Database

START_MS = 1_750_000_000_000
BATCH = 100
OPEN_RECORDS = 100
"""Well within the documents that an engine keeps open."""
ROUNDS = 20
FRESH_STORES = 5

Rows = list[tuple[int, int, bytes]]


class Office:
    """An engine that writes, and a log of rows as the relay would deliver them."""

    def __init__(self) -> None:
        self._now_ms = itertools.count(START_MS)
        self.engine = new_engine("office", self.clock)
        self.space, genesis = self.engine.begin_space("bench", "ws://localhost:1", [work_order_schema()])
        self.members = [genesis]
        self.engine.confirm_space(self.space)
        self.head = 0
        self.before = self.push()

    def clock(self) -> int:
        return next(self._now_ms)

    def write(self, ops: Sequence[Operation]) -> list[RecordId]:
        ids = []
        for result in self.engine.write(ops):
            if isinstance(result, CrdtSyncError):
                raise result
            assert isinstance(result, WriteResult)
            ids.append(result.id)
        return ids

    def push(self) -> Rows:
        """Everything written and not yet sent, acknowledged at once."""
        start = self.engine.session_start(self.space)
        self.engine.welcome(self.space, RelayId(bytes(16)), 0, bytes(32), self.head)
        rows: Rows = []
        while sealed := self.engine.next_push(self.space, max_count=5_000, max_bytes=100_000_000):
            for raw in sealed:
                self.head += 1
                rows.append((self.head, Kind.UPDATE, raw))
            last = parse(sealed[-1], max_bytes=MAX_ENVELOPE_BYTES).header
            self.engine.acked(self.space, start.incarnation, last.sequence)
        return rows

    def joined(self, name: str) -> Engine:
        """Another engine in the space that has nothing but the record type."""
        entry, link = self.engine.make_invite(self.space, Role.FIELD, START_MS * 2)
        self.engine.apply_membership(self.space, entry)
        self.members.append(entry)
        engine = new_engine(name, self.clock)
        entry = engine.join_from_log(link, self.members, self.clock())
        engine.confirm_join(self.space)
        self.engine.apply_membership(self.space, entry)
        self.members.append(entry)
        receive(engine, self.space, self.before)
        return engine


def new_engine(name: str, clock: Callable[[], int]) -> Engine:
    """An engine on an empty store in memory; the same name always gives the same keys."""
    numbers = itertools.count()

    def entropy(size: int) -> bytes:
        return hashlib.shake_256(f"{name}/{next(numbers)}".encode()).digest(size)

    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256)
    return Engine.create(Database(connection), name=name, clock=clock, entropy=entropy)


def receive(engine: Engine, space: SpaceId, rows: Rows) -> float:
    """CPU seconds (of all threads) of one `Engine.receive`."""
    started = time.process_time()
    received = engine.receive(space, rows, rows[-1][0])
    spent = time.process_time() - started
    assert received.envelopes == len(rows), "not every row was an envelope"
    assert not received.quarantined, "an envelope was not merged"
    return spent


def verify(office: Office, rows: Rows) -> float:
    """CPU seconds of checking one envelope's signature, the median of all."""
    key = office.engine._replica.keys.sign_public
    spent = []
    for _, _, raw in rows:
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        started = time.process_time()
        envelope.verify(key)
        spent.append(time.process_time() - started)
    return statistics.median(spent)


async def run(records: int = 1_000) -> dict[str, Any]:
    """Figures, medians of CPU time with the signatures, of which one takes `verify_one_us`.

    `receive_one_us`: one edit of a record that is open in memory. `receive_100_ms`: 100 such in a batch, and
    with records that are not open `receive_100_stored_ms`. `receive_initial_ms`: all records at once.
    """
    office = Office()
    ids = office.write([CreateOp("work_order", sample_work_order(number)) for number in range(records)])
    created = office.push()
    tablets = [office.joined(f"tablet-{number}") for number in range(FRESH_STORES)]
    initial = [receive(tablet, office.space, created) for tablet in tablets]
    tablet = tablets[0]

    def batch(chosen: Sequence[RecordId], reading: int) -> Rows:
        office.write([UpdateOp("work_order", id, {"meter_reading": reading}) for id in chosen])
        return office.push()

    # Over all the records in turn, so that those of a batch have always been closed again.
    stored = [
        receive(tablet, office.space, batch(ids[first : first + BATCH], number))
        for number in range(2)
        for first in range(0, records, BATCH)
    ]
    opened = [
        receive(tablet, office.space, batch(ids[:OPEN_RECORDS], 100 + number)) for number in range(ROUNDS)
    ]
    edits = [batch([id], 200 + number) for number in range(ROUNDS) for id in ids[:OPEN_RECORDS]]
    verified = verify(office, [row for rows in edits for row in rows])
    one = [receive(tablet, office.space, rows) for rows in edits]
    return {
        "receive_one_us": round(statistics.median(one) * 1e6, 1),
        "verify_one_us": round(verified * 1e6, 1),
        "receive_100_ms": round(statistics.median(opened) * 1e3, 2),
        "receive_100_stored_ms": round(statistics.median(stored) * 1e3, 2),
        "receive_initial_ms": round(statistics.median(initial) * 1e3, 1),
    }
