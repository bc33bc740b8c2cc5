"""Snapshots: what they may prune, and that no reader ever misses anything because of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.envelope import Envelope, parse
from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.frames import Append, Appended, Bye, Push, PushSnapshot, RowKind, Welcome
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.roles import Role
from crdt_sync_server.effects import Grown, Peer
from crdt_sync_server.live import LiveLog
from tests.server.engine_kit import NONCE, Relay
from tests.server.relay_kit import TestDevice, TestSpace, invite_hello, record

R1, R2 = record(1), record(2)


class Pair:
    """Two writers and a third device that reads."""

    def __init__(self, engine: Relay) -> None:
        self.engine = engine
        self.space = TestSpace(1)
        self.a, self.b, self.c = self.space.founder, self.space.member(), self.space.member()
        engine.create(self.space)
        self.peer_a, self.peer_b = engine.connect(self.a), engine.connect(self.b)
        self.reader = engine.connect(self.c)
        self.base = len(self.space.entries)

    def push(self, device: TestDevice, of: OpaqueId) -> bytes:
        raw = device.update(of)
        peer = self.peer_a if device is self.a else self.peer_b
        assert len(self.engine.push(peer, raw)) == 1
        return raw

    def log(self) -> list[bytes]:
        return self.engine.payloads(self.reader, self.base)


@pytest.fixture
def pair(engine: Relay) -> Pair:
    return Pair(engine)


def parsed(raw: bytes) -> Envelope:
    return parse(raw, max_bytes=MAX_ENVELOPE_BYTES)


def test_a_snapshot_takes_the_place_of_exactly_what_it_covers(pair: Pair) -> None:
    a1, other, b1 = pair.push(pair.a, R1), pair.push(pair.a, R2), pair.push(pair.b, R1)
    later = pair.push(pair.b, R1)
    snapshot = pair.a.snapshot(R1, [a1, b1])
    assert pair.engine.snapshot(pair.peer_a, snapshot) == "stored"
    assert pair.log() == [other, snapshot, later]
    kinds = [row.kind for row in pair.engine.rows(pair.reader, pair.base)]
    assert kinds == [RowKind.UPDATE, RowKind.SNAPSHOT, RowKind.UPDATE]


def test_it_survives_a_restart(pair: Pair) -> None:
    snapshot = pair.a.snapshot(R1, [pair.push(pair.a, R1), pair.push(pair.b, R1)])
    pair.engine.snapshot(pair.peer_a, snapshot)
    pair.engine.restart()
    assert pair.engine.payloads(pair.engine.connect(pair.c), pair.base) == [snapshot]


def test_the_one_before_is_kept_and_the_one_before_that_goes(pair: Pair) -> None:
    updates, snapshots = [], []
    for _ in range(3):
        updates.append(pair.push(pair.a, R1))
        snapshots.append(pair.a.snapshot(R1, updates))
        assert pair.engine.snapshot(pair.peer_a, snapshots[-1]) == "stored"
    assert pair.log() == [snapshots[-1]]
    found = pair.engine.storage.find_space(pair.space.id)
    assert found is not None
    superseded = pair.engine.storage.superseded(found, R1)
    assert superseded is not None
    assert superseded.envelope == snapshots[-2]
    assert snapshots[0] not in str(pair.engine.dump()).encode()


def test_pushing_a_pruned_update_again_is_harmless(pair: Pair) -> None:
    updates = [pair.push(pair.a, R1) for _ in range(3)]
    pair.engine.snapshot(pair.peer_a, pair.a.snapshot(R1, updates))
    before = pair.engine.dump()
    assert len(pair.engine.push(pair.peer_a, *updates)) == 1
    assert pair.engine.dump() == before


def test_what_was_not_merged_stays(pair: Pair) -> None:
    a1, b1, a2 = pair.push(pair.a, R1), pair.push(pair.b, R1), pair.push(pair.a, R1)
    snapshot = pair.a.snapshot(R1, [a2, b1], unmerged=[a1])
    assert pair.engine.snapshot(pair.peer_a, snapshot) == "stored"
    assert pair.log() == [a1, snapshot]
    merged = pair.a.snapshot(R1, [a2, b1])
    assert pair.engine.snapshot(pair.peer_a, merged) == "stored"
    assert pair.log() == [merged]


def test_nobody_meets_a_snapshot_before_the_entry_that_made_its_author_a_member(pair: Pair) -> None:
    a1, b1 = pair.push(pair.a, R1), pair.push(pair.b, R1)
    behind = pair.engine.engine.read(pair.reader, 0, max_rows=pair.base, max_bytes=2**20).cursor
    invite, secret = pair.space.invite(Role.FIELD)
    joined, newcomer = pair.space.join(secret)
    pair.engine.answer(pair.peer_a, Append(invite), Appended)
    guest = Peer(NONCE)
    pair.engine.answer(
        guest, invite_hello(pair.space.id, secret, NONCE, pair.engine.engine.relay_id), Welcome
    )
    pair.engine.answer(guest, Append(joined), Appended)

    snapshot = newcomer.snapshot(R1, [a1, b1])
    effects = pair.engine.do((pair.engine.connect(newcomer), PushSnapshot(snapshot)))
    (grown,) = [effect for effect in effects if isinstance(effect, Grown)]
    assert [live.row.payload for live in grown.rows] == [snapshot]
    rows = pair.engine.rows(pair.reader, behind)
    assert [row.kind for row in rows] == [RowKind.MEMBERSHIP, RowKind.MEMBERSHIP, RowKind.SNAPSHOT]
    assert rows[-1].payload == snapshot
    # The next one, by someone who saw no newer entry than that, takes the place of what it covers.
    later = pair.push(pair.b, R1)
    assert pair.engine.snapshot(pair.peer_a, pair.a.snapshot(R1, [a1, later])) == "stored"
    assert len(pair.engine.rows(pair.reader, behind)) == 3


def test_a_snapshot_made_after_entries_that_the_relay_does_not_have_is_refused(pair: Pair) -> None:
    a1 = pair.push(pair.a, R1)
    pair.space.invite(Role.FIELD)  # never appended at the relay
    refused(pair, pair.a.snapshot(R1, [a1]), "mismatch")


def refused(pair: Pair, snapshot: bytes, code: str) -> None:
    """The snapshot is refused with the code, and nothing has changed."""
    before = pair.engine.dump()
    assert pair.engine.snapshot(pair.peer_a, snapshot) == code
    assert pair.engine.dump() == before


def test_a_snapshot_that_passes_over_an_update_is_refused(pair: Pair) -> None:
    pair.push(pair.b, R1)
    refused(pair, pair.a.snapshot(R1, [pair.push(pair.a, R1)]), "mismatch")


def test_a_snapshot_that_names_a_wrong_hash_is_refused(pair: Pair) -> None:
    a1, b1 = pair.push(pair.a, R1), pair.push(pair.b, R1)
    cover = {
        pair.a.author: ChainHead(1, parsed(a1).hash),
        pair.b.author: ChainHead(1, parsed(a1).hash),
    }
    refused(pair, pair.a.snapshot_of(R1, CoverVector(cover)), "mismatch")
    good = cover | {pair.b.author: ChainHead(1, parsed(b1).hash)}
    assert pair.engine.snapshot(pair.peer_a, pair.a.snapshot_of(R1, CoverVector(good))) == "stored"


def test_a_snapshot_that_names_an_update_of_another_record_is_refused(pair: Pair) -> None:
    a1, elsewhere = pair.push(pair.a, R1), pair.push(pair.a, R2)
    refused(pair, pair.a.snapshot(R1, [a1, elsewhere]), "mismatch")


def test_a_snapshot_that_names_an_update_that_does_not_exist_is_refused(pair: Pair) -> None:
    a1 = pair.push(pair.a, R1)
    unsent = TestDevice(pair.space, pair.b.keys, incarnation=9).update(R1)
    refused(pair, pair.a.snapshot(R1, [a1, unsent]), "mismatch")
    refused(pair, pair.a.snapshot(R1, [a1], unmerged=[unsent]), "mismatch")


def test_a_snapshot_that_covers_less_than_the_current_one_is_refused(pair: Pair) -> None:
    a1, b1 = pair.push(pair.a, R1), pair.push(pair.b, R1)
    assert pair.engine.snapshot(pair.peer_a, pair.a.snapshot(R1, [a1, b1])) == "stored"
    a2 = pair.push(pair.a, R1)
    refused(pair, pair.a.snapshot(R1, [a2]), "mismatch")
    refused(pair, pair.a.snapshot(R1, [a2, b1], unmerged=[a1]), "mismatch")
    assert pair.engine.snapshot(pair.peer_a, pair.a.snapshot(R1, [a2, b1])) == "stored"


def test_a_snapshot_that_covers_nothing_new_is_stale(pair: Pair) -> None:
    a1 = pair.push(pair.a, R1)
    snapshot = pair.a.snapshot(R1, [a1])
    assert pair.engine.snapshot(pair.peer_a, snapshot) == "stored"
    refused(pair, snapshot, "stale")
    refused(pair, pair.a.snapshot(R2, []), "stale")


def test_a_snapshot_with_a_bad_signature_is_refused(pair: Pair) -> None:
    raw = pair.a.snapshot(R1, [pair.push(pair.a, R1)])
    refused(pair, raw[:-1] + bytes([raw[-1] ^ 1]), "bad_signature")


def test_a_cover_that_cannot_be_read_closes(pair: Pair) -> None:
    class Garbage(CoverVector):
        def encode(self) -> bytes:
            return b"\x92\x90"

    before = pair.engine.dump()
    raw = pair.a.snapshot_of(R1, Garbage({}))
    assert pair.engine.answer(pair.peer_a, PushSnapshot(raw), Bye).error == "malformed_envelope"
    assert pair.engine.dump() == before


# A reader never misses anything


@dataclass
class Reader:
    """What a device knows after what was delivered to it: updates, and what snapshots say they hold."""

    device: TestDevice
    peer: Peer
    cursor: int = 0
    live: bool = False
    known: set[bytes] = field(default_factory=set)


class World:
    """An engine, three writers, and readers that stop and go on anywhere, from the ring or the database."""

    def __init__(self, path: Path) -> None:
        self.engine = Relay(path)
        self.engine.db.execute("PRAGMA synchronous = OFF")
        self.space = TestSpace(1)
        self.writers = [self.space.founder, self.space.member(), self.space.member()]
        readers = [self.space.member(), self.space.member()]
        self.engine.create(self.space)
        self.peers = [self.engine.connect(writer) for writer in self.writers]
        self.readers = [Reader(device, self.engine.connect(device)) for device in readers]
        self.live: LiveLog[object] = LiveLog(len(self.space.entries))
        self.log: list[bytes] = []

    def push(self, writer: int, of: int) -> None:
        raw = self.writers[writer].update(record(of))
        effects = self.engine.do((self.peers[writer], Push([raw])))
        for effect in effects:
            if isinstance(effect, Grown):
                self.live.grow(effect.rows)
        self.log.append(raw)

    def snapshot(self, writer: int, of: int, upto: int, skip: int) -> None:
        """By a device that has the log up to some place, and could not merge some of it."""
        seen = [raw for raw in self.log[:upto] if parsed(raw).header.record == record(of)]
        unmerged = seen[-skip:-1] if skip else []
        merged = [raw for raw in seen if raw not in unmerged]
        if merged:
            raw = self.writers[writer].snapshot(record(of), merged, unmerged)
            self.engine.snapshot(self.peers[writer], raw)
            for row in self.engine.replaced:
                self.live.replace(row)

    def read(self, index: int, max_rows: int, live: bool) -> bool:
        reader = self.readers[index]
        if live and reader.cursor >= self.live.start:
            frame = self.live.next_frame(reader.cursor, reader.device.author)
            rows = [live_row.row for live_row in self.live._rows if live_row.row.sequence > reader.cursor]
            self._take(reader, [(row.kind, row.payload) for row in rows if row.sequence <= frame.cursor])
            reader.cursor = frame.cursor
            return reader.cursor == self.live.head
        page = self.engine.engine.read(reader.peer, reader.cursor, max_rows=max_rows, max_bytes=10**9)
        self._take(reader, [(row.kind, row.payload) for row in page.rows])
        reader.cursor = page.cursor
        return page.at_end

    def _take(self, reader: Reader, rows: list[tuple[RowKind, bytes]]) -> None:
        for kind, payload in rows:
            if kind is RowKind.UPDATE:
                reader.known.add(payload)
            elif kind is RowKind.SNAPSHOT:
                snapshot = parsed(payload)
                cover = snapshot.cover()
                reader.known.update(
                    raw
                    for raw in self.log
                    if (header := parsed(raw).header).record == snapshot.header.record
                    and cover.covers(header.author, header.sequence)
                )


PUSH = st.tuples(st.just("push"), st.integers(0, 2), st.integers(1, 2))
SNAPSHOT = st.tuples(
    st.just("snapshot"), st.integers(0, 2), st.integers(1, 2), st.integers(1, 60), st.integers(0, 3)
)
READ = st.tuples(st.just("read"), st.integers(0, 1), st.integers(1, 4), st.booleans())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(PUSH, PUSH, SNAPSHOT, READ), max_size=60))
def test_readers_miss_nothing_however_the_log_is_pruned_underneath_them(
    steps: list[tuple[object, ...]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory) / "relay.sqlite3")
        for step in steps:
            getattr(world, str(step[0]))(*step[1:])
        for index, reader in enumerate(world.readers):
            while not world.read(index, 3, False):
                pass
            assert reader.known == set(world.log)
        world.engine.close()
