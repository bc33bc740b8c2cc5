"""Waiting for a write to be durable, and the status as values and as streams, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from crdt_sync.errors import LocalError, SyncTimeout
from crdt_sync_client import Device
from tests.end_to_end.office import KEY, TYPE, Enter
from tests.end_to_end.relay_process import RestartableRelay


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


async def test_a_write_is_awaited_until_all_others_have_it_also_over_breaks_and_restarts(
    tmp_path: Path, office: Device, own_relay: RestartableRelay, enter: Enter
) -> None:
    one, two = await enter("One"), await enter("Two")
    for device in (office, one, two):
        await device.sync()
    write = await one.create(TYPE, {"title": "Leak"})
    await one.connect()
    await office.connect()
    with pytest.raises(SyncTimeout, match="1 of 2 other devices have it"):
        await write.wait("delivered", timeout_s=2)
    waiting = asyncio.create_task(one.wait(write.ref, "delivered", timeout_s=60))
    await asyncio.sleep(0)
    own_relay.stop()
    own_relay.start()
    assert not waiting.done()
    await two.sync(timeout_s=60)  # and leaves: what it had is known all the same
    await waiting
    record = await two.get(TYPE, write.id)
    assert record is not None
    await office.disconnect()
    async with AsyncExitStack() as stack:
        await one.close()
        again = await stack.enter_async_context(await Device.open(tmp_path / "One.db", key=KEY))
        await again.connect()
        await again.wait(write.ref, "delivered", timeout_s=60)


async def test_what_is_delivered_at_once_is_known_without_a_new_session(office: Device, enter: Enter) -> None:
    tablet = await enter("Tablet")
    for device in (office, tablet):
        await device.connect()
    for number in range(5):
        write = await office.create(TYPE, {"title": f"Order {number}"})
        await write.wait("delivered", timeout_s=30)
        assert await tablet.get(TYPE, write.id) is not None
    async with office.transaction() as t:
        draft = await t.update(TYPE, write.id, {"title": "Done"})
    await t.results[0].wait("delivered", timeout_s=30)
    with pytest.raises(LocalError, match="no write"):
        await office.wait("nonsense", "delivered")
    assert draft.id == write.id


async def test_alone_in_a_space_a_write_is_delivered_when_the_relay_has_it(office: Device) -> None:
    await office.connect()
    write = await office.create(TYPE, {"title": "Leak"})
    await write.wait("delivered", timeout_s=30)
    assert await office.record_state(TYPE, write.id) == "synced"
