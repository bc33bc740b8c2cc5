"""Groups on their way in: their updates show together, in one transaction, or not at all.

The parts of a group arrive in the order of their author's chain, at times with a break in between for
days. Until the last is there they are kept aside (`waiting`); chains, cursor and snapshots take notice of
them as of any update that was received and not merged. Three things make it more than counting:

**Pruned parts.** A reader that was away may get a snapshot of record A in place of the part that A got, and
it may stand far behind the other parts in the log. So a part that is missing counts as arrived when the end
of the log is reached (`caught_up`) and the author's chain is known to reach the end of the group: then
the log has no such row, and what it said came in a snapshot. A snapshot that may hold a part of a group that
waits, or of one that this device cannot have whole yet (`ends`), waits for the end of the log too.

**Parts that cannot show yet.** The relay's memory still has rows that a snapshot covers, and what they build
on may be gone from its disk. A part that is here while what it builds on comes in a snapshot further on would
show nothing, and the others would. So before the end of the log a group shows only when each part goes on
where its author's writes in the record end.

**What builds on it.** Whatever else comes for a record from the author of a part that waits, or for a
record whose snapshot waits, waits behind it. Others go on: who wrote without having seen the group did not
build on it, and who had seen it had all of it, so that its parts are before that write in the log.

**A part that cannot be merged** takes the others with it: they are put aside like it.

A device that is new in a space does not hold snapshots back: it would have to keep most of a space aside
until it has read all of it. It shows groups whole from the moment on in which it has caught up once.

What remains waiting at the end of the log is the beginning of a group of which the relay does not have the
rest. It waits for its author, for as long as that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final
from weakref import WeakMethod

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.envelope import parse
from crdt_sync.errors import BadUpdate, CrdtSyncError, Equivocation, RemoteError
from crdt_sync.ids import Author, OpaqueId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_check import CheckedUpdate
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine import absent
from crdt_sync_client.engine.arrivals import Arrival, Incoming, Opened, Span, open_arrival
from crdt_sync_client.engine.space import Space
from crdt_sync_client.engine.waiting import AT_HEAD, BEHIND, FIRST, Queue, Waiter

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_INSERT: Final = "INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SPOILED: Final = (
    "SELECT 1 FROM quarantine WHERE space = ? AND device = ? AND incarnation = ?"
    " AND sequence BETWEEN ? AND ? AND code != 'unmerged' LIMIT 1"
)
_UNDER_WAY: Final = (
    "SELECT 1 FROM sealed WHERE space = ? AND incarnation = ? AND sequence = ? AND error IS NULL"
)
_STAND_IN: Final = (
    "DELETE FROM quarantine WHERE space = ? AND device = ? AND incarnation = ? AND sequence = ?"
    " AND code = 'unmerged'"
)
_NOTHING: Final[tuple[Opened, ...]] = ()


class Gathering:
    """What one batch makes of it. Use once: `take` what arrives, then `finish`, and `save` after the merge.

    `caught_up`: the batch ends where the log did. `put_aside` quarantines an envelope.
    """

    def __init__(
        self,
        replica: Replica,
        space: Space,
        *,
        caught_up: bool,
        now_ms: int,
        put_aside: Callable[[Arrival, CrdtSyncError], None],
    ) -> None:
        self._replica = replica
        self._space = space
        self._waiting = space.waiting
        self._caught_up = caught_up
        self._now_ms = now_ms
        self._put_aside = WeakMethod(put_aside)
        """Weak: whose it is has this, and is to go with all that it received as soon as it is done."""
        self._settled: Mapping[Author, int] = space.settled
        self._added: list[Waiter] = []
        self._gone: list[int] = []
        self._incoming: Mapping[OpaqueId, Incoming] = {}
        self.duplicates = 0

    def begin(self, incoming: Mapping[OpaqueId, Incoming], *, snapshots: bool) -> None:
        """Before chains move. `incoming` fills with what shows; `snapshots`: there are some in the batch."""
        space = self._space
        self._incoming = incoming
        if space.catching_up == AT_HEAD and (snapshots or not self._caught_up):
            self._settled = {author: head.sequence for author, head in space.chains.items()}

    def take(self, opened: Opened) -> Collection[Opened]:
        """What shows now: it, nothing, or with it all that waited for it. Raises BadUpdate, Equivocation."""
        arrival = opened.arrival
        record, author = arrival.envelope.header.record, arrival.author
        if arrival.cover is not None:
            for waiter in self._waiting.snapshots:
                if waiter.hash == arrival.envelope.hash:
                    return self._known(waiter, arrival)
            if not self._holds(opened):
                return (opened,)
            self._wait(opened)
            return _NOTHING
        queue = self._waiting.queues.get(author)
        sequence, span = arrival.envelope.header.sequence, opened.span
        if span[1] and self._is_under_way(author, sequence):
            self.duplicates += 1
            return _NOTHING
        known = None if queue is None else queue.find(sequence)
        if known is not None:
            if known.hash != arrival.envelope.hash:
                raise Equivocation(f"two different updates {sequence} of one device")
            return self._known(known, arrival)
        if queue is not None:
            _check_claims(queue, sequence, span)
        builds_on = (queue is not None and record in queue.records) or self._is_held(record)
        if not span[1] and not builds_on:
            return (opened,)
        if self._is_merged(record, author, sequence):
            return (opened,)
        if span[1] and self._is_spoiled(author, span):
            raise BadUpdate("another update of its group could not be merged")
        queue = self._wait(opened)
        if span[1] and len(queue.between(*span)) == span[1] - span[0] + 1:
            return self._drain(author, None)
        return _NOTHING

    def _known(self, waiter: Waiter, arrival: Arrival) -> Collection[Opened]:
        """It waits already."""
        self.duplicates += 1
        self._waiting.delivered_again(self._replica.db, waiter, arrival.seq)
        return _NOTHING

    def finish(self) -> list[Opened]:
        """After the last arrival: what shows because the log has nothing more that could come before."""
        waiting, space = self._waiting, self._space
        if not waiting or not (self._caught_up or space.catching_up == FIRST):
            return []
        ready: list[Opened] = []
        reached = {author: self._reached(author) for author in waiting.queues}
        for author, sequence in reached.items():
            ready += self._drain(author, sequence)
        held, waiting.snapshots = waiting.snapshots, []
        for waiter in held:
            if self._caught_up or not self._covers_waiting(waiter):
                ready += self._release([waiter])
            else:
                waiting.snapshots.append(waiter)
        return ready

    def save(self, *, rows: bool) -> None:
        """Store what waits on, and whether this device is at the end of the log. Before chains are stored.

        `rows`: the batch held any.
        """
        space, db = self._space, self._replica.db
        if self._caught_up:
            if space.catching_up != AT_HEAD:
                space.catching_up, space.settled = AT_HEAD, {}
                db.execute("UPDATE spaces SET catching_up = ? WHERE no = ?", (AT_HEAD, space.no))
        elif rows and space.catching_up == AT_HEAD:
            space.catching_up, space.settled = BEHIND, self._settled
            db.execute("UPDATE spaces SET catching_up = ? WHERE no = ?", (BEHIND, space.no))
            db.execute("UPDATE chains SET settled = sequence WHERE space = ?", (space.no,))
        if self._gone:
            db.many("DELETE FROM waiting WHERE no = ?", [(no,) for no in self._gone])
        added = [waiter for waiter in self._added if waiter.opened is not None]
        if added:
            self._store(added)

    def drop(self, author: Author, sequence: int) -> None:
        """A snapshot brought what this update says."""
        waiter = self._waiting.drop(author, sequence)
        if waiter is not None:
            self._forget(waiter)

    def spoil(self, author: Author, sequence: int) -> None:
        """That update was put aside: so is the rest of its group."""
        queue = self._waiting.queues.get(author)
        if queue is None:
            return
        bad = [waiter for waiter in queue.waiters if 0 < waiter.span[0] <= sequence <= waiter.span[1]]
        arrivals = [self._arrival(waiter) for waiter in bad]
        self._waiting.keep(author, [waiter for waiter in queue.waiters if waiter not in bad])
        for waiter, arrival in zip(bad, arrivals, strict=True):
            self._forget(waiter)
            self._aside(arrival, BadUpdate("another update of its group could not be merged"))

    def _aside(self, arrival: Arrival, error: CrdtSyncError) -> None:
        put_aside = self._put_aside()
        assert put_aside is not None
        put_aside(arrival, error)

    # Who waits ----------------------------------------------------------------------------------------

    def _holds(self, opened: Opened) -> bool:
        """Whether a snapshot may show a part of something that is not all there."""
        waiting, arrival = self._waiting, opened.arrival
        cover, record = arrival.cover, arrival.envelope.header.record
        assert cover is not None
        if waiting and (self._is_held(record) or self._reaches_waiting(cover.covered)):
            return True
        if not opened.ends or self._space.catching_up == FIRST:
            return False
        ahead = [author for author, last in opened.ends.items() if last > self._settled.get(author, 0)]
        heads = self._heads(record) if ahead else {}
        return any(author not in heads or heads[author].sequence < opened.ends[author] for author in ahead)

    def _reaches_waiting(self, covered: Mapping[Author, ChainHead]) -> bool:
        for author, queue in self._waiting.queues.items():
            head = covered.get(author)
            if head is not None and head.sequence >= queue.first:
                return True
        return False

    def _covers_waiting(self, waiter: Waiter) -> bool:
        assert waiter.cover is not None
        return self._reaches_waiting(waiter.cover.covered)

    def _is_held(self, record: OpaqueId) -> bool:
        return any(waiter.opaque == record for waiter in self._waiting.snapshots)

    def _is_merged(self, record: OpaqueId, author: Author, sequence: int) -> bool:
        """Whether the record has it: it comes a second time."""
        head = self._heads(record).get(author)
        if head is None or head.sequence < sequence:
            return False
        return (author, sequence) not in self._space.unmerged.get(record, ())

    def _heads(self, record: OpaqueId) -> Mapping[Author, ChainHead]:
        # What is asked about is about to be merged, as a rule: it is opened for that already.
        found = self._replica.records.find(self._space, record, self._replica.author)
        return {} if found is None else found.heads

    def _is_under_way(self, author: Author, sequence: int) -> bool:
        """Whether it is ours and is to be sent: a relay that lost something shows what it has taken of it.

        The record holds it as unsent work until the relay has all of its group, which it may yet refuse.
        """
        place = (self._space.no, author.incarnation, sequence)
        return (
            author.device == self._replica.device_id and self._replica.db.value(_UNDER_WAY, place) is not None
        )

    def _is_spoiled(self, author: Author, span: Span) -> bool:
        if not self._space.unmerged:
            return False
        place = (self._space.no, author.device, author.incarnation, *span)
        return self._replica.db.value(_SPOILED, place) is not None

    def _reached(self, author: Author) -> int:
        """How far the author's chain is known to go."""
        heads = [self._space.chain(author)]
        for waiter in self._waiting.snapshots:
            assert waiter.cover is not None
            heads += [head for each, head in waiter.cover.covered.items() if each == author]
        return max(head.sequence for head in heads)

    def _are_here(self, unit: list[Waiter]) -> bool:
        """Whether nothing of these is passed over that the relay has lost: its record is fetched before."""
        space, replica = self._space, self._replica
        if not space.absent:
            return True
        gone = [
            waiter.opaque
            for waiter in unit
            if not waiter.seq and absent.find(replica, space, waiter.opaque) is not None
        ]
        absent.want(replica, space, [opaque for opaque in gone if opaque not in space.wanted])
        return not gone

    def _can_show(self, unit: list[Waiter], ends: dict[OpaqueId, int]) -> bool:
        """Whether what these build on is here; at the end of the log it is, or never will be.

        `ends` are where the author's writes end in each record once what shows before has been merged.
        """
        if self._caught_up or self._space.catching_up == FIRST:
            return True
        for waiter in unit:
            try:
                checked = self._opened(waiter).checked
            except RemoteError:
                return True  # `_release` puts it aside
            assert checked is not None
            opaque, author = waiter.opaque, waiter.author
            end = ends[opaque] if opaque in ends else self._end(opaque, author)
            if end is None:
                continue
            ends[opaque], goes_on = _moved(end, checked, author)
            if not goes_on:
                return False
        return True

    def _end(self, opaque: OpaqueId, author: Author) -> int | None:
        """Where the author's writes in a record end after this batch; None if it is not kept here."""
        space, replica = self._space, self._replica
        record = replica.records.find(space, opaque, replica.author)
        if record is None and space.absent and absent.find(replica, space, opaque) is not None:
            return None
        end = 0 if record is None else record.doc.end(author)
        coming = self._incoming.get(opaque)
        for opened in () if coming is None else coming.opened:
            if opened.checked is None:
                blocks = parse_update(opened.payload.update).blocks
                end = max([end, *(each.end for each in blocks if each.client == author.client_id)])
            elif opened.arrival.author == author:
                end, _ = _moved(end, opened.checked, author)
        return end

    # Coming and going -----------------------------------------------------------------------------------

    def _wait(self, opened: Opened) -> Queue:
        arrival, waiting = opened.arrival, self._waiting
        header = arrival.envelope.header
        waiter = Waiter(
            arrival.seq, header.record, arrival.author, header.sequence, arrival.envelope.hash, opened.span,
            self._now_ms, arrival.cover, opened,
        )  # fmt: skip
        self._added.append(waiter)
        if arrival.cover is not None:
            waiting.snapshots.append(waiter)
            return Queue()
        queue = waiting.queues.setdefault(arrival.author, Queue())
        queue.add(waiter)
        aside = self._space.unmerged.setdefault(header.record, set())
        if (arrival.author, header.sequence) in aside:  # named by a snapshot, before it came itself
            author = arrival.author
            place = (self._space.no, author.device, author.incarnation, header.sequence)
            self._replica.db.execute(_STAND_IN, place)
        aside.add((arrival.author, header.sequence))
        return queue

    def _drain(self, author: Author, reached: int | None) -> list[Opened]:
        """What of the author's queue shows now. `reached`: parts that are missing up to there were pruned."""
        ready: list[Waiter] = []
        rest: list[Waiter] = []
        blocked = set() if reached is not None else {waiter.opaque for waiter in self._waiting.snapshots}
        ends: dict[OpaqueId, int] = {}
        for unit in _units(self._waiting.queues[author].waiters):
            first, last = unit[0].span
            whole = not last or len(unit) == last - first + 1 or (reached is not None and reached >= last)
            records = {waiter.opaque for waiter in unit}
            free = whole and blocked.isdisjoint(records) and self._are_here(unit)
            if free and self._can_show(unit, ends):
                ready += unit
            else:
                rest += unit
                blocked |= records
        self._waiting.keep(author, rest)
        return self._release(ready)

    def _release(self, waiters: list[Waiter]) -> list[Opened]:
        ready = []
        for waiter in waiters:
            try:
                ready.append(self._opened(waiter))
            except RemoteError as error:  # it did open when it came
                self._aside(self._arrival(waiter), error)
            self._forget(waiter)
        return ready

    def _forget(self, waiter: Waiter) -> None:
        """It waits no longer."""
        if waiter.no:
            self._gone.append(waiter.no)
        if not waiter.seq:
            self._space.giving.has_come(waiter.opaque)
        waiter.opened = None
        aside = self._space.unmerged.get(waiter.opaque)
        if aside is not None and waiter.cover is None:
            aside.discard((waiter.author, waiter.sequence))
            if not aside:
                del self._space.unmerged[waiter.opaque]

    def _opened(self, waiter: Waiter) -> Opened:
        """What is inside. Raises as `open_arrival` does."""
        if waiter.opened is not None:
            return waiter.opened
        return open_arrival(self._space, self._arrival(waiter))

    def _arrival(self, waiter: Waiter) -> Arrival:
        if waiter.opened is not None:
            return waiter.opened.arrival
        raw = self._replica.db.value("SELECT envelope FROM waiting WHERE no = ?", (waiter.no,))
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        role = self._space.log.member(waiter.author.device).role
        return Arrival(waiter.seq, envelope, role, waiter.author, waiter.cover)

    def _store(self, waiters: list[Waiter]) -> None:
        db = self._replica.db
        no = db.value("SELECT coalesce(max(no), 0) FROM waiting")
        rows = []
        for waiter in waiters:
            no += 1
            waiter.no = no
            opened, waiter.opened = waiter.opened, None
            assert opened is not None
            rows.append((
                no, self._space.no, waiter.seq, waiter.opaque, waiter.author.device,
                waiter.author.incarnation, waiter.sequence, waiter.hash, *waiter.span,
                opened.arrival.envelope.raw, waiter.at_ms,
            ))  # fmt: skip
        db.many(_INSERT, rows)


def _units(waiters: list[Waiter]) -> Iterator[list[Waiter]]:
    """The parts of each group together, everything else alone, in order."""
    unit: list[Waiter] = []
    for waiter in waiters:
        if unit and (not waiter.span[1] or waiter.span != unit[0].span):
            yield unit
            unit = []
        unit.append(waiter)
    if unit:
        yield unit


def _moved(end: int, checked: CheckedUpdate, author: Author) -> tuple[int, bool]:
    """Where the author's writes end after that update, and whether it goes on from where they ended."""
    goes_on = True
    for blocks in checked.parsed.blocks:
        if blocks.client == author.client_id:
            goes_on = blocks.start <= end and not blocks.skips
            end = max(end, blocks.end) if goes_on else end
    return end, goes_on


def _check_claims(queue: Queue, sequence: int, span: Span) -> None:
    """Every update says the same about who belongs together. Raises BadUpdate."""
    first, last = span if span[1] else (sequence, sequence)
    for neighbour in queue.around(sequence):
        there_first, there_last = neighbour.span
        inside = there_first <= sequence <= there_last or first <= neighbour.sequence <= last
        if inside and neighbour.span != span:
            raise BadUpdate("its author contradicts himself about which updates belong together")
