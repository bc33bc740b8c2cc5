"""What has arrived and does not show yet, because what shows together with it has not arrived.

A copy of the table `waiting`, per space. Updates wait in the order of their author's chain, snapshots in
that of the log. Who waits for what is decided in `gathering`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.envelope import parse
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES

if TYPE_CHECKING:
    from crdt_sync_client.engine.arrivals import Opened, Span
    from crdt_sync_client.store.connection import Database

AT_HEAD: Final = 0
"""At the end of the last batch this device had everything that the log held."""
BEHIND: Final = 1
"""It had once, and is reading on from there."""
FIRST: Final = 2
"""It never had: it is new in the space."""

_SELECT: Final = (
    "SELECT no, seq, opaque, device, incarnation, sequence, hash, first, last, at_ms, CASE sequence"
    " WHEN 0 THEN envelope END FROM waiting WHERE space = ? ORDER BY sequence, seq, no"
)


class Waiter:
    """One envelope that waits. `no` is its row, 0 until it has one; `opened` is there in its first batch.

    `seq` is where it stands in the log; 0 when that log is lost and the relay has not delivered it since.
    """

    __slots__ = (
        "at_ms", "author", "cover", "hash", "no", "opaque", "opened", "seq", "sequence", "span"
    )  # fmt: skip

    def __init__(
        self,
        seq: int,
        opaque: OpaqueId,
        author: Author,
        sequence: int,
        hash: bytes,
        span: Span,
        at_ms: int,
        cover: CoverVector | None = None,
        opened: Opened | None = None,
        no: int = 0,
    ) -> None:
        self.no = no
        self.seq = seq
        self.opaque = opaque
        self.author = author
        self.sequence = sequence
        self.hash = hash
        self.span = span
        self.at_ms = at_ms
        self.cover = cover
        self.opened = opened


class Queue:
    """The updates of one author that wait, in the order of its chain."""

    __slots__ = ("records", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []
        self.records: Counter[OpaqueId] = Counter()

    def add(self, waiter: Waiter) -> None:
        self.waiters.insert(self._place(waiter.sequence), waiter)
        self.records[waiter.opaque] += 1

    def find(self, sequence: int) -> Waiter | None:
        place = self._place(sequence)
        found = self.waiters[place : place + 1]
        return found[0] if found and found[0].sequence == sequence else None

    def between(self, first: int, last: int) -> list[Waiter]:
        """Those with a sequence number from `first` to `last`."""
        return self.waiters[self._place(first) : self._place(last + 1)]

    def around(self, sequence: int) -> list[Waiter]:
        """The last before and the first after that sequence number, which is not here."""
        place = self._place(sequence)
        return self.waiters[max(place - 1, 0) : place + 1]

    def keep(self, waiters: list[Waiter]) -> None:
        """Only these wait on."""
        self.waiters = waiters
        self.records = Counter(waiter.opaque for waiter in waiters)

    @property
    def first(self) -> int:
        """The least sequence number that something here waits with or for."""
        head = self.waiters[0]
        return head.span[0] or head.sequence

    def _place(self, sequence: int) -> int:
        return bisect_left(self.waiters, sequence, key=_sequence)


def _sequence(waiter: Waiter) -> int:
    return waiter.sequence


class Waiting:
    """All that waits in a space."""

    __slots__ = ("queues", "snapshots")

    def __init__(self) -> None:
        self.queues: dict[Author, Queue] = {}
        """Never an empty one."""
        self.snapshots: list[Waiter] = []

    @classmethod
    def load(cls, db: Database, space_no: int) -> Waiting:
        waiting = cls()
        for no, seq, opaque, device, incarnation, sequence, hash, first, last, at_ms, raw in db.rows(
            _SELECT, (space_no,)
        ):
            author = Author(DeviceId(device), Incarnation(incarnation))
            cover = None if raw is None else parse(raw, max_bytes=MAX_ENVELOPE_BYTES).cover()
            waiter = Waiter(seq, OpaqueId(opaque), author, sequence, hash, (first, last), at_ms, cover, no=no)
            if cover is None:
                waiting.queues.setdefault(author, Queue()).add(waiter)
            else:
                waiting.snapshots.append(waiter)
        return waiting

    def __bool__(self) -> bool:
        return bool(self.queues or self.snapshots)

    def __iter__(self) -> Iterator[Waiter]:
        for queue in self.queues.values():
            yield from queue.waiters
        yield from self.snapshots

    def log_is_lost(self, db: Database, space_no: int) -> None:
        """The relay may not have what waits. Inside a transaction."""
        if self:
            db.execute("UPDATE waiting SET seq = 0 WHERE space = ?", (space_no,))
        for waiter in self:
            waiter.seq = 0

    def delivered_again(self, db: Database, waiter: Waiter, seq: int) -> None:
        """The relay has it after all. Inside a transaction."""
        if not waiter.seq:
            waiter.seq = seq
            db.execute("UPDATE waiting SET seq = ? WHERE no = ?", (seq, waiter.no))

    def of_lost_log(self) -> set[OpaqueId]:
        """The records of what the relay has not delivered since it lost its log."""
        return {waiter.opaque for waiter in self if not waiter.seq}

    def is_of_lost_log(self, opaque: OpaqueId) -> bool:
        """Whether something of that record is what the relay has not delivered since it lost its log."""
        return any(waiter.opaque == opaque and not waiter.seq for waiter in self.snapshots) or any(
            waiter.opaque == opaque and not waiter.seq
            for queue in self.queues.values()
            if opaque in queue.records
            for waiter in queue.waiters
        )

    def drop(self, author: Author, sequence: int) -> Waiter | None:
        """This update waits no longer; what was dropped."""
        queue = self.queues.get(author)
        found = None if queue is None else queue.find(sequence)
        if queue is not None and found is not None:
            self.keep(author, [waiter for waiter in queue.waiters if waiter is not found])
        return found

    def keep(self, author: Author, waiters: list[Waiter]) -> None:
        """Only these of the author wait on."""
        if waiters:
            self.queues[author].keep(waiters)
        else:
            del self.queues[author]

    def groups(self) -> list[tuple[Author, Span, list[Waiter]]]:
        """The groups of which something waits, with what has come of each."""
        found: dict[tuple[Author, Span], list[Waiter]] = {}
        for author, queue in self.queues.items():
            for waiter in queue.waiters:
                if waiter.span[1]:
                    found.setdefault((author, waiter.span), []).append(waiter)
        return [(author, span, waiters) for (author, span), waiters in found.items()]
