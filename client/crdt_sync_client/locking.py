"""Locking a device: its store closed and its keys let go, until somebody gives the passphrase again.

While a device is locked its database is closed, no key is used, nothing is synced and every call that needs
the store raises StoreLocked. Watches stay and go on after `unlock`, which needs no network.

What that is worth: the objects that hold the store's key, the device's keys and the spaces' keys, and every
open record, are dropped. SQLCipher overwrites its own copy of the key. Python cannot overwrite its: strings
and bytes that were freed may stay readable in the process's memory until it is used again. Who can read
that memory, or has records in the app's own, does not need the key. Ending the process is stronger.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Final, NoReturn, ParamSpec, TypeVar, cast

from crdt_sync.errors import (
    CrdtSyncError,
    StoreClosed,
    StoreError,
    StoreLocked,
    ValidationError,
    WrongPassphrase,
)

from .database_thread import DatabaseThread
from .device_part import DevicePart
from .engine import Engine, model
from .settings import Settings, read_settings
from .store import size
from .store.size import StoreSize
from .store_opening import Secret, StorePath, open_store, secret_of
from .sync_loop import SpaceSync
from .write_queue import WriteQueue

logger = logging.getLogger("crdt_sync.client")

T = TypeVar("T")
P = ParamSpec("P")

_counts: ContextVar[bool] = ContextVar("counts", default=True)
"""Whether what runs now is the app using the device."""

SETTING: Final = "lock_after_s"
"""Name in the store's table `meta`."""


class _Away:
    """Stands where the thread and the engine stood: whatever is asked of it raises why it is away."""

    def __init__(self, error: Callable[[], CrdtSyncError]) -> None:
        self._error = error

    @property
    def store(self) -> NoReturn:
        raise self._error()

    async def run(self, work: Callable[[], Any]) -> NoReturn:
        raise self._error()

    def __getattr__(self, name: str) -> NoReturn:
        raise self._error()  # a method of the engine

    async def close(self) -> None:
        """There is nothing to close."""


def _locked() -> StoreLocked:
    return StoreLocked(
        "the device is locked", hint="unlock it: `await device.unlock(passphrase)`; nothing of it is lost"
    )


def moments_s() -> tuple[float, float]:
    """Seconds on a clock that nobody sets, which may stand still while a tablet sleeps, and on the wall."""
    return time.monotonic(), time.time()


