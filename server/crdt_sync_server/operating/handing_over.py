"""A backup that a running relay makes, put where the operator wants it.

The relay and the operator's command are often different users, and under systemd they see different
directories: a relay may write nothing but its own, and its /tmp is not everybody's. So the relay writes to
the wished place only when it sees that very directory and may write there. Else it makes the copy in its own
directory and the command takes it from there: in one step on the same disk, else by another copy, which is
proved again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from crdt_sync.ids import Entropy
from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.operating import backup
from crdt_sync_server.storage.port import DataDirError, Storage

ELSEWHERE: Final = "backup_elsewhere"
"""What a relay answers that cannot write to the wished place."""
_PREFIX: Final = "handing-over-"
_STALE_S: Final = 24 * 3600
"""What lies in the relay's directory for longer was left by a command that was killed."""
_NAME_BYTES: Final = 4

Asked = dict[str, Any]


class Elsewhere(DataDirError):
    """The relay cannot write there."""

    code = ELSEWHERE


# The command


def back_up(ask: Callable[[Asked], dict[str, Any]], data: Path, to: Path) -> dict[str, Any]:
    """Have the running relay make a backup in `to`, a new or empty directory. Raises DataDirError.

    `ask` asks it, and raises Elsewhere.
    """
    with _made(to):
        device, inode = _identity(to)
        try:
            return ask({"to": str(to.absolute()), "device": device, "inode": inode})
        except Elsewhere:
            done = ask({"to": "", "device": 0, "inode": 0})
        _take(data / Path(done["to"]).name, to)
    return {**done, "to": str(to.absolute())}


@contextlib.contextmanager
def _made(to: Path) -> Iterator[None]:
    """The directory, made if it is new, and taken away again if it stays empty. Raises DataDirError."""
    new = False
    try:
        new = not to.exists()
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(to.iterdir()):
            raise DataDirError(f"{to} is not empty", hint=backup.HINT)
    except OSError as exc:
        raise DataDirError(f"{to} cannot be written: {exc.strerror or exc}", hint=backup.HINT) from None
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                to.rmdir()
        raise


def _take(stage: Path, to: Path) -> None:
    """Take a finished backup out of the relay's directory."""
    try:
        database = DataDir(to).database.name
        for path in sorted(stage.iterdir(), key=lambda each: each.name == database):
            _move(path, to / path.name, prove=path.name == database)
        backup.sync_to_disk(to / database)
    except OSError as exc:
        raise DataDirError(f"{to} cannot be written: {exc.strerror or exc}", hint=backup.HINT) from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move(path: Path, target: Path, *, prove: bool) -> None:
    try:
        os.rename(path, target)
        if sys.platform != "win32" and os.geteuid() == 0:
            os.chown(target, 0, 0)  # who asked for it has it
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        part = target.with_suffix(".part")
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            shutil.copyfile(path, part)
            if prove:
                backup.proved(part)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _identity(path: Path) -> tuple[int, int]:
    """Which directory that is, whatever it is called for whom."""
    found = path.stat()
    return found.st_dev, found.st_ino


# The relay


def make(storage: Storage, data: DataDir, asked: Asked, entropy: Entropy) -> dict[str, Any]:
    """Make the backup: in the wished place, or in a new one of the relay's own. Raises DataDirError."""
    if asked["to"]:
        to = Path(asked["to"])
        if not _usable(to, asked["device"], asked["inode"]):
            raise Elsewhere(f"the relay cannot write to {to}")
        return backup.back_up(storage, data, to)
    _forget_stale(data.path)
    to = data.path / f"{_PREFIX}{entropy(_NAME_BYTES).hex()}"
    try:
        return backup.back_up(storage, data, to)
    except BaseException:
        shutil.rmtree(to, ignore_errors=True)
        raise


def _usable(to: Path, device: int, inode: int) -> bool:
    try:
        same = _identity(to) == (device, inode)
    except OSError:
        return False
    return same and os.access(to, os.R_OK | os.W_OK | os.X_OK)


def _forget_stale(path: Path) -> None:
    for stage in path.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - stage.stat().st_mtime > _STALE_S:
                shutil.rmtree(stage)
