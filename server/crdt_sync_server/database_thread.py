"""The one thread that owns the database, and with it the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import aiosqlite

T = TypeVar("T")


class DatabaseThread(aiosqlite.Connection):
    """aiosqlite's connection, made to run whole pieces of work on its thread, one after the other."""

    if TYPE_CHECKING:  # aiosqlite gives it no types

        async def _execute(self, work: Callable[[], T]) -> T: ...

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on the thread and give its result. Pass closures: aiosqlite logs what it is given."""
        return await self._execute(work)
