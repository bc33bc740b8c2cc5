"""Records that were fetched whole: made anew from all rows the relay has of them.

The rows are old ones: this device has been past them (`head` of the answer is not beyond its cursor), so
they move no chain and no cursor, and their authors are members it knows. They are checked and opened as when
they came the first time. What waits for the rest of its group (`gathering`) goes on waiting. What came for a
record after the answer was made, and was passed over because the record was absent, is not in the answer:
then all of it is asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from crdt_sync.crypto.envelope import Kind, parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import Equivocation, MalformedEnvelope
from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_client.engine import absent
from crdt_sync_client.engine.absent import Absent
from crdt_sync_client.engine.arrivals import Arrival, Opened
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_UNSENT: Final = "SELECT change FROM outbox WHERE record = ? ORDER BY no"
_SEALED: Final = "SELECT envelope FROM sealed WHERE record = ? ORDER BY incarnation, sequence"


class FetchedRecord(NamedTuple):
    """All rows of one record (log sequence, kind, bytes), as the log was up to `head`."""

    opaque: OpaqueId
    rows: Sequence[tuple[int, int, bytes]]
    head: int


class Coming:
    """The absent records that one transaction makes anew. Use once."""

    def __init__(self, replica: Replica, space: Space) -> None:
        self._replica = replica
        self._space = space
        self._absent: dict[OpaqueId, Absent] = {}

    def whole(self, answers: Iterable[FetchedRecord]) -> list[FetchedRecord]:
        """Those that are wanted and that nothing has come for since; of the others nothing is used.

        What the relay has nothing of is no record any more.
        """
        space, found = self._space, []
        for answer in answers:
            known = absent.find(self._replica, space, answer.opaque)
            if known is None or answer.opaque not in space.wanted:
                continue
            if space.session.missed.get(answer.opaque, 0) > answer.head:
                continue
            if not answer.rows and known.no not in self._replica.unsent:
                absent.drop(self._replica, space, answer.opaque, known)
                continue
            self._absent[answer.opaque] = known
            found.append(answer)
        return found

    def check(self, arrival: Arrival, answer: FetchedRecord) -> None:
        """Raises MalformedEnvelope for a row of another record, Equivocation for two of one place."""
        header = arrival.envelope.header
        if header.record != answer.opaque:
            raise MalformedEnvelope("header field record: the relay sent another record than was asked for")
        if header.kind == Kind.UPDATE:
            head = self._space.chains.get(arrival.author)
            if head is not None and head.sequence == header.sequence and head.hash != arrival.envelope.hash:
                raise Equivocation(f"two different updates {header.sequence} of one device")

    def waits(self, arrival: Arrival) -> bool:
        """Whether it waits for the rest of its group, or behind one."""
        queue = self._space.waiting.queues.get(arrival.author)
        return queue is not None and queue.find(arrival.envelope.header.sequence) is not None

    def is_remnant(self, opened: Opened) -> bool:
        """Whether it is a part of a group of ours of which the relay has refused the rest.

        Others wait for that rest for good. It was made again since, or given up: it shows nowhere.
        """
        author, (_, last) = opened.arrival.author, opened.span
        return author.device == self._replica.device_id and last > self._space.chain(author).sequence

    def revive(self, opaque: OpaqueId) -> int | None:
        """The number under which a record is made anew; None for one that is not coming."""
        known = self._absent.pop(opaque, None)
        if known is None:
            return None
        absent.revive(self._replica, self._space, opaque, known)
        self._space.session.missed.pop(opaque, None)
        return known.no

    def finish(self) -> None:
        """What did not come to be, because nothing of it could be merged, is not asked for any more."""
        absent.unwant(self._replica, self._space, self._absent)


def put_back(replica: Replica, space: Space, record: OpenRecord) -> None:
    """Put what is unsent of a record back into the document that was fetched for it."""
    if record.no not in replica.unsent:
        return
    for change in _unsent_of(replica, space, record):
        record.doc.apply(change, None)


def _unsent_of(replica: Replica, space: Space, record: OpenRecord) -> Iterator[bytes]:
    for (raw,) in replica.db.rows(_SEALED, (record.no,)):
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        opened = envelope.open(space.keys.envelope_key(envelope.header.epoch))
        yield Payload.decode(opened).update
    for (change,) in replica.db.rows(_UNSENT, (record.no,)):
        yield change
