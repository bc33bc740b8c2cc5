"""The storage port on SQLite: one file, write-ahead log, `synchronous=FULL`.

FULL makes every commit wait for the disk; NORMAL lost acknowledged writes in every one of 300 simulated
power cuts. `locking_mode=EXCLUSIVE` makes the process the only one that can open the file, which is both the
lock against a second relay and one file less (no shared-memory index).

A row's key is `space << 40 | sequence`: the log of a space is one stretch of the table in the order in which
it is read, without an index beside it. 40 bits of sequence are 35 years at 1,000 rows a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.frames import Row, RowKind
from crdt_sync_server.storage.port import (
    AuthorKey,
    NewUpdate,
    Page,
    SpaceEntry,
    SpaceKey,
    StoredSnapshot,
    TailRow,
)
from crdt_sync_server.storage.sqlite_books import SqliteBooks, SqliteRevocations
from crdt_sync_server.storage.sqlite_file import (
    CHECKPOINT_PAGES,
    SEQUENCE_BITS,
    SEQUENCE_MASK,
    connect_storage,
    note_cause,
)
from crdt_sync_server.storage.sqlite_leases import SqliteLeases

__all__ = ["SqliteStorage", "connect_storage"]

_KINDS: Final = {int(kind): kind for kind in RowKind}

COPY_PAGES: Final = 512
"""1 MiB in one step of a copy: a millisecond or two, for which commits wait."""
COPY_REST_S: Final = 0.005
"""Between two tries when a commit is at work."""
_READ: Final = "SELECT position, kind, payload FROM log WHERE position > :after AND position <= :last"
_WITHOUT: Final = " AND author IS NOT :without"
_ONLY: Final = " AND kind = :only"


def _first(space: SpaceKey, after: int = 0) -> int:
    return space << SEQUENCE_BITS | after


def _last(space: SpaceKey) -> int:
    return space << SEQUENCE_BITS | SEQUENCE_MASK


class _Transaction(AbstractContextManager[None]):
    """A class, because a generator would cost as much as the two statements."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except BaseException as exc:
                self._roll_back()
                note_cause(exc)
                raise
        self._roll_back()
        note_cause(error)

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


