"""Power goes at every single write of a relay's short run: what it acknowledged is in its log afterwards."""

from __future__ import annotations

import gc
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

import apsw
import pytest

from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Appended,
    Create,
    FromDevice,
    Push,
    PushSnapshot,
    SnapshotResult,
)
from crdt_sync.roles import Role
from crdt_sync_server.effects import Close, Effect, Peer
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.storage import sqlite_file
from crdt_sync_server.storage.sqlite import SqliteStorage
from crdt_sync_sim.relay_node import NEW_DATABASE
from crdt_sync_sim.storage import DiskStorage
from tests.crashes.cut_disk import PowerGone, cut_storage, power_back
from tests.server.engine_kit import NONCE, TOKEN, Relay
from tests.server.relay_kit import TestSpace, record

# Connections that go while the disk is without power fail again when they close; nobody is there to tell.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def gone_with_the_test() -> Iterator[None]:
    """They fail here, not in whatever test comes next."""
    yield
    gc.collect()


class DiskRelay(Relay):
    """The relay's engine with its database on a simulated disk."""

    def __init__(self, storage: DiskStorage) -> None:
        self.disk_storage = storage
        self.now_ms = 1_000
        self._open()

    def _open(self) -> None:
        # Ours has of a sqlite3 connection what the adapter uses.
        self.db = cast(sqlite3.Connection, self.disk_storage.connect())
        self.db.execute("BEGIN EXCLUSIVE")
        sqlite_file.prepare(self.db, os.urandom)
        self.db.execute("COMMIT")
        self.storage = SqliteStorage(self.db)
        self.engine = RelayEngine(self.storage, token_is_right=lambda token: token == TOKEN)

    def do(self, *arrivals: tuple[Peer, FromDevice | None]) -> list[Effect]:
        """As ever, but a relay without power does not say that something went wrong."""
        effects = super().do(*arrivals)
        if any(isinstance(effect, Close) for effect in effects):
            raise PowerGone("the relay ended the connection")
        return effects


class Run:
    """What two devices do at the relay, and what it told them that it has."""

    def __init__(self, relay: DiskRelay) -> None:
        self.relay = relay
        self.space = TestSpace(1)
        self.other = self.space.member(Role.FIELD)
        self.updates: list[bytes] = []
        self.entries = 0
        self.snapshot = b""
        self.covered: list[bytes] = []
        self.snapshot_stored = False
        self.ended = False

    def live(self) -> None:
        relay, space = self.relay, self.space
        relay.answer(Peer(NONCE), Create(1, space.entries[0], TOKEN, "test"), Appended)
        self.entries = 1
        founder = relay.connect(space.founder)
        for entry in space.entries[1:]:
            relay.answer(founder, Append(entry), Appended)
            self.entries += 1
        other = relay.connect(self.other)
        for round in range(5):
            for peer, device in ((founder, space.founder), (other, self.other)):
                sent = [device.update(record(n), f"{round} {n}".encode() * 40) for n in range(3)]
                relay.answer(peer, Push(sent), Ack)
                self.updates += sent
        # What one device wrote alone, its snapshot stands for at once.
        alone = [self.other.update(record(7), f"alone {n}".encode() * 40) for n in range(5)]
        relay.answer(other, Push(alone), Ack)
        self.updates += alone
        self.covered = alone
        self.snapshot = self.other.snapshot(record(7), alone)
        assert relay.answer(other, PushSnapshot(self.snapshot), SnapshotResult).code == "stored"
        self.snapshot_stored = True
        relay.answer(founder, Push([space.founder.update(record(0), b"after")]), Ack)
        self.ended = True

    def check(self) -> None:
        """The log holds all of it, once; members may come in and read it."""
        relay = self.relay
        if not self.entries:
            return
        key = relay.storage.find_space(self.space.id)
        assert key is not None
        entries = relay.storage.membership(key)
        assert entries == self.space.entries[: len(entries)]
        assert len(entries) >= self.entries
        payloads = [payload for (payload,) in relay.db.execute("SELECT payload FROM log")]
        kept = set(payloads)
        assert len(payloads) == len(kept)
        relay.rows(relay.connect(self.space.founder))
        covered = set(self.covered) if self.snapshot in kept else set()
        for update in self.updates:
            assert update in kept or update in covered
        assert self.snapshot in kept or not self.snapshot_stored


def cut(at: int) -> bool:
    """One run with the power gone at that write; False when it needed fewer."""
    storage, disk = cut_storage(at, before_wal=NEW_DATABASE)
    run = None
    disk.cut_at = at
    with suppress(apsw.Error):
        run = Run(DiskRelay(storage))
        run.live()
    power_back(storage, disk)
    if run is None:
        DiskRelay(storage)  # nobody was told of anything; it starts
    else:
        run.relay._open()
        run.check()
    storage.discard()
    return run is None or not run.ended


@pytest.mark.parametrize("part", range(2))
def test_nothing_acknowledged_is_lost_wherever_the_power_goes(part: int) -> None:
    cuts = 0
    while cut(part + 2 * cuts):
        cuts += 1
    assert cuts >= 20
