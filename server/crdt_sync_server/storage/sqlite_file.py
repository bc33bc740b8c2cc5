"""The relay's database file: its tables, its versions, and how it is opened.

Version 1 had no books (who was seen when, what happened), no leases and nobody shut out, did not count the
bytes of a space, and did not know its own lives.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from crdt_sync.ids import Entropy
from crdt_sync_server.storage.port import DataDirError

APPLICATION_ID: Final = 0x43525359
"""`CRSY`: marks the file as ours, for us and for `file(1)`."""
SCHEMA_VERSION: Final = 2
SEQUENCE_BITS: Final = 40
SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1
PAGE_BYTES: Final = 2048
"""Half of SQLite's default: an envelope is some 350 bytes, and a new relay's file stays under 32 KiB."""
CHECKPOINT_PAGES: Final = 4096
"""8 MiB of write-ahead log before it is copied into the file: bursts are absorbed, restarts stay quick."""

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE spaces (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, bytes INTEGER NOT NULL DEFAULT 0);
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

_NEW_IN_2: Final = """
CREATE TABLE devices (
    space INTEGER NOT NULL,
    device BLOB NOT NULL,
    first_met_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,
    last_sync_ms INTEGER,
    cursor INTEGER NOT NULL DEFAULT 0,
    agent TEXT NOT NULL DEFAULT '',
    label TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (space, device)
) WITHOUT ROWID;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    space INTEGER NOT NULL,
    device BLOB,
    event TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_by_space ON audit (space);
CREATE TABLE leases (
    space INTEGER NOT NULL,
    record BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (space, record)
) WITHOUT ROWID;
CREATE TABLE lease_tokens (space INTEGER PRIMARY KEY, token INTEGER NOT NULL);
CREATE TABLE lives (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
CREATE TABLE revocations (
    device BLOB NOT NULL,
    space BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (device, space)
) WITHOUT ROWID;
CREATE TABLE life_heads (
    space INTEGER NOT NULL,
    life INTEGER NOT NULL,
    head INTEGER NOT NULL,
    PRIMARY KEY (space, life)
) WITHOUT ROWID;
"""
_HEADS: Final = f"""
INSERT INTO life_heads (space, life, head)
    SELECT number, :life, head FROM (
        SELECT number, (SELECT coalesce(max(position), 0) & {SEQUENCE_MASK} FROM log
            WHERE position BETWEEN number << {SEQUENCE_BITS} AND number << {SEQUENCE_BITS} | {SEQUENCE_MASK}
        ) AS head FROM spaces)
    WHERE head IS NOT
        (SELECT head FROM life_heads WHERE space = number AND life < :life ORDER BY life DESC LIMIT 1)
"""
"""Where the logs ended when a life began, of those that had moved since the life before."""
_COUNT_BYTES: Final = f"""
UPDATE spaces SET bytes =
    (SELECT coalesce(sum(length(payload)), 0) FROM log
        WHERE position BETWEEN number << {SEQUENCE_BITS} AND number << {SEQUENCE_BITS} | {SEQUENCE_MASK})
    + (SELECT coalesce(sum(length(payload)), 0) FROM superseded WHERE space = number)
"""


def connect_storage(path: Path, entropy: Entropy, *, to_serve: bool = True) -> sqlite3.Connection:
    """Open the database file, or make it. Raises DataDirError when it is not ours, too new or in use.

    `to_serve` begins a life of the relay; who only looks, or changes what no device sees, begins none.
    """
    new = not path.exists()
    if new:
        # Made by us, not by SQLite, so that it is never readable by others, not even for a moment.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
    except sqlite3.DatabaseError as exc:
        raise _explained(exc, path) from None
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if path.stat().st_size == 0:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        else:
            _check_ours(connection, path)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * PAGE_BYTES}")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("BEGIN EXCLUSIVE")
        prepare(connection, entropy, to_serve=to_serve)
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as exc:
        connection.close()
        raise _explained(exc, path) from None
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, entropy: Entropy, *, to_serve: bool = True) -> None:
    """Make the tables or bring them up to date, and begin a life of the relay. Within a transaction."""
    if connection.execute("PRAGMA application_id").fetchone()[0] == 0:
        _make_tables(connection, entropy)
    else:
        _upgrade(connection)
    if not to_serve and connection.execute("SELECT count(*) FROM lives").fetchone()[0]:
        return
    life = connection.execute("INSERT INTO lives (id) VALUES (?)", (entropy(16),)).lastrowid
    connection.execute(_HEADS, {"life": life})


def _make_tables(connection: sqlite3.Connection, entropy: Entropy) -> None:
    _run(connection, _SCHEMA + _NEW_IN_2)
    connection.execute("INSERT INTO meta VALUES ('relay_id', ?)", (entropy(16),))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _upgrade(connection: sqlite3.Connection) -> None:
    """Within a transaction: a file is of one version or of the other, whatever happens."""
    if connection.execute("PRAGMA user_version").fetchone()[0] < 2:
        connection.execute("ALTER TABLE spaces ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0")
        _run(connection, _NEW_IN_2)
        connection.execute(_COUNT_BYTES)
        # To devices it was one life until now, and what they have seen in it stays good.
        connection.execute("INSERT INTO lives (id) SELECT value FROM meta WHERE name = 'relay_id'")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def heads_of(connection: sqlite3.Connection) -> dict[bytes, int]:
    """How far the log of each space goes, in a file of any version. Raises DatabaseError."""
    rows = connection.execute(
        f"SELECT id, (SELECT coalesce(max(position), 0) & {SEQUENCE_MASK} FROM log WHERE position"
        f" BETWEEN number << {SEQUENCE_BITS} AND number << {SEQUENCE_BITS} | {SEQUENCE_MASK}) FROM spaces"
    ).fetchall()
    return {bytes(space): int(head) for space, head in rows}


def _run(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


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


_CAUSES: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_READONLY: "the database may not be written",
}


def note_cause(error: BaseException | None) -> None:
    """Note on an error of SQLite what failed, in words that may be logged."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        cause = _CAUSES.get(code) or getattr(error, "sqlite_errorname", "")
        if cause and cause not in getattr(error, "__notes__", ()):
            error.add_note(cause)


def _explained(exc: sqlite3.DatabaseError, path: Path) -> DataDirError:
    if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DataDirError(
            f"{path} is in use by another process",
            hint="another relay serves this directory; stop it, or choose another one with --data",
        )
    if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB:
        return DataDirError(
            f"{path} is not a relay's database, or its beginning is damaged",
            hint="choose another directory with --data, or put a backup back: crdt-sync relay restore",
        )
    if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return DataDirError(
            f"{path} cannot be opened and written",
            hint="check the owner and mode of it and its directory: they are to be the relay's user's",
        )
    if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
        return DataDirError(
            f"{path} cannot be opened: the disk is full", hint="make room for it, some 10 MB at least"
        )
    return DataDirError(
        f"{path} cannot be opened: {exc}", hint="check the disk; `crdt-sync relay restore` puts a backup back"
    )
