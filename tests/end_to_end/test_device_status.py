"""Waiting for a write to be durable, and the status as values and as streams, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from crdt_sync.errors import SyncTimeout
from crdt_sync_client import Device, find_schema
from tests.end_to_end.relay_process import RestartableRelay

TYPE = "work_order"
KEY = bytes(range(32))

Enter = Callable[[str], Awaitable[Device]]


@pytest.fixture
def own_relay(tmp_path: Path) -> Iterator[RestartableRelay]:
    """A relay of the test's own, to break."""
    running = RestartableRelay(tmp_path / "relay")
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def office(tmp_path: Path, own_relay: RestartableRelay, stack: AsyncExitStack) -> Device:
    """The admin of a space with work orders."""
    device = await stack.enter_async_context(await Device.create(tmp_path / "o.db", name="Office", key=KEY))
    await device.create_space(
        "Pit 4", relay=own_relay.url, token=own_relay.setup_token, schemas=[find_schema(TYPE)]
    )
    return device


@pytest.fixture
def enter(tmp_path: Path, office: Device, stack: AsyncExitStack) -> Enter:
    """Makes a field device that has joined the space."""

    async def enter(name: str) -> Device:
        link = await office.invite(role="field")
        device = await Device.create(tmp_path / f"{name}.db", name=name, key=KEY)
        await stack.enter_async_context(device)
        await device.join(link)
        return device

    return enter


async def test_a_write_is_awaited_until_the_relay_has_it(office: Device, enter: Enter) -> None:
    tablet = await enter("Tablet")
    await tablet.sync()
    write = await tablet.create(TYPE, {"title": "Leak"}, priority=1)
    await tablet.wait(write, "local")
    with pytest.raises(SyncTimeout, match="does not have it"):
        await tablet.wait(write, "relayed", timeout_s=0.05)
    assert await tablet.record_state(TYPE, write.id) == "pending"
    await tablet.connect()
    await tablet.wait(write, timeout_s=30)
    assert await tablet.record_state(TYPE, write.id) == "synced"
    later = await tablet.update(TYPE, write.id, {"title": "Leak at pump 2"})
    await tablet.wait(later, timeout_s=30)
    await office.sync()
    record = await office.get(TYPE, write.id)
    assert record is not None
    assert record["title"] == "Leak at pump 2"


async def test_streams_tell_the_latest_state_and_end_with_the_device(enter: Enter) -> None:
    tablet = await enter("Tablet")
    await tablet.sync()
    statuses = tablet.watch_status()
    assert (await anext(statuses)).state == "offline"
    write = await tablet.create(TYPE, {"title": "Leak"})
    states = tablet.watch_record_state(TYPE, write.id)
    assert await anext(states) == "pending"
    for count in range(50):  # nobody asks meanwhile: only the latest is told
        await tablet.update(TYPE, write.id, {"title": f"Leak {count}"})
    status = await anext(statuses)
    assert (status.state, status.pending) == ("offline", 1)
    await tablet.connect()
    seen = [status.state]
    while (status := await anext(statuses)).state != "idle" or status.pending:
        seen.append(status.state)
    assert set(seen) <= {"offline", "connecting", "syncing", "idle"}
    while await anext(states) != "synced":
        pass
    assert (await tablet.status()).pending == 0
    await tablet.close()
    with pytest.raises(StopAsyncIteration):
        await anext(statuses)
    with pytest.raises(StopAsyncIteration):
        await anext(states)
