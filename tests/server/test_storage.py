"""The storage port: what every adapter keeps. A further one is added to `ADAPTERS`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.ids import Author, DeviceId, Incarnation, RelayId, SpaceId
from crdt_sync.protocol.frames import RowKind
from crdt_sync_server.storage.port import (
    AuditEvent,
    AuthorKey,
    DataDirError,
    NewUpdate,
    Revocation,
    SpaceEntry,
    SpaceKey,
    Storage,
    StoredLease,
    Visit,
)
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage
from crdt_sync_server.storage.sqlite_file import prepare
from crdt_sync_sim.relay_node import NEW_DATABASE
from crdt_sync_sim.storage import DiskStorage
from tests.server.relay_kit import record

SPACE, OTHER = SpaceId(b"s" * 16), SpaceId(b"o" * 16)
ALICE, BOB = (Author(DeviceId(name * 16), Incarnation(1)) for name in (b"a", b"b"))
HEAD = ChainHead(1, b"h" * 32)
R1, R2 = record(1), record(2)
Opener = Callable[[Path], Storage]


def _sqlite(directory: Path) -> Storage:
    return SqliteStorage(connect_storage(directory / "relay.sqlite3", os.urandom))


_DISKS: dict[Path, DiskStorage] = {}


def _simulated(directory: Path) -> Storage:
    """On the simulator's disk, as its relay stores."""
    disk = _DISKS.setdefault(directory, DiskStorage(random.Random(1), NEW_DATABASE))
    connection: Any = disk.connect()  # has what is used of sqlite3's
    connection.execute("BEGIN EXCLUSIVE")
    prepare(connection, os.urandom)
    connection.execute("COMMIT")
    return SqliteStorage(connection)


ADAPTERS = [pytest.param(_sqlite, id="sqlite"), pytest.param(_simulated, id="simulated disk")]


@pytest.fixture(params=ADAPTERS)
def opener(request: pytest.FixtureRequest) -> Opener:
    chosen: Opener = request.param
    return chosen


@pytest.fixture
def storage(opener: Opener, tmp_path: Path) -> Iterator[Storage]:
    opened = opener(tmp_path)
    yield opened
    opened.close()


def filled(storage: Storage) -> tuple[SpaceKey, AuthorKey, AuthorKey]:
    """A space with one entry and five updates: a1 b2 a3 (R1), a4 (R2), b5 (R1), at 2 to 6."""
    with storage.transaction():
        space = storage.add_space(SPACE)
        storage.append_membership(space, 1, b"genesis")
        alice, bob = storage.add_author(space, ALICE, HEAD), storage.add_author(space, BOB, HEAD)
        updates = [(alice, 1, R1), (bob, 1, R1), (alice, 2, R1), (alice, 3, R2), (bob, 2, R1)]
        storage.append_updates(
            space, 2, [NewUpdate(*update, b"update %d" % at) for at, update in enumerate(updates, 2)]
        )
    return space, alice, bob


def sequences(storage: Storage, space: SpaceKey, after: int = 0) -> list[int]:
    return [row.sequence for row in storage.read(space, after, max_rows=99, max_bytes=9999).rows]


def test_every_opening_is_a_life_that_knows_where_the_ones_before_ended(
    opener: Opener, tmp_path: Path
) -> None:
    lives, ends = [], [6, 6, 7]
    for number, end in enumerate(ends):
        storage = opener(tmp_path)
        space = filled(storage)[0] if not number else storage.find_space(SPACE)
        assert space is not None
        assert storage.life_end(space, storage.relay_id) == storage.head(space)
        if storage.head(space) < end:
            with storage.transaction():
                storage.append_membership(space, end, b"an entry")
        lives.append(storage.relay_id)
        storage.close()
    storage = opener(tmp_path)
    assert space is not None
    assert len({*lives, storage.relay_id}) == 4
    assert [storage.life_end(space, life) for life in lives] == ends
    assert storage.life_end(space, RelayId(bytes(16))) is None
    with storage.transaction():
        later = storage.add_space(OTHER)
    assert [storage.life_end(later, life) for life in lives] == [0, 0, 0]
    storage.close()


