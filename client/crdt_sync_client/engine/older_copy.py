"""When a store turns out to be an older copy of itself: no write of either life is lost.

A copy of a store that is put back, or used beside the original, shares an author with the life it was
copied from. The relay shows it: it has updates of that author which this store never sealed. From then on:

1. `fork`: the author's unsent work is *held*. It stays in its records, and nothing is sent. New writes get
   a new author, and the log is received again from its start.
2. `meet`: what the other life sent comes. Held work that is in it has been sent already. Where the other
   life wrote something else at the same place of the author's array, the two can never merge: ours is
   taken out of the document and *rescued*.
3. `settle`: once everything has come, held work that was not in it is rescued too.

To rescue a write is to make it again under a new author, with its old time, so that it is sent and merges
as what it is: a change made beside the other life's. A record shows it at every moment. What a transaction
wrote is rescued as a whole and stays a group: when one of its records turns out not to have been sent, none
of them was, since the other life does not know the transaction.

Where the other life sent the beginning of a group and died, others keep that aside for good: nobody has the
rest. If this store has it, all of the group is rescued and shows everywhere, by its new author.

What is not known: of a counter that both lives changed, what the two had in common counts twice. And of a
value that a snapshot only has as deleted nobody can say whose it was; it counts as ours, unless times around
it show that it was sent: a write that comes twice is better than one that is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.hlc import MAX_HLC
from crdt_sync.ids import Author, OpaqueId, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.document import RecordDocument, merge_updates
from crdt_sync.records.update_cutting import deletes_only, without_tail
from crdt_sync.records.update_format import Blocks, parse_update
from crdt_sync.records.writes import DELETED, Write, read_write
from crdt_sync.roles import Role
from crdt_sync.schemas.priorities import LAST
from crdt_sync_client.engine.local_writes import MAX_TRANSACTION
from crdt_sync_client.engine.materialising import Materialised, Materialiser
from crdt_sync_client.engine.open_records import OpenRecord, decode_heads, encode_heads
from crdt_sync_client.engine.outbox_order import BY_TURN, NewRow
from crdt_sync_client.engine.refused import taken
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

OLDER_COPY: Final = (
    "this store is an older copy of itself: what was written in it is sent as soon as everything that was"
    " sent later has come from the relay"
)

Named = tuple[str, RecordId]


def fork(replica: Replica, space: Space, author: Author) -> list[Named]:
    """Another life of this store continued `author`'s chain: hold its unsent work, begin a new author."""
    incarnation = author.incarnation
    rows = replica.db.rows(
        "SELECT DISTINCT r.no, r.type, r.id, r.opaque, d.heads FROM ("
        " SELECT record AS no FROM outbox WHERE space = ?1 AND incarnation = ?2"
        " UNION SELECT record FROM sealed WHERE space = ?1 AND incarnation = ?2)"
        " q JOIN records r ON r.no = q.no JOIN documents d ON d.record = r.no",
        (space.no, incarnation),
    )
    with replica.transaction(durable=True):
        for table in ("outbox", "sealed"):
            replica.db.execute(
                f"UPDATE {table} SET error = ? WHERE space = ? AND incarnation = ?",
                (OLDER_COPY, space.no, incarnation),
            )
        # What the relay has of this chain is the other life's from here on: it is followed like anyone's.
        space.chains.pop(author, None)
        space.acked.pop(author, None)
        replica.db.execute(
            "DELETE FROM chains WHERE space = ? AND device = ? AND incarnation = ?",
            (space.no, author.device, incarnation),
        )
        for no, _, _, opaque, raw in rows:
            heads = decode_heads(raw)
            heads.pop(author, None)
            replica.db.execute("UPDATE documents SET heads = ? WHERE record = ?", (encode_heads(heads), no))
            replica.db.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?, 0)", (space.no, no, incarnation))
            taken(replica, no)
            space.held.setdefault(OpaqueId(opaque), {})[author] = 0
            replica.count_unsent(no)
        replica.db.execute("UPDATE spaces SET cursor = 0 WHERE no = ?", (space.no,))
        space.cursor = 0
        replica.records.clear()
        if author == replica.author:
            replica.begin_incarnation()
        space.session.end()
    return [(record_type, RecordId(id)) for _, record_type, id, _, _ in rows]


