"""The hub: the switchboard, the one engine, and the rhythm between them, in asyncio.

Frames of all connections that arrive while a commit runs go into the next one; there is one commit at a time.
Twice a second the engine is asked for what is due, if anything is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from crdt_sync.ids import Entropy, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Bye, FromDevice
from crdt_sync.protocol.limits import SUBPROTOCOL
from crdt_sync_server.connection import Connection, Message, Receive, SendMessage
from crdt_sync_server.database_thread import DatabaseThread
from crdt_sync_server.delivery import Delivery, ReadPage
from crdt_sync_server.effects import Arrival, Close, Effect, Grown, Peer, Replaced
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.limits import DEFAULT_RELAY_LIMITS, RelayLimits
from crdt_sync_server.metrics import Metrics
from crdt_sync_server.naming import named
from crdt_sync_server.reports import LivePeer
from crdt_sync_server.storage.port import Page, Storage
from crdt_sync_server.switchboard import Switchboard, Waiting

log: Final = logging.getLogger("crdt_sync_server")

T = TypeVar("T")

TICK_S: Final = 0.5
FORGET_AT_ONCE: Final = 10_000
"""Events of the audit log: some milliseconds."""
GOODBYE_S: Final = 5.0
"""How long connections may take to be told that the relay stops."""
IDLE_S: Final = 1.0
"""After so long without a commit the storage may tidy up."""


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def wall_clock_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Hub:
    """See the module. An ASGI application for the WebSocket path; `start` it first, `stop` it last."""

    def __init__(
        self,
        engine: RelayEngine,
        storage: Storage,
        thread: DatabaseThread,
        *,
        entropy: Entropy,
        clock: Callable[[], int] = wall_clock_ms,
        limits: RelayLimits = DEFAULT_RELAY_LIMITS,
        drain_s: float = GOODBYE_S,
        audit_days: int = 90,
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = Metrics() if metrics is None else metrics
        self._engine = engine
        self._storage = storage
        self._thread = thread
        self._clock = clock
        self._switchboard = Switchboard(entropy, limits)
        self._drain_s = drain_s
        self._served: set[Connection] = set()
        self._audit_ms = audit_days * 86_400_000
        self._growth: dict[SpaceId, asyncio.Event] = {}
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._untidy = False
        self._last_commit_s = 0.0
        self.failing = False
        """The last commit that was to write something could not."""

    @property
    def connections(self) -> int:
        """How many there are."""
        return self._switchboard.connections

    @property
    def closing(self) -> bool:
        """The relay is about to stop."""
        return self._switchboard.closing

    @property
    def waiting(self) -> int:
        """Frames that wait for a commit."""
        return self._switchboard.waiting

    @property
    def most_lag(self) -> int:
        """Rows that the connection which is behind most has not been given."""
        return self._switchboard.most_lag

    def now_ms(self) -> int:
        """The relay's time, Unix milliseconds."""
        return self._clock()

    def live(self) -> list[LivePeer]:
        """Who is connected, and how far each has come."""
        return self._switchboard.live()

    def start(self) -> None:
        """Begin to commit."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._commit()), loop.create_task(self._tick())]

    async def say_goodbye(self) -> None:
        """Take no more frames, commit those that came, and close every connection with GOING_AWAY."""
        self._switchboard.closing = True
        for event in self._growth.values():
            event.set()
        await self._quiet.wait()
        self._switchboard.close_all()
        writers = [connection.writer for connection in self._served if connection.writer is not None]
        if writers:
            await asyncio.wait(writers, timeout=self._drain_s)

    async def stop(self) -> None:
        """End the tasks. The storage is the caller's to close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Connections

    async def __call__(self, scope: Message, receive: Receive, send: SendMessage) -> None:
        """Serve one WebSocket (ASGI)."""
        await receive()
        offered = SUBPROTOCOL in scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if offered else None})
        connection = Connection(self, self._switchboard.opened, receive, send)
        delivery = connection.delivery
        if offered:
            self._switchboard.greet(delivery, self._engine.relay_id, self._clock())
        else:
            reason = f"the WebSocket subprotocol {SUBPROTOCOL} was not offered"
            delivery.close(Bye(CloseCode.VERSION, "version", reason))
        self._served.add(connection)
        log.debug("a connection was opened", extra={"fields": {"event": "opened"}})
        try:
            await connection.run()
        finally:
            self._served.discard(connection)
            peer = delivery.peer
            log.info(
                "a connection ended",
                extra={
                    "fields": {
                        "event": "ended",
                        "space": None if peer.space is None else peer.space.hex(),
                        "device": None if peer.author is None else peer.author.device.hex(),
                        "pushed": peer.pushed,
                        "synced": delivery.synced,
                    }
                },
            )
            self.metrics.session_ended(known=delivery.peer.space is not None, synced=delivery.synced)
            self._switchboard.ended(delivery)
            self._enqueued()

    def arrived(self, delivery: Delivery, frame: FromDevice, size_bytes: int) -> None:
        """A frame came."""
        if self._switchboard.arrived(delivery, frame, size_bytes):
            self._enqueued()

    def _enqueued(self) -> None:
        self._quiet.clear()
        self._work.set()

    async def read(self, peer: Peer, wanted: ReadPage) -> Page:
        """Rows from the storage."""
        after, max_rows, max_bytes = wanted
        return await self._thread.run(
            lambda: self._engine.read(peer, after, max_rows=max_rows, max_bytes=max_bytes)
        )

    # For who is not connected

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Run something on the thread of the engine and the storage."""
        return await self._thread.run(work)

    async def exchange(self, peer: Peer, frame: FromDevice) -> list[Effect]:
        """Handle a frame of somebody without a connection; gives the effects that are for them."""
        arrival = Arrival(peer, frame)
        effects = await self._thread.run(
            lambda: self._engine.process([arrival], self._clock(), _monotonic_ms())
        )
        self._noted(self._switchboard.spread(effects), effects)
        return [
            effect for effect in effects if not isinstance(effect, Grown | Replaced) and effect.peer is peer
        ]

    async def operate(self, work: Callable[[], Sequence[Effect]]) -> None:
        """Do something to the engine for the operator, and then what it asks for."""
        effects = await self._thread.run(work)
        self._noted(self._switchboard.spread(effects), effects)

    def growth(self, space: SpaceId) -> asyncio.Event:
        """Set when the log of the space grows after this call, or the relay is about to stop."""
        return self._growth.setdefault(space, asyncio.Event())

    def _noted(self, grown: bool, effects: Sequence[Effect]) -> None:
        failed = sum(isinstance(each, Close) and each.bye.code == CloseCode.INTERNAL for each in effects)
        if failed:
            self.metrics.failures.inc(failed)
        if failed or grown:
            self.failing = not grown
        if grown:
            self._untidy = True
            self._last_commit_s = time.monotonic()
        self.metrics.spread(effects)
        for effect in effects if self._growth else ():
            if isinstance(effect, Grown) and (event := self._growth.pop(effect.space, None)) is not None:
                event.set()

    # Commits

    async def _commit(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while batch := self._switchboard.next_batch():
                try:
                    effects = await self._process(batch)
                    self._noted(self._switchboard.committed(batch, effects), effects)
                except Exception as exc:
                    log.error("a batch could not be handled (%s)", named(exc))
                    self._switchboard.failed(batch)
            self._quiet.set()

    async def _process(self, batch: Sequence[Waiting]) -> list[Effect]:
        arrivals = [waiting.arrival for waiting in batch]
        with self.metrics.commit_seconds.time():
            return await self._in_one_commit(arrivals)

    async def _in_one_commit(self, arrivals: Sequence[Arrival]) -> list[Effect]:
        return await self._thread.run(lambda: self._engine.process(arrivals, self._clock(), _monotonic_ms()))

    def _tidy(self) -> None:
        with self._storage.transaction():
            self._storage.books.forget_audit(self._clock() - self._audit_ms, FORGET_AT_ONCE)
        self._storage.tidy()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if self.connections and self._engine.due_ms <= self._clock():
                    self._switchboard.spread(await self._thread.run(lambda: self._engine.tick(self._clock())))
                if self._untidy and time.monotonic() - self._last_commit_s > IDLE_S:
                    self._untidy = False
                    await self._thread.run(self._tidy)
            except Exception as exc:
                log.error("housekeeping failed (%s); it is tried again", named(exc))