class SqliteStorage:
    """See the module. `connect_storage` makes the connection; it may be handed to another thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._transaction = _Transaction(connection)
        self.books = SqliteBooks(connection)
        self.leases = SqliteLeases(connection)
        self.revocations = SqliteRevocations(connection)
        self.relay_id: RelayId = RelayId(
            connection.execute("SELECT id FROM lives ORDER BY number DESC LIMIT 1").fetchone()[0]
        )

    def transaction(self) -> AbstractContextManager[None]:
        return self._transaction

    # Spaces and membership

    def find_space(self, space: SpaceId) -> SpaceKey | None:
        row = self._db.execute("SELECT number FROM spaces WHERE id = ?", (space,)).fetchone()
        return None if row is None else SpaceKey(row[0])

    def add_space(self, space: SpaceId) -> SpaceKey:
        number = self._db.execute("INSERT INTO spaces (id) VALUES (?)", (space,)).lastrowid
        assert number is not None
        return SpaceKey(number)

    def spaces(self) -> list[SpaceEntry]:
        rows = self._db.execute("SELECT id, number FROM spaces ORDER BY number").fetchall()
        return [SpaceEntry(SpaceId(space), SpaceKey(number)) for space, number in rows]

    def size_bytes(self, space: SpaceKey) -> int:
        row = self._db.execute("SELECT bytes FROM spaces WHERE number = ?", (space,)).fetchone()
        return int(row[0])

    def record_bytes(self, space: SpaceKey, record: OpaqueId) -> int:
        row = self._db.execute(
            "SELECT coalesce(sum(length(payload)), 0) FROM log WHERE record = ? AND position BETWEEN ? AND ?",
            (record, _first(space), _last(space)),
        ).fetchone()
        return int(row[0])

    def _grow(self, space: SpaceKey, size_bytes: int) -> None:
        self._db.execute("UPDATE spaces SET bytes = bytes + ? WHERE number = ?", (size_bytes, space))

    def life_end(self, space: SpaceKey, life: RelayId) -> int | None:
        row = self._db.execute("SELECT number FROM lives WHERE id = ?", (life,)).fetchone()
        if row is None:
            return None
        if life == self.relay_id:
            return self.head(space)
        row = self._db.execute(
            "SELECT head FROM life_heads WHERE space = ? AND life <= ? ORDER BY life DESC LIMIT 1",
            (space, row[0] + 1),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def head(self, space: SpaceKey) -> int:
        row = self._db.execute(
            "SELECT max(position) FROM log WHERE position BETWEEN ? AND ?", (_first(space), _last(space))
        ).fetchone()
        return 0 if row[0] is None else int(row[0]) & SEQUENCE_MASK

    def membership(self, space: SpaceKey) -> list[bytes]:
        rows = self._db.execute(
            "SELECT payload FROM log WHERE position BETWEEN ? AND ? AND kind = ? ORDER BY position",
            (_first(space), _last(space), RowKind.MEMBERSHIP),
        )
        return [payload for (payload,) in rows]

    def membership_sequence(self, space: SpaceKey, index: int) -> int:
        row = self._db.execute(
            "SELECT position FROM log WHERE position BETWEEN ? AND ? AND kind = ? ORDER BY position"
            " LIMIT 1 OFFSET ?",
            (_first(space), _last(space), RowKind.MEMBERSHIP, index),
        ).fetchone()
        return int(row[0]) & SEQUENCE_MASK

    def append_membership(self, space: SpaceKey, sequence: int, entry: bytes) -> None:
        self._db.execute(
            "INSERT INTO log (position, kind, payload) VALUES (?, ?, ?)",
            (_first(space, sequence), int(RowKind.MEMBERSHIP), entry),
        )
        self._grow(space, len(entry))

    # Updates

    def author(self, space: SpaceKey, author: Author) -> tuple[AuthorKey, ChainHead] | None:
        row = self._db.execute(
            "SELECT number, sequence, hash FROM authors WHERE space = ? AND device = ? AND incarnation = ?",
            (space, author.device, author.incarnation),
        ).fetchone()
        return None if row is None else (AuthorKey(row[0]), ChainHead(row[1], row[2]))

    def add_author(self, space: SpaceKey, author: Author, head: ChainHead) -> AuthorKey:
        number = self._db.execute(
            "INSERT INTO authors (space, device, incarnation, sequence, hash) VALUES (?, ?, ?, ?, ?)",
            (space, author.device, author.incarnation, *head),
        ).lastrowid
        assert number is not None
        return AuthorKey(number)

    def append_updates(self, space: SpaceKey, sequence: int, updates: Sequence[NewUpdate]) -> None:
        start = _first(space, sequence)
        self._db.executemany(
            "INSERT INTO log (position, kind, author, sequence, record, payload) VALUES (?, 1, ?, ?, ?, ?)",
            [(position, *update) for position, update in enumerate(updates, start)],
        )
        self._grow(space, sum(len(update.envelope) for update in updates))

    def set_chain_heads(self, heads: Sequence[tuple[AuthorKey, ChainHead]]) -> None:
        self._db.executemany(
            "UPDATE authors SET sequence = ?, hash = ? WHERE number = ?",
            [(*head, author) for author, head in heads],
        )

    def update_hash(self, author: AuthorKey, chain_sequence: int) -> bytes | None:
        row = self._db.execute(
            "SELECT payload FROM log WHERE author = ? AND sequence = ?", (author, chain_sequence)
        ).fetchone()
        return None if row is None else hashlib.sha256(row[0]).digest()

    # Snapshots

    def tail(self, space: SpaceKey, record: OpaqueId) -> list[TailRow]:
        rows = self._db.execute(
            "SELECT log.position, authors.device, authors.incarnation, log.sequence"
            " FROM log JOIN authors ON authors.number = log.author"
            " WHERE log.record = ? AND log.kind = 1 AND log.position BETWEEN ? AND ? ORDER BY log.position",
            (record, _first(space), _last(space)),
        )
        return [
            TailRow(position & SEQUENCE_MASK, Author(DeviceId(device), Incarnation(incarnation)), sequence)
            for position, device, incarnation, sequence in rows
        ]

    def tail_length(self, space: SpaceKey, record: OpaqueId) -> int:
        row = self._db.execute(
            "SELECT count(*) FROM log WHERE record = ? AND kind = 1 AND position BETWEEN ? AND ?",
            (record, _first(space), _last(space)),
        ).fetchone()
        return int(row[0])

    def long_tails(self, space: SpaceKey, at_least: int) -> list[tuple[OpaqueId, int]]:
        rows = self._db.execute(
            "SELECT record, count(*) FROM log WHERE record IS NOT NULL AND kind = 1"
            " AND position BETWEEN ? AND ? GROUP BY record HAVING count(*) >= ?",
            (_first(space), _last(space), at_least),
        )
        return [(OpaqueId(record), count) for record, count in rows]

    def snapshot(self, space: SpaceKey, record: OpaqueId) -> StoredSnapshot | None:
        row = self._db.execute(
            "SELECT position, payload FROM log WHERE record = ? AND kind = 2 AND position BETWEEN ? AND ?",
            (record, _first(space), _last(space)),
        ).fetchone()
        return None if row is None else StoredSnapshot(row[0] & SEQUENCE_MASK, row[1])

    def replace_by_snapshot(
        self, space: SpaceKey, record: OpaqueId, sequence: int, envelope: bytes, covered: Sequence[int]
    ) -> int:
        old, grown = self.snapshot(space, record), len(envelope)
        if old is not None:
            older = self.superseded(space, record)
            grown -= 0 if older is None else len(older.envelope)
            self._db.execute(
                "INSERT OR REPLACE INTO superseded (space, record, sequence, payload) VALUES (?, ?, ?, ?)",
                (space, record, *old),
            )
            self._db.execute("DELETE FROM log WHERE position = ?", (_first(space, old.sequence),))
        for at in covered:
            row = self._db.execute(
                "DELETE FROM log WHERE position = ? RETURNING length(payload)", (_first(space, at),)
            ).fetchall()
            grown -= sum(size for (size,) in row)
        self._db.execute(
            "INSERT INTO log (position, kind, record, payload) VALUES (?, 2, ?, ?)",
            (_first(space, sequence), record, envelope),
        )
        self._grow(space, grown)
        return grown

    def superseded(self, space: SpaceKey, record: OpaqueId) -> StoredSnapshot | None:
        row = self._db.execute(
            "SELECT sequence, payload FROM superseded WHERE space = ? AND record = ?", (space, record)
        ).fetchone()
        return None if row is None else StoredSnapshot(row[0], row[1])

    # Reading

    def read(
        self,
        space: SpaceKey,
        after: int,
        *,
        max_rows: int,
        max_bytes: int,
        without: AuthorKey | None = None,
        only: RowKind | None = None,
    ) -> Page:
        query = _READ + (_WITHOUT if without is not None else "") + (_ONLY if only is not None else "")
        found = self._db.execute(
            query + " ORDER BY position",
            {"after": _first(space, after), "last": _last(space), "without": without, "only": only},
        )
        rows: list[Row] = []
        size_bytes = 0
        for position, kind, payload in found:
            size_bytes += len(payload)
            if rows and (len(rows) == max_rows or size_bytes > max_bytes):
                found.close()  # resets the statement: the rest is not read
                return Page(rows, rows[-1].sequence, False)
            rows.append(Row(position & SEQUENCE_MASK, _KINDS[kind], payload))
        return Page(rows, max(after, self.head(space)), True)

    def read_record(
        self, space: SpaceKey, record: OpaqueId, after: int, *, max_rows: int, max_bytes: int
    ) -> tuple[list[Row], bool]:
        found = self._db.execute(
            "SELECT position, kind, payload FROM log WHERE record = ? AND position > ? AND position <= ?"
            " ORDER BY position",
            (record, _first(space, after), _last(space)),
        )
        rows: list[Row] = []
        size_bytes = 0
        for position, kind, payload in found:
            size_bytes += len(payload)
            if rows and (len(rows) == max_rows or size_bytes > max_bytes):
                found.close()
                return rows, False
            rows.append(Row(position & SEQUENCE_MASK, _KINDS[kind], payload))
        return rows, True

    def tidy(self) -> None:
        try:
            # As a script, because it has to be stepped once per page: execute() steps once.
            self._db.executescript(f"PRAGMA incremental_vacuum({CHECKPOINT_PAGES})")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as exc:
            note_cause(exc)
            raise

    def copy_to(self, path: Path) -> None:
        # SQLite copies pages between the statements of this connection, and copies again what they change.
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
            self._db.backup(copy, pages=COPY_PAGES, sleep=COPY_REST_S)
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()

    def close(self) -> None:
        self._db.close()
