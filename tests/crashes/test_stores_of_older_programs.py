"""Files that earlier programs made (`formats/`, each by the last commit of its format) open, whole, today."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

import pytest

from crdt_sync_client import Device, doctor
from crdt_sync_client.store import tables
from crdt_sync_client.store.connection import PAGE_BYTES, SALT_BYTES, Database
from crdt_sync_client.store.salvage import read_salvage

FORMATS: Final = Path(__file__).parent / "formats"
KEY: Final = hashlib.sha256(b"office").digest()
TITLES: Final = ["Job 0", "Job 1", "Job 2", "Made offline"]


@pytest.fixture(params=[1, 2, 3])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "office.store"
    shutil.copyfile(FORMATS / f"format{request.param}.store", path)
    db = Database.open(path, KEY)
    assert db.value("PRAGMA user_version") == request.param
    db.close()
    return path


async def check(path: Path) -> None:
    """Its records, its open conflict and its unsent work are there, and it can be written."""
    async with await Device.open(path, key=KEY) as device:
        records = {record.values["title"]: record for record in await device.query("job")}
        assert sorted(records) == TITLES
        assert records["Job 0"].values["status"] == "busy"
        assert records["Job 1"].values["status"] == "done"
        assert [conflict.field for conflict in await device.conflicts()] == ["notes"]
        assert {item.id for item in await device.outbox()} >= {
            records["Job 1"].id,
            records["Made offline"].id,
        }
        assert (await device.update("job", records["Job 2"].id, {"status": "busy"})).changed
    db = Database.open(path, KEY)
    assert db.value("PRAGMA user_version") == tables.STORE_VERSION
    assert db.value("SELECT count(*) FROM spare_spaces") == 1
    db.close()


async def test_it_opens_with_all_that_is_in_it(store: Path) -> None:
    await check(store)
    assert (await doctor.examine(store, key=KEY)).findings == ()


async def test_the_doctor_looks_at_it_without_upgrading_it(store: Path) -> None:
    before = content(store)
    assert (await doctor.examine(store, key=KEY)).findings == ()
    assert content(store) == before


async def test_a_damaged_one_is_repaired_and_upgraded(store: Path) -> None:
    changed = bytearray(content(store))
    owners = read_salvage(store, KEY, bytes(changed[:SALT_BYTES])).owners
    page = next(page for page, owner in owners.items() if owner == "index records_by_type")
    changed[(page - 1) * PAGE_BYTES + 40] ^= 1
    put(store, changed)
    repaired = await doctor.repair(store, key=KEY)
    assert repaired.unsaved == ()
    await check(store)


def content(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, data: bytes | bytearray) -> None:
    path.write_bytes(data)
