"""Watching conflicts: what opens and what closes, as it happens, and nothing else.

As with records (`watching`) a watcher never holds up the device and never grows without bound: only the ids
of conflicts wait, each once with the last that happened to it, and the entry is read from the store when its
turn comes. A watcher belongs to the event loop that made it and watches from the moment it is made.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from crdt_sync.ids import RecordId

from .engine.model import ConflictEntry, RecordChange
from .stream import Stream


@dataclass(frozen=True, slots=True)
class ConflictChange:
    """A conflict opened or closed. `conflict` is its entry as it is now."""

    what: Literal["opened", "closed"]
    conflict: ConflictEntry


Read = Callable[[str], Awaitable[ConflictEntry]]


class ConflictWatch(Stream[ConflictChange]):
    """An asynchronous iterator over changes of conflicts; made by `Device.watch_conflicts`."""

    def __init__(
        self, hub: ConflictHub, record_type: str | None, record_id: RecordId | None, open_only: bool
    ) -> None:
        self._hub = hub
        self._type = record_type
        self._id = record_id
        self._open_only = open_only
        self._waiting: dict[str, Literal["opened", "closed"]] = {}
        self._wake = asyncio.Event()
        self._closed = False

    async def __anext__(self) -> ConflictChange:
        """The next change; ends when the watch or the device is closed."""
        while True:
            while self._waiting and not self._closed:
                id = next(iter(self._waiting))
                entry = await self._hub.read(id)
                what = self._waiting.pop(id)
                if entry.kind == "open" or not self._open_only:
                    return ConflictChange(what, entry)
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        """Stop watching; an `await` for the next change ends."""
        self._closed = True
        self._hub.forget(self)
        self._wake.set()

    def offer(self, change: RecordChange) -> None:
        """Called by the hub for every record in which a conflict opened or closed."""
        if self._type is not None and change.type != self._type:
            return
        if self._id is not None and change.id != self._id:
            return
        for id in change.closed:
            self._waiting[id] = "closed"
        for id in change.opened:
            self._waiting[id] = "opened"
        self._wake.set()


class ConflictHub:
    """Gives what opened and closed to every watcher. Lives in the event loop; never waits for a watcher."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self._watches: weakref.WeakSet[ConflictWatch] = weakref.WeakSet()

    def watch(self, record_type: str | None, record_id: RecordId | None, *, open_only: bool) -> ConflictWatch:
        watch = ConflictWatch(self, record_type, record_id, open_only)
        self._watches.add(watch)
        return watch

    def forget(self, watch: ConflictWatch) -> None:
        self._watches.discard(watch)

    def publish(self, changes: Sequence[RecordChange]) -> None:
        if not self._watches:
            return
        for change in changes:
            if change.opened or change.closed:
                for watch in list(self._watches):
                    watch.offer(change)

    def close(self) -> None:
        """End every watcher."""
        for watch in list(self._watches):
            watch.close()
