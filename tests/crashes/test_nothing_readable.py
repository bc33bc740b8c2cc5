"""No file, write-ahead log, temporary file or traceback shows what is in a store, or what opens it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync.errors import UnsyncedWork
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device, doctor
from crdt_sync_client.store.connection import PAGE_BYTES, Database
from crdt_sync_client.store.size import vacuum
from tests.crashes.launcher import Account, Launcher
from tests.crashes.local_device import TYPE, make_device
from tests.end_to_end.relay_process import RestartableRelay

KEY: Final = bytes(range(32))
MARKER: Final = "QuokkaBearingNoise"
ROOT: Final = Path(__file__).resolve().parents[2]


def leaks(*folders: Path) -> list[str]:
    """Files in which something readable stands."""
    words = (MARKER.encode(), b"x-type", b"Pit 4", b"Tablet", KEY)
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


async def test_after_work_kills_a_refused_logout_and_a_repair_no_file_shows_anything(
    tmp_path: Path,
    relay: RestartableRelay,
    job: RecordSchema,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores, temporary = tmp_path / "stores", tmp_path / "temporary"
    stores.mkdir()
    temporary.mkdir()
    for name in ("TMPDIR", "SQLITE_TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, os.fspath(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = stores / "a.db"
    async with await Device.create(path, name="Tablet", key=KEY) as tablet:
        await tablet.create_space("Pit 4", relay=relay.url, token=relay.setup_token, schemas=[job])
        await tablet.import_rows(
            TYPE, [{"number": f"{n}", "title": f"{MARKER} {n}" * 20} for n in range(100)], key="number"
        )
        await tablet.sync()
        await tablet.create(TYPE, {"title": MARKER})
        assert leaks(stores, temporary) == []
        with pytest.raises(UnsyncedWork):
            await tablet.logout()
        await tablet.vacuum()
    with Launcher() as launcher:
        rows = [{"number": f"k{n}", "title": MARKER} for n in range(60)]
        for die_at in (60, 90, 120):
            steps = [{"do": "import", "rows": rows}, {"do": "sync"}]
            plan: dict[str, Any] = {
                "store": os.fspath(path), "key": KEY.hex(), "connect": True, "die_at": die_at, "steps": steps
            }  # fmt: skip
            launcher.run(plan, Account())
            assert leaks(stores, temporary) == []
    async with await Device.open(path, key=KEY):
        pass
    flip_a_page(path)
    await doctor.repair(path, key=KEY)
    assert leaks(stores, temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what has no name from /proc")
async def test_the_copy_that_a_vacuum_makes_shows_nothing(tmp_path: Path, job: RecordSchema) -> None:
    """It is in a temporary file that has no name any more."""
    path = tmp_path / "a.db"
    async with await make_device(path, job) as device:
        await device.import_rows(TYPE, [{"title": MARKER, "notes": MARKER * 2_000} for _ in range(60)])
    db = Database.open(path, KEY)
    db.execute("PRAGMA cache_size=-256")  # so that a small store does not fit into it
    largest = 0

    def look() -> int:
        nonlocal largest
        for content in unnamed_files():
            assert MARKER.encode() not in content
            largest = max(largest, len(content))
        return 0

    connection: Any = db._connection
    connection.set_progress_handler(look, 20)
    vacuum(db, path)
    connection.set_progress_handler(None, 0)
    assert largest > 1024 * 1024
    assert db.value("PRAGMA temp_store") == 2, "all else is kept in memory"
    db.close()


def unnamed_files() -> list[bytes]:
    """What is in the temporary files of SQLite that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if "etilqs_" in os.readlink(link):
                found.append(link.read_bytes())
    return found


def flip_a_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    page = random.Random(2).randrange(20, len(content) // PAGE_BYTES)
    content[page * PAGE_BYTES + 100] ^= 1
    path.write_bytes(content)


DEBUGGED: Final = """
import sys
from crdt_sync_client import device
from crdt_sync_client.cli.main import main

async def broken(self, *args, **options):
    secret_in_a_local = options
    raise RuntimeError("something that nobody expected")

device.Device.status = broken
sys.argv = ["crdt-sync", *sys.argv[1:]]
main()
"""


async def test_a_traceback_shows_neither_passphrase_nor_key(tmp_path: Path, job: RecordSchema) -> None:
    passphrase = "ZebraStapleHorse"
    store = tmp_path / "a.db"
    async with await make_device(store, job) as device:
        await device.change_passphrase(KEY, passphrase)
    failed = run(["-c", DEBUGGED, "status"], store, passphrase)
    assert failed.returncode == 1, failed.stderr
    assert "Traceback" in failed.stderr
    assert "something that nobody expected" in failed.stderr
    assert passphrase not in failed.stdout + failed.stderr
    wrong = run(["-m", "crdt_sync_client.cli", "status", "--json"], store, "WrongHorse")
    assert wrong.returncode == 5
    assert json.loads(wrong.stderr.splitlines()[-1])["error"]["code"] == "wrong_passphrase"
    assert "WrongHorse" not in wrong.stdout + wrong.stderr


def run(arguments: list[str], store: Path, passphrase: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CRDT_SYNC_PASSPHRASE": passphrase,
        "CRDT_SYNC_DEBUG": "1",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
    command = [sys.executable, *arguments, "--store", os.fspath(store)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=60)
