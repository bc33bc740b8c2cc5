"""A few engines on real stores, and between them the least relay there can be: a log in a list.

The log behaves as the real relay's: one order, own updates not echoed, duplicates acknowledged again,
snapshots accepted only for what they cover exactly and pruning only that.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crdt_sync.crypto.envelope import Envelope, Kind, parse
from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import Author, Incarnation, OpaqueId, RecordId, RelayId, SpaceId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine import Engine
from crdt_sync_client.engine.fetched import FetchedRecord
from crdt_sync_client.engine.model import CreateOp, Operation, Received, Record, UpdateOp, WriteResult
from crdt_sync_client.store.connection import Database

START_MS = 1_750_000_000_000

JOB = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Job
x-type: job
x-version: 1
type: object
required: [title]
properties:
  title: {type: string}
  status: {type: string, enum: [open, busy, done], default: open, x-merge: register}
  notes: {type: string, x-merge: manual}
  hours: {type: number, x-merge: counter}
  tags: {type: array, items: {type: string}, uniqueItems: true, x-merge: set}
  photo: {type: string, contentEncoding: base64}
  count: {type: integer}
  parts:
    type: object
    x-merge: rows
    additionalProperties: {type: object, properties: {qty: {type: number}, label: {type: string}}}
"""
SITE = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Site
x-type: site
x-version: 1
x-delete: {rule: delete_wins}
type: object
properties:
  name: {type: string}