@dataclass(slots=True)
class Rescue:
    """What of one record is to be made again: visible writes, and deletions of what others wrote."""

    writes: list[Write] = field(default_factory=list)
    deletions: list[bytes] = field(default_factory=list)
    priority: int = LAST
    """The most urgent of what is rescued."""
    clock: int = MAX_HLC
    """Of the first write in it."""
    cut: list[tuple[int, int]] = field(default_factory=list)
    """Per client, the clock from which on what it wrote was taken out: nobody else ever had that."""
    ties: set[tuple[str, int]] = field(default_factory=set)
    """The transactions and groups that it was a part of, by `tied` of the outbox and `until` of sealed."""

    def __bool__(self) -> bool:
        return bool(self.writes or self.deletions)

    def sift(self) -> None:
        """Forget deletions of what nobody else ever had: whoever took them would wait for that for ever."""
        for client, clock in self.cut:
            self.deletions = [without_tail(deletion, client, clock) for deletion in self.deletions]
        self.deletions = [each for each in self.deletions if parse_update(each).deletes]


class Rescues:
    """What one transaction rescues. Use once: `meet` and `settle`, then `save`."""

    def __init__(self, replica: Replica, space: Space) -> None:
        self._replica = replica
        self._space = space
        self._rescues: dict[OpaqueId, Rescue] = {}
        self._along: list[tuple[OpaqueId, Author]] = []
        """Records that share a transaction with one that was taken out."""

    def __bool__(self) -> bool:
        return any(self._rescues.values())

    @property
    def begun(self) -> bool:
        """Whether there is anything to `save`."""
        return bool(self._rescues)

    def meet(self, record: OpenRecord, update: bytes) -> None:
        """`update` came for a record with held work and is about to be merged into it."""
        held = self._space.held[record.opaque]
        groups = {blocks.client: blocks for blocks in parse_update(update).blocks}
        for author in list(held):
            theirs = groups.get(author.client_id)
            if theirs is not None:
                self._meet(record, author, theirs)

    def _meet(self, record: OpenRecord, author: Author, theirs: Blocks) -> None:
        visible = dict(record.doc.placed(author))
        there = dict(theirs.items)
        for clock, raw in self._held_items(record, author):
            if not theirs.start <= clock < theirs.end or any(a <= clock < b for a, b in theirs.skips):
                continue
            if clock not in there:
                if clock in visible and not _was_sent(clock, visible[clock], theirs, author):
                    self._of(record.opaque).writes.append(visible[clock])
            elif there[clock] != raw:
                self._take_out(record, author, clock)
                return
        arrived = max(self._space.held[record.opaque][author], theirs.end)
        self._space.held[record.opaque][author] = arrived
        self._replica.db.execute(
            "UPDATE held SET arrived = ? WHERE record = ? AND incarnation = ?",
            (arrived, record.no, author.incarnation),
        )

    def settle(self) -> None:
        """Everything has come: what is held now was never sent."""
        space = self._space
        for opaque, authors in list(space.held.items()):
            for author in list(authors):
                self._take_rest(opaque, author)
        space.session.end()

    def _take_rest(self, opaque: OpaqueId, author: Author) -> None:
        """What is held of a record and has not arrived was never sent."""
        space, replica = self._space, self._replica
        arrived = space.held.get(opaque, {}).get(author)
        if arrived is None:
            return
        record = replica.records.find(space, opaque, replica.author)
        assert record is not None
        self._take_out(record, author, arrived)
        # The document only: what apps read changes once, when the writes stand there again.
        values = (record.doc.state(), record.no)
        replica.db.execute("UPDATE documents SET state = ? WHERE record = ?", values)

    def save(self) -> Materialised:
        """Write all that was taken out again, as a new author, and queue it."""
        while self._along:
            self._take_rest(*self._along.pop())
        for rescue in self._rescues.values():
            rescue.sift()
        if not self:
            return Materialised()
        rescues = {opaque: rescue for opaque, rescue in self._rescues.items() if rescue}
        replica, space = self._replica, self._space
        replica.begin_incarnation()
        space.session.end()
        materialiser = Materialiser(replica, "remote")
        outbox = []
        tied = self._tied(rescues)
        for opaque, rescue in rescues.items():
            record = replica.records.find(space, opaque, replica.author)
            assert record is not None
            changes = list(rescue.deletions)
            for deletion in changes:
                record.doc.apply(deletion)  # of a document that was lost and has come from the relay
            if rescue.writes:
                role = space.role_of(replica.device_id)
                again = [_again(write, replica.author, role) for write in rescue.writes]
                again.sort(key=lambda write: write.hlc)
                changes.append(record.doc.edit(remove=(), add=again))
            schema = space.schemas.get(record.type)
            version = 0 if schema is None else schema.version
            change = merge_updates(changes)
            incarnation, at_ms = replica.author.incarnation, replica.now_ms()
            outbox.append(
                NewRow(
                    *(space.no, record.no, incarnation, version, change, at_ms),
                    tied.get(opaque),
                    min(rescue.clock, replica.hlc.last, *(write.hlc for write in rescue.writes)),
                    rescue.priority,
                )
            )
            materialiser.take(record)
        outbox = _tied_together(outbox)
        replica.outbox.add(replica, outbox)
        for row in outbox:
            replica.count_unsent(row.record)
        return materialiser.save()

    # ------------------------------------------------------------------------------------------------

    def _of(self, opaque: OpaqueId) -> Rescue:
        return self._rescues.setdefault(opaque, Rescue())

    def _tied(self, rescues: Mapping[OpaqueId, Rescue]) -> dict[OpaqueId, int]:
        """Numbers for those that are to be tied: the same for all that share a transaction, however far."""
        above = {opaque: opaque for opaque in rescues}

        def top(opaque: OpaqueId) -> OpaqueId:
            while above[opaque] != opaque:
                opaque = above[opaque]
            return opaque

        first: dict[tuple[str, int], OpaqueId] = {}
        for opaque, rescue in rescues.items():
            for tie in rescue.ties:
                above[top(opaque)] = top(first.setdefault(tie, opaque))
        parts: dict[OpaqueId, list[OpaqueId]] = {}
        for opaque in rescues:
            parts.setdefault(top(opaque), []).append(opaque)
        tied: dict[OpaqueId, int] = {}
        for part in parts.values():
            # More than one transaction may hold are tied only by weeks of transactions without a relay.
            for start in range(0, len(part) if len(part) > 1 else 0, MAX_TRANSACTION):
                tied.update(dict.fromkeys(part[start : start + MAX_TRANSACTION], self._replica.tick()))
        return tied

    def _note_ties(self, record: OpenRecord, author: Author, rescue: Rescue) -> None:
        """Which other records the held work of this one belongs together with."""
        db, place = self._replica.db, (record.no, author.incarnation)
        for table, column in (("outbox", "tied"), ("sealed", "until")):
            for number, opaque in db.rows(
                f"SELECT DISTINCT mine.{column}, opaque FROM {table} mine JOIN {table} other"
                f" ON other.{column} = mine.{column} AND other.incarnation = mine.incarnation"
                " AND other.space = mine.space"
                " JOIN records r ON r.no = other.record WHERE mine.record = ? AND mine.incarnation = ?",
                place,
            ):
                rescue.ties.add((f"{table} {author.incarnation}", number))
                if opaque != record.opaque:
                    self._along.append((OpaqueId(opaque), author))

    def _take_out(self, record: OpenRecord, author: Author, clock: int) -> None:
        """From `clock` on the held work is this store's alone: cut it out of the document, to be rescued."""
        rescue, db = self._of(record.opaque), self._replica.db
        self._note_ties(record, author, rescue)
        rescue.writes += [write for at, write in record.doc.placed(author) if at >= clock]
        rescue.writes += self._not_merged(record, author, max(clock, record.doc.end(author)))
        rescue.deletions += self._deletions(record, author, clock)
        client = author.client_id
        rescue.cut.append((client, clock))
        if record.doc.end(author) > clock:
            state = without_tail(record.doc.state(), client, clock)
            record.doc = RecordDocument(state, author=self._replica.author)
            record.seen = None
            for no, change in db.rows("SELECT no, change FROM outbox WHERE record = ?", (record.no,)):
                if client in parse_update(change).deletes:
                    values = (without_tail(change, client, clock), no)
                    db.execute("UPDATE outbox SET change = ? WHERE no = ?", values)
        self._note_place(record, author, rescue)
        self._forget(record, author)
        self._replica.count_unsent(record.no)

    def _forget(self, record: OpenRecord, author: Author) -> None:
        """Drop the held work of a record, which is taken out of its document."""
        for table in ("outbox", "sealed", "held"):
            self._replica.db.execute(
                f"DELETE FROM {table} WHERE record = ? AND incarnation = ?",
                (record.no, author.incarnation),
            )
        authors = self._space.held[record.opaque]
        del authors[author]
        if not authors:
            del self._space.held[record.opaque]

    def _note_place(self, record: OpenRecord, author: Author, rescue: Rescue) -> None:
        """How urgent the held work is, and since when it waits."""
        for table, column in (("sealed", "priority"), ("outbox", "no >> 48")):
            priority, clock = self._replica.db.execute(
                f"SELECT min({column}), min(clock) FROM {table} WHERE record = ? AND incarnation = ?",
                (record.no, author.incarnation),
            ).fetchone()
            rescue.priority = min(rescue.priority, priority or LAST)
            rescue.clock = min([rescue.clock, *([] if clock is None else [clock])])

    def _deletions(self, record: OpenRecord, author: Author, clock: int) -> list[bytes]:
        """What the held updates delete, from the first on that the relay does not have.

        An update that adds something the relay has was sent whole, and so was each before it.
        """
        updates = self._held_updates(record, author)
        first = 0
        for index, update in enumerate(updates):
            if any(blocks.start < clock for blocks in parse_update(update).blocks):
                first = index + 1
        deletions = (
            deletes_only(without_tail(update, author.client_id, clock)) for update in updates[first:]
        )
        return [update for update in deletions if parse_update(update).deletes]

    def _not_merged(self, record: OpenRecord, author: Author, clock: int) -> list[Write]:
        """Held writes from `clock` on, of a document that was lost, while they were not."""
        updates = [parse_update(update) for update in self._held_updates(record, author)]
        client = author.client_id
        deleted = [each for update in updates for each in update.deletes.get(client, ())]
        return [
            read_write(raw, author)
            for update in updates
            for blocks in update.blocks
            for at, raw in blocks.items
            if blocks.client == client
            and at >= clock
            and not any(start <= at < end for start, end in deleted)
        ]

    def _held_updates(self, record: OpenRecord, author: Author) -> list[bytes]:
        """The held updates of a record in the order in which they were made."""
        place = (record.no, author.incarnation)
        sealed = self._replica.db.rows(
            "SELECT envelope FROM sealed WHERE record = ? AND incarnation = ? ORDER BY sequence", place
        )
        waiting = self._replica.db.rows(
            f"SELECT change FROM outbox WHERE record = ? AND incarnation = ? {BY_TURN}", place
        )
        return [self._opened(raw) for (raw,) in sealed] + [change for (change,) in waiting]

    def _opened(self, raw: bytes) -> bytes:
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        return Payload.decode(envelope.open(self._space.keys.envelope_key(envelope.header.epoch))).update

    def _held_items(self, record: OpenRecord, author: Author) -> Iterable[tuple[int, bytes]]:
        """(clock, bytes) of what the held updates add, in the order of clocks."""
        for update in self._held_updates(record, author):
            for blocks in parse_update(update).blocks:
                yield from blocks.items


