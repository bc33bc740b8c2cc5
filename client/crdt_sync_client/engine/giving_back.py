"""Giving a relay back what it has lost: a restored backup, a disk that lied, a database that began anew.

The relay says at the beginning of a session that its log is not the one in which this device stood (see
`Hello.promised`), by delivering from the beginning. Then this device

1. *compares*: it reads the log anew, its own rows too, and keeps beside each record what the relay has shown
   of it: the merged updates, and how far each author's came. Nothing here is touched by that;
2. *gives back*, once it has come to the log's end: it goes through its records, and of each in which there is
   something that the relay has not shown, an item, a deletion, or only an update that it is known to have
   had, it sends a snapshot. What others give back meanwhile arrives like anything else and is left out.

What waits for the rest of its group or for its type (`lost_log`) from before counts as not shown by the
relay, unless it is delivered again. Its record is given back once it is merged, which may be long after all
others, or never. It stays here until then; if it is not here, it is fetched before what waits is merged.

So nobody has to keep what was acknowledged, and content decides, not numbers: whether an update is missing
between two others cannot be told from what a device remembers of chains. Unsent work goes its usual way. A
record with some is given back when that is acknowledged, since a snapshot holds nothing the relay never got.

Unsent work may so reach the relay before what it builds on, and others have it then without showing it. Such
an update is named as not merged in the snapshots that they give back (see `unmerged`), and stays in the log
until a device gives the record back that shows it: nobody waits for another.

What this device cannot give back stays with it: records that it may not write or cannot vouch for (see
`compacting`), and those that are not here.

All of it is stored: it goes on where it was after a restart, and begins anew when the relay loses more.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.envelope import Header
from crdt_sync.ids import Author, OpaqueId, RelayId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.rare import rare
from crdt_sync.records.document import EMPTY_UPDATE, merge_updates
from crdt_sync.records.update_format import Blocks, ParsedUpdate, parse_update
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine import compacting, lost_log
from crdt_sync_client.engine.arrivals import Arrival
from crdt_sync_client.engine.exporting import unsent_updates
from crdt_sync_client.engine.giving import COMPARING, GIVING, LATE, NOT_NOW
from crdt_sync_client.engine.open_records import decode_heads, encode_heads
from crdt_sync_client.engine.place import store_place

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space
    from crdt_sync_client.store.connection import Database

AT_ONCE: Final = 16
"""Snapshots on their way at one time; so what others give back meanwhile is not sent by all."""
LOOKED_AT: Final = 64
"""Records looked at in one step, some 2 ms of the engine's thread."""
STEPS: Final = 8
"""In one call, when the relay lacks nothing of the first; other work goes between calls."""
STORED: Final = "stored"
_RECORDS: Final = (
    "SELECT no, r.opaque, d.state, d.heads, a.state, a.heads FROM records r JOIN documents d ON record = no"
    " LEFT JOIN at_relay a ON a.space = r.space AND a.opaque = r.opaque"
)
_LOOK: Final = f"{_RECORDS} WHERE r.space = ? AND no > ? ORDER BY no LIMIT ?"
_LOOK_AGAIN: Final = f"{_RECORDS} WHERE r.space = ? AND r.opaque = ?"
_Shown = tuple[bytes, Mapping[Author, ChainHead]]
"""What a relay has shown of a record: the merged updates, and how far each author's came."""


def keep(replica: Replica, space: Space, *, caught_up: bool) -> None:
    """Keep what the relay has shown in a batch. Inside its transaction."""
    rows = []
    for opaque, arrivals in space.giving.take_seen().items():
        state, heads = _at_relay(replica.db, space, opaque)
        for arrival, _ in arrivals:
            _advance(heads, arrival)
        merged = merge_updates([state, *(update for _, update in arrivals)])
        rows.append((space.no, opaque, merged, encode_heads(heads)))
    replica.db.many("INSERT OR REPLACE INTO at_relay VALUES (?, ?, ?, ?)", rows)
    if caught_up and space.giving.stage == COMPARING:
        _enter(replica, space, GIVING)
        space.giving.begin_again()


