"""When a device syncs by itself: at the start, from time to time, and when something urgent was written.

This is for an app that is not connected all the time (`Device.connect`), to save the battery or because it
runs in the background now and then. Each time the device connects, sends and receives everything, and goes
away again. What fails is tried again the next time, and stands in the status until then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from crdt_sync.errors import CrdtSyncError

logger = logging.getLogger("crdt_sync.client")


class Triggers:
    """Lives in the event loop, for one life of a store."""

    def __init__(self, sync: Callable[[], Awaitable[object]], every_s: Callable[[], float]) -> None:
        """`sync` does it; `every_s` says how far apart, 0 for never."""
        self._sync = sync
        self._every_s = every_s
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def on(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """From now on, and now."""
        self.nudge()
        if not self.on:
            self._task = asyncio.create_task(self._run(), name="syncing by itself")

    def nudge(self) -> None:
        """Sync now, also if it is not time yet."""
        self._wake.set()

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            every_s = self._every_s()
            try:
                async with asyncio.timeout(every_s or None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._sync()
            except CrdtSyncError as exc:
                logger.info("syncing by itself failed: %s", exc.code)
            except Exception:
                logger.exception("syncing by itself failed")
