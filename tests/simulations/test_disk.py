"""What a simulated disk keeps and loses, proven with SQLite on it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import apsw
import pytest

from crdt_sync_sim.disk import SECTOR_BYTES, Disk, DiskFile, DiskTally
from crdt_sync_sim.memory_storage import MemoryStorage
from crdt_sync_sim.storage import Connection, DiskStorage, Storage


def connect(storage: DiskStorage, synchronous: str) -> Connection:
    connection = storage.connect()
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, body BLOB)")
    return connection


def lost_in(seed: int, synchronous: str, cuts: int) -> int:
    """Rows that were committed and gone after a power cut. Checks too that the rest is whole."""
    storage, chance, lost, top = DiskStorage(Random(seed)), Random(seed + 1_000_000), 0, 0
    connection = connect(storage, synchronous)
    for _ in range(cuts):
        for _ in range(chance.randrange(1, 30)):
            top += 1
            connection.execute("INSERT INTO t VALUES (?, ?)", (top, chance.randbytes(chance.randrange(2000))))
        storage.cut_power()
        connection = connect(storage, synchronous)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        count, found = connection.execute("SELECT count(*), coalesce(max(n), 0) FROM t").fetchone()
        assert count == found, "a lost commit is always one of the last"
        lost, top = lost + top - found, found
    storage.discard()
    return lost


def test_a_full_sync_loses_nothing_in_120_power_cuts() -> None:
    assert sum(lost_in(seed, "FULL", cuts=4) for seed in range(30)) == 0


def test_a_normal_sync_loses_acknowledged_rows_nearly_always() -> None:
    assert sum(lost_in(seed, "NORMAL", cuts=1) > 0 for seed in range(30)) >= 28


def test_the_same_chance_loses_the_same_rows() -> None:
    assert [lost_in(seed, "NORMAL", cuts=2) for seed in range(5)] == [
        lost_in(seed, "NORMAL", cuts=2) for seed in range(5)
    ]


def test_a_power_cut_tears_a_write_at_sectors_and_reorders_writes() -> None:
    torn = reordered = False
    for seed in range(50):
        file, before, after = DiskFile(), b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES
        file.write(0, before * 4)
        file.sync()
        file.write(0, after * 2)
        file.write(2 * SECTOR_BYTES, after * 2)
        file.lose_power(Random(seed), DiskTally())
        sectors = [
            bytes(file.current[i : i + SECTOR_BYTES]) for i in range(0, 4 * SECTOR_BYTES, SECTOR_BYTES)
        ]
        assert set(sectors) <= {before, after}, "a sector is whole"
        torn |= sectors[0] != sectors[1]
        reordered |= sectors[:2] == [before, before] and sectors[2:] == [after, after]
    assert torn
    assert reordered


@pytest.fixture(params=["disk", "memory"])
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    made: Storage = DiskStorage(Random(1)) if request.param == "disk" else MemoryStorage()
    yield made
    made.discard()


def rows(connection: Connection) -> int:
    count: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
    return count


def test_a_crash_keeps_what_was_committed_and_nothing_else(storage: Storage) -> None:
    connection = storage.connect()
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body)")
    connection.execute("INSERT INTO t (body) VALUES ('kept')")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t (body) VALUES ('not committed')")
    storage.crash()
    assert rows(storage.connect()) == 1


def test_a_backup_brings_back_its_moment(storage: Storage) -> None:
    connection = storage.connect()
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body)")
    connection.executemany("INSERT INTO t (body) VALUES (?)", [("a",), ("b",)])
    image = storage.image()
    connection.execute("DELETE FROM t")
    storage.restore(image)
    assert rows(storage.connect()) == 2
    storage.restore({})
    assert storage.connect().execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_full_disk_refuses_and_takes_nothing(storage: Storage) -> None:
    connection = storage.connect()
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body)")
    storage.set_capacity(storage.size_bytes)
    with pytest.raises(apsw.FullError):
        connection.execute("INSERT INTO t (body) VALUES (?)", (bytes(100_000),))
    assert rows(connection) == 0
    storage.set_capacity(None)
    connection.execute("INSERT INTO t (body) VALUES (?)", (bytes(100_000),))
    assert rows(connection) == 1


def test_a_deleted_file_may_be_back_unless_something_was_synced_since() -> None:
    back = 0
    for seed in range(40):
        disk = Disk(Random(seed))
        disk.sync(disk.open("old"))
        disk.delete("old", sync_directory=False)
        assert not disk.exists("old")
        if seed >= 20:
            disk.sync(disk.open("other"))
        disk.cut_power()
        back += disk.exists("old")
        if seed >= 20:
            assert not disk.exists("old")
        disk.unplug()
    assert 0 < back < 20
