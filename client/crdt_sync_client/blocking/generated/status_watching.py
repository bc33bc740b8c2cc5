"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from ...status import RecordSync, Status
from ...status_watching import RecordStateWatch as AsyncRecordStateWatch
from ...status_watching import StatusWatch as AsyncStatusWatch
from ..wrapping import BlockingContext, BlockingIterator


class StatusWatch(BlockingIterator[AsyncStatusWatch, Status], BlockingContext[AsyncStatusWatch]):
    """An iterator over states; made by `Device.watch_status`."""

    def close(self) -> None:
        """Stop watching; a wait for the next one ends."""
        self._read(lambda: self._inner.close())


class RecordStateWatch(
    BlockingIterator[AsyncRecordStateWatch, RecordSync], BlockingContext[AsyncRecordStateWatch]
):
    """An iterator over the sync states of a record; made by `Device.watch_record_state`."""

    def close(self) -> None:
        """Stop watching; a wait for the next one ends."""
        self._read(lambda: self._inner.close())
