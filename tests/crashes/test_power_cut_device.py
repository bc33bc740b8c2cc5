"""Power goes at every single write of a device's short run: nothing acknowledged is lost, the store opens.

The engine runs on a simulated disk below SQLite that keeps a random part of what was not synced, as real
disks do. SQLCipher encrypts pages above that, so it changes nothing in what is written when.
"""

from __future__ import annotations

import copy
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from crdt_sync.ids import RecordId, SpaceId
from crdt_sync.records.changes import Increment
from crdt_sync_client.engine import Engine
from crdt_sync_client.engine.model import CreateOp, Transaction, UpdateOp
from crdt_sync_client.store.connection import Database
from crdt_sync_sim.storage import DiskStorage
from tests.client.engine_world import START_MS, Peer, Relay, World, seeded
from tests.crashes.cut_disk import CutDisk, cut_storage, power_back

Image = dict[str, bytes]


# Connections that go while the disk is without power fail again when they close; nobody is there to tell.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Site:
    """What a peer asks of its world."""

    def __init__(self, relay: Relay, space: SpaceId, seed: str) -> None:
        self.relay = relay
        self.space = space
        self.seed = seed
        self._now_ms = itertools.count(START_MS + 1_000_000)

    def clock(self) -> int:
        return next(self._now_ms)


class DiskPeer(Peer):
    """A device whose store is on a simulated disk."""

    def __init__(self, site: Site, name: str, storage: DiskStorage) -> None:
        world: Any = site  # it has all of a world that is used here
        self.world = world
        self.name = name
        self.storage = storage
        self.entropy = seeded(f"{site.seed}/{name}")
        self._open()
        self.greeted = self.engine.author

    def _open(self) -> None:
        db = Database(self.storage.connect())
        self.engine = Engine.open(db, clock=self.world.clock, entropy=self.entropy)


class Base:
    """An office and a tablet in one space, as images, and the relay's log."""

    def __init__(self, directory: Path) -> None:
        world = World(directory)
        tablet = world.join("tablet")
        self.known = world.office.create({"title": "Known", "hours": 1})
        world.settle()
        self.relay, self.space = world.relay, world.space
        self.images = {peer.name: image_of(peer) for peer in (world.office, tablet)}
        world.close()

    def peers(self, seed: int) -> tuple[DiskPeer, CutDisk, DiskPeer]:
        """The tablet, its disk, and the office."""
        site = Site(copy.deepcopy(self.relay), self.space, f"cut {seed}")
        storage, disk = cut_storage(seed, self.images["tablet"])
        office = DiskPeer(site, "office", cut_storage(seed, self.images["office"])[0])
        return DiskPeer(site, "tablet", storage), disk, office


def image_of(peer: Peer) -> Image:
    """The store as a plain database: a copy row by row, in the order of its making."""
    storage, _ = cut_storage(0)
    target = storage.connect()
    source = peer.engine._replica.db
    peer.engine._replica.save_clock()
    for (sql,) in source.rows("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"):
        target.execute(sql)
    for (name,) in source.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
        for row in source.rows(f"SELECT * FROM {name}"):
            target.execute(f"INSERT OR REPLACE INTO {name} VALUES ({','.join('?' * len(row))})", row)
    for pragma in ("application_id", "user_version"):
        target.execute(f"PRAGMA {pragma}={source.value(f'PRAGMA {pragma}')}")
    target.execute("UPDATE meta SET value = 1 WHERE name = 'clean'")
    target.close()
    image = storage.image()
    storage.discard()
    return image


class Run:
    """What the app does, and what it was told is done."""

    def __init__(self, tablet: DiskPeer, known: RecordId) -> None:
        self.tablet = tablet
        self.known = known
        self.promised: dict[RecordId, dict[str, Any]] = {}
        self.tried: tuple[RecordId, dict[str, Any]] = (known, {})
        """The last change, which may be there though the app was not told so."""
        self.hours_tried = self.hours_done = 0
        self.ended = False

    def live(self) -> None:
        self.create("first", title="First")
        self.create("second", title="Second", count=1)
        self.change("first", status="busy")
        self.count_up()
        self.send()
        self.together()
        self.change("second", count=2)
        self.tablet.sync()
        self.count_up()
        self.create("third", title="Third")
        self.send()
        self.tablet.engine.close()
        self.ended = True

    def id(self, name: str) -> RecordId:
        return RecordId(f"00000000-0000-4000-8000-{name.encode().hex():0>12}"[:36])

    def create(self, name: str, **values: Any) -> None:
        self.tablet.write(CreateOp("job", values, self.id(name)))
        self.promised[self.id(name)] = values

    def change(self, name: str, **values: Any) -> None:
        self.tried = (self.id(name), values)
        self.tablet.set(self.id(name), **values)
        self.promised[self.id(name)].update(values)

    def count_up(self) -> None:
        self.hours_tried += 1
        self.tablet.set(self.known, hours=Increment(1))
        self.hours_done += 1

    def together(self) -> None:
        first, second = self.id("first"), self.id("second")
        ops = (
            UpdateOp("job", first, {"notes": "together"}),
            UpdateOp("job", second, {"notes": "together"}),
        )
        (result,) = self.tablet.engine.write([Transaction(ops)])
        if isinstance(result, Exception):
            raise result
        for id in (first, second):
            self.promised[id]["notes"] = "together"

    def send(self) -> None:
        self.tablet.connect()
        self.tablet.push()

    def check(self, peer: Peer) -> None:
        for id, values in self.promised.items():
            has = {name: peer.values(id).get(name) for name in values}
            tried = self.tried[1] if id == self.tried[0] else {}
            assert has in (values, {**values, **tried})
        hours = peer.values(self.known)["hours"] - 1
        assert self.hours_done <= hours <= self.hours_tried


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(tmp_path_factory.mktemp("base"))


def cut(base: Base, at: int) -> Run:
    """One run with the power gone at that write; `ended` when it needed fewer."""
    tablet, disk, office = base.peers(at)
    run = Run(tablet, base.known)
    disk.cut_at = disk.done + at
    with suppress(apsw.Error):
        run.live()
    power_back(tablet.storage, disk)
    tablet._open()
    run.check(tablet)
    for peer in (tablet, office, tablet, office):
        peer.sync()
    run.check(office)
    assert not tablet.engine.outbox()
    everything = [
        [(r.id, r.values, peer.engine.content_hash("job", r.id)) for r in peer.engine.query("job")]
        for peer in (tablet, office)
    ]
    assert sorted(everything[0], key=str) == sorted(everything[1], key=str)
    assert len(everything[0]) <= 4
    for peer in (tablet, office):
        peer.storage.discard()
    return run


@pytest.mark.parametrize("part", range(4))
def test_nothing_acknowledged_is_lost_wherever_the_power_goes(base: Base, part: int) -> None:
    """In four parts, so that they share the cores."""
    cuts = 0
    while not cut(base, part + 4 * cuts).ended:
        cuts += 1
    assert cuts >= 20, "a run has far more writes than that: are they counted?"
