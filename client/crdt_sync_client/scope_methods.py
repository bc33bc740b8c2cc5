"""Part of `Device`: which records are on this device, and having others fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from crdt_sync.errors import ConnectionFailed, RecordAbsent
from crdt_sync.ids import RecordId, SpaceId

from .engine import Engine
from .records import Record
from .sync_loop import SpaceSync

T = TypeVar("T")


class ScopeMethods:
    """See the module."""

    _engine: Engine
    _syncs: dict[SpaceId, SpaceSync]

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        raise NotImplementedError  # the device's

    async def fetch(self, type: str, id: str, *, space: str | None = None, timeout_s: float = 30.0) -> Record:
        """The record, from the relay if it is not on this device.

        Raises RecordNotFound when the space does not have it, RecordAbsent when the relay cannot be reached
        within the time; it is fetched then as soon as the device is connected again.
        """
        engine = self._engine

        def ask() -> SpaceId:
            found = engine.space(space).id
            engine.ask_for(type, RecordId(id), space=found)
            return found

        where = await self._run(ask)
        if await self._run(lambda: engine.is_absent(type, id, space=where)):
            sync = self._syncs[where]
            sync.fetch_soon()
            try:
                async with asyncio.timeout(timeout_s):
                    await sync.sync(patient=False)
            except (ConnectionFailed, TimeoutError) as exc:
                why = exc.message if isinstance(exc, ConnectionFailed) else f"no answer in {timeout_s:g} s"
                raise RecordAbsent(
                    f"{type} {id} is not on this device, and the relay could not be asked: {why}",
                    hint="it comes by itself once the device is connected: `crdt-sync sync`",
                ) from exc
        record = await self._run(lambda: engine.get(type, id, space=where, deleted=True))
        if record is None:
            raise await self._run(lambda: engine.missing(type, id, space=where))
        return Record.own(record)