def test_who_is_shut_out_is_kept_until_undone(opener: Opener, tmp_path: Path) -> None:
    storage = opener(tmp_path)
    alice, bob = ALICE.device, BOB.device
    everywhere, here = Revocation(alice, None, 5, "lost"), Revocation(alice, SPACE, 6, "")
    with storage.transaction():
        for each in (everywhere, here, Revocation(bob, OTHER, 7, "gone")):
            storage.revocations.put(each)
    storage.close()
    storage = opener(tmp_path)
    assert set(storage.revocations.all()) == {everywhere, here, Revocation(bob, OTHER, 7, "gone")}
    with storage.transaction():
        storage.revocations.put(Revocation(bob, OTHER, 8, "again"))
        storage.revocations.drop(alice, SPACE)
        storage.revocations.drop(alice, OTHER)
    assert set(storage.revocations.all()) == {everywhere, Revocation(bob, OTHER, 8, "again")}
    storage.close()


def test_spaces_are_found_and_kept_apart(storage: Storage) -> None:
    space, _, _ = filled(storage)
    with storage.transaction():
        other = storage.add_space(OTHER)
    assert (storage.find_space(SPACE), storage.find_space(OTHER)) == (space, other)
    assert storage.find_space(SpaceId(bytes(16))) is None
    assert (storage.head(space), storage.head(other)) == (6, 0)
    assert storage.membership(space) == [b"genesis"]
    assert storage.membership_sequence(space, 0) == 1
    with storage.transaction():
        storage.append_membership(space, 7, b"an entry")
    assert storage.membership_sequence(space, 1) == 7
    assert storage.membership(other) == []
    assert storage.tail(other, R1) == []
    assert sequences(storage, other) == []


def test_rows_come_in_order_from_any_cursor(storage: Storage) -> None:
    space, _, _ = filled(storage)
    assert sequences(storage, space) == [1, 2, 3, 4, 5, 6]
    assert sequences(storage, space, 4) == [5, 6]
    page = storage.read(space, 6, max_rows=9, max_bytes=9)
    assert (page.rows, page.cursor, page.at_end) == ([], 6, True)


def test_pages_are_bounded_and_never_empty_before_the_end(storage: Storage) -> None:
    space, _, _ = filled(storage)
    page = storage.read(space, 0, max_rows=4, max_bytes=999)
    assert ([row.sequence for row in page.rows], page.cursor, page.at_end) == ([1, 2, 3, 4], 4, False)
    page = storage.read(space, 0, max_rows=9, max_bytes=1)
    assert ([row.sequence for row in page.rows], page.cursor, page.at_end) == ([1], 1, False)
    page = storage.read(space, 4, max_rows=2, max_bytes=999)
    assert (page.cursor, page.at_end) == (6, True)


def test_the_rows_of_one_record(storage: Storage) -> None:
    space, _, _ = filled(storage)

    def read(after: int = 0, max_rows: int = 9, max_bytes: int = 999) -> tuple[list[int], bool]:
        rows, complete = storage.read_record(space, R1, after, max_rows=max_rows, max_bytes=max_bytes)
        return [row.sequence for row in rows], complete

    assert read() == ([2, 3, 4, 6], True)
    assert read(after=3) == ([4, 6], True)
    assert read(after=6) == ([], True)
    assert read(max_rows=3) == ([2, 3, 4], False)
    assert read(max_rows=4) == ([2, 3, 4, 6], True)
    assert read(max_bytes=1) == ([2], False)
    with storage.transaction():
        other = storage.add_space(OTHER)
        storage.replace_by_snapshot(space, R1, 4, b"snapshot", [2, 3, 4])
    assert read() == ([4, 6], True)
    assert storage.read_record(other, R1, 0, max_rows=9, max_bytes=999) == ([], True)


def test_one_author_or_all_kinds_but_one_can_be_left_out(storage: Storage) -> None:
    space, alice, _ = filled(storage)
    page = storage.read(space, 0, max_rows=9, max_bytes=999, without=alice)
    assert ([row.sequence for row in page.rows], page.cursor) == ([1, 3, 6], 6)
    page = storage.read(space, 0, max_rows=9, max_bytes=999, only=RowKind.MEMBERSHIP)
    assert ([row.payload for row in page.rows], page.cursor, page.at_end) == ([b"genesis"], 6, True)


