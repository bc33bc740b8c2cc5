"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from typing import TypeVar

from ...engine.exporting import UnsyncedOperation
from ...engine.model import OutboxItem
from ...engine.write_life import WriteLife
from ...outbox_methods import OutboxMethods as AsyncOutboxMethods
from ...records import Durable, HasRef
from ...status import RecordSync
from ...store_opening import StorePath
from ..wrapping import Blocking
from .status_watching import RecordStateWatch, StatusWatch

W = TypeVar("W", bound=AsyncOutboxMethods)


class OutboxMethods(Blocking[W]):
    """Part of `Device`."""

    def outbox(self) -> list[OutboxItem]:
        """Local work that no relay has acknowledged, oldest first."""
        return self._run(lambda: self._inner.outbox())

    def retry_failed(self) -> int:
        """Send again whatever was refused; returns in how many records that was."""
        return self._run(lambda: self._inner.retry_failed())

    def retry(self, type: str, id: str, *, space: str | None = None) -> None:
        """Send again what of one record was refused. Raises RecordNotFound when nothing was."""
        self._run(lambda: self._inner.retry(type, id, space=space))

    def discard(
        self, type: str, id: str, *, export_to: StorePath | None, space: str | None = None
    ) -> list[UnsyncedOperation]:
        """Give up what is unsent of a record, and of those that transactions tie to it; returns what it was.

        `export_to`: a new file that it is written to first, one JSON object a line, not encrypted; None: it
        is lost. The record leaves this device and comes back from the relay as everybody else has it; one
        that was never sent is gone. Raises RecordNotFound when nothing waits, LocalError while some of it may
        be on its way or when the file cannot be made; then nothing has changed.
        """
        return self._run(lambda: self._inner.discard(type, id, export_to=export_to, space=space))

    def watch_status(self) -> StatusWatch:
        """The status now and whenever it differs: `for status in device.watch_status():`.

        Only the latest counts; what changed and changed back in between is not told.
        """
        made = self._call(lambda: self._inner.watch_status())
        return StatusWatch(made, self._background, self._kept())

    def watch_record_state(self, type: str, id: str) -> RecordStateWatch:
        """How one record stands (see `record_state`): now, and whenever it differs."""
        made = self._call(lambda: self._inner.watch_record_state(type, id))
        return RecordStateWatch(made, self._background, self._kept())

    def record_state(self, type: str, id: str) -> RecordSync:
        """How one record stands. Raises UnknownType; of one that is not here nothing waits."""
        return self._run(lambda: self._inner.record_state(type, id))

    def wait(
        self, write: HasRef | str, until: Durable = "relayed", *, timeout_s: float | None = None
    ) -> None:
        """Returns when a write is durable: on this device ("local"), at the relay ("relayed"), or on the
        devices of all other members of the space ("delivered").

        `write` may be its `ref`, for after a restart of the app. "delivered" counts what each device has
        confirmed to the relay, also those that are away; one that keeps only some records counts as well.
        It waits for a connection that `connect` or `sync` makes. Raises SyncTimeout when the time is up; the
        write stays in the outbox, or goes on to the others, all the same.
        """
        self._run(lambda: self._inner.wait(write, until, timeout_s=timeout_s))

    def life(self, write: HasRef | str, *, timeout_s: float = 2.0) -> WriteLife:
        """What became of a write: whether it waits or was refused, why, and who has it since when.

        `write` may be its `ref`. While the device is connected the relay is asked how many other devices have
        it, for at most `timeout_s`. Raises CannotWait for what is no write, UnknownSpace, RecordNotFound.
        """
        return self._run(lambda: self._inner.life(write, timeout_s=timeout_s))

    def lives(
        self, type: str, id: str, *, space: str | None = None, limit: int = 50, timeout_s: float = 2.0
    ) -> list[WriteLife]:
        """What became of what this device wrote to a record, the newest first, as far as that is kept.

        One for each envelope: what is written while the record waits to be sent goes in one. The relay is
        asked as by `life`, about the newest.
        """
        return self._run(lambda: self._inner.lives(type, id, space=space, limit=limit, timeout_s=timeout_s))
