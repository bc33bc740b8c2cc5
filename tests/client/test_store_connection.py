"""A store on disk: who can open it, what is refused, and that a refused file is left alone."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from crdt_sync.errors import (
    NotAStore,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreExists,
    StoreInUse,
    StoreMissing,
    StoreTooNew,
    WrongPassphrase,
)
from crdt_sync_client.store.connection import PAGE_BYTES, Database
from crdt_sync_client.store.tables import check_tables, create_tables

KEY = bytes(range(32))
SALT = hashlib.sha256(b"salt").digest()[:16]


def make_store(path: Path, key: bytes | str = KEY) -> None:
    db = Database.create(path, key, salt=SALT)
    with db.transaction(durable=True):
        create_tables(db)
        db.many("INSERT INTO meta VALUES (?, ?)", [(f"name {n}", "attack at dawn" * 50) for n in range(50)])
    db.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "device.store"
    make_store(path)
    return path


def open_and_check(path: Path, key: bytes | str) -> None:
    db = Database.open(path, key)
    try:
        check_tables(db)
    finally:
        db.close()


def refuse(path: Path, error: type[StoreError], key: bytes | str = KEY) -> StoreError:
    """Opening raises `error` and leaves every file of the directory as it was."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    with pytest.raises(error) as raised:
        open_and_check(path, key)
    after = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    assert after == before
    return raised.value


def test_what_was_committed_is_there_after_opening_again(store: Path) -> None:
    db = Database.open(store, KEY)
    check_tables(db)
    assert db.value("SELECT value FROM meta WHERE name = 'name 7'").startswith("attack at dawn")
    db.close()


def test_a_passphrase_opens_what_it_made_and_its_salt_is_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "device.store"
    make_store(path, "correct horse")
    assert path.read_bytes()[:16] == SALT
    assert sorted(os.listdir(tmp_path)) == ["device.store"]
    Database.open(path, "correct horse").close()
    error = refuse(path, WrongPassphrase, "battery staple")
    assert "battery" not in str(error)
    assert "correct" not in str(error)


def test_a_wrong_key_is_refused(store: Path) -> None:
    wrong = bytes(32)
    error = refuse(store, WrongPassphrase, wrong)
    assert error.__cause__ is None
    assert wrong.hex() not in str(error)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere.store", StoreMissing)
    with pytest.raises(StoreMissing):
        Database.create(tmp_path / "no directory" / "x.store", KEY, salt=SALT)


