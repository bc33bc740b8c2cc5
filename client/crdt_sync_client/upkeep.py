"""Doing what changed record types ask for in the background, a bit at a time, between everything else.

A new version of a schema may mean that a hundred thousand records are to be shown anew. Each bit is one piece
of work on the store's thread, some 25 ms, so reads, writes and syncing go on in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from crdt_sync.errors import StoreError

from .database_thread import DatabaseThread
from .live_session import Publish

logger = logging.getLogger("crdt_sync.client")


class Upkeep:
    """Lives in the event loop, for one life of a store."""

    def __init__(self, thread: DatabaseThread, publish: Publish, fetch_soon: Callable[[], None]) -> None:
        """`fetch_soon`: absent records may be wanted now."""
        self._thread = thread
        self._publish = publish
        self._fetch_soon = fetch_soon
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Something may have changed: begin, if there is something to do."""
        if self._task is not None:
            return
        try:
            due = self._thread.store.engine.upkeep_due
        except StoreError:  # closed, or locked
            return
        if due:
            self._task = asyncio.create_task(self._do_all(), name="upkeep")

    async def done(self) -> None:
        """Returns when there is nothing to do."""
        self.look()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def stop(self) -> None:
        """What is left is done in the store's next life."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _do_all(self) -> None:
        engine = self._thread.store.engine
        try:
            while (done := await self._thread.run(lambda: engine.keep_up())) is not None:
                self._publish(done.changes)
            self._fetch_soon()
        except StoreError:
            pass
        except Exception:
            logger.exception("records could not be made anew; they are at the next change, or start")
        finally:
            self._task = None
