"""Putting a backup in place of a relay's data.

The copy is checked before anything is touched. What stood in the directory is kept aside in it, under a name
with the date, so that nothing is ever deleted by a restore. Until the copy has taken its place, in one step,
the old database is locked, if it can be: a relay that is started meanwhile is refused.

What comes from the directory and not from the backup: the setup token, which may have been replaced since
because somebody knew it, and whom the operator has shut out since. What was acknowledged since the backup was
made comes back from the devices that have it: they notice by the relay's new life (see `returning`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.operating.backup import integrity_problems, sync_to_disk
from crdt_sync_server.operating.channel import FILE as CHANNEL
from crdt_sync_server.operating.log_check import LogCheck
from crdt_sync_server.ownership import hand_over
from crdt_sync_server.storage.port import DataDirError, Revocation
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage
from crdt_sync_server.storage.sqlite_books import SqliteRevocations
from crdt_sync_server.storage.sqlite_file import heads_of

ASIDE: Final = "before-restore-%Y-%m-%d-%H%M%S"
_STAGE: Final = "restoring"
_BESIDE: Final = ("-wal", "-shm", "-journal")
"""Files beside a database that could not be read, by what is added to its name."""
_NOT_A_BACKUP: Final = "name a directory that `crdt-sync relay backup` made"


class _Old(NamedTuple):
    """What the directory has. `heads`: by space, how far its log goes; None when it cannot be read."""

    heads: dict[bytes, int] | None
    revocations: list[Revocation]


def restore(source: Path, to: Path, *, force: bool) -> dict[str, Any]:
    """Put the backup in `source` in place as the data of a relay. Raises DataDirError; then all is as before.

    `force`: also in place of data that is newer.
    """
    backup, data = DataDir(source), DataDir(to)
    try:
        found = backup.database.is_file()
    except PermissionError:
        raise DataDirError(
            f"{source} cannot be read: permission denied", hint="do it as the relay's user, or as root"
        ) from None
    if not found:
        raise DataDirError(f"{source} is no backup: it has no {backup.database.name}", hint=_NOT_A_BACKUP)
    if to.exists() and os.path.samefile(source, to):
        raise DataDirError("that is the relay's own directory", hint=_NOT_A_BACKUP)
    _check_target(data)
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    stage = DataDir(to / _STAGE)
    try:
        with _locked(data) as old:
            shutil.rmtree(stage.path, ignore_errors=True)  # of a restore that was cut off
            stage.path.mkdir(mode=0o700)
            rows, heads = _staged(backup, stage, old.revocations)
            newer = _newer(old.heads, heads)
            if newer and not force:
                raise DataDirError(
                    f"{to} has {newer:,} rows that the backup does not have",
                    hint="add --force: they are kept aside, and devices send again what they have of them",
                )
            aside = _swap(backup, data, stage, readable=old.heads is not None)
    except OSError as exc:
        raise DataDirError(
            f"the backup cannot be put in place: {exc.strerror or exc}",
            hint="check the mode of both directories and the room on the disk; then run it again",
        ) from None
    finally:
        shutil.rmtree(stage.path, ignore_errors=True)
    return {
        "from": str(source),
        "data": str(to),
        "spaces": len(heads),
        "rows": rows,
        "newer_rows": newer,
        "damaged": old.heads is None,
        "kept_aside": None if aside is None else str(aside),
        "missing_spaces": len(set(old.heads or {}) - set(heads)),
        "revoked": len(old.revocations),
    }


def _check_target(data: DataDir) -> None:
    if not data.path.exists():
        return
    if not data.path.is_dir() or not os.access(data.path, os.R_OK | os.W_OK | os.X_OK):
        raise DataDirError(f"{data.path} cannot be written", hint="check the owner and mode of the directory")
    names = {entry.name for entry in os.scandir(data.path)}
    ours = (data.database.name in names, _STAGE in names, any(name.startswith(ASIDE[:15]) for name in names))
    if names and not any(ours):
        raise DataDirError(
            f"{data.path} has other files in it and no relay's database",
            hint="choose another directory with --data",
        )


@contextlib.contextmanager
def _locked(data: DataDir) -> Iterator[_Old]:
    """What the directory has, while no relay can open it. Raises DataDirError when one has."""
    if not data.database.exists():
        yield _Old({}, [])
        return
    with contextlib.closing(sqlite3.connect(data.database, isolation_level=None, timeout=0.0)) as lock:
        try:
            lock.execute("PRAGMA locking_mode = EXCLUSIVE")
            lock.execute("BEGIN EXCLUSIVE")
            lock.execute("COMMIT")
            old = _read(lock)
            # One file then, without a log beside it that SQLite would look after when this is closed.
            lock.execute("PRAGMA journal_mode = DELETE").fetchall()
        except sqlite3.DatabaseError as exc:
            if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise DataDirError(
                    f"a relay runs on {data.path}", hint="stop it, restore, and start it again"
                ) from None
            old = _Old(None, [])
        yield old


def _read(database: sqlite3.Connection) -> _Old:
    heads, revocations = heads_of(database), []
    with contextlib.suppress(sqlite3.OperationalError):  # an earlier version had no such table
        revocations = SqliteRevocations(database).all()
    return _Old(heads, revocations)


def _newer(old: dict[bytes, int] | None, backup: dict[bytes, int]) -> int:
    """Rows of logs beyond the backup's."""
    return sum(max(0, head - backup.get(space, 0)) for space, head in (old or {}).items())


