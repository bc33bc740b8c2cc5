"""One WebSocket connection: its reader and its writer.

The reader takes frames through the session to the hub, and stops reading while too much of this connection's
is waiting to be committed; TCP then makes the device wait. The writer sends what the engine answered, then
rows of the log from the connection's cursor, as far as the window allows, then waits to be woken. It is the
only one that sends, so nothing a slow device does can hold up anybody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from crdt_sync.errors import CrdtSyncError, MalformedFrame
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Bye, Deliver, Frame, Mode, Welcome, encode
from crdt_sync.protocol.limits import HANDSHAKE_TIMEOUT_S, MAX_CLOSE_REASON_BYTES
from crdt_sync.protocol.relay_session import RelaySession, RelayState, bye_of
from crdt_sync_server.effects import Peer
from crdt_sync_server.live import FRAME_BYTES, FRAME_ROWS, LiveLog
from crdt_sync_server.storage.port import Page

if TYPE_CHECKING:
    from crdt_sync_server.hub import Hub

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
SendMessage: TypeAlias = Callable[[Message], Awaitable[None]]

log: Final = logging.getLogger("crdt_sync_server")

BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""What one connection may have waiting for a commit before it is not read from any more."""
MAX_ANSWERS: Final = 256
"""Answers waiting to be sent; a device that pushes without reading is not read from either."""
SILENT_ROWS: Final = 512
"""While a device is busy pushing, so many of its own rows pass before it is told that its cursor moved.

At rest it is told at once: only then can it know that it has everything and say so to its user.
"""


def internal_error() -> Bye:
    """The last word when it is our fault."""
    return Bye(CloseCode.INTERNAL, "internal", "the relay could not do its work; connect again")


class Connection:
    """See the module."""

    __slots__ = (
        "_answers", "_backlog_bytes", "_bye", "_hub", "_live", "_receive", "_room", "_send", "_told",
        "_told_caught_up", "_waiter", "cursor", "peer", "session", "writer",
    )  # fmt: skip

    def __init__(
        self, hub: Hub, receive: Receive, send: SendMessage, session: RelaySession, peer: Peer
    ) -> None:
        self.session = session
        self.peer = peer
        self.cursor = 0
        self.writer: asyncio.Task[None] | None = None
        """Ends when everything is said."""
        self._hub = hub
        self._receive = receive
        self._send = send
        self._answers: deque[bytes] = deque()
        self._bye: Bye | None = None
        self._live: LiveLog[Connection] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._backlog_bytes = 0
        self._told = 0
        """The cursor that the device knows of; ours is ahead of it while own rows pass in silence."""
        self._told_caught_up = False

    # What the hub calls

    def answer(self, frame: Frame) -> None:
        """Send this frame soon."""
        self._answers.append(encode(frame))
        self.wake()

    def admitted(self, mode: Mode, welcome: Welcome, live: LiveLog[Connection]) -> None:
        """The device is who it says; deliver rows to it from now on."""
        self.session.admitted(mode, welcome.cursor)
        self.cursor = self._told = welcome.cursor
        self._live = live
        live.readers[self] = None
        self.answer(welcome)

    def close(self, bye: Bye) -> None:
        """Send what is waiting, then this, then close."""
        self.session.close()
        if self._bye is None:
            self._bye = bye
        self.peer.caught_up = False
        self.wake()

    def committed(self, size_bytes: int) -> None:
        """That much of what came from here is not waiting any more."""
        self._backlog_bytes -= size_bytes
        self._check_room()
        if self._may_deliver():
            self.wake()  # at rest now: a push that brought nothing new makes no row that would tell it

    def wake(self) -> None:
        """There is something to send, perhaps."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def closing(self) -> bool:
        """Whether the end of this connection is decided."""
        return self._bye is not None

    @property
    def space(self) -> SpaceId | None:
        return self.peer.space

    # Reading

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        loop = asyncio.get_running_loop()
        writer = self.writer = loop.create_task(self._write())
        deadline = loop.call_later(HANDSHAKE_TIMEOUT_S, self._check_handshake)
        try:
            await self._read()
        finally:
            deadline.cancel()
            writer.cancel()
            self.peer.caught_up = False
            if self._live is not None:
                self._live.readers.pop(self, None)
            await asyncio.gather(writer, return_exceptions=True)

    def _check_handshake(self) -> None:
        if self.session.state in (RelayState.WAITING, RelayState.CHECKING):
            reason = f"nobody said who they are within {HANDSHAKE_TIMEOUT_S:g} seconds"
            self.close(Bye(CloseCode.HANDSHAKE_TIMEOUT, "handshake_timeout", reason))

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            if self._bye is not None:
                continue  # the close is on its way; read on so that the other side sees it
            try:
                data = message.get("bytes")
                if data is None:
                    raise MalformedFrame("a text message; frames are binary")
                frame = self.session.receive(data)
            except CrdtSyncError as exc:
                self.close(bye_of(exc))
                continue
            if isinstance(frame, Bye):
                self.close(Bye(CloseCode.NORMAL, "bye", ""))
                continue
            if self._hub.arrived(self, frame, len(data)):
                self._backlog_bytes += len(data)
                self._check_room()
                await self._room.wait()
            else:
                self.wake()  # a `Got` may have opened the window

    def _check_room(self) -> None:
        if self._backlog_bytes < BACKLOG_BYTES and len(self._answers) < MAX_ANSWERS:
            self._room.set()
        else:
            self._room.clear()

    # Writing

    async def _write(self) -> None:
        try:
            while True:
                if self._answers:
                    data = self._answers.popleft()
                    self._check_room()
                elif self._bye is not None:
                    await self._send_bye(self._bye)
                    return
                else:
                    data = await self._next_rows() if self._may_deliver() else b""
                    if not data:
                        await self._sleep()
                        continue
                await self._send({"type": "websocket.send", "bytes": data})
        except OSError:
            return  # the connection is gone; the reader is told so too
        except Exception as exc:
            log.error("a connection could not be served (%s)", type(exc).__name__)
            await self._send_bye(internal_error())

    def _may_deliver(self) -> bool:
        if self._live is None or not self.session.window_open:
            return False
        untold = self._told < self.cursor and not self._backlog_bytes
        return self.cursor < self._live.head or not self._told_caught_up or untold

    async def _sleep(self) -> None:
        if self._answers or (self._bye is not None) or self._may_deliver():
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _send_bye(self, bye: Bye) -> None:
        await self._send({"type": "websocket.send", "bytes": encode(bye)})
        reason = f"{bye.error}: {bye.reason}".encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")
        await self._send({"type": "websocket.close", "code": bye.code, "reason": reason})

    async def _next_rows(self) -> bytes:
        """The next `Deliver`, empty if there is nothing to tell."""
        live, author = self._live, self.peer.author
        assert live is not None
        if author is None or self.cursor < live.start:
            return await self._rows_from_storage(live)
        frame = live.next_frame(self.cursor, author, self._told)
        self.cursor = frame.cursor
        self.peer.caught_up = True
        data = frame.data
        if not data:
            busy = self._backlog_bytes > 0 or self.cursor < live.head
            if self._told_caught_up and busy and self.cursor - self._told < SILENT_ROWS:
                return b""
            data = encode(Deliver(self._told, [], self.cursor, self.cursor == live.head))
        return self._delivering(data, self.cursor == live.head)

    async def _rows_from_storage(self, live: LiveLog[Connection]) -> bytes:
        try:
            page: Page = await self._hub.read(self.peer, self.cursor, FRAME_ROWS, FRAME_BYTES)
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
