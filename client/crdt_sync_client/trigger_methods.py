"""Part of `Device`: when it syncs by itself, on which network what, and waiting for the first sync."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Final, get_args

from crdt_sync.errors import StoreError, ValidationError

from .database_thread import DatabaseThread
from .device_part import DevicePart
from .engine.reading import not_ready
from .network import EVERYTHING, Network, Policy
from .settings import Settings, keep_setting
from .sync_loop import SpaceSync
from .triggers import Triggers

CLEANED: Final = "cleaned_at"
"""Name in the store's table `meta`: when closed records were last looked for, Unix ms."""
CLEAN_EVERY_MS: Final = 86_400_000
PROBE_S: Final = 5.0
"""How long an app that comes back to the front waits for a relay before it connects anew."""


class TriggerMethods(DevicePart):
    """See the module."""

    _thread: DatabaseThread
    _connected: bool
    _settings: Settings = Settings()
    _network: Network = "unknown"
    _policy: Policy = EVERYTHING
    _triggers: Triggers | None = None

    @abstractmethod
    async def sync(self, *, timeout_s: float | None = None) -> object: ...

    @abstractmethod
    async def clean_up(self, space: str | None = None) -> int: ...

    @abstractmethod
    def lock_if_idle(self) -> bool: ...

    # Settings and network

    async def settings(self) -> Settings:
        """What is chosen about syncing and keeping on this device."""
        await self._run(lambda: None)
        return self._settings

    async def set_setting(self, name: str, value: int | bool | None) -> Settings:
        """Choose one, by its name in `Settings` or `keep_days.TYPE`; None: as it is by default. Kept.

        Raises ValidationError.
        """
        db = self._thread.store.db

        def keep() -> Settings:
            with db.transaction(durable=True):
                return keep_setting(db, self._settings, name, value)

        self._take_settings(await self._run(keep))
        return self._settings

    def _take_settings(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = Policy.on(self._network, settings)
        self._engine.limit_priority(self._policy.priority)
        for sync in self._syncs.values():
            sync.follow(self._policy)

    async def network(self, kind: Network) -> None:
        """The app says which network there is: "wifi", "metered", "none", or "unknown".

        With "none" connections are closed and not tried; with any other, a device that is to be connected
        connects at once. What a metered network is for stands in the settings.
        """
        if kind not in get_args(Network):
            raise ValidationError("network", f"is one of {', '.join(get_args(Network))}")
        await self._run(lambda: None)
        back = self._network == "none" and kind != "none"
        self._network = kind
        self._take_settings(self._settings)
        if kind == "none":
            await asyncio.gather(*(sync.suspend() for sync in self._syncs.values()))
            return
        for sync in self._syncs.values():
            sync.resume()
        if back and self._triggers is not None and self._triggers.on:
            self._triggers.nudge()

    # When

    async def auto_sync(self) -> None:
        """Sync now, every `sync_every_s` seconds, and after urgent writes, until `disconnect` or the end.

        For apps that do not stay connected with `connect`. What fails stands in the status.
        """
        await self._run(lambda: None)
        if self._triggers is None:
            self._triggers = Triggers(self._sync_by_itself, lambda: self._settings.sync_every_s)
        self._triggers.start()

    async def _sync_by_itself(self) -> None:
        if not self._policy.connect:
            return
        try:
            await self.sync()
        except StoreError:
            return  # it was locked or closed meanwhile
        await self._clean_when_due()

    async def _clean_when_due(self) -> None:
        """Once a day, closed records leave."""
        db, now_ms = self._thread.store.db, time.time_ns() // 1_000_000
        last = await self._run(lambda: db.value("SELECT value FROM meta WHERE name = ?", (CLEANED,)))
        if last is not None and 0 <= now_ms - last < CLEAN_EVERY_MS:
            return

        def keep() -> None:
            with db.transaction(durable=False):
                db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (CLEANED, now_ms))

        for space in list(self._syncs):
            await self.clean_up(space.hex())
        await self._run(keep)

    async def foreground(self) -> None:
        """The app comes to the front: lock if it is time, notice dead connections, and sync.

        Returns at once; what comes is seen by watches and in the status.
        """
        if self.lock_if_idle():
            return
        await self._run(lambda: None)
        for sync in self._syncs.values():
            sync.probe(PROBE_S)
        if self._triggers is not None and self._triggers.on:
            self._triggers.nudge()

    async def _after_write(self) -> None:
        """Send what is urgent, when nothing else does."""
        triggers, limit = self._triggers, self._settings.critical_priority
        if triggers is None or not triggers.on or self._connected or not limit:
            return
        engine = self._engine
        if await self._run(lambda: engine.has_urgent(limit)):
            triggers.nudge()

    # The first sync

    async def ready(
        self,
        space: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Returns when this device has had everything of a space once; fetches it if need be.

        `progress` is told how many rows of how many have come. A first sync that breaks off goes on where it
        was. Raises what `sync` raises, and NotReady when the time is up.
        """
        engine = self._engine
        state = await self._run(lambda: engine.space(space))
        sync = self._syncs[state.id]
        told = asyncio.create_task(_tell(sync, progress)) if progress is not None else None
        try:
            async with asyncio.timeout(timeout_s):
                while not (await self._run(lambda: engine.space(state.id))).ready:
                    await sync.sync(patient=timeout_s is not None)
        except TimeoutError:
            done, total = sync.progress
            raise not_ready(state.name, done, total) from None
        finally:
            if told is not None:
                told.cancel()
                await asyncio.gather(told, return_exceptions=True)

    async def require_ready(self, required: bool = True) -> None:
        """Whether reading raises NotReady until a space was received whole once. Not kept."""
        engine = self._engine
        await self._run(lambda: engine.require_ready(required))


async def _tell(sync: SpaceSync, progress: Callable[[int, int], None]) -> None:
    told = [(0, 0)]
    while True:
        await sync.signal.until(lambda: sync.progress != told[-1])
        told[:] = [sync.progress]
        if told[-1][1]:
            progress(*told[-1])
