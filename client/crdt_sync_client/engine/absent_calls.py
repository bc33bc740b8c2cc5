"""Part of `Engine`: what is, and is not, on this device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import OpaqueId, RecordId, SpaceId
from crdt_sync_client.engine import absent, cleaning, scoping
from crdt_sync_client.engine.cleaning import Finished, Place
from crdt_sync_client.engine.fetched import FetchedRecord
from crdt_sync_client.engine.filters import filter_of
from crdt_sync_client.engine.model import Received, RecordChange
from crdt_sync_client.engine.outbox_order import TURN_BITS
from crdt_sync_client.engine.pausing import collector_paused
from crdt_sync_client.engine.queries import Where
from crdt_sync_client.engine.receiving import ReceivedBatch
from crdt_sync_client.engine.replica import Replica
from crdt_sync_client.engine.scoping import ScopeState


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

    # When, and how much

    def require_ready(self, required: bool) -> None:
        """Whether reading raises NotReady for a space that was never received whole."""
        self._replica.require_ready = required

    def limit_priority(self, priority: int) -> None:
        """Of what waits, seal only what has this priority or is more urgent."""
        self._replica.least_priority = priority

    def has_urgent(self, priority: int) -> bool:
        """Whether something of that priority, or more urgent, waits to be sealed."""
        number = (priority + 1) << TURN_BITS
        sql = "SELECT 1 FROM outbox WHERE no < ? AND error IS NULL LIMIT 1"
        return self._replica.db.value(sql, (number,)) is not None

    # What is kept here

    def scope(self, space: SpaceId) -> ScopeState:
        """What of the space this device keeps."""
        return scoping.state(self._replica, self._replica.space(space))

    def set_scope(self, space: SpaceId, type: str, where: Where) -> list[RecordChange]:
        """Keep only those of a type's records for which `where` holds; None: all. What left by it.

        Raises UnknownType, ValidationError.
        """
        condition = None if where is None else filter_of(where)
        with self._replica.transaction(durable=True):
            return scoping.set_condition(self._replica, self._replica.space(space), type, condition)

    def pick(self, space: SpaceId, type: str, id: RecordId) -> None:
        """Keep a record, with those that belong to it, whatever `set_scope` says; it is fetched."""
        with self._replica.transaction(durable=True):
            scoping.pick(self._replica, self._replica.space(space), type, id)

    def unpick(self, space: SpaceId, type: str, id: RecordId) -> list[RecordChange]:
        """Keep it no longer, unless `set_scope` says so; what left by it."""
        with self._replica.transaction(durable=True):
            return scoping.unpick(self._replica, self._replica.space(space), type, id)

    def finished(self, space: SpaceId, keep_days: Mapping[str, int]) -> list[Finished]:
        """What `clean_up` would take off the device. `keep_days`: this device's own, by type."""
        found: list[Finished] = []
        place: Place | None = ("", 0)
        while place is not None:
            some, place = cleaning.look(self._replica, self._replica.space(space), keep_days, place)
            found += some
        return found

    def clean_up(
        self, space: SpaceId, keep_days: Mapping[str, int], after: Place = ("", 0)
    ) -> tuple[list[RecordChange], Place | None]:
        """Look at some records and let those go that have been closed long enough.

        What left, and where to go on in the next call; None: that was all.
        """
        with self._replica.transaction(durable=False):
            return cleaning.clean_up(self._replica, self._replica.space(space), keep_days, after)

    def clear(self, space: SpaceId) -> list[RecordChange]:
        """Have fresh copies of all records fetched that have no unsent work; what left by it."""
        with self._replica.transaction(durable=True):
            return cleaning.clear(self._replica, self._replica.space(space))

    def wants(self, space: SpaceId) -> bool:
        """Whether there is something to ask the relay for. Unlike `wanted`, it is no beginning of asking."""
        return bool(self._replica.space(space).wanted)

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
