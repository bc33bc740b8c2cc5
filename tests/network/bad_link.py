"""A bad network between devices and a relay: a TCP proxy on loopback that is slow, cuts, and falls silent.

Bytes are passed on in order, each piece after the time that its size takes at the link's rate and after the
latency with its jitter. At most `BUFFER_PIECES` pieces are on their way in each direction; then the proxy
reads no more, and the sender's socket fills. Chance comes from a seed: a link breaks at the same bytes again;
what the devices send meanwhile is up to the machine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

PIECE_BYTES: Final = 1_400
"""About what an IP packet carries, so that a cut comes in the middle of a frame."""
BUFFER_PIECES: Final = 64
"""90 KB: two seconds of 48 KB/s, and more than 200 ms of latency hold."""

Direction = Literal["up", "down"]


@dataclass
class Link:
    """What the network is like now; may be changed at any time."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much more, at random."""
    bytes_per_s: float | None = None
    """In each direction."""
    drop_after_bytes: tuple[int, int] | None = None
    """A connection is reset after so many bytes, at least and at most, of both directions together."""


class BadLink:
    """The proxy of one device. `url` is the relay's address through it."""

    def __init__(self, relay_url: str, link: Link | None = None, *, seed: int = 1) -> None:
        parts = urlsplit(relay_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.relay = parts.hostname, parts.port
        self.random = random.Random(seed)
        self.url = ""
        self.connections = 0
        self.drops = 0
        self.most_waiting = 0
        """Pieces that were on their way in one direction at most."""
        self._relay_url = relay_url
        self._passing: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._open: set[_Connection] = set()
        self._served: set[asyncio.Task[None]] = set()
        self.mend()
        self.link = link or Link()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BadLink]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._served, return_exceptions=True)

    def through(self, text: str) -> str:
        """A text with the relay's address, such as an invite, that leads through this link."""
        direct, here = (url.removeprefix("ws://") for url in (self._relay_url, self.url))
        assert direct in text
        return text.replace(direct, here)

    # What happens to the network

    def silence(self, *ways: Direction) -> None:
        """Nothing comes through any more, and nobody is told: what is sent waits; connections are taken."""
        for way in ways:
            self._passing[way].clear()

    def mend(self) -> None:
        """A good network from now on; what waited comes through."""
        for passing in self._passing.values():
            passing.set()
        self.link = Link()

    def cut(self) -> None:
        """Reset every connection there is."""
        for connection in list(self._open):
            connection.reset()

    async def pass_on(self, way: Direction) -> None:
        await self._passing[way].wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        self.connections += 1
        try:
            with suppress(OSError):
                await _Connection(self, reader, writer).run(self._open)
        finally:
            self._served.discard(task)


class _Connection:
    """One connection of a device, and the one to the relay that belongs to it."""

    def __init__(self, net: BadLink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._net = net
        self._reader = reader
        self._writers = [writer]
        self._done = asyncio.Event()
        limits = net.link.drop_after_bytes
        self._bytes_left = None if limits is None else net.random.randint(*limits)

    async def run(self, among: set[_Connection]) -> None:
        among.add(self)
        device = self._writers[0]
        pumps: list[asyncio.Task[None]] = []
        try:
            back, relay = await asyncio.open_connection(*self._net.relay)
            self._writers.append(relay)
            ways: tuple[tuple[Direction, asyncio.StreamReader, asyncio.StreamWriter], ...] = (
                ("up", self._reader, relay),
                ("down", back, device),
            )
            for way, source, sink in ways:
                queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(BUFFER_PIECES)
                pumps.append(asyncio.create_task(self._take(source, queue)))
                pumps.append(asyncio.create_task(self._give(way, queue, sink)))
            await self._done.wait()
        finally:
            among.discard(self)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in self._writers:
                writer.transport.abort()

    def reset(self) -> None:
        self._net.drops += 1
        self._done.set()

    async def _take(self, source: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        clock = asyncio.get_running_loop().time
        free_s = due_s = 0.0
        piece = b"at first"
        while piece:
            try:
                piece = await source.read(PIECE_BYTES)
            except OSError:
                piece = b""
            link = self._net.link
            free_s = max(free_s, clock()) + len(piece) / (link.bytes_per_s or float("inf"))
            due_s = max(due_s, free_s + link.latency_s + link.jitter_s * self._net.random.random())
            await queue.put((due_s, piece))
            self._net.most_waiting = max(self._net.most_waiting, queue.qsize())

    async def _give(
        self, way: Direction, queue: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter
    ) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while True:
                due_s, piece = await queue.get()
                await asyncio.sleep(max(0.0, due_s - clock()))
                await self._net.pass_on(way)
                if not piece:
                    return  # closed by its end: the other is closed as well
                if self._bytes_left is not None:
                    if len(piece) >= self._bytes_left:
                        sink.write(piece[: self._bytes_left])
                        self.reset()
                        return
                    self._bytes_left -= len(piece)
                sink.write(piece)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._done.set()
