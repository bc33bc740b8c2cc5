"""How large a store is, what takes the room, and giving back what nobody uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from crdt_sync_client.store.connection import Database

_RECORDS: Final = (
    "SELECT count(*), sum(coalesce(length(CAST(json AS BLOB)), 0) + length(state) + length(heads))"
    " FROM records JOIN documents ON record = no"
)
_PARTS: Final = (
    ("deleted records", f"{_RECORDS} WHERE deleted = 1"),
    ("unsent writes", "SELECT count(*), sum(length(change)) FROM outbox"),
    ("envelopes on their way", "SELECT count(*), sum(length(envelope)) FROM sealed"),
    ("conflicts", "SELECT count(*), sum(length(alternatives)) FROM conflicts"),
    ("history entries", "SELECT count(*), sum(length(entry)) FROM history"),
    ("quarantined envelopes", "SELECT count(*), sum(length(envelope)) FROM quarantine"),
    ("envelopes that wait for others", "SELECT count(*), sum(length(envelope)) FROM waiting"),
    ("membership entries", "SELECT count(*), sum(length(entry)) FROM membership"),
)


@dataclass(frozen=True, slots=True)
class StorePart:
    """Rows of one kind, and the bytes of what is in them; indexes and page ends are not counted."""

    name: str
    rows: int
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "rows": self.rows, "bytes": self.size_bytes}


@dataclass(frozen=True, slots=True)
class StoreSize:
    """`file_bytes` and `wal_bytes` are on the disk now; `free_bytes` of the file hold nothing."""

    file_bytes: int
    wal_bytes: int
    free_bytes: int
    parts: tuple[StorePart, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "file_bytes": self.file_bytes,
            "wal_bytes": self.wal_bytes,
            "free_bytes": self.free_bytes,
            "parts": [part.to_json() for part in self.parts],
        }


def measure(db: Database, path: str | os.PathLike[str]) -> StoreSize:
    """Read through the store once; 100,000 records of 1 KB take about half a second."""
    # Type by type: to group them SQLite would sort all rows, in memory, with everything in them.
    types = [name for (name,) in db.rows("SELECT DISTINCT type FROM records")]
    of_types = [
        StorePart(f"{name} records", rows, size_bytes)
        for name in types
        for rows, size_bytes in db.rows(f"{_RECORDS} WHERE deleted = 0 AND type = ?", (name,))
        if rows
    ]
    of_types.sort(key=lambda part: (-part.size_bytes, part.name))
    others = [
        StorePart(name, rows, size_bytes or 0)
        for name, sql in _PARTS
        for rows, size_bytes in db.rows(sql)
        if rows
    ]
    page_bytes = int(db.value("PRAGMA page_size"))  # SQLCipher answers in text
    return StoreSize(
        file_bytes=_on_disk(path),
        wal_bytes=_on_disk(f"{os.fspath(path)}-wal"),
        free_bytes=db.value("PRAGMA freelist_count") * page_bytes,
        parts=(*of_types, *others),
    )


def vacuum(db: Database, path: str | os.PathLike[str]) -> int:
    """Give unused room back to the disk; returns how many bytes. Not inside a transaction.

    The copy that SQLite makes is in a temporary file, which SQLCipher encrypts with the store's key: in
    memory it would take as much of that as the store is large. Nothing is sorted meanwhile, which is what
    would get into a file of its own, readable.
    """
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = _on_disk(path)
    db.execute("PRAGMA temp_store=FILE")
    try:
        db.execute("VACUUM")
    finally:
        db.execute("PRAGMA temp_store=MEMORY")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return max(before - _on_disk(path), 0)


def _on_disk(path: str | os.PathLike[str]) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
