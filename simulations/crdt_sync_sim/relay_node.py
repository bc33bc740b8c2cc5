"""The relay as a node: the product's engine, switchboard, deliveries and storage, on virtual time.

What `crdt_sync_server.hub` and `connection` do with tasks, sockets and a thread is done here with events:
frames wait for the next commit, there is one commit at a time, its effects are spread a moment later, pages
of the log take their time to be read. In each of those moments anything else may happen. A crash between a
commit and the spreading of its effects loses every acknowledgement but nothing that was committed.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import apsw

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import DeviceId, SpaceId
from crdt_sync.protocol.frames import Ack, Bye, CheckedOut, Push, Refuse, RowKind, encode
from crdt_sync.protocol.limits import HANDSHAKE_TIMEOUT_S
from crdt_sync_server.compaction import NEVER_MS
from crdt_sync_server.delivery import ReadPage
from crdt_sync_server.effects import Close, Effect, Peer, Send
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.storage import sqlite_file
from crdt_sync_server.storage.port import Page
from crdt_sync_server.storage.sqlite import SqliteStorage
from crdt_sync_server.switchboard import Switchboard, Waiting
from crdt_sync_sim.lease_ledger import LeaseLedger
from crdt_sync_sim.network import Endpoint, Network
from crdt_sync_sim.node import Node
from crdt_sync_sim.poison import Refusing
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.storage import Connection, Storage
from crdt_sync_sim.world import Timer, World, seconds

COMMIT_US: Final = (300, 3_000)
"""How long frames wait for a commit: an fsync on flash."""
SPREAD_US: Final = (0, 500)
"""How long what the database's thread has done takes to be known to the others."""
READ_US: Final = (50, 1_000)
"""How long a page of the log waits for the database's thread."""
TICK_US: Final = seconds(0.5)
BUSY_US: Final = seconds(10)
QUIET_TICK_US: Final = seconds(30)
"""After `BUSY_US` without a frame, ticks come this far apart: only long time-outs can be due then, and a
simulated week would be a million ticks. A clock that jumps is noticed as late."""
NEW_DATABASE: Final = ("PRAGMA page_size=2048", "PRAGMA auto_vacuum=INCREMENTAL")
"""As in `crdt_sync_server.storage.sqlite.connect_storage`."""
DISK_FAULTS: Final = (apsw.FullError, apsw.IOError)
"""What a disk does to a relay that starts. All else that it raises ends the run."""
KEPT_PUSHES: Final = 6
MAX_RETRY_START_US: Final = seconds(5)


class Link:
    """One connection's socket: what came and is not read yet, and the end to send to."""

    def __init__(self, relay: RelayNode, end: Endpoint) -> None:
        self.end = end
        self.unread: deque[bytes] = deque()
        self.delivery = relay.switchboard.opened(lambda: relay.woken(self))

    @property
    def node(self) -> str:
        return self.end.peer


