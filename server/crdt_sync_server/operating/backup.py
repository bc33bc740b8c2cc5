"""Backing up a relay while it works, and proving that the copy is good.

A backup is a directory like the relay's own: its database as it was at one moment, and the fingerprint of the
setup token. A relay can be started on it as it is, which is how it is restored. It gets its name only when
the copy was opened and checked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Final

from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.operating.log_check import LogCheck
from crdt_sync_server.storage.port import DataDirError, Storage
from crdt_sync_server.storage.sqlite import SqliteStorage

HINT: Final = "choose a new directory with --to, and see that there is room for the copy"


def back_up(storage: Storage, data: DataDir, to: Path) -> dict[str, Any]:
    """Copy to a new directory. Safe beside a working relay, from any thread. Raises DataDirError."""
    target = DataDir(to)
    try:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(to.iterdir()):
            raise DataDirError(f"{to} is not empty", hint=HINT)
        part = target.database.with_suffix(".part")
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            storage.copy_to(part)
            rows = proved(part)
            sync_to_disk(part)
            os.replace(part, target.database)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        for path in data.path.glob("*.sha256"):
            shutil.copy(path, to / path.name)
            (to / path.name).chmod(0o600)
        size_bytes = target.database.stat().st_size
    except OSError as exc:
        raise DataDirError(f"{to} cannot be written: {exc.strerror or exc}", hint=HINT) from None
    except sqlite3.Error as exc:
        raise DataDirError(f"the copy to {to} failed: {exc}", hint=HINT) from None
    return {"to": str(to), "size_bytes": size_bytes, "rows": rows}


def proved(path: Path) -> int:
    """Open a copy and read all of it; gives its rows. Raises DataDirError when anything about it is wrong."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
            problems = integrity_problems(copy)
            check = LogCheck(SqliteStorage(copy))
            check.run()
    except sqlite3.Error as exc:
        raise DataDirError(f"the copy cannot be read: {exc}", hint=HINT) from None
    if problems or check.findings:
        first = problems[0] if problems else check.findings[0].problem
        raise DataDirError(
            f"the copy is not good: {first}", hint="run `crdt-sync relay check`: the original may be damaged"
        )
    return check.rows


def integrity_problems(connection: sqlite3.Connection) -> list[str]:
    """What SQLite itself finds wrong in a database file."""
    try:
        texts = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    except sqlite3.DatabaseError as exc:
        return [f"{exc}"]
    found = [line for text in texts for line in text.splitlines() if not line.startswith("*** in database")]
    return [] if found == ["ok"] else found


def sync_to_disk(path: Path) -> None:
    """Wait until a file and its name are on the disk."""
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
