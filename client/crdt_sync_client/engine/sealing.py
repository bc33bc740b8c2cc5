"""Sealing: pending updates become envelopes of their author's chain, stored as they will be sent.

Pending updates of one record go out as one envelope, in the order of the outbox (see `outbox_order`); a
record's updates never overtake each other. What one transaction wrote (`tied`) is a group: its envelopes
follow each other in the chain, are sealed in one transaction of the store, and each says so inside. Where
a record waits that a transaction wrote to, that one waits in the same envelope and so belongs to the group;
where two transactions wrote to one record, both become one group.

How much is sealed at once is a matter of what fits one push. A group is sealed whole all the same, and what
does not fit is handed out with the next pushes, like what an earlier session left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.envelope import Header, check_size, envelope_hash, seal
from crdt_sync.crypto.groups import MAX_GROUP, GroupPlace
from crdt_sync.crypto.payload import Payload
from crdt_sync.crypto.space_keys import NONCE_BYTES
from crdt_sync.ids import Author, OpaqueId, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.rare import rare
from crdt_sync.records.document import merge_updates
from crdt_sync_client.engine.holding_back import held_back
from crdt_sync_client.engine.outbox_order import TURN_BITS, priority_of
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.store.connection import Cursor

MAX_UPDATES_AT_ONCE: Final = 8192
"""Outbox rows looked at for one push; bounds its memory, and how much is merged into one envelope."""
_MERGE_BYTES: Final = MAX_ENVELOPE_BYTES // 2
"""Updates are merged into one envelope up to this size; one by itself may be larger."""
_MAY_GO: Final = (
    "o.space = ? AND incarnation = ? AND error IS NULL"
    " AND NOT (? AND record IN (SELECT value FROM json_each(?)))"
)
_AROUND_BYTES: Final = 512
"""About what an envelope has around its update, and its padding."""


def seal_pending(
    replica: Replica, space: Space, max_count: int, max_bytes: int, something_chosen: bool
) -> list[bytes]:
    """Seal the first pending updates of the session's author, and hand out what fits.

    At least one envelope, if there is one and `something_chosen` does not take the push already. The rest of
    a group that is longer is lined up to be handed out next. `SessionMemory.more` says whether pending ones
    are left.
    """
    author = space.session.author
    assert author is not None
    space.session.more = False
    if not replica.unsent:
        return []
    choice = _Choice(max_count, max_bytes, something_chosen)
    choice.held = held_back(replica, space)
    rows: Cursor = replica.db.execute(
        "SELECT o.no, record, schema_version, change, type, id, opaque, tied, clock FROM outbox o"
        " JOIN records r ON r.no = record"
        f" WHERE {_MAY_GO} AND o.no < ? ORDER BY o.no LIMIT ?",
        (
            space.no,
            author.incarnation,
            *choice.without,
            (replica.least_priority + 1) << TURN_BITS,
            MAX_UPDATES_AT_ONCE,
        ),
    )
    space.session.more = not choice.choose(map(_Row._make, rows))
    rows.close()  # of a backlog of thousands it has read no more than was taken
    if not choice.envelopes:
        return []
    envelopes = _seal(replica, space, author, choice)
    fits = _fitting(envelopes, max_count, max_bytes)
    if fits < len(envelopes):
        _line_up(replica, space, author, len(envelopes) - fits)
    return envelopes[:fits]


def _fitting(envelopes: Sequence[bytes], max_count: int, max_bytes: int) -> int:
    """How many of the first to hand out now: none after the one that fills the push."""
    size_bytes = 0
    for count, envelope in enumerate(envelopes[:max_count], 1):
        size_bytes += len(envelope)
        if size_bytes >= max_bytes:
            return count
    return min(len(envelopes), max_count)


def _line_up(replica: Replica, space: Space, author: Author, count: int) -> None:
    """The last sealed ones are handed out next."""
    rows = replica.db.rows(
        "SELECT no FROM sealed WHERE space = ? AND incarnation = ? ORDER BY sequence DESC LIMIT ?",
        (space.no, author.incarnation, count),
    )
    space.session.resend += [no for (no,) in reversed(rows)]
    space.session.fresh.update(no for (no,) in rows)


class _Row(NamedTuple):
    """A pending update. `tied`: the number of its transaction; `clock`: its first write's."""

    no: int
    record: int
    schema_version: int
    change: bytes
    type: str
    id: RecordId
    opaque: OpaqueId
    tied: int | None
    clock: int | None


