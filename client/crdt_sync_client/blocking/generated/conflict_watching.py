"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from ...conflict_watching import ConflictChange
from ...conflict_watching import ConflictWatch as AsyncConflictWatch
from ..wrapping import BlockingContext, BlockingIterator


class ConflictWatch(
    BlockingIterator[AsyncConflictWatch, ConflictChange], BlockingContext[AsyncConflictWatch]
):
    """An iterator over changes of conflicts; made by `Device.watch_conflicts`."""

    def close(self) -> None:
        """Stop watching; a wait for the next change ends."""
        self._read(lambda: self._inner.close())