def test_chains(storage: Storage) -> None:
    space, alice, _ = filled(storage)
    later = ChainHead(9, b"l" * 32)
    with storage.transaction():
        storage.set_chain_heads([(alice, later)])
    assert storage.author(space, ALICE) == (alice, later)
    assert storage.author(space, Author(ALICE.device, Incarnation(2))) is None
    assert storage.update_hash(alice, 3) is not None
    assert storage.update_hash(alice, 4) is None


def test_tails(storage: Storage) -> None:
    space, _, _ = filled(storage)
    tail = [(2, ALICE, 1), (3, BOB, 1), (4, ALICE, 2), (6, BOB, 2)]
    assert storage.tail(space, R1) == tail
    assert storage.tail_length(space, R1) == 4
    assert storage.long_tails(space, 2) == [(R1, 4)]
    assert sorted(storage.long_tails(space, 1)) == [(R1, 4), (R2, 1)]


def test_a_snapshot_stands_in_place_of_rows(storage: Storage) -> None:
    space, alice, _ = filled(storage)
    with storage.transaction():
        storage.replace_by_snapshot(space, R1, 4, b"first", [2, 3, 4])
    assert sequences(storage, space) == [1, 4, 5, 6]
    assert storage.snapshot(space, R1) == (4, b"first")
    assert storage.update_hash(alice, 1) is None
    assert storage.superseded(space, R1) is None
    with storage.transaction():
        storage.replace_by_snapshot(space, R1, 6, b"second", [6])
    assert sequences(storage, space) == [1, 5, 6]
    assert storage.superseded(space, R1) == (4, b"first")
    assert storage.head(space) == 6
    assert storage.snapshot(space, R2) is None


def test_a_transaction_that_fails_leaves_nothing(storage: Storage) -> None:
    space, alice, _ = filled(storage)

    def fail() -> None:
        with storage.transaction():
            storage.append_updates(space, 7, [NewUpdate(alice, 4, R1, b"x")])
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fail()
    assert storage.head(space) == 6


# SQLite alone


def test_what_was_pruned_is_given_back(tmp_path: Path) -> None:
    storage = _sqlite(tmp_path)
    space, alice, _ = filled(storage)
    with storage.transaction():
        storage.append_updates(space, 7, [NewUpdate(alice, n, R1, bytes(5_000)) for n in range(4, 204)])
    storage.tidy()
    full = sum(file.stat().st_size for file in tmp_path.iterdir())
    with storage.transaction():
        storage.replace_by_snapshot(space, R1, 206, b"all", [row.sequence for row in storage.tail(space, R1)])
    storage.tidy()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < full / 10
    storage.close()


def test_a_database_that_is_open_cannot_be_opened_again(tmp_path: Path) -> None:
    first = _sqlite(tmp_path)
    with pytest.raises(DataDirError, match="in use by another process"):
        _sqlite(tmp_path)
    first.close()
    _sqlite(tmp_path).close()


def test_commits_wait_for_the_disk(tmp_path: Path) -> None:
    connection = connect_storage(tmp_path / "relay.sqlite3", os.urandom)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_an_update_stands_once_in_a_chain(storage: Storage) -> None:
    space, alice, _ = filled(storage)
    with pytest.raises(Exception, match=r"(?i)unique|constraint"), storage.transaction():
        storage.append_updates(space, 7, [NewUpdate(alice, 3, R1, b"x")])


