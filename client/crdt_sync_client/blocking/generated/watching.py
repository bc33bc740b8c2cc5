"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from ...watching import Change
from ...watching import Watch as AsyncWatch
from ..wrapping import BlockingContext, BlockingIterator


class Watch(BlockingIterator[AsyncWatch, Change], BlockingContext[AsyncWatch]):
    """An iterator over changes; made by `Device.watch`."""

    def close(self) -> None:
        """Stop watching; a wait for the next change ends."""
        self._read(lambda: self._inner.close())

    @property
    def waiting(self) -> int:
        """Changes that wait to be taken."""
        return self._read(lambda: self._inner.waiting)
