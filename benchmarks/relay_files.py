"""Looks into the database of a relay that was stopped: for figures, never for the product."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def database_file(data: Path) -> Path:
    """The one database file in a relay's data folder."""
    (found,) = data.glob("*.sqlite3")
    return found


def log_rows(data: Path) -> int:
    """Rows in all logs: updates, current snapshots and membership entries."""
    uri = f"file:{database_file(data)}?mode=ro"
    with sqlite3.connect(uri, uri=True) as connection:
        (count,) = connection.execute("SELECT count(*) FROM log").fetchone()
    connection.close()
    return int(count)


def stored_bytes(data: Path) -> int:
    """Size of everything in the data folder, in bytes."""
    return sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
