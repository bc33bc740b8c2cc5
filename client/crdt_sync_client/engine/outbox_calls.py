"""The calls of an engine about what no relay has yet."""

from __future__ import annotations

from collections.abc import Iterator

from crdt_sync.ids import RecordId, SpaceId
from crdt_sync_client.engine import (
    discarding,
    exporting,
    outbox_past,
    reading,
    relayed,
    retrying,
    write_life,
)
from crdt_sync_client.engine.discarding import Keep
from crdt_sync_client.engine.exporting import UnsyncedOperation
from crdt_sync_client.engine.model import OutboxItem
from crdt_sync_client.engine.replica import Replica
from crdt_sync_client.engine.write_life import WriteLife


class OutboxCalls:
    """Part of `Engine`."""

    _replica: Replica

    def outbox(self, space: SpaceId | None = None) -> list[OutboxItem]:
        """Local work not acknowledged by the relay, one item per record and state, oldest first."""
        number = None if space is None else self._replica.space(space).no
        return reading.outbox(self._replica, number)

    def unsynced(self) -> Iterator[UnsyncedOperation]:
        """The same with its values, in the order in which it goes out."""
        return exporting.unsynced(self._replica)

    def retry(self, space: SpaceId | None = None, *, type: str | None = None, id: str | None = None) -> int:
        """Line up what is set aside, of one record or all; in how many records.

        Raises RecordNotFound for a record of which nothing is set aside.
        """
        return retrying.retry(self._replica, space, type, id)

    def discard(
        self, type: str, id: str, keep: Keep, *, space: SpaceId | None = None
    ) -> list[UnsyncedOperation]:
        """Give up what is unsent of a record, see `discarding`; `keep` gets it first."""
        return discarding.discard(self._replica, self._replica.space(space), type, id, keep)

    def retry_in_s(self, space: SpaceId) -> float | None:
        """Seconds until something that was set aside is to be tried again, by a session that begins then."""
        return retrying.retry_in_s(self._replica, self._replica.space(space))

    def is_relayed(self, space: SpaceId, type: str, id: RecordId, clock: int) -> bool:
        """Whether the relay has all that this device wrote to a record up to that time of its clock."""
        return relayed.is_relayed(self._replica, self._replica.space(space), type, id, clock)

    def life(
        self, space: SpaceId, type: str, id: RecordId, clock: int, first: int | None = None
    ) -> WriteLife:
        """What became of the write that began at `first` by this device's clock and was done by `clock`.

        Without `first` nothing is said of its values. Raises RecordNotFound.
        """
        return write_life.life(self._replica, self._replica.space(space), type, id, first, clock)

    def lives(
        self, type: str, id: RecordId, *, space: SpaceId | None = None, limit: int = 50
    ) -> list[WriteLife]:
        """Of what this device wrote to a record, as far as that is known: one per envelope, newest first."""
        return write_life.lives(self._replica, self._replica.space(space), type, id, limit)

    def note_delivered(self, space: SpaceId, row: int, reached: int, members: int) -> None:
        """So many of all other members have confirmed the relay's log up to there."""
        outbox_past.note_delivered(self._replica, self._replica.space(space), row, reached, members)
