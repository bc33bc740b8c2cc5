"""Watching values that change often, such as the status: always the latest, and nothing piles up.

A watch has no queue. It reads the value when it is asked for the next one, and waits while that is as it was;
what changed and changed back in between is not told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

from .signal import Signal
from .status import RecordSync, Status


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


class StatusWatch:
    """An asynchronous iterator over states; made by `Device.watch_status`."""

    def __init__(self, bell: Bell, read: Callable[[], Awaitable[Status]]) -> None:
        self._bell = bell
        self._read = read
        self._told: Status | None = None
        self._closed = False

    def __aiter__(self) -> StatusWatch:
        return self

    async def __anext__(self) -> Status:
        """The present status, then each that differs; ends when the watch or the device is closed."""
        while not (self._closed or self._bell.closed):
            rings = self._bell.rings
            status = await self._read()
            if self._told is None or not status.tells_the_same(self._told):
                self._told = status
                return status
            await self._bell.rung_since(rings)
        raise StopAsyncIteration

    async def __aenter__(self) -> StatusWatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; an `await` for the next status ends."""
        self._closed = True
        self._bell.notify()


class RecordStateWatch:
    """An asynchronous iterator over the sync states of a record; made by `Device.watch_record_state`."""

    def __init__(self, bell: Bell, read: Callable[[], Awaitable[RecordSync]]) -> None:
        self._bell = bell
        self._read = read
        self._told: RecordSync | None = None
        self._closed = False

    def __aiter__(self) -> RecordStateWatch:
        return self

    async def __anext__(self) -> RecordSync:
        """The present state, then each that differs; ends when the watch or the device is closed."""
        while not (self._closed or self._bell.closed):
            rings = self._bell.rings
            state = await self._read()
            if state != self._told:
                self._told = state
                return state
            await self._bell.rung_since(rings)
        raise StopAsyncIteration

    async def __aenter__(self) -> RecordStateWatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; an `await` for the next state ends."""
        self._closed = True
        self._bell.notify()
