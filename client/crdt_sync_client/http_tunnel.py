"""The frames of the socket over plain HTTP, for networks that let no WebSocket pass.

It stands where `websockets`' connection stands: `recv`, `send`, `ping`, `close`, and ends in the same
exceptions. Messages to the relay are posted, several at once when several wait; messages from it are
fetched with a long poll. When an exchange fails the tunnel is lost, as a TCP connection would be: what
arrived is found out by the next handshake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote

import httpx
import msgspec
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from crdt_sync.protocol.limits import MAX_FRAME_BYTES, SUBPROTOCOL

PATH: Final = "/v1/tunnel"
MEDIA_TYPE: Final = "application/vnd.crdt-sync.frames"
CONNECT_S: Final = 5.0
WAIT_S: Final = 25
"""Of a long poll; mobile networks drop ties that are idle for half a minute."""
ANSWER_S: Final = 15.0
"""How long an answer may be without a byte, beyond what the relay was asked to wait."""
CLOSE_S: Final = 2.0
POST_BYTES: Final = 1024 * 1024
"""Messages in one post, unless the first alone is more; and what may wait to be posted."""
MAX_ANSWER_BYTES: Final = 2 * MAX_FRAME_BYTES + 64 * 1024
"""More than a relay puts into one answer."""
_LENGTH_BYTES: Final = 4
_CREATED: Final = 201


class TunnelFailed(Exception):
    """No tunnel could be opened. The text is safe to show."""


class _Opened(msgspec.Struct):
    tunnel_token: str


class _Taken(msgspec.Struct):
    sent: int


class HttpTunnel:
    """See the module. `open` gives one."""

    subprotocol = SUBPROTOCOL

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._inbox: deque[bytes] = deque()
        self._fetched = 0
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._posted = asyncio.Condition()
        self._pings: list[tuple[int, asyncio.Future[float]]] = []
        self._lost: ConnectionClosedError | None = None
        self._poster: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, *, agent: str, trust_env: bool) -> HttpTunnel:
        """A tunnel to the relay at `url` (ws or wss). Raises TunnelFailed."""
        client = httpx.AsyncClient(
            base_url=url.replace("ws", "http", 1).rstrip("/"),
            headers={"User-Agent": agent, "Cache-Control": "no-store"},
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            verify=_trusted(url),
            trust_env=trust_env,
        )
        tunnel = cls(client)
        try:
            answer = await client.post(PATH)
            if answer.status_code != _CREATED:
                raise TunnelFailed(f"HTTP {answer.status_code}")
            token = msgspec.json.decode(answer.content, type=_Opened).tunnel_token
        except BaseException as exc:
            await client.aclose()
            if isinstance(exc, httpx.HTTPError | msgspec.DecodeError):
                raise TunnelFailed(type(exc).__name__) from None
            raise
        client.headers["Authorization"] = f"Bearer {token}"
        tunnel._poster = asyncio.create_task(tunnel._post_all(), name="post to a relay")
        return tunnel

    # Receiving

    async def recv(self) -> bytes:
        """The next message. Raises ConnectionClosedError at the end."""
        while not self._inbox:
            if self._lost is not None:
                raise self._lost
            try:
                await self._fetch()
            except ConnectionClosedError as exc:
                self._lose(exc)
            except BaseException as exc:
                # Cancelled too: what that answer held is gone, so the tunnel is.
                self._lose(_gone())
                if not isinstance(exc, httpx.HTTPError | RuntimeError):
                    raise
        return self._inbox.popleft()

    async def _fetch(self) -> None:
        timeout = httpx.Timeout(ANSWER_S, read=WAIT_S + ANSWER_S, connect=CONNECT_S)
        chunks: list[bytes] = []
        size_bytes = 0
        request = self._client.stream("GET", f"{PATH}/messages", params={"wait_s": WAIT_S}, timeout=timeout)
        async with request as answer:
            if answer.status_code != httpx.codes.OK:
                raise _gone()
            async for chunk in answer.aiter_bytes():
                size_bytes += len(chunk)
                if size_bytes > MAX_ANSWER_BYTES:
                    raise ConnectionClosedError(None, Close(1009, "too big"), None)
                chunks.append(chunk)
            headers = answer.headers
        for message in _split(b"".join(chunks)):
            self._fetched += 1
            self._inbox.append(message)
        self._answer_pings()
        if "crdt-sync-close" in headers:
            code = headers["crdt-sync-close"]
            reason = unquote(headers.get("crdt-sync-close-reason", ""))
            self._lose(
                ConnectionClosedError(Close(int(code), reason) if code.isdecimal() else None, None, None)
            )

    def _answer_pings(self) -> None:
        waiting, self._pings = self._pings, []
        for sent, answered in waiting:
            if answered.done():
                continue
            if self._fetched >= sent:
                answered.set_result(0.0)
            else:
                self._pings.append((sent, answered))

    # Sending

    async def send(self, message: bytes) -> None:
        """Have a message posted; waits while too much waits already. Raises ConnectionClosedError."""
        async with self._posted:
            await self._posted.wait_for(lambda: self._lost or self._outbox_bytes < POST_BYTES)
            if self._lost is not None:
                raise self._lost
            self._outbox.append(message)
            self._outbox_bytes += len(message)
            self._posted.notify_all()

    async def ping(self) -> Awaitable[float]:
        """What is given is done when everything has come that the relay had sent when it was asked."""
        async with self._posted:
            await self._posted.wait_for(lambda: self._lost or not self._outbox_bytes)
        if self._lost is not None:
            raise self._lost
        try:
            sent = await self._post(b"")
        except (httpx.HTTPError, ConnectionClosedError, RuntimeError):
            self._lose(_gone())
            raise _gone() from None
        answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._pings.append((sent, answered))
        self._answer_pings()
        return answered

    async def _post_all(self) -> None:
        try:
            while self._lost is None:
                async with self._posted:
                    await self._posted.wait_for(lambda: self._lost or self._outbox)
                    body = self._next_body()
                if body:
                    await self._post(body)
                async with self._posted:
                    self._outbox_bytes = sum(map(len, self._outbox))
                    self._posted.notify_all()
        except (httpx.HTTPError, ConnectionClosedError, RuntimeError):
            self._lose(_gone())
            async with self._posted:
                self._posted.notify_all()

    def _next_body(self) -> bytes:
        parts: list[bytes] = []
        size_bytes = 0
        while self._outbox and (not parts or size_bytes + len(self._outbox[0]) <= POST_BYTES):
            message = self._outbox.popleft()
            parts += (len(message).to_bytes(_LENGTH_BYTES, "big"), message)
            size_bytes += len(message)
        return b"".join(parts)

    async def _post(self, body: bytes) -> int:
        """Gives how many messages the relay has sent."""
        answer = await self._client.post(
            f"{PATH}/messages", content=body, headers={"Content-Type": MEDIA_TYPE}
        )
        if answer.status_code != httpx.codes.OK:
            raise _gone()
        try:
            return msgspec.json.decode(answer.content, type=_Taken).sent
        except msgspec.DecodeError:
            raise _gone() from None

    # The end

    def _lose(self, why: ConnectionClosedError) -> None:
        if self._lost is None:
            self._lost = why
        for _, answered in self._pings:
            if not answered.done():
                answered.set_exception(self._lost)
                answered.exception()  # whoever waits is told; nobody else need be
        self._pings.clear()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send what waits, then close. Again is harmless."""
        poster, self._poster = self._poster, None
        if poster is None:
            return
        with suppress(httpx.HTTPError, ConnectionClosedError, TimeoutError, RuntimeError):
            async with asyncio.timeout(CLOSE_S):
                if self._lost is None:
                    async with self._posted:
                        await self._posted.wait_for(lambda: self._lost or not self._outbox_bytes)
                    await self._client.delete(PATH)
        self._lose(ConnectionClosedError(None, Close(code, reason), None))
        poster.cancel()
        await asyncio.gather(poster, return_exceptions=True)
        await self._client.aclose()


def _split(body: bytes) -> list[bytes]:
    messages: list[bytes] = []
    at = 0
    while at < len(body):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(body[at:start], "big")
        if at > len(body):
            raise _gone()
        messages.append(body[start:at])
    return messages


def _gone() -> ConnectionClosedError:
    return ConnectionClosedError(None, None, None)


def _trusted(url: str) -> Any:
    """What the machine trusts, as for the socket; without TLS nothing is loaded."""
    if not url.startswith("wss:"):
        return False
    import ssl

    return ssl.create_default_context()
