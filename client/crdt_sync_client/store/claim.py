"""One opener per file, enforced beside SQLite's own lock.

SQLite's lock on POSIX is of the kind that a process loses when it closes *any* descriptor of the file:
reading a store's first bytes, or an app that copies its store, would silently unlock it. So an open store
is claimed twice more: by its inode within this process, and with `flock`, which belongs to one descriptor
and is not lost that way, against other processes. On Windows SQLite's locks are mandatory and enough.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from crdt_sync.errors import StoreInUse

_HINT: Final = "close the other program that has it open; one at a time can use a store"
_claimed: Final[set[tuple[int, int]]] = set()


class FileClaim:
    """The right to use one file; `release` gives it up. Making one may raise StoreInUse or OSError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        about = os.stat(path)
        self._inode: tuple[int, int] | None = (about.st_dev, about.st_ino)
        if self._inode in _claimed:  # before opening: closing again would drop SQLite's lock
            raise StoreInUse(f"{path} is in use by this program", hint=_HINT)
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            _lock(self._descriptor)
        except BlockingIOError:
            os.close(self._descriptor)
            raise StoreInUse(f"{path} is in use by another program", hint=_HINT) from None
        _claimed.add(self._inode)

    def read_start(self, size_bytes: int) -> tuple[bytes, int]:
        """The file's first bytes, and its size in bytes."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.read(self._descriptor, size_bytes), os.fstat(self._descriptor).st_size

    def release(self) -> None:
        """Give the file up; again is harmless. Only after SQLite has closed it."""
        if self._inode is not None:
            _claimed.discard(self._inode)
            self._inode = None
            os.close(self._descriptor)


if sys.platform == "win32":

    def _lock(descriptor: int) -> None:
        pass

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
