"""Locking and unlocking a device, by hand and by itself, and changing its passphrase."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import (
    NoKey,
    StoreClosed,
    StoreError,
    StoreInUse,
    StoreLocked,
    TransactionError,
    ValidationError,
    WrongPassphrase,
)
from crdt_sync_client import Device, Query, locking
from crdt_sync_client.store.connection import Database
from tests.client.alone import found_space

TYPE = "work_order"
OLD, NEW = "correct horse", "battery staple"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.db"


@pytest.fixture
async def device(path: Path) -> AsyncIterator[Device]:
    async with await Device.create(path, name="Tablet", passphrase=OLD) as device:
        await found_space(device)
        yield device


class Clocks:
    """The two clocks of the idle time, set by the test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steady_s = self.wall_s = 1000.0
        patch.setattr(locking, "moments_s", lambda: (self.steady_s, self.wall_s))

    def pass_by(self, seconds: float) -> None:
        self.steady_s += seconds
        self.wall_s += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


async def refused(device: Device) -> None:
    """Every call that needs the store says what to do."""
    attempts: list[Any] = [
        device.get(TYPE, "x"),
        device.create(TYPE, {"title": "x"}),
        device.query(TYPE),
        device.status(),
        device.outbox(),
        device.spaces(),
        device.conflicts(),
        device.sync(),
        device.connect(),
        device.join("crdt-sync://nowhere"),
        device.invite(),
        device.lock_after(60),
        device.change_passphrase(OLD, NEW),
        device.import_rows(TYPE, [{"title": "x"}]),
        device.transaction().__aenter__(),
        device.page(Query(TYPE)),
    ]
    for attempt in attempts:
        with pytest.raises(StoreLocked) as told:
            await attempt
        assert "unlock" in told.value.hint


def is_open(device: Device) -> bool:
    """Read anew: a type checker takes what it saw for what stays."""
    return not device.locked


async def test_a_locked_device_refuses_and_unlocks_offline_with_everything(
    device: Device, path: Path
) -> None:
    order = await device.create(TYPE, {"title": "Order"})
    author = device._engine.author
    await device.lock()
    await device.lock()
    assert not is_open(device)
    await refused(device)
    with pytest.raises(WrongPassphrase):
        await device.unlock("guess")
    assert not is_open(device)
    await device.unlock(OLD)
    assert is_open(device)
    record = await device.get(TYPE, order.id)
    assert record is not None
    assert record["title"] == "Order"
    assert record.sync_state == "pending"
    await device.update(TYPE, order.id, {"title": "After"})
    assert device._engine.author == author, "locking is a clean end"


async def test_a_transaction_that_is_open_during_a_lock_is_given_up_and_says_so(device: Device) -> None:
    order = await device.create(TYPE, {"title": "Order"})

    async def interrupted(*, goes_on: bool) -> None:
        async with device.transaction() as together:
            await together.update(TYPE, order.id, {"title": "Half"})
            await device.lock()
            with pytest.raises(StoreLocked, match="locked"):
                await together.update(TYPE, order.id, {"title": "Locked"})
            await device.unlock(OLD)
            if goes_on:
                await together.update(TYPE, order.id, {"title": "Whole"})

    for goes_on in (True, False):  # told at the next write, or at the end
        with pytest.raises(TransactionError, match="locked after this transaction had begun") as told:
            await interrupted(goes_on=goes_on)
        assert "nothing of it was written" in told.value.message
        assert told.value.hint.startswith("begin it again")
    record = await device.get(TYPE, order.id)
    assert record is not None
    assert record["title"] == "Order"
    async with device.transaction() as together:
        await together.update(TYPE, order.id, {"title": "Again"})
    assert (await device.query(TYPE))[0]["title"] == "Again"


async def test_a_transaction_that_is_open_when_the_device_is_closed_says_that(device: Device) -> None:
    async def interrupted() -> None:
        async with device.transaction() as together:
            await together.create(TYPE, {"title": "Half"})
            await device.close()

    with pytest.raises(StoreClosed, match="the device is closed"):
        await interrupted()


async def test_a_locked_store_is_closed_and_its_engine_is_gone(device: Device, path: Path) -> None:
    gone = [weakref.ref(part) for part in (device._engine, device._engine._replica, device._thread)]
    await device.lock()
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]
    Database.open(path, OLD).close()  # nobody has it open


async def test_writes_on_their_way_are_finished_and_watches_go_on(device: Device) -> None:
    async with device.watch(TYPE) as changes:
        writes = []
        for title in ("On its way", "Waits for the next commit"):
            writes.append(asyncio.create_task(device.create(TYPE, {"title": title})))
            for _ in range(3):
                await asyncio.sleep(0)
        await asyncio.gather(device.lock(), *writes)
        await device.unlock(OLD)
        after = await device.create(TYPE, {"title": "After"})
        seen = [await anext(changes) for _ in range(3)]
    assert [change.id for change in seen] == [*(write.result().id for write in writes), after.id]
    assert await device.count(TYPE) == 3


async def test_a_device_that_was_connected_connects_again(device: Device) -> None:
    await device.connect()
    before = next(iter(device._syncs.values()))
    assert before._running()
    await device.lock()
    assert not before._running()
    await device.unlock(OLD)
    (sync,) = device._syncs.values()
    assert sync is not before
    assert sync._running()
    await device.lock()
    await device.disconnect()
    await device.unlock(OLD)
    (sync,) = device._syncs.values()
    assert not sync._running()


