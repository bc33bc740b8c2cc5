"""A proxy that lets no WebSocket pass, as some company networks have: the rest goes through untouched."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal
from urllib.parse import urlsplit

Way = Literal["403", "cut", "200", "pass"]


class RefusingProxy:
    """Listens on loopback in front of one relay. `way` is what happens to a request to upgrade."""

    def __init__(self, relay_url: str, way: Way = "403") -> None:
        parts = urlsplit(relay_url)
        self._relay = (parts.hostname or "", parts.port or 0)
        self.way: Way = way
        self.upgrades = 0
        self.requests = 0
        self.url = ""
        self._connections: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> RefusingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut_all()
        await self._server.wait_closed()

    def cut_all(self) -> None:
        """Break every connection there is."""
        for writer in self._connections:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"upgrade: websocket" in head.lower():
                self.upgrades += 1
                if self.way != "pass":
                    if self.way != "cut":
                        writer.write(b"HTTP/1.1 %s No\r\nContent-Length: 2\r\n\r\nNo" % self.way.encode())
                        await writer.drain()
                    return
            else:
                self.requests += 1
            await self._pipe(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _pipe(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_relay, to_relay = await asyncio.open_connection(*self._relay)
        self._connections.add(to_relay)
        to_relay.write(head)
        try:
            await asyncio.gather(_copy(reader, to_relay), _copy(from_relay, writer))
        finally:
            self._connections.discard(to_relay)
            to_relay.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
