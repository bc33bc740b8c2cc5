"""The frames of the socket over plain HTTP, for networks that let no WebSocket pass.

A device opens a tunnel, posts messages and fetches messages with a long poll; both ends run the very same
protocol as over the socket, with the hub's own connection at this end. Each exchange carries whole messages,
each with its length before it (u32, big-endian). A tunnel is as good as a TCP connection and no better: when
an exchange fails, both sides give the tunnel up, and the protocol's next handshake finds out what arrived.

Nothing grows without bound: a tunnel holds what the hub would have in a socket's buffer, and waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final

from crdt_sync.ids import Entropy, b64url
from crdt_sync.protocol.limits import SUBPROTOCOL
from crdt_sync_server.connection import Message
from crdt_sync_server.http.problems import ApiError
from crdt_sync_server.hub import Hub

IDLE_S: Final = 70
"""Without an exchange the device is gone: twice the longest poll and some."""
OUTBOX_BYTES: Final = 1024 * 1024
"""Waiting to be fetched before the hub has to wait; a frame more may stand in it."""
FETCH_BYTES: Final = 4 * 1024 * 1024
"""In one answer, unless the first message alone is more."""
INBOX_MESSAGES: Final = 16
CLOSE_S: Final = 2.0
"""For the hub to handle what had come before the end."""
LENGTH_BYTES: Final = 4
_TOKEN_BYTES: Final = 24
CLOSE_HEADER: Final = "Crdt-Sync-Close"
REASON_HEADER: Final = "Crdt-Sync-Close-Reason"
SENT_HEADER: Final = "Crdt-Sync-Sent"


class Tunnel:
    """One of them: an ASGI WebSocket to the hub, two mailboxes to HTTP."""

    def __init__(self, hub: Hub, ended: Callable[[], None]) -> None:
        self.sent = 0
        """Messages that the relay has sent so far."""
        self.closed: tuple[int, str] | None = None
        """Close code and reason, once the relay has closed."""
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(INBOX_MESSAGES)
        self._inbox.put_nowait({"type": "websocket.connect"})
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._changed = asyncio.Condition()
        self._fetching = False
        self._busy = 0
        self._closing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._used_s = self._loop.time()
        self._ended = ended
        scope: Message = {"type": "websocket", "subprotocols": [SUBPROTOCOL]}
        self._task = self._loop.create_task(self._serve(hub, scope))
        self._timer = self._loop.call_later(IDLE_S, self._check_idle)

    async def _serve(self, hub: Hub, scope: Message) -> None:
        try:
            await hub(scope, self._inbox.get, self._send)
        finally:
            if self.closed is None:
                self.closed = (1011, "")
            async with self._changed:
                self._changed.notify_all()

    async def _send(self, message: Message) -> None:
        async with self._changed:
            if message["type"] == "websocket.send":
                await self._changed.wait_for(lambda: self._outbox_bytes < OUTBOX_BYTES or self.over)
                if self.over:
                    raise OSError("the tunnel is gone")
                self._outbox.append(message["bytes"])
                self._outbox_bytes += len(message["bytes"])
                self.sent += 1
            elif message["type"] == "websocket.close":
                self.closed = (message["code"], message.get("reason") or "")
                self._disconnect()
            self._changed.notify_all()

    def _disconnect(self) -> None:
        """Tell the hub. What it has not read by now does not count any more."""
        while self._inbox.full():
            self._inbox.get_nowait()
        self._inbox.put_nowait({"type": "websocket.disconnect"})

    @property
    def over(self) -> bool:
        """Given up by the device, or idle."""
        return self._timer.cancelled()

    # What HTTP does

    async def post(self, body: bytes) -> int:
        """Take messages; waits while the hub has enough. Gives how many the relay sent. Raises ApiError."""
        messages = list(_split(body))
        self._busy += 1
        try:
            for message in messages:
                if self.closed is not None or self.over:
                    raise gone(self.closed)
                await self._inbox.put({"type": "websocket.receive", "bytes": message})
        finally:
            self._touch()
        return self.sent

    async def fetch(self, wait_s: float) -> list[bytes]:
        """Messages for the device, as soon as there are some; none when none came, or at the end."""
        if self._fetching:
            raise ApiError(409, "fetching", "another request is waiting for this tunnel's messages")
        self._fetching = True
        self._busy += 1
        try:
            async with self._changed:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait_for(lambda: self._outbox or self.closed or self.over)
                except TimeoutError:
                    return []
                return self._take()
        finally:
            self._fetching = False
            self._touch()

    def _take(self) -> list[bytes]:
        messages: list[bytes] = []
        size_bytes = 0
        while self._outbox and (not messages or size_bytes + len(self._outbox[0]) <= FETCH_BYTES):
            messages.append(self._outbox.popleft())
            size_bytes += len(messages[-1])
        self._outbox_bytes -= size_bytes
        self._changed.notify_all()
        return messages

    @property
    def drained(self) -> bool:
        """Closed, and everything was fetched."""
        return self.closed is not None and not self._outbox

    def _touch(self) -> None:
        self._busy -= 1
        self._used_s = self._loop.time()

    def _check_idle(self) -> None:
        left_s = self._used_s + IDLE_S - self._loop.time()
        if left_s > 0 or self._busy:
            self._timer = self._loop.call_later(max(left_s, 1.0), self._check_idle)
        else:
            self._closing = self._loop.create_task(self.close(), name="close an idle tunnel")

    async def close(self) -> None:
        """The device is gone. Again is harmless."""
        if self.over:
            return
        self._timer.cancel()
        self._ended()
        async with self._changed:
            self._changed.notify_all()
        if self.closed is None:
            self._disconnect()
        await asyncio.wait([self._task], timeout=CLOSE_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Tunnels:
    """All of them, by their tokens."""

    def __init__(self, hub: Hub, entropy: Entropy) -> None:
        self._hub = hub
        self._entropy = entropy
        self._tunnels: dict[bytes, Tunnel] = {}
        self._none: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._tunnels)

    def open(self) -> str:
        """A new one; gives its token."""
        token = b64url(self._entropy(_TOKEN_BYTES))
        key = _hashed(token)
        self._tunnels[key] = Tunnel(self._hub, lambda: self._forget(key))
        return token

    def _forget(self, key: bytes) -> None:
        self._tunnels.pop(key, None)
        if self._none is not None and not self._tunnels:
            self._none.set()

    def find(self, token: str) -> Tunnel:
        """Raises ApiError 401."""
        tunnel = self._tunnels.get(_hashed(token))
        if tunnel is None:
            raise ApiError(
                401, "no_tunnel", "no such tunnel, or it is over", hint="POST /v1/tunnel opens one"
            )
        return tunnel

    async def drain(self, timeout_s: float) -> None:
        """The relay stops and has said so to every tunnel: wait for who fetches it, then close the rest."""
        if self._tunnels:
            self._none = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._none.wait()
        await asyncio.gather(*(tunnel.close() for tunnel in list(self._tunnels.values())))


def joined(messages: list[bytes]) -> bytes:
    """Messages as a body."""
    return b"".join(len(message).to_bytes(LENGTH_BYTES, "big") + message for message in messages)


def gone(closed: tuple[int, str] | None) -> ApiError:
    """For who posts to a tunnel that is closed; fetching tells with what."""
    code = "" if closed is None else f" (close code {closed[0]})"
    return ApiError(410, "tunnel_closed", f"the tunnel is closed{code}")


def _split(body: bytes) -> list[bytes]:
    messages: list[bytes] = []
    at = 0
    while at < len(body):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(body[at:start], "big")
        if start > len(body) or at > len(body):
            raise ApiError(422, "body", "a message is shorter than its length says")
        messages.append(body[start:at])
    return messages


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
