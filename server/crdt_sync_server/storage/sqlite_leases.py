"""Leases of the storage port on SQLite: each is the row of the log that tells of it, found by its record."""

from __future__ import annotations

import sqlite3
from typing import Final

from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.frames import RowKind
from crdt_sync_server.storage.port import SpaceKey, StoredLease
from crdt_sync_server.storage.sqlite_file import SEQUENCE_BITS

_GROW: Final = "UPDATE spaces SET bytes = bytes + ? WHERE number = ?"


class SqliteLeases:
    """See `port.Leases`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def all(self, space: SpaceKey) -> list[StoredLease]:
        rows = self._db.execute(
            "SELECT leases.record, leases.sequence, payload FROM leases JOIN log"
            f" ON position = (space << {SEQUENCE_BITS} | leases.sequence) WHERE space = ? ORDER BY 2",
            (space,),
        ).fetchall()
        return [StoredLease(OpaqueId(record), sequence, payload) for record, sequence, payload in rows]

    def put(self, space: SpaceKey, lease: StoredLease) -> None:
        record, sequence, payload = lease
        self.drop(space, record)
        self._db.execute(
            "INSERT INTO log (position, kind, payload) VALUES (?, ?, ?)",
            (space << SEQUENCE_BITS | sequence, int(RowKind.LEASE), payload),
        )
        self._db.execute(
            "INSERT INTO leases (space, record, sequence) VALUES (?, ?, ?)", (space, record, sequence)
        )
        self._db.execute(_GROW, (len(payload), space))

    def drop(self, space: SpaceKey, record: OpaqueId) -> None:
        gone = self._db.execute(
            "DELETE FROM leases WHERE space = ? AND record = ? RETURNING sequence", (space, record)
        ).fetchall()
        for (sequence,) in gone:
            position = space << SEQUENCE_BITS | sequence
            rows = self._db.execute(
                "DELETE FROM log WHERE position = ? RETURNING length(payload)", (position,)
            ).fetchall()
            self._db.execute(_GROW, (-sum(size for (size,) in rows), space))

    def newest_token(self, space: SpaceKey) -> int:
        row = self._db.execute("SELECT token FROM lease_tokens WHERE space = ?", (space,)).fetchone()
        return 0 if row is None else int(row[0])

    def set_newest_token(self, space: SpaceKey, token: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO lease_tokens (space, token) VALUES (?, ?)", (space, token))