def greeted(replica: Replica, space: Space, relay: RelayId, cursor: int) -> bool:
    """The relay begins to deliver at `cursor`; whether it has lost something. Begins to compare then."""
    giving = space.giving
    giving.on_its_way.clear()
    giving.begin_again()
    lost = cursor < space.cursor or (not cursor and giving.promised > 0)
    space.session.relay = relay
    if not lost:
        return False
    with replica.transaction(durable=False):
        replica.db.execute("DELETE FROM at_relay WHERE space = ?", (space.no,))
        lost_log.lose(replica, space)
        replica.past.relay_lost(space.no)
        _enter(replica, space, COMPARING)
        if space.absent and space.chain(replica.author).sequence:
            # What comes for those may lack what this author wrote: it must not go on where that ends.
            replica.begin_incarnation()
        space.cursor, giving.promised = cursor, 0
        store_place(replica, space)
    return True


def acknowledged(replica: Replica, space: Space, author: Author) -> ChainHead:
    """The end of what a relay has acknowledged of a chain of ours, and need not be sent again.

    What belongs to a group is kept until all of it is acknowledged: a relay that has lost the beginning is
    sent it anew.
    """
    known = space.session.acknowledged
    if known is not None and known[:2] == (replica.transactions, author):
        return known[2]
    found = _acknowledged(replica, space, author)
    space.session.acknowledged = replica.transactions, author, found
    return found


def _acknowledged(replica: Replica, space: Space, author: Author) -> ChainHead:
    sequence, head = space.acked.get(author, 0), space.chain(author)
    if replica.unsent:
        row = replica.db.execute(
            "SELECT sequence, envelope FROM sealed WHERE space = ? AND incarnation = ? AND error IS NULL"
            " ORDER BY sequence LIMIT 1",
            (space.no, author.incarnation),
        ).fetchone()
        if row is not None and row[0] <= sequence + 1:
            return ChainHead(row[0] - 1, Header.unpack(row[1]).prev if row[0] > 1 else bytes(32))
    if sequence and head.sequence == sequence:
        return head
    return ChainHead(0, bytes(32))  # nothing can be said for certain; then the relay is asked for nothing


def lost_entries(space: Space, members_head: bytes) -> Sequence[bytes]:
    """The entries of the membership log that follow the one at which the relay's ends."""
    position = space.log.position_of(members_head)
    return () if position is None else space.log.entries[position + 1 :]


def next_snapshots(replica: Replica, space: Space, max_bytes: int) -> list[bytes]:
    """What to give back now; empty when there is nothing more for the moment, or it `looks_on`."""
    giving = space.giving
    role = space.role_of(replica.device_id)
    if not giving.gives:
        return []
    if role is None or not role.may_write:
        _leave(replica, space)
        return []
    envelopes: list[bytes] = []
    size_bytes, giving.looks_on = 0, False
    at_once, steps = (1, 1) if rare("look_of_one") else (LOOKED_AT, STEPS)
    while len(giving.on_its_way) < AT_ONCE and not envelopes:
        at_end = True
        for no, opaque, envelope in _looked_at(replica, space, at_once):
            at_end = False
            if envelope is not None and envelopes and size_bytes + len(envelope) > max_bytes:
                return envelopes
            if opaque in giving.again:
                giving.again.discard(opaque)  # it tells nothing about those before it
            else:
                giving.after = max(no, giving.after)
            if envelope is not None:
                envelopes.append(envelope)
                size_bytes += len(envelope)
                giving.on_its_way[opaque] = None
                if len(giving.on_its_way) >= AT_ONCE:
                    break
        steps -= 1
        if at_end and not giving.again:
            if not giving.on_its_way and not giving.unfinished:
                _finish(replica, space)
            break
        if not steps:
            giving.looks_on = not envelopes
            break
    return envelopes


