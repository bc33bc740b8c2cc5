"""Part of `Device`: which records are on this device, and having others fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

from crdt_sync.errors import ConnectionFailed, RecordAbsent
from crdt_sync.ids import RecordId, SpaceId

from .device_part import DevicePart
from .engine.cleaning import Place
from .engine.filter_text import encode_filter
from .engine.filters import Filter
from .engine.model import RecordChange
from .engine.queries import Where
from .records import Record
from .settings import Settings


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a space this device keeps.

    `conditions`: of these types, only records that meet one; `picks`: records (type, id) kept in any case.
    `absent` counts the records that are not here, `wanted` those of them that are on their way,
    `leaving` those that go once what was written in them is sent.
    """

    space: str
    conditions: Mapping[str, Filter]
    picks: tuple[tuple[str, RecordId], ...]
    absent: int
    wanted: int
    leaving: int

    def to_json(self) -> dict[str, Any]:
        return {
            "space": self.space,
            "conditions": {name: encode_filter(each) for name, each in sorted(self.conditions.items())},
            "picks": [{"type": name, "id": id} for name, id in self.picks],
            "absent": self.absent,
            "wanted": self.wanted,
            "leaving": self.leaving,
        }


@dataclass(frozen=True, slots=True)
class FinishedRecord:
    """A record that is closed or deleted since `since_at` (Unix ms) and leaves with the next cleanup."""

    type: str
    id: RecordId
    since_at: int


class ScopeMethods(DevicePart):
    """See the module."""

    _settings: Settings

    async def scope(self, space: str | None = None) -> Scope:
        """What of a space this device keeps."""
        engine = self._engine

        def work() -> Scope:
            found = engine.space(space)
            return Scope(found.name, *engine.scope(found.id))

        return await self._run(work)

    async def set_scope(self, type: str, where: Where, *, space: str | None = None) -> int:
        """Keep only those of a type's records for which `where` holds, None: all; how many left at once.

        It is kept in the store. Records that match are fetched when the relay can be reached; what has work
        that is not sent leaves afterwards. Conditions are as in `query`; `nothing` holds for none, so that
        only picked records are kept. Raises UnknownType, ValidationError.
        """
        engine = self._engine

        def work() -> tuple[SpaceId, list[RecordChange]]:
            found = engine.space(space).id
            return found, engine.set_scope(found, type, where)

        return self._left(*await self._run(work))

    async def pick(self, type: str, id: str, *, space: str | None = None) -> None:
        """Keep a record on this device, with those that belong to it, whatever `set_scope` says."""
        engine = self._engine

        def work() -> SpaceId:
            found = engine.space(space).id
            engine.pick(found, type, RecordId(id))
            return found

        self._left(await self._run(work), [])

    async def unpick(self, type: str, id: str, *, space: str | None = None) -> int:
        """Keep it only if `set_scope` says so; how many records left at once."""
        engine = self._engine

        def work() -> tuple[SpaceId, list[RecordChange]]:
            found = engine.space(space).id
            return found, engine.unpick(found, type, RecordId(id))

        return self._left(*await self._run(work))

    def _left(self, space: SpaceId, changes: list[RecordChange]) -> int:
        self._publish(changes)
        self._syncs[space].fetch_soon()
        return len(changes)

    async def finished(self, space: str | None = None) -> list[FinishedRecord]:
        """What `clean_up` would take off this device now."""
        engine, days = self._engine, self._settings.keep_days
        found = await self._run(lambda: engine.finished(engine.space(space).id, days))
        return [FinishedRecord(each.type, each.id, each.since_ms) for each in found]

    async def clean_up(self, space: str | None = None) -> int:
        """Take records off this device that have been closed or deleted for long enough; how many.

        How long is said by `x-closed` of their schema, or by the setting `keep_days.TYPE`. The space keeps
        them: `fetch` brings one back. What is picked, unsent or in conflict stays.
        """
        engine, count = self._engine, 0
        where = await self._run(lambda: engine.space(space).id)
        place: Place | None = ("", 0)
        while place is not None:
            changes, place = await self._clean_up_from(place, where)
            self._publish(changes)
            count += len(changes)
        return count

    def _clean_up_from(
        self, place: Place, space: SpaceId
    ) -> Awaitable[tuple[list[RecordChange], Place | None]]:
        engine, days = self._engine, self._settings.keep_days
        return self._run(lambda: engine.clean_up(space, days, place))

    async def clear_cache(self, space: str | None = None) -> int:
        """Have fresh copies of all records fetched; how many left. What has unsent work stays as it is."""
        engine = self._engine

        def work() -> tuple[SpaceId, list[RecordChange]]:
            found = engine.space(space).id
            return found, engine.clear(found)

        return self._left(*await self._run(work))

    async def fetch(self, type: str, id: str, *, space: str | None = None, timeout_s: float = 30.0) -> Record:
        """The record, from the relay if it is not on this device.

        Raises RecordNotFound when the space does not have it, RecordAbsent when the relay cannot be reached
        within the time; it is fetched then as soon as the device is connected again. Whether it stays is said
        by `set_scope` and `pick`: it may leave again when something else comes for it.
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
