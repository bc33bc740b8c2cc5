"""One connection to a relay: bytes in and out of a `DeviceSession`, endings turned into errors.

It is a WebSocket, or, where something on the way lets none pass, the same frames over plain HTTP: when the
upgrade fails although somebody answers, HTTP is tried, and kept to for a while. However a connection ends,
the caller gets one of our own errors: see `endings`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from crdt_sync.errors import (
    ConnectionFailed,
    CrdtSyncError,
    FrameTooLarge,
    MalformedFrame,
    ProtocolViolation,
    RelayRefused,
    RelayUnreachable,
    RemoteError,
)
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.device_session import DeviceSession, State, close_code_for
from crdt_sync.protocol.frames import Bye, Challenge, FromRelay
from crdt_sync.protocol.limits import MAX_CLOSE_REASON_BYTES, MAX_FRAME_BYTES, PATH, SUBPROTOCOL

from .agent import agent
from .endings import printable, refusal

if TYPE_CHECKING:
    from .http_tunnel import HttpTunnel

logger = logging.getLogger("crdt_sync.client")

OPEN_TIMEOUT_S: Final = 10.0
PING_S: Final = 20.0
"""Time between heartbeats. Mobile networks drop ties that are idle for half a minute."""
ANSWER_S: Final = 10.0
"""How long after a heartbeat something must be heard. So a dead link is noticed within 30 seconds."""
CLOSE_TIMEOUT_S: Final = 2.0
"""A relay that does not answer our closing is not waited for."""
QUEUED_FRAMES: Final = 8
"""Frames `websockets` holds for us before it stops reading from the socket."""

HTTP_FOR_S: Final = 900.0
"""How long plain HTTP is kept to after no WebSocket passed; then a better network is looked for."""
_http_until_s: Final[dict[str, float]] = {}
"""By relay address, on the monotonic clock; for the whole process, as the network is."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Socket(ClientConnection):
    """A WebSocket that is alive while anything comes in.

    `websockets` by itself waits for the answer to its ping. On a slow network that is behind megabytes of
    rows, and a connection at full speed would be taken for dead.
    """

    _heard_s = 0.0

    def data_received(self, data: bytes) -> None:
        self._heard_s = self.loop.time()
        super().data_received(data)

    async def keepalive(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(PING_S - ANSWER_S)
                asked_s = self.loop.time()
                await self.ping()
                await asyncio.sleep(ANSWER_S)
                if self._heard_s < asked_s:
                    async with self.send_context():
                        self.protocol.fail(1011, "nothing was heard")


class Wire(Protocol):
    """What carries messages: `websockets`' connection, or `HttpTunnel`."""

    async def recv(self) -> bytes | str: ...

    async def send(self, message: bytes) -> None: ...

    async def ping(self) -> Awaitable[float]: ...

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class _NoWebSocketError(Exception):
    """A WebSocket could not be opened although somebody may be there. `error` is what to say of it."""

    def __init__(self, error: CrdtSyncError) -> None:
        super().__init__(error.message)
        self.error = error


class RelayConnection:
    """A connection whose challenge has come. `session` builds what `send` sends."""

    def __init__(self, url: str, socket: Wire, session: DeviceSession | None = None) -> None:
        self.url = url
        self.session = session or DeviceSession()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.last_frame_bytes = 0
        self.challenge: Challenge
        self._socket = socket
        self._closing = False

    @classmethod
    async def open(cls, url: str, session: DeviceSession | None = None) -> RelayConnection:
        """Connect and take the challenge. Raises RelayUnreachable, RelayRefused or a RemoteError."""
        now_s = time.monotonic()
        if _http_until_s.get(url, 0.0) > now_s:
            with suppress(CrdtSyncError):
                return await cls._over(await _tunnel(url), url, session)
            _http_until_s.pop(url, None)
        try:
            return await cls._over(await _connect(url), url, session)
        except _NoWebSocketError as exc:
            try:
                connection = await cls._over(await _tunnel(url), url, session)
            except CrdtSyncError:
                raise exc.error from None
        logger.info("no WebSocket passes to %s; going on over plain HTTP", url)
        _http_until_s[url] = now_s + HTTP_FOR_S
        return connection

    @classmethod
    async def _over(cls, socket: Wire, url: str, session: DeviceSession | None) -> RelayConnection:
        connection = cls(url, socket, session)
        try:
            frame = await connection.next_frame()
        except BaseException:
            await connection.close()
            raise
        assert isinstance(frame, Challenge)  # the session lets nothing else through
        connection.challenge = frame
        return connection

    async def next_frame(self) -> FromRelay:
        """The next frame; raises when the connection ended, or a bad frame ended it."""
        try:
            data = await self._socket.recv()
            while self._closing:  # what was on its way when we closed: it will be delivered again
                data = await self._socket.recv()
        except ConnectionClosed as exc:
            raise self._ended(exc) from None
        try:
            if isinstance(data, str):
                raise MalformedFrame("the relay sent text; frames are binary")
            self.last_frame_bytes = len(data)
            self.bytes_received += len(data)
            frame = self.session.receive(data)
        except RemoteError as exc:
            await self.refuse(exc)
            raise
        if isinstance(frame, Bye):
            await self.close()  # whether the relay closes as well is its business
            raise refusal(frame.code, frame.error, frame.reason, self.url)
        return frame

    async def send(self, message: bytes) -> None:
        """Send one message of the session; waits while the socket is full."""
        try:
            await self._socket.send(message)
        except ConnectionClosed as exc:
            raise self._ended(exc) from None
        self.bytes_sent += len(message)

    async def round_trip(self) -> None:
        """Returns when the relay has answered a ping: what it had to say before has come."""
        try:
            answered = await self._socket.ping()
            await answered
        except ConnectionClosed as exc:
            raise self._ended(exc) from None

    async def refuse(self, error: CrdtSyncError) -> None:
        """Close because of what the relay sent, saying why."""
        await self.close(close_code_for(error), error.code, error.message)

    async def close(self, code: CloseCode = CloseCode.NORMAL, error: str = "", reason: str = "") -> None:
        """Close; again is harmless, and the first reason given is the one that was sent."""
        if code is not CloseCode.NORMAL and not self._closing:
            logger.warning("closing the connection to %s: %s: %s", self.url, error, reason)
            try:
                await self._socket.send(self.session.bye(code, error, reason))
            except ConnectionClosed:
                return
        self.session.state = State.DONE
        self._closing = True
        await self._socket.close(int(code), _cut(reason))

    def _ended(self, closed: ConnectionClosed) -> CrdtSyncError:
        """What the end of the connection means to the caller."""
        if closed.sent is not None and not closed.rcvd_then_sent:
            # `websockets` itself refused what came: too big (1009), not WebSocket (1002), not UTF-8 (1007).
            if closed.sent.code == CloseCode.TOO_BIG:
                return FrameTooLarge(f"the relay sent a frame of more than {MAX_FRAME_BYTES:,} bytes")
            if closed.sent.code in (1002, 1007):
                return MalformedFrame("the relay broke the WebSocket protocol")
        code = closed.rcvd.code if closed.rcvd is not None else 1006
        text = closed.rcvd.reason if closed.rcvd is not None else ""
        return refusal(code, "", text, self.url)


async def _tunnel(url: str) -> HttpTunnel:
    """The way over plain HTTP. Raises RelayUnreachable."""
    from .http_tunnel import HttpTunnel, TunnelFailed

    try:
        return await HttpTunnel.open(url, agent=agent(), trust_env=check_relay_url(url) not in _LOOPBACK)
    except TunnelFailed as exc:
        raise RelayUnreachable(
            f"the relay at {url} cannot be reached over plain HTTP either ({exc})", hint=_UNREACHABLE_HINT
        ) from None


async def _connect(url: str) -> ClientConnection:
    """The WebSocket. Raises _NoWebSocketError; RelayUnreachable where no other way would help either."""
    host = check_relay_url(url)
    try:
        socket = await connect(
            url.rstrip("/") + PATH,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # ciphertext does not compress
            proxy=None if host in _LOOPBACK else True,
            user_agent_header=agent(),
            open_timeout=OPEN_TIMEOUT_S,
            create_connection=Socket,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_FRAME_BYTES,
            max_queue=QUEUED_FRAMES,
        )
    except InvalidStatus as exc:
        raise _NoWebSocketError(_http_refusal(url, exc.response.status_code)) from None
    except (InvalidHandshake, InvalidURI, InvalidProxy) as exc:
        if isinstance(exc.__cause__, EOFError):
            raise _NoWebSocketError(
                RelayUnreachable(
                    f"the connection to the relay at {url} ended before it answered", hint=_UNREACHABLE_HINT
                )
            ) from None
        raise _NoWebSocketError(
            RelayRefused(
                f"{url} is not a crdt-sync relay ({type(exc).__name__})",
                close_code=CloseCode.VERSION,
                hint="check the address and the port",
            )
        ) from None
    except TimeoutError:
        raise _NoWebSocketError(
            RelayUnreachable(
                f"the relay at {url} did not answer within {OPEN_TIMEOUT_S:.0f} s", hint=_UNREACHABLE_HINT
            )
        ) from None
    except (OSError, EOFError, ImportError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        raise RelayUnreachable(
            f"the relay at {url} cannot be reached: {why}", hint=_UNREACHABLE_HINT
        ) from None
    if socket.subprotocol != SUBPROTOCOL:
        await socket.close(CloseCode.VERSION, f"{SUBPROTOCOL} only")
        raise _NoWebSocketError(
            ProtocolViolation(
                f"{url} does not speak {SUBPROTOCOL}", hint="check the address, or update the older side"
            )
        )
    return socket


_UNREACHABLE_HINT: Final = "check that the relay runs and the address is right; local work goes on meanwhile"


def check_relay_url(url: str) -> str:
    """The host of a relay's address; raises RelayRefused for what is not one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("ws", "wss") or not host or parts.query or parts.fragment:
        raise RelayRefused(
            f"{printable(url)!r} is not the address of a relay",
            close_code=CloseCode.UNKNOWN_SPACE,
            hint="write it as ws://HOST:PORT, or wss://HOST for an encrypted connection",
        )
    return host


def _http_refusal(url: str, status: int) -> ConnectionFailed:
    if status >= 500 or status in (408, 425, 429):
        return RelayUnreachable(f"the relay at {url} answered HTTP {status}", hint=_UNREACHABLE_HINT)
    return RelayRefused(
        f"{url} is not a crdt-sync relay: it answered HTTP {status}",
        close_code=CloseCode.VERSION,
        hint="check the address and the port",
    )


def _cut(reason: str) -> str:
    """As much of a reason as fits a close frame."""
    return reason.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")
