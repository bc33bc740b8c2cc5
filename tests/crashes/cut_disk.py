"""A simulated disk whose power goes in the middle of a run, at a write or sync of a chosen number."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import apsw

from crdt_sync_sim.disk import Disk, DiskFile
from crdt_sync_sim.storage import DiskStorage


class PowerGone(apsw.IOError):
    """From here on nothing reaches the disk."""


class CutDisk(Disk):
    """Counts writes and syncs; in place of number `cut_at` and all after it, PowerGone."""

    cut_at: int | None = None
    done = 0

    def room_for(self, growth_bytes: int) -> bool:
        self._count()
        return super().room_for(growth_bytes)

    def sync(self, file: DiskFile) -> None:
        self._count()
        super().sync(file)

    def _count(self) -> None:
        if self.cut_at is not None and self.done >= self.cut_at:
            raise PowerGone("the power is gone")
        self.done += 1


def cut_storage(
    seed: int, image: dict[str, bytes] | None = None, before_wal: Sequence[str] = ()
) -> tuple[DiskStorage, CutDisk]:
    """A storage on such a disk, with what `image` holds."""
    storage = DiskStorage(Random(seed), before_wal)
    storage.disk.unplug()
    disk = storage.disk = CutDisk(Random(seed))
    if image:
        storage.restore(image)
    disk.done = 0
    return storage, disk


def power_back(storage: DiskStorage, disk: CutDisk) -> None:
    """What was not synced is there or not, sector by sector; the machine starts again."""
    storage.cut_power()
    disk.cut_at = None