def test_the_bytes_of_a_space_are_counted_through_every_change(storage: Storage) -> None:
    space, _, _ = filled(storage)
    with storage.transaction():
        other = storage.add_space(OTHER)
        storage.append_membership(other, 1, b"12345")
    before = storage.size_bytes(space)
    assert before == len(b"genesis") + 5 * len(b"update 2")
    assert (storage.size_bytes(other), storage.record_bytes(other, R1)) == (5, 0)
    assert storage.record_bytes(space, R1) == 4 * len(b"update 2")
    with storage.transaction():
        grown = storage.replace_by_snapshot(space, R1, 4, b"snapshot one", [2, 3, 4])
    assert storage.size_bytes(space) == before + grown == before - 3 * 8 + 12
    with storage.transaction():
        storage.replace_by_snapshot(space, R1, 6, b"two", [6])
    assert storage.size_bytes(space) == before - 4 * 8 + 12 + 3, "the superseded one is still there"
    with storage.transaction():
        storage.replace_by_snapshot(space, R1, 6, b"three", [])
    assert storage.size_bytes(space) == before - 4 * 8 + 3 + 5, "the one before that went"
    assert storage.spaces() == [SpaceEntry(SPACE, space), SpaceEntry(OTHER, other)]


def test_devices_that_were_here_are_remembered(storage: Storage) -> None:
    space, _, _ = filled(storage)
    device = ALICE.device
    with storage.transaction():
        storage.books.visit([Visit(space, device, 10, agent="one", cursor=5)])
        storage.books.visit([Visit(space, device, 20, synced_ms=19), Visit(space, BOB.device, 15)])
        storage.books.set_label(space, device, "Rig 4", 30)
        storage.books.set_label(space, DeviceId(b"c" * 16), "New", 30)
    alice, bob, new = storage.books.devices(space)
    assert alice == (device, 10, 20, 19, 5, "one", "Rig 4")
    assert bob == (BOB.device, 15, 15, None, 0, "", "")
    assert (new.first_seen_ms, new.label) == (30, "New")


def test_what_happened_is_read_in_order_and_forgotten_by_age(storage: Storage) -> None:
    space, _, _ = filled(storage)
    events = [AuditEvent(at_ms, space, ALICE.device, "push", "{}") for at_ms in (1, 2, 3, 4)]
    with storage.transaction():
        storage.books.note([*events, AuditEvent(5, SpaceKey(99), None, "other", "{}")])
    rows = storage.books.audit(space, 0, 3)
    assert [row.event for row in rows] == events[:3]
    assert [row.event for row in storage.books.audit(space, rows[-1].number, 3)] == events[3:]
    with storage.transaction():
        assert storage.books.forget_audit(4, 2) == 2
        assert storage.books.forget_audit(4, 9) == 1
    assert [row.event for row in storage.books.audit(space, 0, 9)] == events[3:]


def test_leases_are_rows_of_the_log_one_per_record_and_tokens_are_remembered(
    opener: Opener, tmp_path: Path
) -> None:
    storage = opener(tmp_path)
    space, _, _ = filled(storage)
    before = storage.size_bytes(space)
    with storage.transaction():
        other = storage.add_space(OTHER)
        for sequence, name, payload in ((7, R1, b"one"), (8, R2, b"two"), (9, R1, b"three!")):
            storage.leases.put(space, StoredLease(name, sequence, payload))
        storage.leases.put(other, StoredLease(R1, 1, b"elsewhere"))
        assert storage.leases.newest_token(space) == 0
        storage.leases.set_newest_token(space, 2**53)
        storage.leases.set_newest_token(other, 7)
    storage.close()
    storage = opener(tmp_path)
    assert storage.leases.all(space) == [StoredLease(R2, 8, b"two"), StoredLease(R1, 9, b"three!")]
    assert storage.leases.newest_token(space) == 2**53
    rows = storage.read(space, 6, max_rows=99, max_bytes=9999).rows
    assert [(row.sequence, row.kind, row.payload) for row in rows] == [
        (8, RowKind.LEASE, b"two"),
        (9, RowKind.LEASE, b"three!"),
    ]
    assert storage.head(space) == 9
    assert storage.size_bytes(space) == before + len(b"twothree!")
    # They are no part of a record's own rows, nor of what compaction counts.
    assert all(
        row.kind is RowKind.UPDATE
        for row in storage.read_record(space, R1, 0, max_rows=99, max_bytes=9999)[0]
    )
    assert storage.tail_length(space, R2) == 1
    with storage.transaction():
        storage.leases.drop(space, R2)
        storage.leases.drop(space, R2)
    assert storage.leases.all(space) == [StoredLease(R1, 9, b"three!")]
    assert storage.size_bytes(space) == before + len(b"three!")
    storage.close()
