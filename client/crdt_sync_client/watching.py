"""Watching records: what changed, as it changes, without ever growing without bound.

Each watcher has a queue of its own. Up to `capacity` changes wait there one by one. A watcher that falls
further behind loses the steps in between but never the latest state: from then on only the *names* of
changed records wait, one entry per record with the union of what changed in it, and the record itself is
read from the store when its turn comes. So a watcher costs at most `capacity` changes and one name per
record of the store, and one that is slow never holds up the others or the device.

A watcher belongs to the event loop that made it. It watches from the moment it is made, not from the
first `await`. One that is no longer referenced is forgotten.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from crdt_sync.ids import RecordId

from .records import Record
from .stream import Stream

Origin = Literal["local", "remote"]

CAPACITY: Final = 1_024
"""Changes kept whole per watcher: a few megabytes of 1 KB records, seconds of the fastest sync."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record changed. `record` is its state afterwards, None when it is no longer there.

    `fields` are the top-level fields that changed; `origin` says whether this device or another
    wrote. For a watcher that fell behind one change stands for several, "remote" if any of them was.
    """

    type: str
    id: RecordId
    record: Record | None
    origin: Origin
    fields: tuple[str, ...]
    left: bool = False
    """The record is not on this device any more, though in the space: see `Device.fetch`."""


@dataclass(slots=True)
class _Late:
    origin: Origin
    fields: dict[str, None]


Read = Callable[[str, RecordId], Awaitable[Record | None]]


class Watch(Stream[Change]):
    """An asynchronous iterator over changes; made by `Device.watch`."""

    def __init__(
        self, hub: WatchHub, record_type: str | None, record_id: RecordId | None, capacity: int = CAPACITY
    ) -> None:
        self._hub = hub
        self._type = record_type
        self._id = record_id
        self._capacity = capacity
        self._whole: deque[Change] = deque()
        self._late: dict[tuple[str, RecordId], _Late] = {}
        self._wake = asyncio.Event()
        self._closed = False

    async def __anext__(self) -> Change:
        """The next change; ends when the watch or the device is closed and what waited was handed out."""
        while True:
            if self._whole:
                return self._whole.popleft()
            if self._late:
                key = next(iter(self._late))
                late = self._late.pop(key)
                record = await self._hub.read(*key)
                return Change(key[0], key[1], record, late.origin, tuple(late.fields))
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        """Stop watching; an `await` for the next change ends."""
        self._closed = True
        self._hub.forget(self)
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Changes that wait to be taken."""
        return len(self._whole) + len(self._late)

    def offer(self, change: Change) -> None:
        """Called by the hub for every change of the device."""
        if self._type is not None and change.type != self._type:
            return
        if self._id is not None and change.id != self._id:
            return
        if not self._late and len(self._whole) < self._capacity:
            self._whole.append(change)
        else:
            key = (change.type, change.id)
            late = self._late.get(key)
            if late is None:
                self._late[key] = _Late(change.origin, dict.fromkeys(change.fields))
            else:
                late.fields.update(dict.fromkeys(change.fields))
                if change.origin == "remote":
                    late.origin = "remote"
        self._wake.set()


class WatchHub:
    """Gives every change to every watcher. Lives in the event loop; never waits for a watcher."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()

    def watch(self, record_type: str | None, record_id: RecordId | None, capacity: int = CAPACITY) -> Watch:
        """A new watcher; it sees every change published from now on."""
        watch = Watch(self, record_type, record_id, capacity)
        self._watches.add(watch)
        return watch

    def forget(self, watch: Watch) -> None:
        self._watches.discard(watch)

    @property
    def has_watchers(self) -> bool:
        """Whether it is worth making `Change`s."""
        return len(self._watches) > 0

    def publish(self, changes: Sequence[Change]) -> None:
        for watch in list(self._watches):
            for change in changes:
                watch.offer(change)

    def close(self) -> None:
        """End every watcher."""
        for watch in list(self._watches):
            watch.close()
