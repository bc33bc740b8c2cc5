"""The hub: all connections, the one engine, and the rhythm between them.

Frames of all connections that arrive while a commit runs go into the next one; there is one commit at a time.
When it is done its effects are spread: answers to their connections, new rows to the live logs, whose
readers are woken. Between commits the engine is asked twice a second whether anything is due.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from crdt_sync.ids import Entropy, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Bye, ConfirmSnapshot, FromDevice, Got
from crdt_sync.protocol.limits import DEFAULT_LIMITS, SUBPROTOCOL, Limits
from crdt_sync.protocol.relay_session import RelaySession
from crdt_sync_server.connection import Connection, Message, Receive, SendMessage, internal_error
from crdt_sync_server.database_thread import DatabaseThread
from crdt_sync_server.effects import Admit, Arrival, Close, Created, Effect, Grown, Peer, Replaced, Send
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.live import LiveLog
from crdt_sync_server.storage.port import Page, Storage

log: Final = logging.getLogger("crdt_sync_server")

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Frames in one commit: it takes some 100 ms at most, and everybody else waits for it."""
TICK_S: Final = 0.5
GOODBYE_S: Final = 1.0
"""How long connections may take to be told that the relay stops."""
IDLE_S: Final = 1.0
"""After so long without a commit the storage may tidy up."""


def wall_clock_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class _Waiting(NamedTuple):
    connection: Connection
    arrival: Arrival
    size_bytes: int


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
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._engine = engine
        self._storage = storage
        self._thread = thread
        self._entropy = entropy
        self._clock = clock
        self._limits = limits
        self._connections: dict[Peer, Connection] = {}
        self._live: dict[SpaceId, LiveLog[Connection]] = {}
        self._waiting: deque[_Waiting] = deque()
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._untidy = False
        self._last_commit_s = 0.0

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def start(self) -> None:
        """Begin to commit."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._commit()), loop.create_task(self._tick())]

    async def say_goodbye(self) -> None:
        """Take no more frames, commit those that came, and close every connection with GOING_AWAY."""
        self._closing = True
        await self._quiet.wait()
        connections = list(self._connections.values())
        for connection in connections:
            connection.close(_going_away())
        writers = [connection.writer for connection in connections if connection.writer is not None]
        if writers:
            await asyncio.wait(writers, timeout=GOODBYE_S)

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
        session = RelaySession(self._entropy(32), self._limits)
        peer = Peer(session.nonce)
        connection = Connection(self, receive, send, session, peer)
        self._connections[peer] = connection
        if self._closing:
            connection.close(_going_away())
        elif not offered:
            reason = f"the WebSocket subprotocol {SUBPROTOCOL} was not offered"
            connection.close(Bye(CloseCode.VERSION, "version", reason))
        else:
            connection.answer(session.challenge(self._engine.relay_id, self._clock()))
        try:
            await connection.run()
        finally:
            del self._connections[peer]
            if connection.space is not None:
                live = self._live.get(connection.space)
                if live is not None and not live.readers:
                    del self._live[connection.space]
            self._enqueue(_Waiting(connection, Arrival(peer, None), 0))

    def arrived(self, connection: Connection, frame: FromDevice, size_bytes: int) -> bool:
        """A frame came. True if it has to wait for a commit."""
        if isinstance(frame, Got | ConfirmSnapshot) or self._closing:
            return False
        self._enqueue(_Waiting(connection, Arrival(connection.peer, frame), size_bytes))
        return True

    def _enqueue(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._quiet.clear()
        self._work.set()

    async def read(self, peer: Peer, after: int, max_rows: int, max_bytes: int) -> Page:
        """Rows from the storage."""
        return await self._thread.run(
            lambda: self._engine.read(peer, after, max_rows=max_rows, max_bytes=max_bytes)
        )

    # Commits

    async def _commit(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                batch = self._next_batch()
                try:
                    self._spread(await self._process([waiting.arrival for waiting in batch]))
                except Exception as exc:
                    # Whoever was part of it cannot know what became of it; connecting again tells.
                    log.error("a batch could not be handled (%s)", type(exc).__name__)
                    for waiting in batch:
                        waiting.connection.close(internal_error())
                for waiting in batch:
                    if waiting.size_bytes:
                        waiting.connection.committed(waiting.size_bytes)
            self._quiet.set()

    async def _process(self, arrivals: list[Arrival]) -> list[Effect]:
        return await self._thread.run(lambda: self._engine.process(arrivals, self._clock()))

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size_bytes = 0
        while self._waiting and (not batch or size_bytes + self._waiting[0].size_bytes <= BATCH_BYTES):
            waiting = self._waiting.popleft()
            size_bytes += waiting.size_bytes
            batch.append(waiting)
        return batch

    def _spread(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Grown):
                self._untidy = True
                self._last_commit_s = time.monotonic()
                live = self._live.get(effect.space)
                if live is not None:
                    live.grow(effect.rows)
                    for reader in live.readers:
                        reader.wake()
                continue
            if isinstance(effect, Replaced):
                live = self._live.get(effect.space)
                if live is not None:
                    live.replace(effect.row)
                continue
            connection = self._connections.get(effect.peer)
            if connection is not None:
                self._do(connection, effect)

    def _do(self, connection: Connection, effect: Send | Admit | Created | Close) -> None:
        if connection.closing and not isinstance(effect, Send):
            return  # it sent something bad while its hello was being checked
        match effect:
            case Send():
                connection.answer(effect.frame)
            case Close():
                connection.close(effect.bye)
            case Created():
                connection.session.created()
                connection.answer(effect.frame)
            case Admit():
                live = self._live.get(effect.space)
                if live is None:
                    live = self._live[effect.space] = LiveLog(effect.welcome.head)
                connection.admitted(effect.mode, effect.welcome, live)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if self._connections:
                    self._spread(await self._thread.run(lambda: self._engine.tick(self._clock())))
                if self._untidy and time.monotonic() - self._last_commit_s > IDLE_S:
                    self._untidy = False
                    await self._thread.run(self._storage.tidy)
            except Exception as exc:
                log.error("housekeeping failed (%s); it is tried again", type(exc).__name__)


def _going_away() -> Bye:
    return Bye(CloseCode.GOING_AWAY, "going_away", "the relay is shutting down")