def _staged(backup: DataDir, stage: DataDir, revocations: list[Revocation]) -> tuple[int, dict[bytes, int]]:
    """Copy the backup, check the copy, and begin a new life in it: its rows, and how far its logs go."""
    for suffix in ("", "-wal"):
        file = Path(f"{backup.database}{suffix}")
        if file.exists():
            copy = Path(f"{stage.database}{suffix}")
            shutil.copyfile(file, copy)
            copy.chmod(0o600)
    try:
        with contextlib.closing(connect_storage(stage.database, os.urandom)) as database:
            problems = integrity_problems(database)
            storage = SqliteStorage(database)
            check = LogCheck(storage)
            check.run()
            if problems or check.findings:
                first = problems[0] if problems else check.findings[0].problem
                raise DataDirError(
                    f"the backup is damaged: {first}",
                    hint="`crdt-sync relay check` says all; take another one",
                )
            with storage.transaction():
                for each in revocations:
                    storage.revocations.put(each)
            heads = heads_of(database)
            database.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.DatabaseError as exc:
        raise DataDirError(f"the backup is damaged: {exc}", hint="take another one") from None
    sync_to_disk(stage.database)
    return check.rows, heads


def _new_directory(path: Path) -> Path:
    number = 1
    while True:
        named = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            named.mkdir(mode=0o700)
            hand_over(named, path.parent)
            return named
        number += 1


def _swap(backup: DataDir, data: DataDir, stage: DataDir, *, readable: bool) -> Path | None:
    """The staged database in place of what stands there; where that went."""
    aside = None
    if data.database.exists():
        aside = _new_directory(data.path / time.strftime(ASIDE))
        for suffix in _BESIDE:
            path = Path(f"{data.database}{suffix}")
            if path.exists() and readable:
                path.unlink()  # SQLite keeps an empty one while the file is locked
            elif path.exists():
                os.replace(path, aside / path.name)
        # Two names for a moment, so that there is a database at every moment.
        os.link(data.database, aside / data.database.name)
    hand_over(stage.database, data.path)
    os.replace(stage.database, data.database)
    for path in backup.path.glob("*.sha256"):
        target = data.path / path.name
        if not target.exists():
            shutil.copyfile(path, target)
            target.chmod(0o600)
            hand_over(target, data.path)
    (data.path / CHANNEL).unlink(missing_ok=True)  # of a relay that was killed
    sync_to_disk(data.database)
    return aside
