"""The one thread that owns the database, and with it the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import aiosqlite

from crdt_sync_server.storage.sqlite_file import note_cause

T = TypeVar("T")


class DatabaseThread(aiosqlite.Connection):
    """aiosqlite's connection, made to run whole pieces of work on its thread, one after the other."""

    if TYPE_CHECKING:  # aiosqlite gives it no types

        async def _execute(self, work: Callable[[], T]) -> T: ...

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on the thread and give its result. Pass closures: aiosqlite logs what it is given.

        What the database raises has a note on it that may be logged.
        """
        try:
            return await self._execute(work)
        except Exception as exc:
            note_cause(exc)
            raise
