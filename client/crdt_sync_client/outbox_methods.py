"""The methods of a device about what no relay has yet: see it, try it again, give it up."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from crdt_sync.errors import SyncTimeout
from crdt_sync.ids import RecordId, SpaceId
from crdt_sync.protocol.limits import MAX_AWAITED_ROWS

from .delivery_asking import ask
from .delivery_desk import DeliveryWait
from .device_part import DevicePart
from .engine.exporting import UnsyncedOperation
from .engine.model import OutboxItem
from .engine.write_life import WriteLife
from .locking import unused
from .logout import export_unsynced
from .records import Durable, HasRef, WriteRef
from .status import RecordSync, Status
from .status_watching import Bell, RecordStateWatch, StatusWatch
from .store_opening import StorePath
from .sync_loop import SpaceSync


class OutboxMethods(DevicePart):
    """Part of `Device`."""

    _bell: Bell

    @abstractmethod
    async def status(self) -> Status: ...

    async def outbox(self) -> list[OutboxItem]:
        """Local work that no relay has acknowledged, oldest first."""
        engine = self._engine
        return await self._run(lambda: engine.outbox())

    async def retry_failed(self) -> int:
        """Send again whatever was refused; returns in how many records that was."""
        engine = self._engine
        count = await self._run(lambda: engine.retry())
        self._go_on()
        return count

    async def retry(self, type: str, id: str, *, space: str | None = None) -> None:
        """Send again what of one record was refused. Raises RecordNotFound when nothing was."""
        engine = self._engine
        await self._run(lambda: engine.retry(engine.space(space).id, type=type, id=id))
        self._go_on()

    async def discard(
        self, type: str, id: str, *, export_to: StorePath | None, space: str | None = None
    ) -> list[UnsyncedOperation]:
        """Give up what is unsent of a record, and of those that transactions tie to it; returns what it was.

        `export_to`: a new file that it is written to first, one JSON object a line, not encrypted; None: it
        is lost. The record leaves this device and comes back from the relay as everybody else has it; one
        that was never sent is gone. Raises RecordNotFound when nothing waits, LocalError while some of it may
        be on its way or when the file cannot be made; then nothing has changed.
        """
        engine = self._engine

        def keep(operations: Sequence[UnsyncedOperation]) -> None:
            if export_to is not None:
                export_unsynced(operations, export_to)

        dropped = await self._run(lambda: engine.discard(type, id, keep, space=engine.space(space).id))
        self._go_on()
        return dropped

    def watch_status(self) -> StatusWatch:
        """The status now and whenever it differs: `async for status in device.watch_status():`.

        Only the latest counts; what changed and changed back in between is not told.
        """
        return StatusWatch(self._bell, unused(self.status))

    def watch_record_state(self, type: str, id: str) -> RecordStateWatch:
        """How one record stands (see `record_state`): now, and whenever it differs."""

        async def read() -> RecordSync:
            return await self.record_state(type, id)

        return RecordStateWatch(self._bell, unused(read))

    async def record_state(self, type: str, id: str) -> RecordSync:
        """How one record stands. Raises UnknownType; of one that is not here nothing waits."""
        engine = self._engine

        def work() -> RecordSync:
            record = engine.get(type, id, deleted=True)
            if record is None:
                return "synced"
            if record.sync_state != "pending":
                return record.sync_state
            sending = (
                item.state == "sending" and (item.type, item.id) == (type, id) for item in engine.outbox()
            )
            return "sending" if any(sending) else "pending"

        return await self._run(work)

    async def wait(
        self, write: HasRef | str, until: Durable = "relayed", *, timeout_s: float | None = None
    ) -> None:
        """Returns when a write is durable: on this device ("local"), at the relay ("relayed"), or on the
        devices of all other members of the space ("delivered").

        `write` may be its `ref`, for after a restart of the app. "delivered" counts what each device has
        confirmed to the relay, also those that are away; one that keeps only some records counts as well.
        It waits for a connection that `connect` or `sync` makes. Raises SyncTimeout when the time is up; the
        write stays in the outbox, or goes on to the others, all the same.
        """
        ref = WriteRef.of(write)
        if until == "local":
            return  # a write returns only then
        engine, delivery = self._engine, DeliveryWait()
        found = await self._run(lambda: engine.space(ref.space))
        sync = self._syncs[found.id]
        try:
            async with asyncio.timeout(timeout_s):
                await self._relayed(ref)
                if until == "delivered":
                    await sync.delivered(delivery)
        except TimeoutError:
            raise _too_late(delivery, timeout_s or 0.0) from None
        await self._note(ref.space, delivery)

    async def life(self, write: HasRef | str, *, timeout_s: float = 2.0) -> WriteLife:
        """What became of a write: whether it waits or was refused, why, and who has it since when.

        `write` may be its `ref`. While the device is connected the relay is asked how many other devices have
        it, for at most `timeout_s`. Raises CannotWait for what is no write, UnknownSpace, RecordNotFound.
        """
        ref, engine = WriteRef.of(write), self._engine

        def read() -> WriteLife:
            return engine.life(engine.space(ref.space).id, ref.type, ref.id, ref.clock, ref.first)

        (known,) = await self._asked([await self._run(read)], timeout_s)
        return known

    async def lives(
        self, type: str, id: str, *, space: str | None = None, limit: int = 50, timeout_s: float = 2.0
    ) -> list[WriteLife]:
        """What became of what this device wrote to a record, the newest first, as far as that is kept.

        One for each envelope: what is written while the record waits to be sent goes in one. The relay is
        asked as by `life`, about the newest.
        """
        engine, record = self._engine, RecordId(id)

        def read() -> list[WriteLife]:
            return engine.lives(type, record, space=engine.space(space).id, limit=limit)

        return await self._asked(await self._run(read), timeout_s)

    async def _asked(self, found: Sequence[WriteLife], timeout_s: float) -> list[WriteLife]:
        """The same with what the connections know, and what the relay says of those that it has."""
        lives = [_with_connection(each, self._syncs[each.space]) for each in found]
        rows = {(each.space, each.relay_row) for each in lives if each.stage == "relayed"}
        newest = sorted(rows, key=lambda place: place[1] or 0, reverse=True)[:MAX_AWAITED_ROWS]
        told = await asyncio.gather(*(ask(self._syncs[space], row, timeout_s) for space, row in newest))
        for (space, _), wait in zip(newest, told, strict=True):
            await self._note(space, wait)
        answers = dict(zip(newest, told, strict=True))
        return [_with_answer(each, answers.get((each.space, each.relay_row))) for each in lives]

    async def _note(self, space: SpaceId, told: DeliveryWait) -> None:
        """Keep what the relay told."""
        engine, row, members = self._engine, told.row, told.members
        if row is not None and members is not None:
            await self._run(lambda: engine.note_delivered(space, row, told.reached, members))

    async def _relayed(self, ref: WriteRef) -> None:
        engine = self._engine
        while True:
            rings = self._bell.rings
            if await self._run(lambda: engine.is_relayed(ref.space, ref.type, ref.id, ref.clock)):
                return
            await self._bell.rung_since(rings)

    def _go_on(self) -> None:
        self._publish(())
        for sync in self._syncs.values():
            sync.again()


def _with_connection(known: WriteLife, sync: SpaceSync) -> WriteLife:
    """Why it does not go now, where that is not for the write itself."""
    if known.stage not in ("pending", "sending") or known.error is not None or sync.retry_in_s is None:
        return known
    problem = None if sync.problem is None else str(sync.problem)
    now_ms = time.time_ns() // 1_000_000
    return replace(known, error=problem, retry_at_ms=now_ms + round(sync.retry_in_s * 1000))


def _with_answer(known: WriteLife, told: DeliveryWait | None) -> WriteLife:
    if told is None or told.members is None or known.stage != "relayed":
        return known
    counted = replace(known, delivered_to=told.reached, others=told.members)
    now_ms = time.time_ns() // 1_000_000
    return replace(counted, stage="delivered", delivered_ms=now_ms) if told.done else counted


def _too_late(delivery: DeliveryWait, timeout_s: float) -> SyncTimeout:
    if delivery.members is not None:
        return SyncTimeout(
            f"{delivery.reached} of {delivery.members} other devices have it after {timeout_s:g} s",
            hint="the relay has it, and the others get it when they connect",
        )
    return SyncTimeout(
        f"the relay does not have it after {timeout_s:g} s",
        hint="it is safe on this device and goes when there is a connection; `crdt-sync outbox ls`",
    )
