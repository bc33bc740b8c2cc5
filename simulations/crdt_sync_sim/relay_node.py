"""The relay as a node: the real engine, sessions, live log and storage, in the shell's rhythm.

What `crdt_sync_server.hub` and `connection` do with asyncio and threads is done here with events in virtual
time: frames wait for the next commit, there is one commit at a time, its effects are spread afterwards,
each connection sends its answers and then rows from its cursor as far as its window allows. Between a
commit and the spreading of its effects lies a moment in which a crash loses every acknowledgement but
nothing that was committed.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from typing import Final, cast

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.frames import (
    Bye,
    ConfirmSnapshot,
    Deliver,
    Frame,
    FromDevice,
    Got,
    Push,
    Refuse,
    encode,
)
from crdt_sync.protocol.limits import HANDSHAKE_TIMEOUT_S
from crdt_sync.protocol.relay_session import RelaySession, bye_of
from crdt_sync_server.effects import Admit, Arrival, Close, Created, Effect, Grown, Peer, Replaced, Send
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.live import FRAME_BYTES, FRAME_ROWS, LiveLog
from crdt_sync_server.storage import sqlite
from crdt_sync_server.storage.sqlite import SqliteStorage
from crdt_sync_sim.network import Endpoint, Network
from crdt_sync_sim.node import Node
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.storage import Connection, Storage
from crdt_sync_sim.verifying import Verifier
from crdt_sync_sim.world import Timer, World, seconds

COMMIT_US: Final = (300, 3_000)
"""How long frames wait for a commit: an fsync on flash."""
SPREAD_US: Final = (0, 500)
TICK_US: Final = seconds(0.5)
BUSY_US: Final = seconds(10)
QUIET_TICK_US: Final = seconds(30)
"""After `BUSY_US` without a frame, ticks come this far apart: only long time-outs can be due then, and a
simulated week would be a million ticks."""
SILENT_ROWS: Final = 512
"""As in `crdt_sync_server.connection`."""
NEW_DATABASE: Final = ("PRAGMA page_size=2048", "PRAGMA auto_vacuum=INCREMENTAL")
"""As in `crdt_sync_server.storage.sqlite.connect_storage`."""
KEPT_PUSHES: Final = 6
MAX_RETRY_START_US: Final = seconds(5)


class Link:
    """One connection as the relay holds it: session, answers to send, cursor."""

    def __init__(self, relay: RelayNode, end: Endpoint, session: RelaySession) -> None:
        self.session = session
        self.peer = Peer(session.nonce)
        self.cursor = 0
        self.waiting = 0
        """Frames of it that wait for a commit."""
        self._relay = relay
        self._end = end
        self._live: LiveLog[Link] | None = None
        self._told_caught_up = False
        self._told = 0

    @property
    def live(self) -> LiveLog[Link] | None:
        return self._live

    @property
    def node(self) -> str:
        return self._end.peer

    def answer(self, frame: Frame) -> None:
        self._end.send(encode(frame))

    def close(self, bye: Bye) -> None:
        self._relay.world.note("bye", self._relay.name, f"{self._end.peer} {bye.code} {bye.error}")
        self.session.close()
        self.peer.caught_up = False
        self.answer(bye)
        self._end.close(bye.code)
        self._relay.ended(self)

    def admitted(self, effect: Admit, live: LiveLog[Link]) -> None:
        self.session.admitted(effect.mode, effect.welcome.cursor)
        self.cursor = self._told = effect.welcome.cursor
        self._live = live
        live.readers[self] = None
        self.answer(effect.welcome)
        self.pump()

    def pump(self) -> None:
        """Send rows as far as there are any and the window allows."""
        while self._may_deliver():
            before = self.cursor
            data = self._next_rows()
            if data:
                self._end.send(data)
            elif self.cursor == before:
                return  # else own rows were passed in silence, and there may be others behind them

    def _may_deliver(self) -> bool:
        if self._live is None or not self.session.open or not self.session.window_open:
            return False
        untold = self._told < self.cursor and not self.waiting
        return self.cursor < self._live.head or not self._told_caught_up or untold

    def _next_rows(self) -> bytes:
        live, author = self._live, self.peer.author
        assert live is not None
        if author is None or self.cursor < live.start:
            return self._rows_from_storage(live)
        frame = live.next_frame(self.cursor, author, self._told)
        self.cursor = frame.cursor
        self.peer.caught_up = True
        data = frame.data
        if not data:
            busy = self.waiting > 0 or self.cursor < live.head
            if self._told_caught_up and busy and self.cursor - self._told < SILENT_ROWS:
                return b""
            data = encode(Deliver(self._told, [], self.cursor, self.cursor == live.head))
        return self._delivering(data, self.cursor == live.head)

    def _rows_from_storage(self, live: LiveLog[Link]) -> bytes:
        try:
            page = self._relay.engine.read(self.peer, self.cursor, max_rows=FRAME_ROWS, max_bytes=FRAME_BYTES)
        except CrdtSyncError as exc:
            self.close(bye_of(exc))
            return b""
        moved, self.cursor = page.cursor > self.cursor, page.cursor
        at_end = page.at_end and page.cursor >= live.head
        self.peer.caught_up = at_end and self.peer.author is not None
        if not page.rows and not moved and not (at_end and not self._told_caught_up):
            return b""
        return self._delivering(encode(Deliver(self._told, page.rows, page.cursor, at_end)), at_end)

    def _delivering(self, data: bytes, caught_up: bool) -> bytes:
        self._told = self.cursor
        self._told_caught_up = self._told_caught_up or caught_up
        self.session.delivered(self.cursor, len(data))
        return data


class RelayNode(Node):
    """See the module. Anyone may create a space on it."""

    def __init__(self, world: World, network: Network, storage: Storage) -> None:
        super().__init__(RELAY, world, network, storage)
        self.engine: RelayEngine
        self.log_storage: SqliteStorage
        self.taken: dict[str, list[Push]] = {}
        """Pushes that were acknowledged whole, a few per device, to be sent again at the end."""
        self.peak_waiting = 0
        self.commits = 0
        self._links: dict[Peer, Link] = {}
        self._live: dict[SpaceId, LiveLog[Link]] = {}
        self._waiting: deque[Arrival] = deque()
        self._committing = False
        self._last_frame_us = 0
        self._next_tick: Timer | None = None
        self._entropy = world.streams.entropy("crypto/relay")

    # Lives

    def on_start(self) -> None:
        try:
            self._open()
        except Exception as exc:
            # A disk without room, say: the operator's supervisor tries again.
            self.world.note("start_failed", self.name, type(exc).__name__)
            self.storage.crash()
            self.later(MAX_RETRY_START_US, self.on_start)
            return
        self.world.note("start", self.name)
        self.network.listen(self.name, self._accept)
        self._next_tick = self.later(TICK_US, self._tick)

    def _open(self) -> None:
        connection = self.storage.connect()
        if not connection.execute("PRAGMA application_id").fetchone()[0]:
            connection.execute("BEGIN EXCLUSIVE")
            sqlite._make_tables(_dbapi(connection), self._entropy)
            connection.execute("COMMIT")
        self.log_storage = SqliteStorage(_dbapi(connection))
        verify = self.world.memory.setdefault("verify", Verifier())
        self.engine = RelayEngine(self.log_storage, token_is_right=lambda _: True, verify=verify)

    def on_stop(self) -> None:
        self.network.unlisten(self.name)
        self._links.clear()
        self._live.clear()
        self._waiting.clear()
        self._committing = False
        self._next_tick = None

    def wipe(self) -> None:
        """The operator lost everything."""
        self.crash()
        self.world.note("wipe", self.name)
        self.storage.restore({})
        self.start()

    # Connections

    def _accept(self, end: Endpoint) -> None:
        session = RelaySession(self._entropy(32))
        link = Link(self, end, session)
        self._links[link.peer] = link
        self.adopt(end)
        end.on_message = lambda data: self.now(lambda: self._received(link, data))
        end.on_close = lambda code: self.now(lambda: self._closed(link, end))
        self.now(lambda: link.answer(session.challenge(self.engine.relay_id, self.clock.now_ms())))
        self.later(seconds(HANDSHAKE_TIMEOUT_S), lambda: self._check_handshake(link))

    def _check_handshake(self, link: Link) -> None:
        if link.peer in self._links and not link.session.open:
            link.close(Bye(4408, "handshake_timeout", "nobody said who they are in time"))

    def _received(self, link: Link, data: bytes) -> None:
        if link.peer not in self._links:
            return
        try:
            frame = link.session.receive(data)
        except CrdtSyncError as exc:
            self.world.note("refuse", self.name, f"{link.node} {exc.code}")
            link.close(bye_of(exc))
            return
        self.world.note("got", self.name, f"{link.node} {type(frame).__name__} {len(data)}")
        if isinstance(frame, Bye):
            link.close(Bye(1000, "bye", ""))
        elif isinstance(frame, Got | ConfirmSnapshot):
            link.pump()
        else:
            link.waiting += 1
            self._arrived(link.peer, frame)

    def _closed(self, link: Link, end: Endpoint) -> None:
        self.release(end)
        self.ended(link)

    def ended(self, link: Link) -> None:
        """The connection is over, whoever ended it."""
        if self._links.pop(link.peer, None) is not None:
            if link.live is not None:
                link.live.readers.pop(link, None)
                if link.peer.space is not None and not link.live.readers:
                    self._live.pop(link.peer.space, None)
            self._arrived(link.peer, None)

    # Commits

    def _arrived(self, peer: Peer, frame: FromDevice | None) -> None:
        if self.world.now_us - self._last_frame_us > BUSY_US and self._next_tick is not None:
            self._next_tick.cancel()
            self._next_tick = self.later(TICK_US, self._tick)
        self._last_frame_us = self.world.now_us
        self._waiting.append(Arrival(peer, frame))
        self.peak_waiting = max(self.peak_waiting, len(self._waiting))
        if not self._committing:
            self._committing = True
            self.later(self.world.streams["storage"].randint(*COMMIT_US), self._commit)

    def _commit(self) -> None:
        batch, self._waiting = list(self._waiting), deque()
        effects = self.engine.process(batch, self.clock.now_ms())
        self.commits += 1
        delay_us = self.world.streams["storage"].randint(*SPREAD_US)
        self.later(delay_us, lambda: self._spread(batch, effects))

    def _spread(self, batch: list[Arrival], effects: list[Effect]) -> None:
        self._committing = False
        for arrival in batch:
            committed = self._links.get(arrival.peer)
            if committed is not None and arrival.frame is not None:
                committed.waiting -= 1
        self._keep_some(batch, effects)
        for effect in effects:
            if isinstance(effect, Grown):
                live = self._live.get(effect.space)
                if live is not None:
                    live.grow(effect.rows)
                    for link in list(live.readers):
                        link.pump()
                continue
            if isinstance(effect, Replaced):
                live = self._live.get(effect.space)
                if live is not None:
                    live.replace(effect.row)
                continue
            found = self._links.get(effect.peer)
            if found is not None:
                self._do_effect(found, effect)
        for arrival in batch:
            rested = self._links.get(arrival.peer)
            if rested is not None and not rested.waiting:
                rested.pump()
        if self._waiting and not self._committing:
            self._committing = True
            self.later(self.world.streams["storage"].randint(*COMMIT_US), self._commit)

    def _keep_some(self, batch: list[Arrival], effects: list[Effect]) -> None:
        refused = {e.peer for e in effects if isinstance(e, Send) and isinstance(e.frame, Refuse)}
        refused |= {e.peer for e in effects if isinstance(e, Close)}
        for peer, frame in batch:
            link = self._links.get(peer)
            if link is not None and isinstance(frame, Push) and peer not in refused:
                kept = self.taken.setdefault(link.node, [])
                if len(kept) < KEPT_PUSHES:
                    kept.append(frame)

    def _do_effect(self, link: Link, effect: Send | Admit | Created | Close) -> None:
        match effect:
            case Send():
                link.answer(effect.frame)
            case Close():
                link.close(effect.bye)
            case Created():
                link.session.created()
                link.answer(effect.frame)
            case Admit():
                live = self._live.setdefault(effect.space, LiveLog(effect.welcome.head))
                link.admitted(effect, live)

    def _tick(self) -> None:
        try:
            self._spread_now(self.engine.tick(self.clock.now_ms()))
        finally:
            quiet = self.world.now_us - self._last_frame_us > BUSY_US
            self._next_tick = self.later(QUIET_TICK_US if quiet else TICK_US, self._tick)

    def _spread_now(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.peer in self._links:
                self._links[effect.peer].answer(effect.frame)


def _dbapi(connection: Connection) -> sqlite3.Connection:
    """The storage adapter asks for `sqlite3`'s class and uses what ours has too."""
    return cast(sqlite3.Connection, connection)