class _Pending:
    """Pending updates of one record: one envelope."""

    __slots__ = ("changes", "first", "group", "place", "schema_version", "size_bytes")

    def __init__(self, row: _Row, place: int) -> None:
        self.first = row
        self.place = place
        """In the order in which envelopes were begun."""
        self.schema_version = 0
        self.changes: list[bytes] = []
        self.size_bytes = 0
        self.group: _Group | None = None

    def add(self, row: _Row) -> None:
        self.changes.append(row.change)
        self.size_bytes += len(row.change)
        self.schema_version = row.schema_version


class _Group:
    """Envelopes that follow each other: `tied` those of a transaction, else those of one record."""

    __slots__ = ("envelopes", "tied")

    def __init__(self, envelopes: list[_Pending], *, tied: bool) -> None:
        self.envelopes = envelopes
        self.tied = tied
        for envelope in envelopes:
            envelope.group = self


class _Choice:
    """What is sealed for one push. All envelopes of a record are in one group, or it has only one.

    So whatever order the groups are sealed in, no update of a record overtakes another.
    """

    def __init__(self, max_count: int, max_bytes: int, something_chosen: bool) -> None:
        self.envelopes: list[_Pending] = []
        self.last = 0
        """The number of the last row taken: all before it are taken too, but for those of `held`."""
        self.held: frozenset[int] = frozenset()
        """Records of which nothing may go now."""
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._something_chosen = something_chosen
        self._latest: dict[int, _Pending] = {}
        self._size_bytes = 0

    def choose(self, rows: Iterator[_Row]) -> bool:
        """Take rows from the first on for as long as there is room, and a transaction's only together.

        Returns whether these were all that there are, and all of them are taken.
        """
        together: list[_Row] = []
        read = 0
        for row in rows:
            read += 1
            if together and row.tied != together[0].tied:
                if not self._take_together(together):
                    return False
                together = []
            if row.tied is not None:
                together.append(row)
            elif not self._take(row):
                return False
        all_read = read < MAX_UPDATES_AT_ONCE
        # A transaction that reaches the end of what was looked at may go on behind it.
        if together and (all_read or not self.envelopes):
            all_read = self._take_together(together) and all_read
        return all_read

    @property
    def without(self) -> tuple[int, str]:
        """What `_MAY_GO` is given of the records that are held back."""
        return (True, msgspec.json.encode(sorted(self.held)).decode()) if self.held else (False, "[]")

    def in_order(self) -> Iterator[list[_Pending]]:
        """Groups and single envelopes, each where its first was begun."""
        for envelope in self.envelopes:
            group = envelope.group
            if group is None:
                yield [envelope]
            elif group.envelopes[0] is envelope:
                if group.tied:
                    yield group.envelopes
                else:
                    yield from ([each] for each in group.envelopes)

    def _take(self, row: _Row) -> bool:
        pending = self._latest.get(row.record)
        if pending is None or _is_full(pending, row, 0):
            beside = None if pending is None else (pending.group or _Group([pending], tied=False))
            if beside is not None and len(beside.envelopes) >= MAX_GROUP:
                return False
            if not self._has_room(1, len(row.change)):
                return False  # what is left may belong to a record that was taken: keep the order
            pending = _Pending(row, len(self.envelopes))
            self._begin(pending)
            if beside is not None:
                beside.envelopes.append(pending)
                pending.group = beside
        self._add(pending, row)
        return True

    def _take_together(self, rows: Sequence[_Row]) -> bool:
        """Take all of a transaction, joined with what waits for its records; or nothing."""
        joined: dict[_Pending, None] = {}
        for row in rows:
            known = self._latest.get(row.record)
            if known is not None:
                joined.update(dict.fromkeys([known] if known.group is None else known.group.envelopes))
        latest: dict[int, _Pending] = {}
        begun: list[_Pending] = []
        placed: list[tuple[_Pending, _Row]] = []
        grown: dict[_Pending, int] = {}
        for row in rows:
            pending = latest.get(row.record) or self._latest.get(row.record)
            if pending is None or _is_full(pending, row, grown.get(pending, 0)):
                pending = _Pending(row, len(self.envelopes) + len(begun))
                begun.append(pending)
            latest[row.record] = pending
            grown[pending] = grown.get(pending, 0) + len(row.change)
            placed.append((pending, row))
        if joined and len(joined) + len(begun) > MAX_GROUP:
            return False
        if not self._has_room(len(begun), sum(grown.values())):
            return False
        for pending in begun:
            self._begin(pending)
        _Group(sorted([*joined, *begun], key=lambda pending: pending.place), tied=True)
        for pending, row in placed:
            self._add(pending, row)
        return True

    def _has_room(self, count: int, size_bytes: int) -> bool:
        """Whether so many more envelopes may be begun, for changes of that size."""
        size_bytes += count * _AROUND_BYTES + self._size_bytes
        if len(self.envelopes) + count <= self._max_count and size_bytes <= self._max_bytes:
            return True
        return self._max_count > 0 and not self.envelopes and not self._something_chosen

    def _begin(self, pending: _Pending) -> None:
        self.envelopes.append(pending)
        self._latest[pending.first.record] = pending
        self._size_bytes += _AROUND_BYTES

    def _add(self, pending: _Pending, row: _Row) -> None:
        pending.add(row)
        self._size_bytes += len(row.change)
        self.last = row.no