def _looked_at(replica: Replica, space: Space, limit: int) -> Iterator[tuple[int, OpaqueId, bytes | None]]:
    """Some of the records that are to be looked at: number, id, and a snapshot if the relay lacks something.

    First those that are looked at once more.
    """
    again = [(space.no, opaque) for opaque in sorted(space.giving.again)[:limit]]
    rows = itertools.chain(
        (row for which in again for row in replica.db.execute(_LOOK_AGAIN, which)),
        replica.db.execute(_LOOK, (space.no, space.giving.after, limit if space.giving.of_all else 0)),
    )  # one by one: documents
    for no, raw, state, heads, *shown in rows:
        opaque = OpaqueId(raw)
        lacks = opaque not in space.giving.on_its_way and _lacks(state, decode_heads(heads), _shown(*shown))
        yield no, opaque, _snapshot(replica, space, opaque) if lacks else None
    for _, opaque in again:
        space.giving.again.discard(opaque)  # also one that has gone


def holds_back(replica: Replica, space: Space, opaque: OpaqueId) -> bool:
    """Whether the record has to stay: a relay that lost something has not shown all of it."""
    role = space.role_of(replica.device_id)
    if not space.giving.concerns(opaque) or role is None or not role.may_write:
        return False
    if lost_log.has(replica, space, opaque):
        return True  # it shows with the record, and only here
    record = replica.records.find(space, opaque, replica.author)
    shown = _at_relay(replica.db, space, opaque)
    return record is not None and _lacks(record.doc.state(), record.heads, shown)


def holds_unsent_back(replica: Replica, space: Space, no: int, opaque: OpaqueId) -> bool:
    """Whether that record, of which some work is unsent, has something else that the relay once had and lost.

    Deletions are not looked at: what unsent work wrote over stands deleted here, whoever deleted it.
    """
    role = space.role_of(replica.device_id)
    record = replica.records.find(space, opaque, replica.author)
    if not space.giving.concerns(opaque) or role is None or not role.may_write or record is None:
        return False
    acknowledged, starts = ParsedUpdate(), _unsent_starts(replica, space, no)
    acknowledged.blocks = [
        before
        for blocks in parse_update(record.doc.state()).blocks
        if (before := blocks.before(starts.get(blocks.client, blocks.end))) is not None
    ]
    state, reached = _at_relay(replica.db, space, opaque)
    return _is_behind(reached, record.heads) or not contains(parse_update(state), acknowledged)


def _unsent_starts(replica: Replica, space: Space, no: int) -> dict[int, int]:
    """By client: where in its array the unsent work of a record begins."""
    starts: dict[int, int] = {}
    for update in unsent_updates(replica, space, no):
        for blocks in parse_update(update).blocks:
            starts[blocks.client] = min(blocks.start, starts.get(blocks.client, blocks.start))
    return starts


def answered(replica: Replica, space: Space, opaque: OpaqueId, code: str) -> None:
    """The relay's word about a snapshot that was given back."""
    giving = space.giving
    if opaque not in giving.on_its_way:
        return
    del giving.on_its_way[opaque]
    if code == STORED:
        if not lost_log.has(replica, space, opaque):  # else more is to be given back, once it is merged
            giving.late.discard(opaque)
    else:
        giving.unfinished.add(opaque)  # it has something that this device lacks; that is on its way here


def _snapshot(replica: Replica, space: Space, opaque: OpaqueId) -> bytes | None:
    """A snapshot of the record, of which the relay lacks something; None if it cannot be given back now."""
    giving = space.giving
    record = replica.records.find(space, opaque, replica.author)
    if record is None:
        return None
    if record.type == SCHEMA_TYPE and space.role_of(replica.device_id) is not Role.ADMIN:
        return None  # nobody would believe it
    if record.no in replica.unsent or (record.doc.pending and opaque not in space.unmerged):
        giving.unfinished.add(opaque)  # later, perhaps
        return None
    envelope = compacting.seal_snapshot(replica, space, record)
    return envelope if len(envelope) <= MAX_ENVELOPE_BYTES else None


