"""Simulated disks: files in memory that lose power the way real disks do, as a VFS for SQLite.

What a disk promises, and what it does not:

- A read sees the newest write. That is the operating system's cache, and it survives a crash of the process.
- `sync` makes what was written to that file so far durable. Nothing else does.
- When power goes, each write since the last sync is on the disk or not, sector by sector, in any combination:
  later ones may be there and earlier ones not (reordering), and of one write only some sectors (tearing).
  A sector itself is written whole or not at all, which disks with 512-byte sectors do promise.
- Truncations and the creation of a file wait for a sync like writes. A deletion waits for a sync of the
  directory or of any file, because journalling file systems (ext4, XFS, APFS) keep the order of metadata;
  before that the file may be back. (Without that order SQLite loses everything when a database changes to a
  write-ahead log and the old rollback journal comes back: measured, 29 of 60 runs.)
- A disk can be full; then writes that would grow a file fail and change nothing.

Chance comes from the generator handed in, so a power cut is reproducible.

SQLite asks a VFS for shared memory when it uses a write-ahead log. This one has none: databases on it must
set `locking_mode=EXCLUSIVE` before `journal_mode=WAL`, as the device's store does anyway.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeAlias, cast

import apsw

SECTOR_BYTES: Final = 512
"""The unit that a power cut leaves whole."""

KEEP_PROBABILITY: Final = 0.5
"""Of a sector written since the last sync, to be on the disk after a power cut: the most varied outcome."""

_CREATED_OR_NOT: Final = 0.5
_vfs_numbers = itertools.count(1)


@dataclass(slots=True)
class DiskTally:
    """What happened to a disk in a run."""

    writes: int = 0
    syncs: int = 0
    power_cuts: int = 0
    sectors_lost: int = 0
    sectors_kept: int = 0
    refused_full: int = 0
    written_bytes: int = 0


_Change: TypeAlias = tuple[int, bytes] | int
"""A write: where, and what. Or a truncation: the size that is left."""


class DiskFile:
    """One file: what reads see, what is surely on the disk, and what lies between the two."""

    __slots__ = ("_changed_from", "_changed_to", "current", "deleted", "durable", "exists_durably", "pending")

    def __init__(self) -> None:
        self.current = bytearray()
        self.durable = bytearray()
        self.pending: list[_Change] = []
        self._changed_from = self._changed_to = 0
        """The stretch in which `current` and `durable` differ."""
        self.exists_durably = False
        self.deleted = False

    def write(self, offset: int, data: bytes) -> None:
        current, end = self.current, offset + len(data)
        self._note(min(offset, len(current)), end)
        if offset > len(current):
            current.extend(bytes(offset - len(current)))
        current[offset:end] = data
        self.pending.append((offset, data))

    def truncate(self, size_bytes: int) -> None:
        self._note(min(size_bytes, len(self.current)), max(size_bytes, len(self.current)))
        _apply(self.current, size_bytes)
        self.pending.append(size_bytes)

    def _note(self, start: int, end: int) -> None:
        if not self.pending:
            self._changed_from, self._changed_to = start, end
            return
        if start < self._changed_from:
            self._changed_from = start
        if end > self._changed_to:
            self._changed_to = end

    def sync(self) -> None:
        if self.pending:  # all of them on top of what is durable are what reads see
            start, end = self._changed_from, self._changed_to
            self.durable[start:end] = self.current[start:end]
            self.pending.clear()
        self.exists_durably = True

    def lose_power(self, chance: Random, tally: DiskTally) -> None:
        """Keep a random part of what was not synced."""
        for change in self.pending:
            if isinstance(change, int):
                if chance.random() < KEEP_PROBABILITY:
                    _apply(self.durable, change)
                continue
            for sector in _sectors(*change):
                if chance.random() < KEEP_PROBABILITY:
                    _apply(self.durable, sector)
                    tally.sectors_kept += 1
                else:
                    tally.sectors_lost += 1
        self.pending.clear()
        self.current = bytearray(self.durable)


def _apply(content: bytearray, change: _Change) -> None:
    if isinstance(change, int):
        if change <= len(content):
            del content[change:]
        else:
            content.extend(bytes(change - len(content)))
        return
    offset, data = change
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """A write cut at sector boundaries of the file."""
    pieces = []
    while data:
        length = SECTOR_BYTES - offset % SECTOR_BYTES
        pieces.append((offset, data[:length]))
        offset, data = offset + length, data[length:]
    return pieces


@dataclass(slots=True)
class Disk:
    """The files of one node. Hand `vfs_name` to SQLite; call `unplug` when the node is gone for good."""

    chance: Random
    capacity_bytes: int | None = None
    files: dict[str, DiskFile] = field(default_factory=dict)
    tally: DiskTally = field(default_factory=DiskTally)
    vfs_name: str = ""
    life: int = 0
    """Grows when open files are dropped; handles of an earlier life can no longer change anything."""
    burying: bool = False
    """While a dead process's connection object is closed: its writes and deletions go nowhere, in silence."""
    _vfs: _DiskVFS | None = None

    def __post_init__(self) -> None:
        self.vfs_name = f"crdt-sync-sim-{next(_vfs_numbers)}"
        self._vfs = _DiskVFS(self.vfs_name, self)

    def unplug(self) -> None:
        if self._vfs is not None:
            self._vfs.unregister()
            self._vfs = None

    @property
    def size_bytes(self) -> int:
        return sum(len(file.current) for file in self.files.values() if not file.deleted)

    def exists(self, name: str) -> bool:
        file = self.files.get(name)
        return file is not None and not file.deleted

    def open(self, name: str) -> DiskFile:
        """The file of that name, made if it is not there."""
        file = self.files.get(name)
        if file is None:
            file = self.files[name] = DiskFile()
        elif file.deleted:
            file.deleted = False
            file.truncate(0)
        return file

    def delete(self, name: str, *, sync_directory: bool) -> None:
        if sync_directory:
            self.files.pop(name, None)
        elif name in self.files:
            self.files[name].deleted = True

    def sync(self, file: DiskFile) -> None:
        """Make a file's content durable and, with it, the deletions so far."""
        self.tally.syncs += 1
        file.sync()
        if any(other.deleted for other in self.files.values()):
            self.files = {name: other for name, other in self.files.items() if not other.deleted}

    def room_for(self, growth_bytes: int) -> bool:
        if (
            self.capacity_bytes is None
            or growth_bytes <= 0
            or self.size_bytes + growth_bytes <= self.capacity_bytes
        ):
            return True
        self.tally.refused_full += 1
        return False

    def cut_power(self) -> None:
        """Every file becomes what the disk happens to hold. What was open is dropped."""
        self.drop_handles()
        self.tally.power_cuts += 1
        for name in sorted(self.files):
            file = self.files[name]
            created = file.exists_durably or self.chance.random() < _CREATED_OR_NOT
            deleted = file.deleted and self.chance.random() < _CREATED_OR_NOT
            if deleted or not created:
                del self.files[name]
                continue
            file.deleted = False
            file.exists_durably = True
            file.lose_power(self.chance, self.tally)

    def drop_handles(self) -> None:
        """The process that had files open is gone; a late close by its connection must not touch them."""
        self.life += 1

    def image(self) -> dict[str, bytes]:
        """A copy of all files, as a backup taken now would have them."""
        return {name: bytes(file.current) for name, file in self.files.items() if not file.deleted}

    def restore(self, image: Mapping[str, bytes]) -> None:
        """Make the disk what a backup holds. What was open is dropped."""
        self.wipe()
        for name, content in image.items():
            file = self.open(name)
            file.write(0, content)
            file.sync()

    def wipe(self) -> None:
        """An empty disk. What was open is dropped."""
        self.drop_handles()
        self.files.clear()