class RelayNode(Node):
    """See the module. Anyone may create a space on it."""

    def __init__(self, world: World, network: Network, storage: Storage) -> None:
        super().__init__(RELAY, world, network, storage)
        self.engine: RelayEngine
        self.log_storage: SqliteStorage
        self.taken: dict[str, list[Push]] = {}
        """Pushes that were acknowledged whole, a few per device, to be sent again at the end."""
        self.shut_out: set[DeviceId] = set()
        """Devices that the operator has shut out, as the relay's database has it."""
        self.opened = False
        """Whether its database is open."""
        self.peak_waiting = 0
        self.commits = 0
        self.refusing = Refusing()
        self.leases = LeaseLedger()
        """What it lent, to be compared with what it may lend."""
        self.switchboard: Switchboard
        self._links: dict[Peer, Link] = {}
        self._woken: dict[Link, None] = {}
        self._committing = False
        self._told_until_us = 0
        self._last_frame_us = 0
        self._next_tick: Timer | None = None
        self._entropy = world.streams.entropy("crypto/relay")
        self._chance = world.streams["storage"]

    # Lives

    def on_start(self) -> None:
        try:
            self._open()
        except DISK_FAULTS as exc:  # the operator's supervisor tries again
            self.world.note("start_failed", self.name, type(exc).__name__)
            self.storage.crash()
            self.later(MAX_RETRY_START_US, self.on_start)
            return
        self.switchboard = Switchboard(self._entropy)
        self.world.note("start", self.name)
        self.network.listen(self.name, self._accept)
        self._tick_when_due()

    def _open(self) -> None:
        connection = self.storage.connect()
        connection.execute("BEGIN EXCLUSIVE")
        sqlite_file.prepare(_dbapi(connection), self._entropy)
        connection.execute("COMMIT")
        self.log_storage = SqliteStorage(_dbapi(connection))
        self.engine = RelayEngine(self.log_storage, token_is_right=lambda _: True, takes_back=lambda _: True)
        self.shut_out = {each.device for each in self.log_storage.revocations.all()}
        self.opened = True

    def on_stop(self) -> None:
        self.opened = False
        self.network.unlisten(self.name)
        for link in self._links.values():
            self._parted(link)
        self._links.clear()
        self._woken.clear()
        self._committing = False
        self._next_tick = None

    def wipe(self) -> None:
        """The operator lost everything."""
        self.crash()
        self.world.note("wipe", self.name)
        self.leases.relay_lost_memory()
        self.storage.restore({})
        self.start()

    def restore_backup(self) -> None:
        self.leases.relay_lost_memory()
        super().restore_backup()

    def envelopes(self, space: SpaceId) -> list[bytes]:
        """The updates and snapshots in its log, as its disk has them; the process may be down."""
        try:
            storage = self.log_storage if self.opened else SqliteStorage(_dbapi(self.storage.connect()))
            key = storage.find_space(space)
            rows = [] if key is None else storage.read(key, 0, max_rows=10**9, max_bytes=2**50).rows
        except sqlite3.Error:  # nothing was ever stored
            rows = []
        if not self.opened:
            self.storage.crash()
        return [row.payload for row in rows if row.kind in (RowKind.UPDATE, RowKind.SNAPSHOT)]

    def peer_of(self, node: str) -> Peer | None:
        """Who the node is to the engine by its newest connection; None while it has none."""
        known = [peer for peer, link in self._links.items() if link.node == node and peer.author is not None]
        return known[-1] if known else None

    def set_shut_out(self, device: DeviceId, *, out: bool) -> None:
        """The operator shuts a device out, or lets it in. Raises what the product does."""
        self.world.note("shut_out" if out else "let_in", self.name, device.hex())
        revocations, now_ms = self.engine.revocations, self.clock.now_ms()
        if out:
            effects = revocations.revoke(device, None, "", now_ms)
            self.shut_out.add(device)
            self._in_turn(self._spread, effects)
        else:
            revocations.admit(device, None, now_ms)
            self.shut_out.discard(device)

    def _spread(self, effects: Sequence[Effect]) -> None:
        self.switchboard.spread(effects)
        self._write_woken()

    def _demand_nothing_taken(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.frame, Ack):
                author = effect.peer.author
                if author is not None and author.device in self.shut_out:
                    raise AssertionError("the relay took work of a device that its operator has shut out")

    # Connections

    def _accept(self, end: Endpoint) -> None:
        link = Link(self, end)
        self._links[link.delivery.peer] = link
        self.adopt(end)
        end.on_message = partial(self.now, self._received, link)
        end.on_close = partial(self.now, self._closed, link)
        self.now(self._greet, link)
        self.later(seconds(HANDSHAKE_TIMEOUT_S), self._check_handshake, link)

    def _greet(self, link: Link) -> None:
        self.switchboard.greet(link.delivery, self.engine.relay_id, self.clock.now_ms())
        self._write_woken()

    def _check_handshake(self, link: Link) -> None:
        if link.delivery.peer in self._links:
            link.delivery.overdue(HANDSHAKE_TIMEOUT_S)
            self._write_woken()

    def _received(self, link: Link, data: bytes) -> None:
        link.unread.append(data)
        self._read(link)
        self._write_woken()

    def _read(self, link: Link) -> None:
        """Take what came, as long as there is room for it."""
        while link.unread and link.delivery.room and link.delivery.peer in self._links:
            data = link.unread.popleft()
            frame = link.delivery.received(data)
            if frame is not None:
                self.world.note("got", self.name, f"{link.node} {type(frame).__name__} {len(data)}")
                if self.switchboard.arrived(link.delivery, frame, len(data)):
                    self._arrived()

    def _closed(self, link: Link, code: int) -> None:
        del code  # it is over, whatever the reason
        self.release(link.end)
        self._ended(link)

    def _ended(self, link: Link) -> None:
        """The connection is over, whoever ended it."""
        if self._links.pop(link.delivery.peer, None) is not None:
            self._woken.pop(link, None)
            self._parted(link)
            self._arrived()

    def _parted(self, link: Link) -> None:
        self.switchboard.ended(link.delivery)
        link.delivery.wake = _nobody  # they would keep each other

    def gone(self) -> None:
        """The world is over: what knows each other lets go."""
        self.on_stop()
        vars(self.engine).clear()

    # Writing

    def woken(self, link: Link) -> None:
        """That connection may have something to send."""
        self._woken[link] = None

    def _write_woken(self) -> None:
        """Let every connection that was woken go on, when all else of this moment is done."""
        while self._woken:
            link = next(iter(self._woken))
            del self._woken[link]
            self._write(link)
            self._read(link)

    def _write(self, link: Link) -> None:
        while True:
            match link.delivery.next():
                case None:
                    return
                case bytes() as data:
                    link.end.send(data)
                case ReadPage() as wanted:
                    self.later(self._chance.between(READ_US), self._read_page, link, wanted)
                    return
                case bye:
                    self._say_bye(link, bye)
                    return

    def _say_bye(self, link: Link, bye: Bye) -> None:
        self.world.note("bye", self.name, f"{link.node} {bye.code} {bye.error}")
        link.end.send(encode(bye))
        link.end.close(bye.code)
        self._ended(link)

    def _read_page(self, link: Link, wanted: ReadPage) -> None:
        after, max_rows, max_bytes = wanted
        read: Page | CrdtSyncError
        try:
            read = self.engine.read(link.delivery.peer, after, max_rows=max_rows, max_bytes=max_bytes)
        except CrdtSyncError as exc:
            read = exc
        self._in_turn(self._page_read, link, read)

    def _in_turn(self, told: Callable[..., object], *given: Any) -> None:
        """Tell what the database's thread did, a moment later and in the order in which it did it.

        Delivery relies on that: a page that was read after a commit is told after the commit's effects.
        """
        now_us = self.world.now_us
        self._told_until_us = max(self._told_until_us, now_us + self._chance.between(SPREAD_US))
        self.later(self._told_until_us - now_us, told, *given)

    def _page_read(self, link: Link, read: Page | CrdtSyncError) -> None:
        if link.delivery.peer not in self._links:
            return
        if isinstance(read, CrdtSyncError):
            link.delivery.page_failed(read)
        else:
            data = link.delivery.page_read(read)
            if data:
                link.end.send(data)
        self.woken(link)
        self._write_woken()

    # Commits

    def _arrived(self) -> None:
        self._last_frame_us = self.world.now_us
        self.peak_waiting = max(self.peak_waiting, self.switchboard.waiting)
        self._commit_soon()

    def _commit_soon(self) -> None:
        if self.switchboard.waiting and not self._committing:
            self._committing = True
            self.later(self._chance.between(COMMIT_US), self._commit)

    def _commit(self) -> None:
        batch = self.switchboard.next_batch()
        arrivals = [waiting.arrival for waiting in batch]
        effects = self.refusing.process(self.engine, arrivals, self.clock.now_ms())
        self.commits += 1
        if self.shut_out:
            self._demand_nothing_taken(effects)
        self.leases.saw(effects, self.clock.now_ms())
        self._in_turn(self._committed, batch, effects)

    def _committed(self, batch: Sequence[Waiting], effects: Sequence[Effect]) -> None:
        self._committing = False
        self._keep_some(batch, effects)
        self.switchboard.committed(batch, effects)
        self._commit_soon()
        self._write_woken()
        self._tick_when_due()

    def _keep_some(self, batch: Sequence[Waiting], effects: Sequence[Effect]) -> None:
        refused = {
            e.peer for e in effects if isinstance(e, Send) and isinstance(e.frame, Refuse | CheckedOut)
        }
        refused |= {e.peer for e in effects if isinstance(e, Close)}
        for waiting in batch:
            peer, frame = waiting.arrival
            link = self._links.get(peer)
            if link is not None and isinstance(frame, Push) and peer not in refused:
                kept = self.taken.setdefault(link.node, [])
                if len(kept) < KEPT_PUSHES:
                    kept.append(frame)

    # Ticks

    def _tick_when_due(self) -> None:
        """The product ticks all the time; here only ticks that may have something to do are events."""
        due_ms = self.engine.due_ms
        if self.switchboard.holds_back:
            delay_us = TICK_US
        elif due_ms == NEVER_MS:
            return
        elif self.world.now_us - self._last_frame_us > BUSY_US:
            delay_us = QUIET_TICK_US
        else:
            delay_us = max(TICK_US, min((due_ms - self.clock.now_ms()) * 1000, QUIET_TICK_US))
        timer = self._next_tick
        if timer is not None and timer.waiting:
            if timer.at_us <= self.world.now_us + delay_us:
                return
            timer.cancel()
        self._next_tick = self.later(delay_us, self._tick)

    def _tick(self) -> None:
        self.switchboard.spread(self.engine.tick(self.clock.now_ms()))
        self._write_woken()
        self._tick_when_due()


def _nobody() -> None:
    """In place of a link that is over."""


def _dbapi(connection: Connection) -> sqlite3.Connection:
    """The storage adapter asks for `sqlite3`'s class and uses what ours has too."""
    return cast(sqlite3.Connection, connection)
