"""The books of the storage port on SQLite, and whom the operator has shut out."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from crdt_sync.ids import DeviceId, SpaceId
from crdt_sync_server.storage.port import AuditEvent, AuditRow, Revocation, SeenDevice, SpaceKey, Visit


class SqliteBooks:
    """See `port.Books`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def visit(self, visits: Sequence[Visit]) -> None:
        self._db.executemany(
            "INSERT INTO devices (space, device, first_met_ms, last_seen_ms, last_sync_ms, cursor, agent)"
            " VALUES"
            " (:space, :device, :at_ms, :at_ms, :synced_ms, coalesce(:cursor, 0), coalesce(:agent, ''))"
            " ON CONFLICT (space, device) DO UPDATE SET last_seen_ms = max(last_seen_ms, :at_ms),"
            " last_sync_ms = coalesce(:synced_ms, last_sync_ms), cursor = coalesce(:cursor, cursor),"
            " agent = coalesce(:agent, agent)",
            [visit._asdict() for visit in visits],
        )

    def set_label(self, space: SpaceKey, device: DeviceId, label: str, now_ms: int) -> None:
        self._db.execute(
            "INSERT INTO devices (space, device, first_met_ms, last_seen_ms, label)"
            " VALUES (:space, :device, :now_ms, :now_ms, :label)"
            " ON CONFLICT (space, device) DO UPDATE SET label = :label",
            {"space": space, "device": device, "now_ms": now_ms, "label": label},
        )

    def devices(self, space: SpaceKey) -> list[SeenDevice]:
        rows = self._db.execute(
            "SELECT device, first_met_ms, last_seen_ms, last_sync_ms, cursor, agent, label FROM devices"
            " WHERE space = ? ORDER BY device",
            (space,),
        ).fetchall()
        return [SeenDevice(DeviceId(device), *rest) for device, *rest in rows]

    def note(self, events: Sequence[AuditEvent]) -> None:
        self._db.executemany(
            "INSERT INTO audit (at_ms, space, device, event, detail) VALUES (?, ?, ?, ?, ?)", events
        )

    def audit(self, space: SpaceKey, after: int, limit: int) -> list[AuditRow]:
        rows = self._db.execute(
            "SELECT number, at_ms, space, device, event, detail FROM audit WHERE space = ? AND number > ?"
            " ORDER BY number LIMIT ?",
            (space, after, limit),
        ).fetchall()
        return [
            AuditRow(
                number,
                AuditEvent(at_ms, SpaceKey(of), None if device is None else DeviceId(device), event, detail),
            )
            for number, at_ms, of, device, event, detail in rows
        ]

    def forget_audit(self, before_ms: int, limit: int) -> int:
        gone = self._db.execute(
            "DELETE FROM audit WHERE number IN"
            " (SELECT number FROM (SELECT number, at_ms FROM audit ORDER BY number LIMIT ?) WHERE at_ms < ?)"
            " RETURNING number",
            (limit, before_ms),
        ).fetchall()
        return len(gone)


class SqliteRevocations:
    """See `port.Revocations`. An empty space stands for all."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def all(self) -> list[Revocation]:
        rows = self._db.execute(
            "SELECT device, space, at_ms, reason FROM revocations ORDER BY device, space"
        ).fetchall()
        return [
            Revocation(DeviceId(device), SpaceId(space) if space else None, at_ms, reason)
            for device, space, at_ms, reason in rows
        ]

    def put(self, revocation: Revocation) -> None:
        device, space, at_ms, reason = revocation
        self._db.execute(
            "INSERT OR REPLACE INTO revocations (device, space, at_ms, reason) VALUES (?, ?, ?, ?)",
            (device, space or b"", at_ms, reason),
        )

    def drop(self, device: DeviceId, space: SpaceId | None) -> None:
        self._db.execute("DELETE FROM revocations WHERE device = ? AND space = ?", (device, space or b""))