def _tied_together(rows: Sequence[NewRow]) -> list[NewRow]:
    """In their order, but what is tied where its first is."""
    first: dict[int | None, int] = {}
    for at, row in enumerate(rows):
        first.setdefault(row.tied, at)
    places = {at: at if row.tied is None else first[row.tied] for at, row in enumerate(rows)}
    return [rows[at] for at in sorted(places, key=lambda at: (places[at], at))]


def _was_sent(clock: int, write: Write, theirs: Blocks, author: Author) -> bool:
    """Whether `write` must be what stood at `clock` before it was deleted there.

    An author's times grow with the clock. A later value of the author with a later time shows that the
    other life had this one before; an earlier one with a later time shows that it had another.
    """
    followed = False
    for at, raw in theirs.items:
        later = read_write(raw, author).hlc > write.hlc
        if at < clock and later:
            return False
        followed |= at > clock and later
    return followed


def _again(write: Write, author: Author, role: Role | None) -> Write:
    """The same write by another author. A deletion that had seen its author's writes has seen these."""
    value = write.value
    if write.path[-1] == DELETED and isinstance(value, dict) and write.author.array_name in value:
        value = {**value, author.array_name: value[write.author.array_name]}
    return msgspec.structs.replace(write, value=value, author=author, role=role or write.role)
