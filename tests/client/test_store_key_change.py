"""Changing a store's key: one of the two keys always opens it, and nothing is left under the old one."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from crdt_sync.errors import StoreClosed, WrongPassphrase
from crdt_sync_client.store.connection import PAGE_BYTES, SALT_BYTES, Database
from crdt_sync_client.store.tables import create_tables

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SALT = hashlib.sha256(b"salt").digest()[:16]
ROWS = 4_000

_CHANGE = """
import sys
from crdt_sync_client.store.connection import Database
db = Database.open(sys.argv[1], bytes(range(32)))
print("ready", flush=True)
db.change_key(bytes(range(32)), bytes(range(32, 64)))
print("changed", flush=True)
db.close()
"""

_CHANGE_WITHOUT_ROOM = """
import resource, signal, sys
from crdt_sync.errors import StoreError
from crdt_sync_client.store.connection import Database
db = Database.open(sys.argv[1], bytes(range(32)))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    db.change_key(bytes(range(32)), bytes(range(32, 64)))
except StoreError as error:
    print(type(error).__name__, db)
"""


def make_store(path: Path, key: bytes | str = OLD, rows: int = ROWS) -> None:
    db = Database.create(path, key, salt=SALT)
    with db.transaction(durable=True):
        create_tables(db)
        db.many(
            "INSERT INTO meta VALUES (?, ?)",
            ((f"name {n}", f"attack at dawn {n} " * 40) for n in range(rows)),
        )
    db.close()


def opens(path: Path, key: bytes | str, rows: int = ROWS) -> bool:
    """Whether the key opens it; then it must be whole."""
    try:
        db = Database.open(path, key)
    except WrongPassphrase:
        return False
    try:
        assert db.value("PRAGMA integrity_check") == "ok"
        assert db.rows("PRAGMA cipher_integrity_check") == []
        assert db.value("SELECT count(*) FROM meta") == rows
        assert db.value("SELECT value FROM meta WHERE name = 'name 0'").startswith("attack at dawn")
    finally:
        db.close()
    return True


def pages(path: Path) -> list[bytes]:
    """The file's pages without the salt, which stays."""
    content = path.read_bytes()
    return [content[max(at, SALT_BYTES) : at + PAGE_BYTES] for at in range(0, len(content), PAGE_BYTES)]


def test_only_the_new_key_opens_it_and_every_page_is_another(tmp_path: Path) -> None:
    path = tmp_path / "device.store"
    make_store(path)
    db = Database.open(path, OLD)
    db.execute("DELETE FROM meta WHERE name LIKE '%7'")  # leaves free pages, which hold what was deleted
    rows = db.value("SELECT count(*) FROM meta")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = pages(path)
    db.change_key(OLD, NEW)
    after = pages(path)
    assert len(after) == len(before)
    assert not set(before) & set(after)
    assert Path(f"{path}-wal").stat().st_size == 0
    with db.transaction(durable=True):  # it goes on being used
        db.execute("INSERT INTO meta VALUES ('later', 'attack at noon')")
    db.close()
    assert path.read_bytes()[:SALT_BYTES] == SALT
    assert sorted(os.listdir(tmp_path)) == ["device.store"]
    assert not opens(path, OLD)
    assert opens(path, NEW, rows + 1)


def test_passphrases_and_keys_can_be_exchanged_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "device.store"
    make_store(path, "correct horse", 10)
    steps: list[bytes | str] = ["correct horse", "battery staple", NEW, "again a passphrase"]
    for old, new in pairwise(steps):
        db = Database.open(path, old)
        db.change_key(old, new)
        db.close()
        assert [opens(path, secret, 10) for secret in (old, new)] == [False, True]


def test_a_store_made_a_moment_ago_can_have_its_key_changed(tmp_path: Path) -> None:
    path = tmp_path / "device.store"
    db = Database.create(path, OLD, salt=SALT)
    db.change_key(OLD, NEW)
    with db.transaction(durable=True):
        create_tables(db)
        db.execute("INSERT INTO meta VALUES ('name 0', 'attack at dawn')")
    db.close()
    assert opens(path, NEW, 1)


def test_a_wrong_old_passphrase_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "device.store"
    make_store(path, rows=10)
    db = Database.open(path, OLD)
    before = pages(path)
    for wrong in (NEW, "guess"):
        with pytest.raises(WrongPassphrase) as refused:
            db.change_key(wrong, NEW)
        assert "guess" not in str(refused.value)
        assert NEW.hex() not in str(refused.value)
    assert pages(path) == before
    assert db.value("SELECT count(*) FROM meta") == 10
    db.close()
    with pytest.raises(StoreClosed):
        db.change_key(OLD, NEW)
    assert opens(path, OLD, 10)


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_killed_at_any_point_one_of_the_two_keys_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "device.store"
    make_store(path)
    whole = path.read_bytes()
    chance = random.Random(5)
    seen = {"old": 0, "new": 0}
    for attempt in range(24):
        path.write_bytes(whole)
        Path(f"{path}-wal").unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", _CHANGE, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if attempt == 0:
            process.wait(60)  # the last point of all
        else:
            try:
                process.wait(chance.uniform(0, 0.2))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.wait(60)
        told = process.stdout.read()
        process.stdout.close()
        for file in tmp_path.iterdir():  # what lies there at that moment: store and WAL
            content = file.read_bytes()
            assert not [part for part in (b"attack", b"CREATE TABLE", OLD, NEW) if part in content]
        old, new = opens(path, OLD), opens(path, NEW)
        assert old is not new
        assert new or not told, "it said that the key was changed"
        seen["new" if new else "old"] += 1
    assert seen["new"], seen


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as POSIX does")
def test_without_room_on_the_disk_the_old_key_stays(tmp_path: Path) -> None:
    path = tmp_path / "device.store"
    make_store(path)
    told = subprocess.run(
        [sys.executable, "-c", _CHANGE_WITHOUT_ROOM, str(path)], capture_output=True, text=True, timeout=60
    )
    assert (told.stdout, told.stderr) == ("StoreError <Database closed>\n", "")
    assert opens(path, OLD)
    assert not opens(path, NEW)
