"""One live connection of one space: what arrives goes to the store in batches, what is written goes out.

Three tasks share a connection. The *reader* takes frames off the socket into a bounded inbox. The
*applier* takes everything that waits there, hands it to the engine in one hop, and while it is at work
the reader receives what comes next; a batch is as large as the device is busy. The *sender* writes what
there is to write. Sealing happens on the engine's thread: together with the write that made it necessary
(see `write_queue`), together with the acknowledgement that made room, or on its own.

A session ends once: by the relay, by a frame or envelope it should not have sent, or by us. Whatever the
engine has taken by then is published to watchers, also if the connection is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from crdt_sync.crypto.envelope import Header
from crdt_sync.errors import ConnectionFailed, RelayUnreachable, RemoteError
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.device_session import State
from crdt_sync.protocol.frames import (
    Ack,
    Appended,
    AppendRefused,
    CompactRequest,
    Deliver,
    FromRelay,
    Refuse,
    SnapshotResult,
)

from .database_thread import DatabaseThread
from .engine.model import RecordChange
from .incoming_batch import IncomingBatch
from .push_window import PushWindow
from .relay_connection import RelayConnection
from .signal import Signal

logger = logging.getLogger("crdt_sync.client")

INBOX_BYTES: Final = 8 * 1024 * 1024
"""Frames taken off the socket and not yet stored; the reader stops there, and the relay with it."""
BATCH_ROWS: Final = 512
BATCH_BYTES: Final = 1024 * 1024
"""One batch for the engine: some 100 ms of its thread, for which local writes wait."""
LAZY_CURSORS: Final = 64
"""A cursor that moved over our own rows only is stored with the next batch, or after that many moves."""

Publish = Callable[[Sequence[RecordChange]], None]


class Reconnect(RelayUnreachable):
    """Not a failure: the next session begins where this one cannot go on."""


class LiveSession:
    """See the module. `run` serves the connection until it ends."""

    def __init__(
        self,
        connection: RelayConnection,
        thread: DatabaseThread,
        space: SpaceId,
        *,
        cursor: int,
        publish: Publish,
        signal: Signal,
        lazy: bool = True,
    ) -> None:
        """`lazy`: a cursor that moved over nothing new need not be stored at once."""
        self.connection = connection
        self.window = PushWindow(*connection.session.push_budget, asyncio.get_running_loop().time)
        self.cursor = cursor
        """Everything up to here is in the store, or is our own."""
        self.received = 0
        """Envelopes the engine took in this session."""
        self.acknowledged = 0
        self.membership_batches = 0
        """Batches that changed the membership log."""
        self.error: Exception | None = None
        self._thread = thread
        self._space = space
        self._publish = publish
        self._signal = signal
        self._lazy_cursors = LAZY_CURSORS if lazy else 0
        self._inbox: deque[tuple[FromRelay, int]] = deque()
        self._inbox_bytes = 0
        self._applying = False
        self._unstored_cursors = 0
        self._ungot_bytes = 0
        self._outgoing: deque[bytes] = deque()
        self._appends: deque[tuple[bytes, asyncio.Future[Appended | AppendRefused]]] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._to_send = asyncio.Event()
        self._to_push = asyncio.Event()
        self._ended = asyncio.Event()

    # For the rest of the device

    @property
    def live(self) -> bool:
        return not self._ended.is_set()

    @property
    def can_send(self) -> bool:
        """After the relay's last word nothing can be sent, though the session has not ended quite yet."""
        return self.live and self.connection.session.state is State.LIVE

    @property
    def head(self) -> int:
        """The end of the relay's log, as far as it told."""
        return self.connection.session.head

    @property
    def caught_up(self) -> bool:
        return self.cursor >= self.head and not self._inbox and not self._applying

    def push_soon(self) -> None:
        """There may be something to send."""
        self.window.mark()
        self._to_push.set()

    def pushed(self, envelopes: Sequence[bytes]) -> None:
        """The engine sealed these for this session, after `window.begin`."""
        self.window.finish(envelopes)
        if envelopes and self.can_send:  # else the next session sends them: they are in the store
            self._send(self.connection.session.push(envelopes))
        if self.window.wants:
            self._to_push.set()  # at once, or when the pause is over
        self._signal.notify()

    async def append(self, entry: bytes) -> Appended | AppendRefused:
        """Append a membership entry; it is applied to the store before this returns `Appended`."""
        if not self.can_send:
            raise self.error or RelayUnreachable("the connection ended")
        answer: asyncio.Future[Appended | AppendRefused] = asyncio.get_running_loop().create_future()
        self._appends.append((entry, answer))
        self._send(self.connection.session.append(entry))
        return await answer

    def end(self, error: Exception | None = None) -> None:
        """Stop serving. The first reason given is the one that counts."""
        if self._ended.is_set():
            return
        self.error = self.error or error
        self._ended.set()
        for event in (self._arrived, self._room, self._to_send, self._to_push):
            event.set()
        for _, answer in self._appends:
            if not answer.done():
                answer.set_exception(error or RelayUnreachable("the connection was closed"))
                answer.exception()  # nobody may be waiting any more
        self._signal.notify()

    async def run(self) -> None:
        """Serve until `end`; then close the connection and raise the reason, if there is one."""
        applier = asyncio.create_task(self._guard(self._apply_all()))
        others = [
            asyncio.create_task(self._guard(work))
            for work in (self._read_all(), self._send_all(), self._push_all())
        ]
        try:
            await self._ended.wait()
        finally:
            self.end()
            await self.connection.close()
            for task in others:
                task.cancel()
            # The applier is not cancelled: what the engine has taken must reach the watchers.
            await asyncio.gather(applier, *others, return_exceptions=True)
            await self._store_cursor()
        if self.error is not None:
            raise self.error

    # Tasks

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except RemoteError as exc:
            # Kept before the closing, whose echo would otherwise count as the reason.
            self.error = self.error or exc
            await self.connection.refuse(exc)
            self.end(exc)
        except Exception as exc:  # whatever it is, it ends the session, not the device
            self.end(exc)

    async def _read_all(self) -> None:
        while self.live:
            frame = await self.connection.next_frame()
            size_bytes = self.connection.last_frame_bytes
            self._inbox.append((frame, size_bytes))
            self._inbox_bytes += size_bytes
            self._arrived.set()
            while self._inbox_bytes > INBOX_BYTES and self.live:
                self._room.clear()
                await self._room.wait()

    async def _send_all(self) -> None:
        while self.live:
            while self._outgoing:
                try:
                    await self.connection.send(self._outgoing.popleft())
                except ConnectionFailed:
                    return  # the reader knows better why: the relay's last word may still be in its queue
            self._to_send.clear()
            await self._to_send.wait()

    async def _push_all(self) -> None:
        while self.live:
            while self.window.wants and self.window.begin():
                self.pushed(await self._thread.run(self.next_push()))
            self._to_push.clear()
            if self.live:
                pause_s = self.window.pause_s if self.window.wants else None
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._to_push.wait()

    async def _apply_all(self) -> None:
        while self.live:
            if not self._inbox:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            self._applying = True
            try:
                await self._apply(self._take_batch())
            finally:
                self._applying = False
                self._signal.notify()

    # One batch

    def next_push(self) -> Callable[[], list[bytes]]:
        """Work for the engine's thread: the next envelopes to send."""
        engine, space = self._thread.store.engine, self._space
        count, size_bytes = self.window.max_count, self.window.max_bytes
        return lambda: engine.next_push(space, max_count=count, max_bytes=size_bytes)

    def _take_batch(self) -> list[FromRelay]:
        frames: list[FromRelay] = []
        rows = size_bytes = 0
        while self._inbox:
            frame, frame_bytes = self._inbox[0]
            more = len(frame.rows) if isinstance(frame, Deliver) else 0
            if frames and (rows + more > BATCH_ROWS or size_bytes + frame_bytes > BATCH_BYTES):
                break
            self._inbox.popleft()
            frames.append(frame)
            rows += more
            size_bytes += frame_bytes
        self._inbox_bytes -= size_bytes
        self._ungot_bytes += size_bytes
        self._room.set()
        return frames

    async def _apply(self, frames: Sequence[FromRelay]) -> None:
        engine = self._thread.store.engine
        batch = IncomingBatch(engine, self._space, frames, appends=[entry for entry, _ in self._appends])
        for frame in frames:
            if isinstance(frame, Ack):
                self.window.acked(frame.incarnation, frame.sequence)
                self.acknowledged = self.window.acknowledged
        if batch.only_cursor and not self.window.wants and self._unstored_cursors < self._lazy_cursors:
            self._unstored_cursors += 1
        else:
            await self._store(batch)
        for received in batch.received:
            self.received += received.envelopes
            self.membership_batches += received.members_changed
            self._publish(received.changes)
            if received.quarantined:
                logger.warning("%d envelopes were put aside", len(received.quarantined))
        if batch.error is not None:
            raise batch.error
        if batch.reconnect:
            self._unstored_cursors = 0  # where the log stands is for the next session to find out
            self.end(Reconnect("another session has to send what is left"))
            return
        self.cursor = max(self.cursor, batch.cursor)
        self._answer(frames)
        for frame in frames:
            if isinstance(frame, CompactRequest):
                await self._compact(frame)

    async def _store(self, batch: IncomingBatch) -> None:
        """One hop: what came in, and with the same hop what may go out now."""
        pushing = self.window.wants and self.window.begin()
        next_push = self.next_push() if pushing else None

        def work() -> list[bytes]:
            batch.store()
            return next_push() if next_push is not None and batch.error is None else []

        envelopes: list[bytes] = []
        try:
            envelopes = await self._thread.run(work)
        finally:
            if pushing:
                self.pushed(envelopes)
        if batch.cursor:
            self._unstored_cursors = 0

    def _answer(self, frames: Sequence[FromRelay]) -> None:
        if self.can_send and self._ungot_bytes >= self.connection.session.limits.got_every_bytes:
            self._ungot_bytes = 0
            self._send(self.connection.session.got(self.cursor))
        for frame in frames:
            match frame:
                case Appended() | AppendRefused():
                    _, answer = self._appends.popleft()
                    if not answer.done():
                        answer.set_result(frame)
                case Refuse():
                    # What followed in that push was not taken either: the next session sorts it out.
                    logger.warning("the relay refused an update: %s", frame.code)
                    self.end(Reconnect("the relay refused an update; connecting again"))
                case SnapshotResult() if frame.code == "mismatch":
                    logger.warning("the relay refused a snapshot: it does not match its log")
                case _:
                    pass

    async def _compact(self, request: CompactRequest) -> None:
        engine, space = self._thread.store.engine, self._space
        wanted = request.records
        snapshots = await self._thread.run(lambda: engine.make_snapshots(space, wanted))
        if not self.can_send:
            return
        made = {Header.unpack(snapshot).record for snapshot in snapshots}
        for snapshot in snapshots:
            self._send(self.connection.session.push_snapshot(snapshot))
        left_out = [record for record in wanted if record not in made]
        if left_out:
            self._send(self.connection.session.decline(left_out))

    def _send(self, message: bytes) -> None:
        self._outgoing.append(message)
        self._to_send.set()

    async def _store_cursor(self) -> None:
        """Keep a cursor that moved over our own rows, so that the next session does not walk them again."""
        if not self._unstored_cursors or isinstance(self.error, RemoteError):
            return
        engine, space, cursor = self._thread.store.engine, self._space, self.cursor
        self._unstored_cursors = 0
        await self._thread.run(lambda: engine.receive(space, [], cursor))
