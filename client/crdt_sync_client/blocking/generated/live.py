"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from ...live import LiveQuery as AsyncLiveQuery
from ...live import Page
from ..wrapping import BlockingContext, BlockingIterator


class LiveQuery(BlockingIterator[AsyncLiveQuery, Page], BlockingContext[AsyncLiveQuery]):
    """An iterator over results; made by `Device.live`."""

    def close(self) -> None:
        """End it; a wait for the next result ends."""
        self._read(lambda: self._inner.close())
