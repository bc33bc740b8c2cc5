"""Live queries: a query's result, and again whenever it has changed.

A change of a record wakes a live query only when the result can have changed: when the record is in the
result and one of the fields that it shows, is sorted or is chosen by changed, or when the record's values
fit the conditions now. This is decided in memory from the change itself, in microseconds; then the query is
run again, and what it finds is handed out if it differs from before. Steps in between are skipped: a reader
that takes its time gets the latest result, and only one waits, however much is written.

A live query belongs to the event loop that made it, and sees everything from the moment it is made. One
that is no longer referenced is forgotten.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from .engine import model
from .engine.live_matching import LiveAnswer
from .engine.queries import Query
from .records import Record
from .stream import Stream


class Page(NamedTuple):
    """Records, and what to give for the page after them; None: there is none."""

    records: list[Record]
    next: str | None


Read = Callable[[Query], Awaitable[LiveAnswer]]


class LiveQuery(Stream[Page]):
    """An asynchronous iterator over results; made by `Device.live`."""

    def __init__(self, hub: LiveHub, query: Query) -> None:
        self._hub = hub
        self._query = query
        self._answer: LiveAnswer | None = None
        self._stale = True
        self._reading = False
        self._wake = asyncio.Event()
        self._closed = False

    async def __anext__(self) -> Page:
        """The result at first, then each time it has changed; ends when this or the device is closed.

        Raises what `Device.page` raises.
        """
        while not self._closed:
            if self._stale:
                answer = await self._read()
                if self._answer is None or not answer.same_as(self._answer):
                    self._answer = answer
                    return Page([Record.own(record) for record in answer.records], answer.next)
                self._answer = answer
                continue
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    async def _read(self) -> LiveAnswer:
        self._stale, self._reading = False, True
        try:
            return await self._hub.read(self._query)
        except BaseException:
            self._stale = True
            raise
        finally:
            self._reading = False

    def close(self) -> None:
        """End it; an `await` for the next result ends."""
        self._closed = True
        self._hub.forget(self)
        self._wake.set()

    def offer(self, change: model.RecordChange) -> None:
        """Called by the hub for every change of the device."""
        if self._stale:
            return
        answer = self._answer
        if answer is None or self._reading:  # what is being read may not have it yet
            matters = answer is None or answer.about(change)
        else:
            matters = answer.matters(change)
        if matters:
            self._wake_up()

    def work_settled(self) -> None:
        """Called by the hub when unsent work may have been acknowledged or failed."""
        if not self._stale and (self._answer is None or self._reading or self._answer.shows_work):
            self._wake_up()

    def _wake_up(self) -> None:
        self._stale = True
        self._wake.set()


class LiveHub:
    """Offers every change to every live query. Lives in the event loop; never waits."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self._queries: weakref.WeakSet[LiveQuery] = weakref.WeakSet()

    @property
    def has_queries(self) -> bool:
        """Whether somebody may want to hear of changes."""
        return bool(self._queries)

    def query(self, query: Query) -> LiveQuery:
        live = LiveQuery(self, query)
        self._queries.add(live)
        return live

    def forget(self, live: LiveQuery) -> None:
        self._queries.discard(live)

    def publish(self, changes: Sequence[model.RecordChange]) -> None:
        """What changed; nothing stands for work that the relay has acknowledged or refused."""
        if not self._queries:
            return
        for live in list(self._queries):
            if not changes:
                live.work_settled()
            for change in changes:
                live.offer(change)

    def close(self) -> None:
        """End every live query."""
        for live in list(self._queries):
            live.close()
