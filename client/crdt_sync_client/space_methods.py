"""Part of `Device`: spaces that are off on this device, and leaving one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .device_part import DevicePart
from .engine.exporting import UnsyncedOperation
from .engine.model import SpaceState
from .live import LiveHub
from .logout import judge
from .store_opening import StorePath
from .watching import WatchHub
from .write_queue import WriteQueue


@dataclass(frozen=True, slots=True)
class LeaveReport:
    """A space that left, and what of it no relay has: in how many records, and where it was written to."""

    space_id: str
    name: str
    unsynced_records: int
    unsynced_operations: int
    exported_to: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.space_id,
            "name": self.name,
            "unsynced_records": self.unsynced_records,
            "unsynced_operations": self.unsynced_operations,
            "exported_to": self.exported_to,
        }


class SpaceMethods(DevicePart):
    """See the module."""

    _writes: WriteQueue
    _hub: WatchHub
    _live_hub: LiveHub
    _connected: bool

    async def switch_space(self, space: str, on: bool) -> None:
        """Whether this device syncs a space. Kept in the store.

        While it is off, its records can be read and written as ever, and what is written waits; the status
        says `off`. On again, it goes on where it was.
        """
        engine = self._engine

        def work() -> SpaceState:
            found = engine.space(space)
            engine.switch_space(found.id, off=not on)
            return found

        sync = self._syncs[(await self._run(work)).id]
        if not on:
            sync.off = True
            await sync.disconnect()
        elif sync.off:
            sync.off = False
            if self._connected:
                sync.connect()
        self._publish(())

    async def leave(
        self, space: str, *, force: bool = False, export_to: StorePath | None = None
    ) -> LeaveReport:
        """Remove a space from this device: its records, its keys and what waits to be sent.

        While there is work in it that no relay has, raises UnsyncedWork saying how much, and nothing has
        changed; `force` gives that work up, `export_to` writes it to a new file first, one JSON object a
        line, not encrypted. Watches are told that its records left, and the status has the space no
        more. The others of the space are not told: this device stays a member until an admin removes it.
        Coming back takes an invite.
        """
        engine = self._engine
        found = await self._run(lambda: engine.space(space))
        sync = self._syncs[found.id]
        await self._writes.drained()
        was_off = sync.off
        sync.off = True  # nobody connects meanwhile
        await sync.disconnect()
        lost: list[UnsyncedOperation] = []

        def look(left: Sequence[UnsyncedOperation]) -> None:
            judge(left, force, export_to)
            lost.extend(left)

        tell = self._hub.has_watchers or self._live_hub.has_queries
        try:
            changes = await self._run(lambda: engine.leave_space(found.id, look, tell=tell))
        except BaseException:
            sync.off = was_off
            if self._connected:
                sync.connect()
            raise
        self._syncs.pop(found.id, None)
        self._publish(changes)
        return LeaveReport(
            found.id.hex(),
            found.name,
            len({(each.type, each.id) for each in lost}),
            len(lost),
            None if export_to is None else os.fspath(export_to),
        )
