"""The one thread that owns a store: its database connection, its engine, its open documents.

SQLite connections and CRDT documents belong to the thread that made them, and the engine is plain
synchronous code. So the device keeps one thread, `aiosqlite`'s, and sends it one piece of work per
operation: `await thread.run(work)`. Work is serial by construction, one hop each way.

`aiosqlite` prints the callables it runs at level DEBUG: give it closures without arguments, never
partials, so that no log can hold a value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeVar, cast

import aiosqlite

from crdt_sync.errors import StoreClosed

from .engine import Engine
from .store.connection import Database

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")


class OpenStore:
    """What the thread owns."""

    def __init__(self, db: Database, engine: Engine) -> None:
        self.db = db
        self.engine = engine

    def close(self) -> None:
        self.engine.close()
        self.db.close()


class DatabaseThread(aiosqlite.Connection):
    """Runs closures on the store's own thread, in the order given. Start it by awaiting it."""

    def __init__(self, open_store: Callable[[], OpenStore]) -> None:
        """`open_store` runs on the thread."""
        super().__init__(cast("Callable[[], sqlite3.Connection]", open_store), iter_chunk_size=64)
        # A program that forgot to close its device still ends; what it was told is durable is durable.
        self._thread.daemon = True

    async def _connect(self) -> Self:
        try:
            started = cast(Self, await super()._connect())
            self._connector = _started  # what it was holds a passphrase or a key
            return started
        except BaseException:
            # aiosqlite has told its thread to stop but does not wait: it would answer a loop that is closed.
            await asyncio.to_thread(self._thread.join)
            raise

    @property
    def store(self) -> OpenStore:
        """To be named in closures; only the thread may call into it."""
        store = cast("OpenStore | None", self._connection)
        if store is None:
            raise _closed()
        return store

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work()`, or what it raised."""
        if not self._running or self._connection is None:
            raise _closed()
        # aiosqlite leaves this method without types.
        return cast(T, await self._execute(work))  # type: ignore[no-untyped-call]


def _started() -> sqlite3.Connection:
    raise AssertionError("a store's thread opens its store once")


def _closed() -> StoreClosed:
    return StoreClosed("the device is closed", hint="open it again")