async def test_unlocking_an_open_device_checks_the_passphrase(device: Device) -> None:
    await device.unlock(OLD)
    with pytest.raises(WrongPassphrase):
        await device.unlock("guess")
    with pytest.raises(NoKey):
        await device.unlock()
    assert await device.count(TYPE) == 0
    await device.lock()
    await asyncio.gather(device.unlock(OLD), device.unlock(OLD))
    assert await device.count(TYPE) == 0


async def test_a_locked_device_can_be_closed_and_stays_closed(device: Device, path: Path) -> None:
    locking_it = asyncio.create_task(device.lock())
    await asyncio.sleep(0)
    await device.close()
    await locking_it
    Database.open(path, OLD).close()
    with pytest.raises(StoreClosed):
        await device.unlock(OLD)
    with pytest.raises(StoreClosed):
        await device.lock()


async def test_an_idle_device_locks_by_itself_and_remembers_after_how_long(
    device: Device, path: Path, clocks: Clocks
) -> None:
    told: list[str] = []
    await device.lock_after(300, on_lock=lambda: told.append("locked"))
    clocks.pass_by(299)
    await device.count(TYPE)
    clocks.pass_by(299)
    device.touch()
    clocks.pass_by(299)
    assert not device.lock_if_idle()
    clocks.pass_by(2)
    assert device.lock_if_idle()
    assert told == ["locked"]
    await refused(device)
    await device.unlock(OLD)
    clocks.pass_by(301)
    await refused(device)  # the first call after a long sleep finds it locked
    await device.unlock(OLD)
    await device.close()
    async with await Device.open(path, passphrase=OLD) as again:
        clocks.pass_by(301)
        assert again.lock_if_idle()
        await again.unlock(OLD)
        await again.lock_after(None)
        clocks.pass_by(10**6)
        assert not again.lock_if_idle()


async def test_what_a_watch_reads_because_others_wrote_is_no_use(device: Device, clocks: Clocks) -> None:
    async with device.live(Query(TYPE)) as pages:
        assert (await anext(pages)).records == []
        await device.create(TYPE, {"title": "Order"})
        await device.lock_after(60)
        clocks.pass_by(40)
        assert len((await anext(pages)).records) == 1
        clocks.pass_by(40)
        assert device.lock_if_idle()


async def test_the_timer_locks_without_being_asked(device: Device, clocks: Clocks) -> None:
    locked = asyncio.Event()
    await device.lock_after(60, on_lock=locked.set)
    clocks.pass_by(60)
    device._idle._due()  # what the loop calls
    await locked.wait()
    assert not is_open(device)


@pytest.mark.parametrize(("steady_s", "wall_s"), [(0, 61), (61, -10_000)], ids=["asleep", "clock set back"])
async def test_sleep_counts_and_a_clock_set_back_does_not_help(
    device: Device, clocks: Clocks, steady_s: float, wall_s: float
) -> None:
    await device.lock_after(60)
    clocks.steady_s += steady_s
    clocks.wall_s += wall_s
    assert device.lock_if_idle()


@pytest.mark.parametrize("seconds", [0, -1, 0.5, float("nan"), float("inf")])
async def test_an_idle_time_that_makes_no_sense_is_refused(device: Device, seconds: float) -> None:
    with pytest.raises(ValidationError):
        await device.lock_after(seconds)


async def test_a_changed_passphrase_opens_what_the_old_one_did(device: Device, path: Path) -> None:
    order = await device.create(TYPE, {"title": "Order"})
    with pytest.raises(WrongPassphrase):
        await device.change_passphrase("guess", NEW)
    for unusable in ("", b"short"):
        with pytest.raises(NoKey):
            await device.change_passphrase(OLD, unusable)
    _, made = await asyncio.gather(
        device.change_passphrase(OLD, NEW), device.create(TYPE, {"title": "Meanwhile"})
    )
    await device.close()
    with pytest.raises(WrongPassphrase):
        await Device.open(path, passphrase=OLD)
    async with await Device.open(path, passphrase=NEW) as again:
        assert {record.id for record in await again.query(TYPE)} == {order.id, made.id}
        await again.change_passphrase(NEW, bytes(range(32)))
        await again.lock()
        with pytest.raises(WrongPassphrase):
            await again.unlock(NEW)
        await again.unlock(key=bytes(range(32)))


async def test_a_change_that_fails_locks_the_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    order = await device.create(TYPE, {"title": "Order"})

    def fail(self: Database, old: object, new: object) -> None:
        self.close()
        raise StoreError("no room")

    monkeypatch.setattr(Database, "change_key", fail)
    with pytest.raises(StoreError, match="no room"):
        await device.change_passphrase(OLD, NEW)
    assert not is_open(device)
    await device.unlock(OLD)
    assert await device.get(TYPE, order.id) is not None


async def test_two_devices_cannot_have_one_store_though_one_is_locked(device: Device, path: Path) -> None:
    await device.lock()
    async with await Device.open(path, passphrase=OLD):
        with pytest.raises(StoreInUse):
            await device.unlock(OLD)
    await device.unlock(OLD)
