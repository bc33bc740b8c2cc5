"""One WebSocket connection: its reader and its writer. What they do, `delivery` decides.

The reader takes messages to the hub, and stops reading while too much of this connection's is waiting to be
committed; TCP then makes the device wait. The writer sends what is to be sent, then waits to be woken. It is
the only one that sends, so nothing a slow device does can hold up anybody else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from crdt_sync.errors import CrdtSyncError
from crdt_sync.protocol.frames import Bye, encode
from crdt_sync.protocol.limits import HANDSHAKE_TIMEOUT_S, MAX_CLOSE_REASON_BYTES
from crdt_sync_server.delivery import Delivery, ReadPage
from crdt_sync_server.naming import named
from crdt_sync_server.switchboard import internal_error

if TYPE_CHECKING:
    from crdt_sync_server.hub import Hub

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
SendMessage: TypeAlias = Callable[[Message], Awaitable[None]]

log: Final = logging.getLogger("crdt_sync_server")


class Connection:
    """See the module. `opened` gives what decides about it, and is given what wakes it."""

    __slots__ = (
        "_hub",
        "_opened_s",
        "_receive",
        "_room",
        "_send",
        "_synced",
        "_waiter",
        "delivery",
        "writer",
    )

    def __init__(
        self,
        hub: Hub,
        opened: Callable[[Callable[[], None]], Delivery],
        receive: Receive,
        send: SendMessage,
    ) -> None:
        self.writer: asyncio.Task[None] | None = None
        """Ends when everything is said."""
        self._hub = hub
        self._receive = receive
        self._send = send
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._opened_s = time.monotonic()
        self._synced = False
        self.delivery = opened(self.wake)

    def wake(self) -> None:
        """There is something to send, or room to read more, perhaps."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._room is not None:
            self._check_room()

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        loop = asyncio.get_running_loop()
        writer = self.writer = loop.create_task(self._write())
        deadline = loop.call_later(HANDSHAKE_TIMEOUT_S, self.delivery.overdue, HANDSHAKE_TIMEOUT_S)
        try:
            await self._read()
        finally:
            deadline.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    # Reading

    async def _read(self) -> None:
        delivery = self.delivery
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            frame = delivery.received(data)
            if frame is None or data is None:
                continue  # if the end is decided: read on so that the other side sees it
            self._hub.metrics.bytes_in.inc(len(data))
            self._hub.arrived(delivery, frame, len(data))
            if not delivery.room:
                await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _check_room(self) -> None:
        if self._room is not None and not self._room.done() and self.delivery.room:
            self._room.set_result(None)

    # Writing

    async def _write(self) -> None:
        try:
            while True:
                todo = self.delivery.next()
                if self._room is not None:
                    self._check_room()
                if isinstance(todo, bytes):
                    data = todo
                elif isinstance(todo, ReadPage):
                    data = await self._read_page(todo)
                elif todo is None:
                    await self._sleep()
                    continue
                else:
                    await self._send_bye(todo)
                    return
                if data:
                    await self._send({"type": "websocket.send", "bytes": data})
                    self._hub.metrics.bytes_out.inc(len(data))
                    if self.delivery.synced and not self._synced:
                        self._synced = True
                        self._hub.metrics.synced(time.monotonic() - self._opened_s)
        except OSError:
            return  # the connection is gone; the reader is told so too
        except Exception as exc:
            log.error("a connection could not be served (%s)", named(exc))
            await self._send_bye(internal_error())

    async def _sleep(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _read_page(self, wanted: ReadPage) -> bytes:
        try:
            page = await self._hub.read(self.delivery.peer, wanted)
        except CrdtSyncError as exc:
            self.delivery.page_failed(exc)
            return b""
        return self.delivery.page_read(page)

    async def _send_bye(self, bye: Bye) -> None:
        await self._send({"type": "websocket.send", "bytes": encode(bye)})
        reason = f"{bye.error}: {bye.reason}".encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")
        await self._send({"type": "websocket.close", "code": bye.code, "reason": reason})