def _is_full(pending: _Pending, row: _Row, grown_bytes: int) -> bool:
    """Whether a change does not go into an envelope to which that much is to be added already."""
    return pending.size_bytes + grown_bytes + len(row.change) > _MERGE_BYTES or rare("envelope_per_update")


def _seal(replica: Replica, space: Space, author: Author, choice: _Choice) -> list[bytes]:
    """Seal, store, and only then hand out."""
    key = space.keys.envelope_key(space.keys.current_epoch)
    sealed: list[tuple[Any, ...]] = []
    envelopes: list[bytes] = []
    head = space.chain(author)
    now_ms = replica.now_ms()
    with replica.transaction(durable=True):
        for group in choice.in_order():
            size = len(group)
            until = None if size == 1 else head.sequence + size
            for index, pending in enumerate(group):
                first, count = pending.first, len(pending.changes)
                header = Header.for_update(
                    space=space.id,
                    record=first.opaque,
                    author=author,
                    epoch=key.epoch,
                    sequence=head.sequence + 1,
                    prev=head.hash,
                    members_head=space.log.short_head,
                    frontier=space.frontier(replica.author),
                )
                change = pending.changes[0] if count == 1 else merge_updates(pending.changes)
                place = None if size == 1 else GroupPlace(index, size).encode()
                payload = Payload(first.type, first.id, pending.schema_version, change, place).encode()
                nonce = replica.entropy(NONCE_BYTES)
                envelope = seal(header, payload, key=key, keys=replica.keys, nonce=nonce)
                check_size(envelope, max_bytes=MAX_ENVELOPE_BYTES)
                head = ChainHead(header.sequence, envelope_hash(envelope))
                sealed.append(
                    (
                        *(space.no, first.record, author.incarnation, *head, count, envelope, now_ms, until),
                        *(priority_of(first.no), first.clock),
                    )
                )
                envelopes.append(envelope)
                replica.unsent[first.record] -= count - 1
        replica.db.many(
            "INSERT INTO sealed"
            " (space, record, incarnation, sequence, hash, updates, envelope, at_ms, until, priority,"
            " clock) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            sealed,
        )
        replica.db.execute(
            f"DELETE FROM outbox AS o WHERE {_MAY_GO} AND no <= ?",
            (space.no, author.incarnation, *choice.without, choice.last),
        )
        replica.outbox.sealed(pending.first.record for pending in choice.envelopes)
        space.advance(author, head, own=author == replica.author)
        save_chains(replica, space, {author: head})
    return envelopes


def save_chains(replica: Replica, space: Space, heads: dict[Author, ChainHead]) -> None:
    """Store the heads of these chains. Inside a transaction."""
    replica.db.many(
        "INSERT INTO chains (space, device, incarnation, sequence, hash) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash",
        [(space.no, a.device, a.incarnation, head.sequence, head.hash) for a, head in heads.items()],
    )
