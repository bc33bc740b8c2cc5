"""Logging out: nothing stays on the machine, and nothing that no relay has is lost unasked."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crdt_sync.errors import LocalError, StoreClosed, StoreMissing, UnsyncedWork
from crdt_sync.ids import RelayId
from crdt_sync_client import Device, keychain
from crdt_sync_client.store import wiping
from tests.client.alone import found_space

TYPE = "work_order"
KEY = bytes(range(32))


@pytest.fixture
async def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Device]:
    """A device in a space whose record types the relay has, as far as the store knows."""
    monkeypatch.setattr(keychain, "forget_key", lambda salt: None)
    async with await Device.create(tmp_path / "d.db", name="Tablet", key=KEY) as device:
        await found_space(device)
        db = device._thread.store.db

        def sent() -> None:
            with db.transaction(durable=True):
                db.execute("DELETE FROM outbox")

        await device._thread.run(sent)
        yield device


def seal_all(device: Device) -> None:
    """As a session with a relay does it, which then never answers. On the store's thread."""
    engine = device._engine
    space = engine.space(None).id
    start = engine.session_start(space)
    engine.welcome(space, RelayId(b"r" * 16), 0, bytes(32), start.cursor)
    assert engine.next_push(space, max_count=100, max_bytes=10**6)


async def test_nothing_of_a_synced_device_stays(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[tuple[bytes, bool]] = []
    path = tmp_path / "d.db"
    monkeypatch.setattr(keychain, "forget_key", lambda salt: forgotten.append((salt, path.exists())))
    (tmp_path / "other.txt").write_text("stays")
    other_name = tmp_path / "backup.db"
    os.link(path, other_name)
    watch = device.watch(TYPE)
    report = await device.logout()
    assert (report.unsynced_records, report.exported_to) == (0, None)
    assert sorted(os.listdir(tmp_path)) == ["backup.db", "other.txt"]
    ((salt, was_there),) = forgotten
    assert not was_there
    assert len(salt) == 16
    assert other_name.read_bytes()[:16] != salt, "the salt is overwritten where it stood"
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    with pytest.raises(StoreClosed):
        await device.count(TYPE)
    with pytest.raises(StoreClosed):
        await device.unlock(key=KEY)
    await device.close()
    with pytest.raises(StoreMissing):
        await Device.open(path, key=KEY)


async def test_unsynced_work_is_named_and_keeps_everything_as_it_was(device: Device, tmp_path: Path) -> None:
    await device.connect()
    order = await device.create(TYPE, {"title": "Order"})
    await device.update(TYPE, order.id, {"title": "Again"})
    await device.create(TYPE, {"title": "Another"})
    with pytest.raises(UnsyncedWork, match="the work on 2 records") as told:
        await device.logout()
    assert told.value.records == 2
    assert "--export" in told.value.hint
    assert "Again" not in str(told.value)
    assert await device.count(TYPE) == 2
    assert all(sync._running() for sync in device._syncs.values()), "it goes on syncing"
    await device.update(TYPE, order.id, {"title": "Still here"})
    report = await device.logout(force=True)
    assert (report.unsynced_records, report.unsynced_operations) == (2, 4)
    assert os.listdir(tmp_path) == []


async def test_unsynced_work_is_exported_with_its_values(device: Device, tmp_path: Path) -> None:
    order = await device.create(TYPE, {"title": "Sealed", "parts_used": {"A": {"qty": 2}}})
    await device._thread.run(lambda: seal_all(device))
    await device.update(TYPE, order.id, {"title": "Pending", "status": "assigned"})
    file = tmp_path / "left.jsonl"
    report = await device.logout(export_to=file)
    assert os.listdir(tmp_path) == ["left.jsonl"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert report.exported_to == str(file)
    sealed, pending = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    assert [sealed["state"], pending["state"]] == ["sending", "pending"]
    assert {line["id"] for line in (sealed, pending)} == {order.id}
    assert (sealed["space"], sealed["type"], sealed["damaged"]) == ("Pit 4", TYPE, None)
    values = {tuple(write["path"]): write["value"] for write in sealed["writes"]}
    assert values["title",] == "Sealed"
    assert values["parts_used", "A", "qty"] == 2
    assert {tuple(write["path"]): write["value"] for write in pending["writes"]} == {
        ("title",): "Pending",
        ("status",): "assigned",
    }


async def test_an_export_that_cannot_be_written_keeps_the_device(device: Device, tmp_path: Path) -> None:
    await device.create(TYPE, {"title": "Order"})
    there = tmp_path / "there.jsonl"
    there.write_text("mine")
    for path in (there, tmp_path / "no directory" / "x.jsonl"):
        with pytest.raises(LocalError, match="cannot be made"):
            await device.logout(export_to=path)
    assert there.read_text() == "mine"
    assert await device.count(TYPE) == 1


async def test_a_locked_device_is_unlocked_first(device: Device) -> None:
    await device.lock()
    with pytest.raises(StoreClosed, match="locked"):
        await device.logout(force=True)
    await device.unlock(key=KEY)
    await device.logout()


def test_the_store_itself_is_removed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.db"
    for suffix in wiping.SUFFIXES:
        Path(f"{path}{suffix}").write_bytes(b"x" * 5000)
    gone: list[str] = []
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok: gone.append(self.name))
    wiping.wipe(path)
    assert gone[-1] == "d.db"
    assert set(gone) == {f"d.db{suffix}" for suffix in wiping.SUFFIXES}


def test_a_machine_that_stops_while_wiping_leaves_no_damaged_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.db"
    for suffix in wiping.SUFFIXES:
        Path(f"{path}{suffix}").write_bytes(b"x" * 5000)

    def stop(descriptor: int, content: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        wiping.wipe(path)
    assert list(tmp_path.iterdir()) == []
