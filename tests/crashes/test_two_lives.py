"""A store's file copied, put back, or used twice, and clocks that jump: with real files and a relay."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync.errors import StoreInUse, StoreTooNew
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device, device
from crdt_sync_client.store.connection import Database
from tests.crashes.conftest import JOB
from tests.end_to_end.relay_process import RestartableRelay

TYPE: Final = "job"
KEY: Final = bytes(range(32))
YEAR_MS: Final = 365 * 86_400_000
PATIENCE_S: Final = 30.0


@pytest.fixture
async def office(tmp_path: Path, relay: RestartableRelay, job: RecordSchema) -> AsyncIterator[Device]:
    async with await Device.create(tmp_path / "office.db", name="Office", key=KEY) as office:
        await office.create_space(tmp_path.name, relay=relay.url, token=relay.setup_token, schemas=[job])
        yield office


@pytest.fixture
async def tablet(tmp_path: Path, office: Device) -> Path:
    """The store of a device that has joined and synced, closed."""
    path = tmp_path / "tablet.db"
    async with await Device.create(path, name="Tablet", key=KEY) as tablet:
        await tablet.join(await office.invite())
        await tablet.sync(timeout_s=PATIENCE_S)
    return path


async def settle(*devices: Device) -> None:
    for each in (*devices, *devices, *devices):
        await each.sync(timeout_s=PATIENCE_S)
    content = [{r.id: dict(r.values) for r in await each.query(TYPE)} for each in devices]
    assert all(each == content[0] for each in content)


def copy_store(source: Path, target: Path) -> Path:
    """As a backup program copies files, whether somebody uses them or not."""
    for suffix in ("", "-wal"):
        beside = source.with_name(source.name + suffix)
        if beside.exists():
            shutil.copyfile(beside, target.with_name(target.name + suffix))
    return target


async def test_a_copy_made_while_another_program_uses_the_store_lives_beside_it(
    tmp_path: Path, office: Device, tablet: Path
) -> None:
    async with await Device.open(tablet, key=KEY) as first:
        shared = (await first.create(TYPE, {"title": "Before the copy"})).id
        with pytest.raises(StoreInUse):
            await Device.open(tablet, key=KEY)
        copied = copy_store(tablet, tmp_path / "copy.db")
        async with await Device.open(copied, key=KEY) as second:
            incarnations = {each._engine.incarnation for each in (first, second)}
            assert len(incarnations) == 2, "the copy was not closed cleanly, so it has a life of its own"
            one = (await first.create(TYPE, {"title": "In the original"})).id
            two = (await second.create(TYPE, {"title": "In the copy"})).id
            await first.update(TYPE, shared, {"asset": "original"})
            await second.update(TYPE, shared, {"notes": "copy"})
            # Two sessions of one device: whichever comes later replaces the other, and both get through.
            await settle(first, office)
            await settle(second, office)
            await settle(first, second, office)
            records = {record.id: record for record in await office.query(TYPE)}
            assert set(records) == {shared, one, two}, "nothing is there twice"
            values = records[shared].values
            assert (values["asset"], values["notes"]) == ("original", "copy")


async def test_a_store_put_back_from_a_backup_keeps_both_lives_work(
    tmp_path: Path, office: Device, tablet: Path
) -> None:
    async with await Device.open(tablet, key=KEY) as first:
        shared = (await first.create(TYPE, {"title": "Before the backup", "visits": 1})).id
    backup = copy_store(tablet, tmp_path / "backup.db")
    async with await Device.open(tablet, key=KEY) as first:
        await first.update(TYPE, shared, {"asset": "first life"})
        await first.sync(timeout_s=PATIENCE_S)
    copy_store(backup, tablet)
    async with await Device.open(tablet, key=KEY) as second:
        await second.update(TYPE, shared, {"notes": "second life"})
        await settle(second, office)
        (record,) = await office.query(TYPE)
        assert record.values["asset"] == "first life"
        assert record.values["notes"] == "second life"
        assert record.values["visits"] == 1
        assert await second.outbox() == []


async def test_a_clock_that_jumps_by_years_neither_stops_nor_drags_anyone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, office: Device, tablet: Path
) -> None:
    real = device._now_ms
    wrong = 0
    async with await Device.open(tablet, key=KEY) as field:
        id = (await office.create(TYPE, {"title": "Pump"})).id
        await settle(office, field)
        monkeypatch.setattr(device, "_now_ms", lambda: real() + wrong)
        times = []
        field._engine._replica.now_ms = lambda: real() + wrong
        for wrong in (0, 30 * YEAR_MS, -30 * YEAR_MS, 0):
            await field.update(TYPE, id, {"notes": f"clock off by {wrong} ms"})
            times.append(field._engine._replica.hlc.last)
        assert times == sorted(set(times)), "every write is later than the one before"
        await settle(office, field)
        assert "far ahead of this device's clock" in caplog.text
        record = await office.get(TYPE, id)
        assert record is not None
        assert record.values["notes"] == "clock off by 0 ms"
        before = office._engine._replica.hlc.last
        assert before < times[1], "the office's clock did not follow into the future"
        await office.update(TYPE, id, {"notes": "by the office, which has seen it all"})
        await settle(office, field)
        seen = await field.get(TYPE, id)
        assert seen is not None
        assert seen.values["notes"] == "by the office, which has seen it all"


def content(path: Path) -> bytes:
    return path.read_bytes()


async def test_a_store_of_a_newer_program_is_refused_and_left_alone(tablet: Path) -> None:
    db = Database.open(tablet, KEY)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = content(tablet)
    with pytest.raises(StoreTooNew, match="has format 99") as refused:
        await Device.open(tablet, key=KEY)
    assert refused.value.hint == "update crdt-sync on this device"
    assert content(tablet) == before


async def test_what_waits_in_a_field_that_the_schema_loses_still_goes_out(
    office: Device, tablet: Path
) -> None:
    async with await Device.open(tablet, key=KEY) as field:
        id = (await office.create(TYPE, {"title": "Pump"})).id
        await settle(office, field)
        await field.update(TYPE, id, {"asset": "P-7", "notes": "written while it was there"})
        without = JOB.replace("  asset: {type: string}\n", "").replace("x-version: 1", "x-version: 2")
        await office.add_schema(load_schema(without, source="job.yaml"), force=True)
        await office.sync(timeout_s=PATIENCE_S)
        await settle(field, office)
        assert await field.outbox() == []
        explained: Any = None
        for each in (field, office):
            record = await each.get(TYPE, id)
            assert record is not None
            assert record.values["notes"] == "written while it was there"
            explained = record.values.get("asset")
            assert explained == "P-7", "a field that the schema does not know is kept"
