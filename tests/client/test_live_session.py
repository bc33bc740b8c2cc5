"""The end of a session is not one moment: what the rest of the device does in between must not fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from crdt_sync.crypto.envelope import Header
from crdt_sync.errors import RelayUnreachable
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, SpaceId
from crdt_sync.protocol.device_session import DeviceSession, State
from crdt_sync_client.live_session import LiveSession
from crdt_sync_client.push_window import PushWindow
from crdt_sync_client.session_driver import SessionDriver
from crdt_sync_client.signal import Signal

AUTHOR = Author(DeviceId(b"d" * 16), Incarnation(1))


def sealed(sequence: int) -> bytes:
    return Header.for_update(
        space=SpaceId(b"s" * 16), record=OpaqueId(b"o" * 16), author=AUTHOR, epoch=1, sequence=sequence,
        prev=bytes(32), members_head=bytes(16), frontier=bytes(16),
    ).pack()  # fmt: skip


async def test_what_is_sealed_after_the_relays_last_word_waits_for_the_next_session() -> None:
    """The write that was sealed with it is durable, and whoever waits for it must hear so."""
    session = DeviceSession()
    session.state = State.LIVE
    nothing: Any = None
    start: Any = SimpleNamespace(relay_url="ws://relay")
    driver = SessionDriver(nothing, start, protocol=session, clock=lambda: 0.0, agent="test")
    driver.window = PushWindow(*session.push_budget, lambda: 0.0)
    connection: Any = SimpleNamespace(session=session)
    live = LiveSession(connection, nothing, driver, publish=lambda changes: None, signal=Signal())
    assert live.window.begin()
    live.pushed([sealed(1)])
    assert len(driver.outgoing) == 1
    session.state = State.DONE  # `Bye` was read; the connection is being closed
    assert live.live
    live.pushed([sealed(2)])
    assert len(driver.outgoing) == 1
    with pytest.raises(RelayUnreachable):
        await live.append(b"entry")
