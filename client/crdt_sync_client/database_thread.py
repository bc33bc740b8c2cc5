"""The one thread that owns a store: its database connection, its engine, its open documents.

SQLite connections and CRDT documents belong to the thread that made them, and the engine is plain
synchronous code. So the device keeps one thread, `aiosqlite`'s, and sends it one piece of work per
operation: `await thread.run(work)`. Work is serial by construction, one hop each way.

`aiosqlite` prints the callables it runs at level DEBUG: give it closures without arguments, never
partials, so that no log can hold a value.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeVar, cast

import aiosqlite

from crdt_sync.errors import StoreClosed, StoreDamaged

from .engine import Engine
from .store.connection import Database
from .store.failures import damaged, store_failure

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger("crdt_sync.client")

T = TypeVar("T")


class OpenStore:
    """What the thread owns."""

    def __init__(self, db: Database, engine: Engine) -> None:
        self.db = db
        self.engine = engine

    def close(self) -> None:
        """Close the store. One that cannot be marked as closed is as after a crash: nothing is lost."""
        try:
            self.engine.close()
        except Exception as exc:
            if store_failure(exc, "") is None:
                raise
            logger.warning("the store could not be marked as closed: %s", exc)
        finally:
            self.db.close()


class DatabaseThread(aiosqlite.Connection):
    """Runs closures on the store's own thread, in the order given. Start it by awaiting it."""

    if TYPE_CHECKING:  # aiosqlite gives it no types

        async def _execute(self, work: Callable[[], T]) -> T: ...

    def __init__(self, open_store: Callable[[], OpenStore], path: str | os.PathLike[str]) -> None:
        """`open_store` runs on the thread. `path` is what errors name."""
        self._path = path
        super().__init__(cast("Callable[[], sqlite3.Connection]", open_store), iter_chunk_size=64)
        # A program that forgot to close its device still ends; what it was told is durable is durable.
        self._thread.daemon = True

    async def _connect(self) -> Self:
        try:
            started = cast(Self, await super()._connect())
            self._connector = _started  # what it was holds a passphrase or a key
            return started
        except BaseException as exc:
            # aiosqlite has told its thread to stop but does not wait: it would answer a loop that is closed.
            await asyncio.to_thread(self._thread.join)
            failure = store_failure(exc, self._path)
            if failure is None:
                raise
            if isinstance(failure, StoreDamaged):
                failure = damaged(self._path, opens=False)
            raise failure from None

    @property
    def store(self) -> OpenStore:
        """To be named in closures; only the thread may call into it."""
        store = cast("OpenStore | None", self._connection)
        if store is None:
            raise _closed()
        return store

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work()`, or what it raised; for errors of the disk, see `store.failures`."""
        if not self._running or self._connection is None:
            raise _closed()
        try:
            return await self._execute(work)
        except Exception as exc:
            failure = store_failure(exc, self._path)
            if failure is None:
                raise
            error, db = exc, self.store.db
            await self._execute(lambda: db.mend(error))
            raise failure from None


def _started() -> sqlite3.Connection:
    raise AssertionError("a store's thread opens its store once")


def _closed() -> StoreClosed:
    return StoreClosed("the device is closed", hint="open it again")
