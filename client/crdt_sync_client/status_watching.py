"""Watching values that change often, such as the status: always the latest, and nothing piles up.

A watch has no queue. It reads the value when it is asked for the next one, and waits while that is as it was;
what changed and changed back in between is not told.
"""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .signal import Signal
from .status import RecordSync, Status
from .stream import Stream

T = TypeVar("T")


class Bell(Signal):
    """Counts how often something changed. One event loop only."""

    __slots__ = ("closed", "rings")

    def __init__(self) -> None:
        super().__init__()
        self.rings = 0
        self.closed = False

    def notify(self) -> None:
        self.rings += 1
        super().notify()

    async def rung_since(self, rings: int) -> None:
        """Returns when something has changed since `rings` was read."""
        await self.until(lambda: self.rings != rings)

    def close(self) -> None:
        """Nothing changes any more."""
        self.closed = True
        self.notify()


class Latest(Stream[T]):
    """A stream of a value as it is now, then each time it differs."""

    def __init__(self, bell: Bell, read: Callable[[], Awaitable[T]], same: Callable[[T, T], bool]) -> None:
        self._bell = bell
        self._read = read
        self._same = same
        self._told: T | None = None
        self._closed = False

    async def _next(self) -> T:
        while not (self._closed or self._bell.closed):
            rings = self._bell.rings
            value = await self._read()
            if self._told is None or not self._same(value, self._told):
                self._told = value
                return value
            await self._bell.rung_since(rings)
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop watching; an `await` for the next one ends."""
        self._closed = True
        self._bell.notify()


class StatusWatch(Latest[Status]):
    """An asynchronous iterator over states; made by `Device.watch_status`."""

    def __init__(self, bell: Bell, read: Callable[[], Awaitable[Status]]) -> None:
        super().__init__(bell, read, Status.tells_the_same)

    async def __anext__(self) -> Status:
        """The present status, then each that differs; ends when the watch or the device is closed."""
        return await self._next()


class RecordStateWatch(Latest[RecordSync]):
    """An asynchronous iterator over the sync states of a record; made by `Device.watch_record_state`."""

    def __init__(self, bell: Bell, read: Callable[[], Awaitable[RecordSync]]) -> None:
        super().__init__(bell, read, operator.eq)

    async def __anext__(self) -> RecordSync:
        """The present state, then each that differs; ends when the watch or the device is closed."""
        return await self._next()
