"""One connection to a relay: what happens when both sides act at the same moment."""

from __future__ import annotations

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from crdt_sync.errors import ConnectionFailed
from crdt_sync.ids import DeviceId, Incarnation, RelayId, SpaceId
from crdt_sync.protocol.frames import Challenge, Deliver, Welcome, encode
from crdt_sync.protocol.limits import DEFAULT_LIMITS, SUBPROTOCOL
from crdt_sync_client.relay_connection import RelayConnection


async def welcome_and_deliver(socket: ServerConnection) -> None:
    """A relay that has something to deliver at once."""
    await socket.send(encode(Challenge((1,), RelayId(b"r" * 16), b"n" * 32, 0, DEFAULT_LIMITS)))
    await socket.recv()
    await socket.send(encode(Welcome(1, 0, b"h" * 32, 0, bytes(32), 0)))
    await socket.send(encode(Deliver(rows=[], after=0, cursor=1, caught_up=True)))
    await socket.wait_closed()


async def test_what_was_on_its_way_when_we_closed_is_no_fault_of_the_relay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serve(
        welcome_and_deliver, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        connection = await RelayConnection.open(f"ws://127.0.0.1:{port}")
        hello = connection.session.hello(
            space=SpaceId(b"s" * 16),
            device=DeviceId(b"d" * 16),
            incarnation=Incarnation(1),
            cursor=0,
            relay_seen=None,
            sign=lambda _: bytes(64),
            agent="test",
        )
        await connection.send(hello)
        assert isinstance(await connection.next_frame(), Welcome)
        await connection.round_trip()  # the delivery has come by now, and waits to be taken
        await connection.close()
        with pytest.raises(ConnectionFailed):
            await connection.next_frame()
    assert caplog.messages == []
