"""The methods of a device about what no relay has yet: see it, try it again, give it up."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence

from crdt_sync.errors import SyncTimeout
from crdt_sync.ids import SpaceId

from .delivery_desk import DeliveryWait
from .device_part import DevicePart
from .engine.exporting import UnsyncedOperation
from .engine.model import OutboxItem
from .locking import unused
from .logout import export_unsynced
from .records import Durable, WriteResult
from .status import RecordSync, Status
from .status_watching import Bell, RecordStateWatch, StatusWatch
from .store_opening import StorePath


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
        self, write: WriteResult | str, until: Durable = "relayed", *, timeout_s: float | None = None
    ) -> None:
        """Returns when a write is durable: on this device ("local"), at the relay ("relayed"), or on the
        devices of all other members of the space ("delivered").

        `write` may be its `ref`, for after a restart of the app. "delivered" counts what each device has
        confirmed to the relay, also those that are away; one that keeps only some records counts as well.
        It waits for a connection that `connect` or `sync` makes. Raises SyncTimeout when the time is up; the
        write stays in the outbox, or goes on to the others, all the same.
        """
        if isinstance(write, str):
            write = WriteResult.from_ref(write)
        space = SpaceId(bytes.fromhex(write.space))
        if until == "local":
            return  # a write returns only then
        engine, delivery = self._engine, DeliveryWait()
        found = await self._run(lambda: engine.space(space))
        sync = self._syncs[found.id]
        try:
            async with asyncio.timeout(timeout_s):
                await self._relayed(write, space)
                if until == "delivered":
                    await sync.delivered(delivery)
        except TimeoutError:
            raise _too_late(delivery, timeout_s or 0.0) from None

    async def _relayed(self, write: WriteResult, space: SpaceId) -> None:
        engine = self._engine
        while True:
            rings = self._bell.rings
            if await self._run(lambda: engine.is_relayed(space, write.type, write.id, write.clock)):
                return
            await self._bell.rung_since(rings)

    async def _wait_for(self, write: WriteResult, until: Durable, timeout_s: float | None) -> None:
        await self.wait(write, until, timeout_s=timeout_s)

    def _go_on(self) -> None:
        self._publish(())
        for sync in self._syncs.values():
            sync.again()


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