def _lacks(state: bytes, heads: Mapping[Author, ChainHead], shown: _Shown) -> bool:
    """Whether the relay, which has `shown` that, lacks something of a record that was synced before."""
    at_relay, reached = shown
    if _is_behind(reached, heads):
        return True
    return bool(heads) and state != at_relay and not contains(parse_update(at_relay), parse_update(state))


def _is_behind(reached: Mapping[Author, ChainHead], heads: Mapping[Author, ChainHead]) -> bool:
    """Whether an author came further in `heads` than in `reached`."""
    return any(
        (there := reached.get(author)) is None or there.sequence < head.sequence
        for author, head in heads.items()
    )


def contains(larger: ParsedUpdate, smaller: ParsedUpdate) -> bool:
    """Whether every item and every deletion of one update is in the other."""
    ends = {blocks.client: blocks for blocks in larger.blocks}
    for blocks in smaller.blocks:
        there = ends.get(blocks.client)
        if there is None:
            return False
        for start, end in _filled(blocks):
            if there.start > start or there.end < end:
                return False
            if any(first < end and last > start for first, last in there.skips):
                return False
    for client, ranges in smaller.deletes.items():
        deleted = _joined(larger.deletes.get(client, []))
        for start, end in _joined(ranges):
            if not any(first <= start and end <= last for first, last in deleted):
                return False
    return True


def _filled(blocks: Blocks) -> Iterator[tuple[int, int]]:
    """The (start, end) pairs of clocks that are not skipped."""
    start = blocks.start
    for first, last in blocks.skips:
        if start < first:
            yield start, first
        start = last
    if start < blocks.end:
        yield start, blocks.end


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _at_relay(db: Database, space: Space, opaque: OpaqueId) -> tuple[bytes, dict[Author, ChainHead]]:
    row = db.execute(
        "SELECT state, heads FROM at_relay WHERE space = ? AND opaque = ?", (space.no, opaque)
    ).fetchone()
    return _shown(None, None) if row is None else _shown(*row)


def _shown(state: bytes | None, heads: bytes | None) -> tuple[bytes, dict[Author, ChainHead]]:
    return (EMPTY_UPDATE, {}) if state is None or heads is None else (state, decode_heads(heads))


def _advance(heads: dict[Author, ChainHead], arrival: Arrival) -> None:
    header = arrival.envelope.header
    shown = (
        {arrival.author: ChainHead(header.sequence, arrival.envelope.hash)}
        if arrival.cover is None
        else arrival.cover.covered
    )
    for author, head in shown.items():
        if author not in heads or heads[author].sequence < head.sequence:
            heads[author] = head


def _enter(replica: Replica, space: Space, stage: int, late: Collection[OpaqueId] = ()) -> None:
    space.giving.stage, space.giving.late = stage, set(late)
    replica.db.execute("UPDATE spaces SET gives_back = ? WHERE no = ?", (stage, space.no))


def _finish(replica: Replica, space: Space) -> None:
    """Nothing more is to be given back, or only what waits, once it is merged."""
    waits = lost_log.records(replica, space)
    if not waits:
        _leave(replica, space)
    elif space.giving.late != waits:
        rows = []
        for opaque in sorted(waits):
            state, heads = _at_relay(replica.db, space, opaque)
            rows.append((space.no, opaque, state, encode_heads(heads)))
        with replica.transaction(durable=False):
            _enter(replica, space, LATE, waits)
            replica.db.execute("DELETE FROM at_relay WHERE space = ?", (space.no,))
            replica.db.many("INSERT INTO at_relay VALUES (?, ?, ?, ?)", rows)


def _leave(replica: Replica, space: Space) -> None:
    """Nothing more is to be given back."""
    with replica.transaction(durable=False):
        _enter(replica, space, NOT_NOW)
        replica.db.execute("DELETE FROM at_relay WHERE space = ?", (space.no,))
