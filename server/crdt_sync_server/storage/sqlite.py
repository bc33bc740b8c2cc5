"""The storage port on SQLite: one file, write-ahead log, `synchronous=FULL`.

FULL makes every commit wait for the disk; NORMAL lost acknowledged writes in every one of 300 simulated
power cuts. `locking_mode=EXCLUSIVE` makes the process the only one that can open the file, which is both the
lock against a second relay and one file less (no shared-memory index).

A row's key is `space << 40 | sequence`: the log of a space is one stretch of the table in the order in which
it is read, without an index beside it. 40 bits of sequence are 35 years at 1,000 rows a second.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.ids import Author, DeviceId, Entropy, Incarnation, OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.frames import Row, RowKind
from crdt_sync_server.storage.port import (
    AuthorKey,
    DataDirError,
    NewUpdate,
    Page,
    SpaceKey,
    StoredSnapshot,
    TailRow,
)

APPLICATION_ID: Final = 0x43525359
"""`CRSY`: marks the file as ours, for us and for `file(1)`."""
SCHEMA_VERSION: Final = 1
_SEQUENCE_BITS: Final = 40
_SEQUENCE_MASK: Final = (1 << _SEQUENCE_BITS) - 1
_PAGE_BYTES: Final = 2048
"""Half of SQLite's default: an envelope is some 350 bytes, and a new relay's file stays under 32 KiB."""
_CHECKPOINT_PAGES: Final = 4096
"""8 MiB of write-ahead log before it is copied into the file: bursts are absorbed, restarts stay quick."""
_KINDS: Final = {int(kind): kind for kind in RowKind}

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE spaces (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
CREATE TABLE authors (
    number INTEGER PRIMARY KEY,
    space INTEGER NOT NULL,
    device BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (space, device, incarnation)
);
CREATE TABLE log (
    position INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    author INTEGER,
    sequence INTEGER,
    record BLOB,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX log_by_author ON log (author, sequence) WHERE author IS NOT NULL;
CREATE INDEX log_by_record ON log (record, kind) WHERE record IS NOT NULL;
CREATE TABLE superseded (
    space INTEGER NOT NULL,
    record BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (space, record)
) WITHOUT ROWID;
"""

_READ: Final = "SELECT position, kind, payload FROM log WHERE position > :after AND position <= :last"
_WITHOUT: Final = " AND author IS NOT :without"
_ONLY: Final = " AND kind = :only"


def _first(space: SpaceKey, after: int = 0) -> int:
    return space << _SEQUENCE_BITS | after


def _last(space: SpaceKey) -> int:
    return space << _SEQUENCE_BITS | _SEQUENCE_MASK


class _Transaction(AbstractContextManager[None]):
    """A class, because a generator would cost as much as the two statements."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except BaseException:
                self._roll_back()
                raise
        self._roll_back()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


class SqliteStorage:
    """See the module. `connect_storage` makes the connection; it may be handed to another thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._transaction = _Transaction(connection)
        self.relay_id: RelayId = RelayId(
            connection.execute("SELECT value FROM meta WHERE name = 'relay_id'").fetchone()[0]
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

    def head(self, space: SpaceKey) -> int:
        row = self._db.execute(
            "SELECT max(position) FROM log WHERE position BETWEEN ? AND ?", (_first(space), _last(space))
        ).fetchone()
        return 0 if row[0] is None else int(row[0]) & _SEQUENCE_MASK

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
        return int(row[0]) & _SEQUENCE_MASK

    def append_membership(self, space: SpaceKey, sequence: int, entry: bytes) -> None:
        self._db.execute(
            "INSERT INTO log (position, kind, payload) VALUES (?, ?, ?)",
            (_first(space, sequence), int(RowKind.MEMBERSHIP), entry),
        )

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
            TailRow(position & _SEQUENCE_MASK, Author(DeviceId(device), Incarnation(incarnation)), sequence)
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
        return None if row is None else StoredSnapshot(row[0] & _SEQUENCE_MASK, row[1])

    def replace_by_snapshot(
        self, space: SpaceKey, record: OpaqueId, sequence: int, envelope: bytes, covered: Sequence[int]
    ) -> None:
        old = self.snapshot(space, record)
        if old is not None:
            self._db.execute(
                "INSERT OR REPLACE INTO superseded (space, record, sequence, payload) VALUES (?, ?, ?, ?)",
                (space, record, *old),
            )
        gone = [*covered, old.sequence] if old is not None else covered
        self._db.executemany("DELETE FROM log WHERE position = ?", [(_first(space, at),) for at in gone])
        self._db.execute(
            "INSERT INTO log (position, kind, record, payload) VALUES (?, 2, ?, ?)",
            (_first(space, sequence), record, envelope),
        )

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
            rows.append(Row(position & _SEQUENCE_MASK, _KINDS[kind], payload))
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
            rows.append(Row(position & _SEQUENCE_MASK, _KINDS[kind], payload))
        return rows, True

    def tidy(self) -> None:
        # As a script, because it has to be stepped once per page: execute() steps once.
        self._db.executescript(f"PRAGMA incremental_vacuum({_CHECKPOINT_PAGES})")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        self._db.close()


def connect_storage(path: Path, entropy: Entropy) -> sqlite3.Connection:
    """Open the database file, or make it. Raises DataDirError when it is not ours, too new or in use."""
    new = not path.exists()
    if new:
        # Made by us, not by SQLite, so that it is never readable by others, not even for a moment.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if path.stat().st_size == 0:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        else:
            _check_ours(connection, path)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_PAGES * _PAGE_BYTES}")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("BEGIN EXCLUSIVE")
        if connection.execute("PRAGMA application_id").fetchone()[0] == 0:
            _make_tables(connection, entropy)
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as exc:
        connection.close()
        raise _explained(exc, path) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection, entropy: Entropy) -> None:
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('relay_id', ?)", (entropy(16),))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables:
            raise DataDirError(
                f"{path} is a database of another program", hint="choose another directory with --data"
            )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise DataDirError(
            f"{path} was written by a newer relay (format {version}, this one knows {SCHEMA_VERSION})",
            hint="update crdt-sync on this machine",
        )


def _explained(exc: sqlite3.DatabaseError, path: Path) -> DataDirError:
    if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DataDirError(
            f"{path} is in use by another process",
            hint="another relay serves this directory; stop it, or choose another one with --data",
        )
    if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB:
        return DataDirError(f"{path} is not a relay's database", hint="choose another directory with --data")
    if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return DataDirError(f"{path} cannot be written", hint="check the owner and mode of the directory")
    return DataDirError(f"{path} cannot be opened: {exc}", hint="check the disk, or restore from a backup")
