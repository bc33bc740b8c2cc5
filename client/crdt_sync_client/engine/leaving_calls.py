"""Part of `Engine`: spaces that are off, or leave."""

from __future__ import annotations

from crdt_sync.ids import SpaceId
from crdt_sync_client.engine import leaving
from crdt_sync_client.engine.leaving import Judge
from crdt_sync_client.engine.model import RecordChange
from crdt_sync_client.engine.replica import Replica


class LeavingCalls:
    """See the module."""

    _replica: Replica

    def switch_space(self, space: SpaceId, *, off: bool) -> None:
        """Keep whether a space is off on this device. What syncs it asks `SpaceState.off`."""
        with self._replica.transaction(durable=True):
            leaving.switch(self._replica, self._replica.space(space), off=off)

    def leave_space(self, space: SpaceId, judge: Judge, *, tell: bool) -> list[RecordChange]:
        """Forget a space with all that is kept of it; with `tell`, what watchers are told.

        `judge` is given the work of it that no relay has, and raises where that is not to be lost; then
        nothing has changed. Raises PermissionDenied for one that the relay has not confirmed.
        """
        return leaving.leave(self._replica, self._replica.space(space), judge, tell=tell)