"""


def seeded(seed: str) -> Callable[[int], bytes]:
    """Entropy that is the same in every run."""
    counter = itertools.count()
    return lambda size: hashlib.shake_256(f"{seed}/{next(counter)}".encode()).digest(size)


class Relay:
    """The log of one space."""

    def __init__(self) -> None:
        self.id = RelayId(hashlib.sha256(b"relay").digest()[:16])
        self.rows: list[tuple[int, int, bytes, Author | None, OpaqueId | None, int]] = []
        self.head = 0
        self.chains: dict[Author, tuple[int, bytes]] = {}
        self.stored: dict[tuple[Author, int], bytes] = {}

    def _add(self, kind: int, raw: bytes, author: Author | None, record: OpaqueId | None, upto: int) -> int:
        self.head += 1
        self.rows.append((self.head, kind, raw, author, record, upto or self.head))
        return self.head

    def append(self, entry: bytes) -> None:
        self._add(Kind.MEMBERSHIP, entry, None, None, 0)

    def push(self, raw: bytes) -> bool:
        """False for an update whose place is taken by another."""
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        header = envelope.header
        sequence, _ = self.chains.get(header.author, (0, b""))
        if header.sequence <= sequence:
            return self.stored[(header.author, header.sequence)] == envelope.hash
        assert header.sequence == sequence + 1
        self.chains[header.author] = (header.sequence, envelope.hash)
        self.stored[(header.author, header.sequence)] = envelope.hash
        self._add(Kind.UPDATE, raw, header.author, header.record, 0)
        return True

    def push_snapshot(self, raw: bytes, *, given_back: bool = False) -> None:
        """Refuses (by assertion) what does not match the log; prunes exactly what is covered.

        One that is `given_back` is for everyone, whatever they have received.
        """
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        cover, record = envelope.cover(), envelope.header.record
        for author, head in cover.covered.items():
            assert self.stored[(author, head.sequence)] == head.hash
        kept, upto = [], 0
        for row in self.rows:
            _, kind, old, _, of, row_upto = row
            covered = False
            if of == record and kind == Kind.UPDATE:
                by = parse(old, max_bytes=MAX_ENVELOPE_BYTES).header
                covered = cover.covers(by.author, by.sequence)
            elif of == record and kind == Kind.SNAPSHOT:
                earlier = parse(old, max_bytes=MAX_ENVELOPE_BYTES).cover()
                covered = cover.lacks(earlier) is None
                assert covered
            if covered:
                upto = max(upto, row_upto)
            else:
                kept.append(row)
        self.rows = kept
        self._add(Kind.SNAPSHOT, raw, None, record, 0 if given_back else upto)

    def after(self, cursor: int, reader: Author) -> list[tuple[int, int, bytes]]:
        return [
            (seq, kind, raw)
            for seq, kind, raw, author, _, upto in self.rows
            if seq > cursor and author != reader and (kind != Kind.SNAPSHOT or cursor < upto)
        ]

    def of(self, record: OpaqueId) -> list[tuple[int, int, bytes]]:
        """All rows of one record, as `FetchRecords` gives them."""
        return [(seq, kind, raw) for seq, kind, raw, _, of, _ in self.rows if of == record]

    def updates(self) -> list[Envelope]:
        return [
            parse(raw, max_bytes=MAX_ENVELOPE_BYTES) for _, kind, raw, *_ in self.rows if kind == Kind.UPDATE
        ]


class Peer:
    """One device: an engine on a store file, and its way to the relay."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.path = world.directory / f"{name}.store"
        self.key = hashlib.sha256(name.encode()).digest()
        self.entropy = seeded(f"{world.seed}/{name}")
        db = Database.create(self.path, self.key, salt=self.entropy(16))
        self.engine = Engine.create(db, name=name, clock=world.clock, entropy=self.entropy)
        self.greeted = self.engine.author
        """As whom it said hello to the relay last."""

    @property
    def space(self) -> SpaceId:
        return self.world.space

    # Lives of the store

    def reopen(self) -> None:
        """A clean end and a new start."""
        self.engine.close()
        self._open()

    def crash(self) -> None:
        """The process dies: the connection is gone, nobody marked the store as closed."""
        self.engine._replica.db.close()
        self._open()

    def _open(self) -> None:
        db = Database.open(self.path, self.key)
        self.engine = Engine.open(db, clock=self.world.clock, entropy=self.entropy)

    # Writing and reading

    def write(self, *ops: Operation) -> list[WriteResult]:
        results = self.engine.write(ops)
        for result in results:
            if isinstance(result, CrdtSyncError):
                raise result
        return [result for result in results if isinstance(result, WriteResult)]

    def create(self, values: Mapping[str, Any], type: str = "job") -> RecordId:
        return self.write(CreateOp(type, values))[0].id

    def set(self, id: RecordId, **changes: Any) -> WriteResult:
        return self.write(UpdateOp("job", id, changes))[0]

    def get(self, id: RecordId, type: str = "job") -> Record:
        record = self.engine.get(type, id)
        assert record is not None
        return record

    def values(self, id: RecordId) -> dict[str, Any]:
        return self.get(id).values

    # Syncing

    def connect(self) -> None:
        """Hello and welcome; again when the engine asks for it."""
        start = self.engine.session_start(self.space)
        own = self.greeted = Author(start.device, start.incarnation)
        sequence, link = self.world.relay.chains.get(own, (0, bytes(32)))
        relay = self.world.relay
        if self.engine.welcome(self.space, relay.id, sequence, link, relay.head).reconnect:
            self.connect()

    def push(self, *, acknowledge: bool = True) -> list[bytes]:
        """Send everything there is; returns it."""
        sent: list[bytes] = []
        while batch := self.engine.next_push(self.space, max_count=50, max_bytes=1_000_000):
            sent += batch
            for raw in batch:
                header = parse(raw, max_bytes=MAX_ENVELOPE_BYTES).header
                if not self.world.relay.push(raw):
                    self.engine.refused(
                        self.space, header.incarnation, header.sequence, "equivocation", "taken"
                    )
                elif acknowledge:
                    self.engine.acked(self.space, Incarnation(header.incarnation), header.sequence)
        return sent

    def pull(self) -> Received:
        relay = self.world.relay
        # A relay leaves out what the author of this connection's hello wrote, whoever writes by now.
        rows = relay.after(self.engine._replica.space(self.space).cursor, self.greeted)
        received = self.engine.receive(self.space, rows, relay.head)
        if received.reconnect:
            self.connect()
        return received

    def sync(self) -> Received:
        self.connect()
        received = self.pull()
        self.push()
        while self.engine.session_over(self.space):
            self.connect()
            self.push()
        return received

    def fetch(self) -> Received:
        """Have everything fetched that is wanted."""
        relay, wanted = self.world.relay, self.engine.wanted(self.space, 999)
        return self.engine.take_fetched(
            self.space, [FetchedRecord(opaque, relay.of(opaque), relay.head) for opaque in wanted]
        )

    def opaque(self, id: RecordId, type: str = "job") -> OpaqueId:
        return self.engine._replica.space(self.space).keys.opaque_id(type, id)

    def give_up(self, *ids: RecordId) -> None:
        """Take these jobs off the device, to be fetched."""
        assert self.engine.give_up(self.space, [self.opaque(id) for id in ids]) == len(ids)

    def compact(self, *ids: RecordId, type: str = "job") -> list[bytes]:
        """Answer the relay's request for snapshots of these records."""
        keys = self.engine._replica.space(self.space).keys
        snapshots = self.engine.make_snapshots(self.space, [keys.opaque_id(type, id) for id in ids])
        for raw in snapshots:
            self.world.relay.push_snapshot(raw)
        return snapshots


