"""The methods of a device about what no relay has yet: see it, try it again, give it up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from crdt_sync.ids import SpaceId

from .engine import Engine, model
from .engine.exporting import UnsyncedOperation
from .engine.model import OutboxItem
from .logout import export_unsynced
from .store_opening import StorePath
from .sync_loop import SpaceSync

T = TypeVar("T")


class OutboxMethods:
    """Part of `Device`."""

    _engine: Engine
    _syncs: dict[SpaceId, SpaceSync]

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        raise NotImplementedError  # the device's

    def _publish(self, changes: Sequence[model.RecordChange]) -> None:
        raise NotImplementedError  # the device's

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

    def _go_on(self) -> None:
        self._publish(())
        for sync in self._syncs.values():
            sync.again()
