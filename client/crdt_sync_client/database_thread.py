"""The one thread that owns a store: its database connection, its engine, its open documents.

SQLite connections and CRDT documents belong to the thread that made them, and the engine is plain
synchronous code. So the device keeps one thread, `aiosqlite`'s, and sends it one piece of work per
operation: `await thread.run(work)`. Work is serial by construction, one hop each way.

`aiosqlite` prints the callables it runs at level DEBUG: give it closures without arguments, never
partials, so that no log can hold a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import aiosqlite

from crdt_sync.errors import StoreClosed

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")


class DatabaseThread(aiosqlite.Connection):
    """Runs closures on the store's own thread, in the order given."""

    def __init__(self, open_store: Callable[[], Any]) -> None:
        """`open_store` runs on the thread and returns something with `close()`: the engine."""
        super().__init__(cast("Callable[[], sqlite3.Connection]", open_store), iter_chunk_size=64)
        # A program that forgot to close its device still ends; what it was told is durable is durable.
        self._thread.daemon = True

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work()`, or what it raised."""
        if not self._running or self._connection is None:
            raise StoreClosed("the device is closed", hint="open it again")
        return cast(T, await self._execute(work))  # type: ignore[no-untyped-call]
