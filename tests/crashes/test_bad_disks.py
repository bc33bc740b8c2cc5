"""A disk that is full, read-only or damaged: a clear error, nothing half done, the rest can be read."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from crdt_sync.errors import (
    StoreDamaged,
    StoreDiskError,
    StoreFull,
    StoreReadOnly,
    WrongPassphrase,
)
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device
from crdt_sync_client.store.connection import PAGE_BYTES
from crdt_sync_client.store.failures import store_failure
from crdt_sync_client.store.salvage import read_salvage
from tests.crashes.local_device import TYPE, make_device

KEY: Final = bytes(range(32))

IN_A_SMALL_DISK: Final = """
import asyncio, subprocess, sys
from crdt_sync.errors import StoreFull, StoreReadOnly
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client import Device
from tests.crashes.conftest import JOB
from tests.crashes.local_device import make_device

async def main(folder):
    path = folder + "/tablet.db"
    device = await make_device(path, load_schema(JOB, source="job"))
    kept = []
    try:
        while True:
            kept.append((await device.create("job", {"title": "x" * 20_000})).id)
    except StoreFull as full:
        print(full.code, full.retryable)
    assert await device.count("job") == len(kept), "the one that failed is not there, all others are"
    await device.close()
    subprocess.run(["mount", "-o", "remount,size=8m", folder], check=True)
    async with await Device.open(path, key=bytes(range(32))) as device:
        assert await device.count("job") == len(kept)
        await device.create("job", {"title": "x" * 20_000})
        assert len(await device.outbox()) >= len(kept) + 1
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    try:
        await Device.open(path, key=bytes(range(32)))
    except StoreReadOnly as refused:
        print(refused.code)
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    async with await Device.open(path, key=bytes(range(32))) as device:
        assert await device.count("job") == len(kept) + 1
    print("whole")

asyncio.run(main(sys.argv[1]))
"""


def test_a_real_disk_that_is_full_and_then_read_only(tmp_path: Path) -> None:
    """In a file system of 1 MiB of the test's own; skipped where the kernel does not let us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = f'mount -t tmpfs -o size=1m tmpfs "{folder}" && exec "$@"'
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run([unshare, "-rm", "sh", "-c", mounted, "sh", "true"], capture_output=True).returncode
    ):
        pytest.skip("no file systems of one's own here")
    script = tmp_path / "small_disk.py"
    script.write_text(IN_A_SMALL_DISK)
    root = Path(__file__).resolve().parents[2]
    command = [unshare, "-rm", "sh", "-c", mounted, "sh", sys.executable, "-c", IN_A_SMALL_DISK, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["store_full", "True", "store_read_only", "whole"]


async def test_a_disk_full_in_the_middle_of_a_transaction_changes_nothing(
    tmp_path: Path, job: RecordSchema
) -> None:
    path = tmp_path / "tablet.db"
    async with await make_device(path, job) as device:
        kept = (await device.create(TYPE, {"title": "Kept"})).id
        db = device._thread.store.db
        pages = await device._thread.run(lambda: db.value("PRAGMA page_count"))
        await device._thread.run(lambda: db.execute(f"PRAGMA max_page_count={pages + 5}").fetchall())

        async def all_at_once() -> None:
            async with device.transaction() as together:
                await together.update(TYPE, kept, {"title": "Changed"})
                for number in range(20):
                    await together.create(TYPE, {"title": f"{number}" * 4_000})

        with pytest.raises(StoreFull, match="is full: this was not written") as full:
            await all_at_once()
        assert str(path) in full.value.message
        assert full.value.hint == "make room on the disk and try again"
        record = await device.get(TYPE, kept)
        assert record is not None
        assert record.values["title"] == "Kept"
        assert await device.count(TYPE) == 1
        await device._thread.run(lambda: db.execute("PRAGMA max_page_count=100000").fetchall())
        await device.update(TYPE, kept, {"title": "Changed"})
    async with await Device.open(path, key=KEY) as device:
        assert [record.values["title"] for record in await device.query(TYPE)] == ["Changed"]


async def test_a_damaged_page_is_named_and_all_others_can_be_read(tmp_path: Path, job: RecordSchema) -> None:
    path = tmp_path / "tablet.db"
    async with await make_device(path, job) as device:
        ids = [(await device.create(TYPE, {"title": f"{n} " * 800})).id for n in range(120)]
    content = bytearray(path.read_bytes())
    owners = read_salvage(path, KEY, bytes(content[:16])).owners
    documents = [page for page, owner in sorted(owners.items()) if owner == "documents"]
    page = random.Random(5).choice(documents[5:])
    content[(page - 1) * PAGE_BYTES + 1_000] ^= 0x10
    path.write_bytes(content)
    async with await Device.open(path, key=KEY) as device:
        read, failed = 0, list[StoreDamaged]()
        for id in ids:
            try:
                await device.content_hash(TYPE, id)
                read += 1
            except StoreDamaged as damaged:
                failed.append(damaged)
        assert {each.hint for each in failed} == {
            f"close the app, then run: crdt-sync doctor --store {path} --repair"
        }
        assert read + len(failed) == 120
        assert read > 100
        assert await device.count(TYPE) == 120
        new = await device.create(TYPE, {"title": "New"})
        assert await device.count(TYPE) == 121
    async with await Device.open(path, key=KEY) as device:
        assert await device.get(TYPE, new.id)


async def test_a_damaged_first_page_is_told_from_a_wrong_passphrase(
    tmp_path: Path, job: RecordSchema
) -> None:
    path = tmp_path / "tablet.db"
    await (await make_device(path, job)).close()
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match="cannot be read"):
        await Device.open(path, key=KEY)
    with pytest.raises(WrongPassphrase, match="does not open with this passphrase or key"):
        await Device.open(path, key=bytes(32))
    content[3] ^= 1  # the salt: no page verifies any more
    path.write_bytes(content)
    with pytest.raises(WrongPassphrase) as wrong:
        await Device.open(path, key=KEY)
    assert "first bytes are damaged" in wrong.value.hint
    assert path.read_bytes() == content


def test_a_disk_that_fails_is_said_to_fail(tmp_path: Path) -> None:
    from sqlcipher3 import dbapi2

    error = store_failure(dbapi2.OperationalError("disk I/O error"), tmp_path)
    assert isinstance(error, StoreDiskError)
    assert store_failure(dbapi2.OperationalError("no such table: t"), tmp_path) is None
    assert store_failure(ValueError("disk is full"), tmp_path) is None
    assert isinstance(
        store_failure(dbapi2.OperationalError("attempt to write a readonly database"), tmp_path / "gone"),
        StoreReadOnly,
    )
