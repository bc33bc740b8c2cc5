"""A connection without a network: what happens when the other side does nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Bye, Challenge, Create, decode_from_relay, encode
from crdt_sync.protocol.limits import SUBPROTOCOL
from crdt_sync_server import connection as connection_module
from crdt_sync_server import delivery as delivery_module
from crdt_sync_server.database_thread import DatabaseThread
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.hub import Hub
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    database = connect_storage(tmp_path / "relay.sqlite3", os.urandom)
    storage = SqliteStorage(database)
    thread = DatabaseThread(lambda: database, iter_chunk_size=64)
    await thread
    engine = RelayEngine(storage, token_is_right=lambda token: False)
    started = Hub(engine, storage, thread, entropy=os.urandom)
    started.start()
    yield started
    await started.stop()
    await thread.close()


class Socket:
    """The ASGI side of a WebSocket whose device is a test."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.challenged = asyncio.Event()
        self.inbox.put_nowait({"type": "websocket.connect"})

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "websocket.send":
            self.challenged.set()
        if message["type"] == "websocket.close":
            self.inbox.put_nowait({"type": "websocket.disconnect", "code": message["code"]})

    async def serve(self, hub: Hub) -> None:
        await hub({"subprotocols": [SUBPROTOCOL]}, self.inbox.get, self.send)


async def test_who_does_not_say_who_he_is_is_closed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HANDSHAKE_TIMEOUT_S", 0.02)
    device = Socket()
    await asyncio.wait_for(device.serve(hub), 5)
    accept, challenge, bye, close = device.sent
    assert accept == {"type": "websocket.accept", "subprotocol": SUBPROTOCOL}
    assert isinstance(decode_from_relay(challenge["bytes"]), Challenge)
    last = decode_from_relay(bye["bytes"])
    assert isinstance(last, Bye)
    assert close["code"] == last.code == CloseCode.HANDSHAKE_TIMEOUT
    assert hub.connections == 0


async def test_a_connection_that_drops_is_forgotten(hub: Hub) -> None:
    device = Socket()
    serving = asyncio.create_task(device.serve(hub))
    await device.challenged.wait()
    assert hub.connections == 1
    device.inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await asyncio.wait_for(serving, 5)
    assert hub.connections == 0


async def test_who_sends_more_than_there_is_room_for_is_read_on_when_it_was_committed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "BACKLOG_BYTES", 1)
    device = Socket()
    serving = asyncio.create_task(device.serve(hub))
    await device.challenged.wait()
    create = Create(1, b"not a genesis", "no token", "test")
    device.inbox.put_nowait({"type": "websocket.receive", "bytes": encode(create)})
    await asyncio.wait_for(serving, 5)
    assert device.sent[-1]["type"] == "websocket.close"
    assert device.sent[-1]["code"] == CloseCode.UNAUTHENTICATED
