"""Part of `Engine`: what is, and is not, on this device."""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import OpaqueId, RecordId, SpaceId
from crdt_sync_client.engine import absent
from crdt_sync_client.engine.fetched import FetchedRecord
from crdt_sync_client.engine.model import Received
from crdt_sync_client.engine.pausing import collector_paused
from crdt_sync_client.engine.receiving import ReceivedBatch
from crdt_sync_client.engine.replica import Replica


class AbsentCalls:
    """See the module."""

    _replica: Replica

    def ask_for(self, type: str, id: RecordId, *, space: SpaceId | None = None) -> bool:
        """Have the next session fetch a record; False when it is here. Raises UnknownType."""
        return absent.ask(self._replica, self._replica.space(space), type, id)

    def is_absent(self, type: str, id: str, *, space: SpaceId | None = None) -> bool:
        """Whether the record is known, and not on this device."""
        found = self._replica.space(space)
        return absent.find(self._replica, found, found.keys.opaque_id(type, id)) is not None

    def missing(self, type: str, id: str, *, space: SpaceId | None = None) -> CrdtSyncError:
        """The error for a record that is not here: RecordAbsent or RecordNotFound."""
        return absent.missing(self._replica, self._replica.space(space), type, id)

    def give_up(self, space: SpaceId, records: Sequence[OpaqueId]) -> int:
        """Take records off that cannot be read any more and have them fetched anew; how many.

        Their unsent work stays in the outbox, and is in them again afterwards.
        """
        with self._replica.transaction(durable=True):
            return absent.give_up(self._replica, self._replica.space(space), records)

    def wanted(self, space: SpaceId, limit: int) -> list[OpaqueId]:
        """Records to ask the relay for now; then call `take_fetched` with all rows of each."""
        return absent.next_wanted(self._replica.space(space), limit)

    def take_fetched(self, space: SpaceId, records: Sequence[FetchedRecord]) -> Received:
        """Make wanted records anew. Call it when the cursor has come to the `head` of each, at the log's end.

        Raises a RemoteError, and changes nothing, when a row cannot be what an honest relay sends.
        """
        found = self._replica.space(space)
        rows = sum(len(record.rows) for record in records)
        with collector_paused(rows), self._replica.transaction(durable=False):
            return ReceivedBatch(self._replica, found, caught_up=True).run_fetched(records)