class World:
    """A space with its founder, an office device called `office`."""

    def __init__(self, directory: Path, *, schemas: tuple[str, ...] = (JOB, SITE), seed: str = "w") -> None:
        self.directory = directory
        self.seed = seed
        self.now_ms = START_MS
        self.relay = Relay()
        self.peers: list[Peer] = []
        self.office = Peer(self, "office")
        self.peers.append(self.office)
        texts = [load_schema(text, source="test") for text in schemas]
        self.space, genesis = self.office.engine.begin_space("North rig", "ws://localhost:8787", texts)
        self.relay.append(genesis)
        self.office.engine.confirm_space(self.space)
        self.office.sync()

    def clock(self) -> int:
        """A millisecond per look, so that times differ and runs repeat."""
        self.now_ms += 1
        return self.now_ms

    def join(self, name: str, role: Role = Role.FIELD, *, sync: bool = True) -> Peer:
        """A new device, by invite."""
        self.office.sync()
        entry, link = self.office.engine.make_invite(self.space, role, self.now_ms + 86_400_000)
        self.office.engine.apply_membership(self.space, entry)
        self.relay.append(entry)
        peer = Peer(self, name)
        start = peer.engine.begin_join(link)
        assert start.space == self.space
        log = [raw for _, kind, raw, *_ in self.relay.rows if kind == Kind.MEMBERSHIP]
        joined = peer.engine.join_from_log(link, log, self.now_ms)
        self.relay.append(joined)
        peer.engine.confirm_join(self.space)
        self.peers.append(peer)
        if sync:
            peer.sync()
        return peer

    def settle(self) -> None:
        """Sync everyone until nothing moves."""
        for _ in range(3):
            for peer in self.peers:
                peer.sync()

    def assert_converged(self) -> None:
        """Everyone shows the same records, conflicts and content."""
        seen = []
        for peer in self.peers:
            engine = peer.engine
            everything: list[Any] = []
            for type in engine.schemas():
                records = sorted(engine.query(type, deleted=True), key=lambda record: record.id)
                for record in records:
                    digest = engine.content_hash(type, record.id)
                    everything.append((record.id, record.values, record.deleted, record.conflicts, digest))
            everything += sorted(conflict.id for conflict in engine.conflicts())
            seen.append(everything)
        assert all(one == seen[0] for one in seen[1:])

    def close(self) -> None:
        for peer in self.peers:
            peer.engine.close()


__all__ = ["JOB", "SITE", "Peer", "Relay", "World", "seeded"]