def test_a_plain_sqlite_file_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "plain.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.commit()
    connection.close()
    assert "unencrypted SQLite" in str(refuse(path, NotAStore))


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"title,status\n" * 2000, b"x" * PAGE_BYTES * 2],
    ids=["empty", "short", "a CSV file", "repetitive"],
)
def test_another_file_is_not_a_store(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    refuse(path, NotAStore)


def test_a_directory_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(NotAStore):
        Database.open(tmp_path, KEY)


@pytest.mark.parametrize("keep", [PAGE_BYTES, 3 * PAGE_BYTES, 2 * PAGE_BYTES + 100])
def test_a_file_cut_short_is_refused(store: Path, keep: int) -> None:
    assert store.stat().st_size > keep
    store.write_bytes(store.read_bytes()[:keep])
    assert "cut short" in str(refuse(store, StoreDamaged if keep % PAGE_BYTES == 0 else NotAStore))


def test_a_store_of_a_newer_version_is_refused(store: Path) -> None:
    db = Database.open(store, KEY)
    db.execute("PRAGMA user_version = 7")
    db.close()
    assert "format 7" in str(refuse(store, StoreTooNew))


def test_an_encrypted_database_of_another_program_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = Database.create(path, KEY, salt=SALT)
    db.execute("CREATE TABLE t (a)")
    db.close()
    refuse(path, NotAStore)


def test_an_existing_file_is_not_overwritten(store: Path) -> None:
    before = store.read_bytes()
    with pytest.raises(StoreExists):
        Database.create(store, KEY, salt=SALT)
    assert store.read_bytes() == before


def test_what_is_left_of_another_store_does_not_get_into_a_new_one(store: Path) -> None:
    db = Database.open(store, KEY)
    with db.transaction(durable=True):
        db.execute("DELETE FROM meta")
    wal = Path(f"{store}-wal")
    left = wal.read_bytes()
    db.close()
    store.unlink()
    wal.write_bytes(left)
    with pytest.raises(StoreExists, match="store-wal"):
        Database.create(store, KEY, salt=SALT)
    assert wal.read_bytes() == left
    wal.unlink()
    Database.create(store, KEY, salt=SALT).close()


def test_a_second_opener_is_refused_here_and_in_another_process(store: Path) -> None:
    db = Database.open(store, KEY)
    with pytest.raises(StoreInUse):
        Database.open(store, KEY)
    program = (
        "import sys\n"
        "from crdt_sync.errors import StoreInUse\n"
        "from crdt_sync_client.store.connection import Database\n"
        "try: Database.open(sys.argv[1], bytes(range(32)))\n"
        "except StoreInUse: print('in use')\n"
    )
    store.read_bytes()  # what an app that copies its store does; POSIX drops SQLite's own lock with it
    command = [sys.executable, "-c", program, str(store)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (told.stdout, told.stderr) == ("in use\n", "")
    db.close()
    assert subprocess.run(command, capture_output=True, text=True, timeout=30).stdout == ""


def test_only_the_owner_may_read_the_file(store: Path) -> None:
    assert stat.S_IMODE(store.stat().st_mode) == 0o600


def test_nothing_readable_is_on_the_disk(store: Path) -> None:
    db = Database.open(store, KEY)
    with db.transaction(durable=True):
        db.execute("INSERT INTO meta VALUES ('plainly', 'attack at noon')")
    files = [file for file in store.parent.iterdir() if file.is_file()]
    assert {file.name for file in files} == {"device.store", "device.store-wal"}
    for file in files:
        content = file.read_bytes()
        assert b"attack" not in content
        assert b"plainly" not in content
        assert b"CREATE TABLE" not in content
        assert KEY not in content
    db.close()


def test_a_failed_transaction_leaves_nothing(store: Path) -> None:
    db = Database.open(store, KEY)

    def fail_halfway() -> None:
        with db.transaction(durable=True):
            db.execute("DELETE FROM meta")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert db.value("SELECT count(*) FROM meta") == 50
    with db.transaction(durable=False):  # and the next one works
        db.execute("DELETE FROM meta WHERE name = 'name 1'")
    assert db.value("SELECT count(*) FROM meta") == 49
    db.close()


def test_durability_is_chosen_per_transaction(store: Path) -> None:
    db = Database.open(store, KEY)
    for durable, level in ((True, 2), (False, 1), (True, 2)):
        with db.transaction(durable=durable):
            assert db.value("PRAGMA synchronous") == level
    db.close()


def test_a_closed_store_says_so(store: Path) -> None:
    db = Database.open(store, KEY)
    db.close()
    db.close()
    with pytest.raises(StoreClosed):
        db.execute("SELECT 1")
    assert repr(db) == "<Database closed>"


def test_the_key_is_never_sql_text(store: Path) -> None:
    """A trace set from the start of a connection sees no key, because the key is no statement."""
    program = (
        "import sys\n"
        "from sqlcipher3 import dbapi2\n"
        "from crdt_sync_client.store import connection\n"
        "seen = []\n"
        "plain = dbapi2.connect\n"
        "def traced(*args, **kwargs):\n"
        "    opened = plain(*args, **kwargs)\n"
        "    opened.set_trace_callback(seen.append)\n"
        "    return opened\n"
        "dbapi2.connect = traced\n"
        "connection.Database.open(sys.argv[1], bytes(range(32))).close()\n"
        "assert seen\n"
        "print(any(bytes(range(32)).hex() in text for text in seen))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(store)], capture_output=True, text=True, timeout=30
    )
    assert (told.stdout, told.stderr) == ("False\n", "")