class _DiskVFS(apsw.VFS):
    """Routes SQLite's file operations to a `Disk`; everything else is the default VFS's."""

    def __init__(self, name: str, disk: Disk) -> None:
        self._disk = disk
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        flags[1] = flags[0]
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        # Not a VFSFile, which would open a file on the real disk: apsw asks only for the methods.
        return cast(apsw.VFSFile, _OpenFile(self._disk, path))

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if not self._disk.burying:
            self._disk.delete(filename, sync_directory=syncdir)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return self._disk.exists(pathname)

    def xFullPathname(self, name: str) -> str:
        return name


class _OpenFile:
    """An open file. Temporary files, which have no name, live and die with it."""

    def __init__(self, disk: Disk, name: str | None) -> None:
        self._disk = disk
        self._life = disk.life
        self._file = DiskFile() if name is None else disk.open(name)

    def _alive(self) -> bool:
        """Whether to do what is asked; raises when a dead process's connection is used, not just closed."""
        if self._disk.burying:
            return False
        if self._life != self._disk.life:
            raise apsw.IOError("this file was open in a process that is gone")
        return True

    def excepthook(self, etype: object, evalue: object, etraceback: object) -> bool:
        return True

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(memoryview(self._file.current)[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        if not self._alive():
            return
        disk, data = self._disk, bytes(data)
        if not disk.room_for(offset + len(data) - len(self._file.current)):
            raise apsw.FullError("the simulated disk is full")
        tally = disk.tally
        tally.writes += 1
        tally.written_bytes += len(data)
        self._file.write(offset, data)

    def xTruncate(self, newsize: int) -> None:
        if self._alive():
            self._file.truncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._alive():
            self._disk.sync(self._file)

    def xFileSize(self) -> int:
        return len(self._file.current)

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return 0

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xLock(self, level: int) -> None:
        """One connection per file and one thread: there is nobody to lock out."""

    def xUnlock(self, level: int) -> None:
        """See `xLock`."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        """Nothing to release: the disk keeps the content."""