def unused(read: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same, but that it does not count as use of the device."""

    async def quietly(*args: P.args, **kwargs: P.kwargs) -> T:
        token = _counts.set(False)
        try:
            return await read(*args, **kwargs)
        finally:
            _counts.reset(token)

    return quietly


class IdleTimer:
    """Calls `expire` once the device was not used for `after_s` seconds; None: never."""

    def __init__(self, expire: Callable[[], None]) -> None:
        self._expire = expire
        self._after_s: float | None = None
        self._used = moments_s()
        self._handle: asyncio.TimerHandle | None = None

    def start(self, after_s: float | None) -> None:
        """From now on, with this limit."""
        self.stop()
        self._after_s = after_s
        self.use()
        self._arm()

    def stop(self) -> None:
        self._after_s = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def use(self) -> None:
        """The device was used now."""
        if self._after_s is not None and _counts.get():
            self._used = moments_s()

    def check(self) -> None:
        """Expire if it is time."""
        if self._after_s is not None and self._left_s() <= 0:
            self.stop()
            self._expire()

    def _left_s(self) -> float:
        assert self._after_s is not None
        # A wall clock that is set back must not keep the device open; one set forward only locks it.
        idle_s = max(now - before for now, before in zip(moments_s(), self._used, strict=True))
        return self._after_s - idle_s

    def _arm(self) -> None:
        if self._after_s is not None:
            delay_s = max(self._left_s(), 0.01)
            self._handle = asyncio.get_running_loop().call_later(delay_s, self._due)

    def _due(self) -> None:
        self._handle = None
        self.check()
        self._arm()


class LockMethods(DevicePart):
    """Part of `Device`: its store comes and goes, here."""

    _path: StorePath
    _thread: DatabaseThread
    _writes: WriteQueue
    _idle: IdleTimer
    _unlocking: asyncio.Lock
    _connected: bool
    _closed: bool
    _take_settings: Callable[[Settings], None]
    _leaving: asyncio.Task[None] | None = None
    """While the device is locked: what closes its store, or has."""
    _on_lock: Callable[[], None] | None = None

    @abstractmethod
    def _attach(self, thread: DatabaseThread, engine: Engine, spaces: Sequence[model.SpaceState]) -> None: ...

    @abstractmethod
    def _use(self) -> None: ...

    @abstractmethod
    async def connect(self) -> None: ...

    @property
    def locked(self) -> bool:
        """Whether the store is closed until `unlock`."""
        return self._leaving is not None

    async def lock(self) -> None:
        """Finish the writes on their way, stop syncing, close the store and let its keys go.

        From the moment this is called every other call raises StoreLocked. Again is harmless.
        """
        if self._closed:
            raise StoreClosed("the device is closed", hint="open it again")
        self._begin_lock()
        if self._leaving is not None:
            await asyncio.shield(self._leaving)

    async def unlock(self, passphrase: str | None = None, *, key: bytes | None = None) -> None:
        """Open the store again; no network is needed. One that was connected connects again.

        Raises WrongPassphrase, also for a device that is not locked, and what `Device.open` raises; the
        device stays as it is then.
        """
        secret = secret_of(passphrase, key)
        if self._closed:
            raise StoreClosed("the device is closed", hint="open it again")
        async with self._unlocking:
            if self._leaving is not None:
                await asyncio.shield(self._leaving)
                await self._come_back(await open_store(self._path, secret, now_ms=now_ms))
                return
        db = self._thread.store.db
        if not await self._run(lambda: db.opens_with(secret)):
            raise WrongPassphrase("that is not the store's passphrase or key", hint="try again")

    async def _come_back(self, thread: DatabaseThread) -> None:
        engine = thread.store.engine
        spaces, after_s, settings = await thread.run(
            lambda: (engine.spaces(), read_setting(thread), read_settings(thread.store.db))
        )
        if self._closed:  # meanwhile
            await thread.close()
            raise StoreClosed("the device is closed", hint="open it again")
        self._leaving = None
        self._attach(thread, engine, spaces)
        self._take_settings(settings)
        self._idle.start(after_s)
        if self._connected:
            await self.connect()

    async def lock_after(self, seconds: float | None, *, on_lock: Callable[[], None] | None = None) -> None:
        """Lock by itself once no method of the device was called for so long; None: never. Kept in the store.

        `on_lock` is called in the event loop when it happens; it is not kept. Syncing in the background is no
        use, and ends. Time that the machine was asleep counts. Raises ValidationError below one second.
        """
        if seconds is not None and not 1 <= seconds < float("inf"):
            raise ValidationError(
                "seconds", "a device locks after 1 second at the earliest, or None for never"
            )
        db = self._thread.store.db

        def keep() -> None:
            with db.transaction(durable=True):
                db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (SETTING, seconds))

        await self._run(keep)
        self._on_lock = on_lock
        self._idle.start(seconds)

    def touch(self) -> None:
        """Somebody uses the app, though it asks nothing of the device: the idle time starts over."""
        self._idle.check()
        self._idle.use()

    def lock_if_idle(self) -> bool:
        """Lock now if the idle time is over; whether the device is locked. For an app that comes back to the
        front, and for one with timers of its own.
        """
        self._idle.check()
        return self.locked

    async def change_passphrase(self, old: Secret, new: Secret) -> None:
        """Encrypt the store with another passphrase (text) or key (32 bytes).

        `old` is what opens it now. Killed at any point, one of the two opens it, never neither; afterwards
        nothing in its files is under the old one. Calls made meanwhile wait: about 1 s per 100 MB. Raises
        WrongPassphrase, NoKey for a `new` that cannot be used, and StoreError when the disk has no room or
        fails; after that error the device is locked.
        """
        for secret in (old, new):
            secret_of(*((secret, None) if isinstance(secret, str) else (None, secret)))
        db = self._thread.store.db
        try:
            await self._run(lambda: db.change_key(old, new))
        except WrongPassphrase:
            raise
        except StoreError:
            self._begin_lock()
            raise

    async def store_size(self) -> StoreSize:
        """How large the store is on the disk, and what takes the room."""
        db, path = self._thread.store.db, self._path
        return await self._run(lambda: size.measure(db, path))

    async def vacuum(self) -> int:
        """Give room in the store's file that nobody uses back to the disk; returns how many bytes.

        Everything else waits meanwhile. It takes as much room as the store has beside it, and again among
        the system's temporary files, where the copy is encrypted as the store is.
        """
        db, path = self._thread.store.db, self._path
        return await self._run(lambda: size.vacuum(db, path))

    # Inside

    def _begin_lock(self) -> None:
        """What must happen at once: nobody gets at the store any more."""
        if self._leaving is not None or self._closed:
            return
        self._leaving = asyncio.create_task(_shut(*self._detach(_locked)), name="lock")
        if self._on_lock is not None:
            self._on_lock()

    def _detach(
        self, error: Callable[[], CrdtSyncError]
    ) -> tuple[DatabaseThread, list[SpaceSync], WriteQueue]:
        """Put something that raises in the store's place; returns what was there."""
        before = self._thread, list(self._syncs.values()), self._writes
        self._idle.stop()
        away = _Away(error)
        self._attach(cast("DatabaseThread", away), cast("Engine", away), ())
        return before


async def _shut(thread: DatabaseThread, syncs: Sequence[SpaceSync], writes: WriteQueue) -> None:
    await asyncio.gather(*(sync.disconnect() for sync in syncs), return_exceptions=True)
    await writes.drained()
    try:
        await thread.close()
    except Exception as exc:
        # The file is closed all the same; what was not marked as a clean end is taken for an unclean one.
        logger.warning("the store was not closed cleanly: %s", type(exc).__name__)


def read_setting(thread: DatabaseThread) -> float | None:
    """After how many seconds the device locks by itself. On the store's thread."""
    after_s = thread.store.db.value("SELECT value FROM meta WHERE name = ?", (SETTING,))
    return None if after_s is None else float(after_s)


def now_ms() -> int:
    """Unix milliseconds by the machine's clock."""
    return time.time_ns() // 1_000_000
