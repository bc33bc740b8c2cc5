"""Sending: from the outbox to sealed envelopes, and what the relay's answers mean.

An update is sealed when it is sent, so that it goes out under the space's current epoch; what is sealed
is stored before it is handed out and is sent again byte for byte until the relay has it. What is pending and
how it is sealed is the matter of `sealing`.

A chain belongs to one author. Updates made before an unclean end stay in the chain of the author they
were made by; a session sends those of one author, the oldest first. If the relay turns out to have more of
one of our chains than this store, the store is an older copy of itself: see `older_copy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.groups import decode_ends, encode_ends
from crdt_sync.errors import ChainBroken, CheckedOut
from crdt_sync.ids import Author, Incarnation, OpaqueId, RecordId, RelayId
from crdt_sync.rare import rare
from crdt_sync_client.engine import absent, giving_back, holding_back, older_copy, refusing, unmerged
from crdt_sync_client.engine.model import Welcomed
from crdt_sync_client.engine.open_records import decode_heads, encode_heads
from crdt_sync_client.engine.place import promise
from crdt_sync_client.engine.refused import taken
from crdt_sync_client.engine.resting import rests
from crdt_sync_client.engine.sealing import seal_pending
from crdt_sync_client.engine.space import Space
from crdt_sync_client.engine.waiting import AT_HEAD

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_ACKNOWLEDGED: Final = (
    "s.space = ? AND s.incarnation = ? AND coalesce(s.until, s.sequence) <= ? AND s.error IS NOT ?"
)
"""What belongs to a group counts as sent when the relay has all of it."""
_PLACES: Final = "SELECT heads, group_ends FROM documents WHERE record = ?"

Named = tuple[str, RecordId]
_Newest = tuple[OpaqueId, ChainHead, int | None]
"""Of a record: our newest envelope that the relay has, and where the newest group ends that one was in."""


def session_author(replica: Replica, space: Space) -> Author:
    """Whose chain the next session is about: the oldest with unsent work, else the author of now.

    A session sends what belongs to one chain, and only after `welcome` has compared it with the relay's: a
    relay that has pruned what it once took cannot tell any more whether it is what we send again.
    """
    while_held_back = holding_back.session_author(replica, space)
    if while_held_back is not None:
        return while_held_back
    if not replica.has_earlier_work():
        return replica.author
    incarnation = replica.db.value(
        "SELECT incarnation FROM sealed WHERE space = ? AND error IS NULL ORDER BY no LIMIT 1", (space.no,)
    )
    if incarnation is None:
        incarnation = replica.outbox.oldest(space.no)
    return replica.author if incarnation is None else Author(replica.device_id, Incarnation(incarnation))


def session_over(replica: Replica, space: Space) -> bool:
    """Whether another session has to begin: this one's chain is sent, or is not ours to go on with."""
    author = space.session.author
    if author is None:
        return True
    if author == replica.author:
        # Work of an earlier life that waited for a lease to end may go now: at once if it came first, else
        # when ours is sent.
        if not replica.has_earlier_work():
            return False
        if not (space.session.skipped or _is_sent(replica, space, author)):
            return False
    return author != session_author(replica, space)


def _is_sent(replica: Replica, space: Space, author: Author) -> bool:
    """Whether nothing of that life waits to be sent; what is set aside does not."""
    place = (space.no, author.incarnation)
    return not any(
        replica.db.value(
            f"SELECT 1 FROM {table} WHERE space = ? AND incarnation = ? AND error IS NULL LIMIT 1", place
        )
        for table in ("outbox", "sealed")
    )


def welcome(
    replica: Replica,
    space: Space,
    relay: RelayId,
    own_sequence: int,
    own_hash: bytes,
    head: int,
    cursor: int | None = None,
) -> Welcomed:
    """Begin a session: compare chains, take lost acknowledgements, line up what to send again."""
    author = space.session.author = space.session.author or session_author(replica, space)
    space.session.head = head
    if cursor is None:
        cursor = space.cursor if relay in (space.relay_seen, space.session.relay) else 0
    lost = giving_back.greeted(replica, space, relay, cursor)
    if own_sequence and _is_older_copy(replica, space, author, own_sequence, own_hash):
        return Welcomed(resend=0, reconnect=True, failed=tuple(older_copy.fork(replica, space, author)))
    synced = acked(replica, space, author.incarnation, own_sequence, head) if own_sequence else []
    rows = (
        []
        if not replica.unsent
        else replica.db.rows(
            "SELECT no FROM sealed WHERE space = ? AND incarnation = ? AND sequence > ? AND error IS NULL"
            " ORDER BY no",
            (space.no, author.incarnation, own_sequence),
        )
    )
    space.session.resend = [no for (no,) in rows]
    space.session.more = bool(replica.unsent)
    space.session.fresh = set()
    space.session.skipped = holding_back.passed_over(replica, space, author)
    # An earlier life's chain may turn out to be sent already; what this life wrote waits for its own session.
    return Welcomed(
        resend=len(rows),
        reconnect=session_over(replica, space),
        synced=tuple(synced),
        relay_behind=lost,
        holding=bool(space.held),
        at_end=space.catching_up == AT_HEAD and not space.waiting,
    )


def _is_older_copy(replica: Replica, space: Space, author: Author, sequence: int, link: bytes) -> bool:
    """Whether the relay has something of our chain that this store never sealed."""
    head = space.chain(author)
    if sequence > head.sequence:
        return True
    known = (
        head.hash
        if sequence == head.sequence
        else replica.db.value(
            "SELECT hash FROM sealed WHERE space = ? AND incarnation = ? AND sequence = ?",
            (space.no, author.incarnation, sequence),
        )
    )
    return known is not None and known != link


def contradicts_unsent(replica: Replica, space: Space, author: Author, link: ChainHead) -> bool:
    """Whether `link`, which the relay has of our author's chain, leaves no place for its unsent work."""
    place = (space.no, author.incarnation)
    unsent = bool(replica.unsent) and any(
        replica.db.value(
            f"SELECT 1 FROM {table} WHERE space = ? AND incarnation = ? AND error IS NOT ? LIMIT 1",
            (*place, older_copy.OLDER_COPY),
        )
        for table in ("sealed", "outbox")
    )
    return unsent and _is_older_copy(replica, space, author, link.sequence, link.hash)


def next_push(replica: Replica, space: Space, *, max_count: int, max_bytes: int) -> list[bytes]:
    """See `Engine.next_push`."""
    if space.session.author is None or space.held or rests(replica, space):
        return []
    if rare("push_of_one"):
        max_count = min(max_count, 1)
    sent, size_bytes = _sent_before(replica, space, max_count, max_bytes)
    if space.session.resend:
        return sent
    return sent + seal_pending(replica, space, max_count - len(sent), max_bytes - size_bytes, bool(sent))


def _sent_before(replica: Replica, space: Space, max_count: int, max_bytes: int) -> tuple[list[bytes], int]:
    """Envelopes of an earlier session, as they were then, and the rest of a group that did not fit."""
    chosen: list[bytes] = []
    size_bytes = taken = 0
    for no in space.session.resend[:max_count]:
        envelope = replica.db.value("SELECT envelope FROM sealed WHERE no = ? AND error IS NULL", (no,))
        if envelope is not None:
            if chosen and size_bytes + len(envelope) > max_bytes:
                break
            chosen.append(envelope)
            size_bytes += len(envelope)
        taken += 1
    if taken:
        with replica.transaction(durable=False):
            replica.db.many(
                "UPDATE sealed SET attempts = attempts + 1 WHERE no = ?",
                [(no,) for no in space.session.resend[:taken] if no not in space.session.fresh],
            )
        space.session.fresh.difference_update(space.session.resend[:taken])
        del space.session.resend[:taken]
    return chosen, size_bytes


def acked(
    replica: Replica, space: Space, incarnation: Incarnation, sequence: int, head: int = 0
) -> list[Named]:
    """Everything of that chain up to `sequence` is at the relay: forget it, and count it as covered.

    The relay's log ended at `head` then (0: not known). That is promised from now on, however this device
    comes to know it: the welcome of a next session may bring what the acknowledgement would have.
    """
    author = Author(replica.device_id, incarnation)
    if sequence <= space.acked.get(author, 0) or author not in space.chains:
        return []
    for refused in [place for place in space.session.refusals if place[0] == incarnation]:
        del space.session.refusals[refused]
    acknowledged = (space.no, incarnation, sequence, older_copy.OLDER_COPY)
    rows = replica.db.rows(
        "SELECT record, sequence, hash, type, id, opaque, until, updates"
        " FROM sealed s JOIN records r ON r.no = record"
        f" WHERE {_ACKNOWLEDGED} ORDER BY sequence",
        acknowledged,
    )
    synced: list[Named] = []
    newest: dict[int, _Newest] = {}
    ends: dict[int, int] = {}
    with replica.transaction(durable=False):
        for record, own, link, record_type, id, opaque, until, updates in rows:
            space.leases.count_sent(replica.db, opaque, updates)
            if until is not None:
                ends[record] = until
            newest[record] = opaque, ChainHead(own, link), ends.get(record)
            if (author, own) in space.unmerged.get(opaque, ()):  # named by another's snapshot meanwhile
                unmerged.forget(replica, space, opaque, author, own)
            if _count_down(replica, record):
                synced.append((record_type, id))
                taken(replica, record)
        _cover(replica, space, author, newest)
        if author != replica.author:
            unmerged.note_own_waiting(replica, space, author, ((row[5], row[1]) for row in rows))
        if rows:
            replica.past.relayed(replica.now_ms(), head, _ACKNOWLEDGED, acknowledged)
            replica.db.execute(f"DELETE FROM sealed AS s WHERE {_ACKNOWLEDGED}", acknowledged)
        replica.db.execute(
            "UPDATE chains SET acked = ? WHERE space = ? AND device = ? AND incarnation = ?",
            (sequence, space.no, author.device, incarnation),
        )
        space.acked[author] = sequence
        promise(replica, space, head)
        if author != replica.author:
            replica.look_for_earlier_work()
    return synced


def _count_down(replica: Replica, record: int) -> bool:
    """One of the record's envelopes is at the relay; whether that was the last of its unsent work."""
    left = replica.unsent[record] - 1
    if left > 0:
        replica.unsent[record] = left
        return False
    del replica.unsent[record]
    return True


def _cover(replica: Replica, space: Space, author: Author, newest: Mapping[int, _Newest]) -> None:
    """Note with these records (by number) what of ours the relay has."""
    alone: list[tuple[bytes, int]] = []
    grouped: list[tuple[bytes, bytes | None, int]] = []
    for no, (opaque, head, end) in newest.items():
        opened = replica.records.opened(space, opaque)
        if opened is None:
            row = replica.db.execute(_PLACES, (no,)).fetchone()
            if row is None:  # given up, to be fetched anew: with this envelope
                absent.note_missed(space, opaque)
                continue
            heads, ends = decode_heads(row[0]), decode_ends(row[1])
        else:
            heads, ends = opened.heads, opened.group_ends
        heads[author] = head
        if end is None:
            alone.append((encode_heads(heads), no))
        else:
            ends[author] = end
            grouped.append((encode_heads(heads), encode_ends(ends), no))
    if alone:
        replica.db.many("UPDATE documents SET heads = ? WHERE record = ?", alone)
    if grouped:
        replica.db.many("UPDATE documents SET heads = ?, group_ends = ? WHERE record = ?", grouped)


def refused(
    replica: Replica,
    space: Space,
    incarnation: Incarnation,
    sequence: int,
    code: str,
    reason: str,
) -> list[Named]:
    """The relay did not take this envelope, so nothing that follows it in its chain or is in its group.

    See `refusals` for what that means. The session is over: the next one goes on with what may be sent. What
    was written stays written, whatever is refused.
    """
    author = Author(replica.device_id, incarnation)
    if author != space.session.author:  # what follows the first that was refused in a session
        return []
    space.session.end()
    space.session.pause_s = None
    if not refusing.is_final(replica, space, author, sequence, code, reason):
        return []
    taken_before = code not in (ChainBroken.code, CheckedOut.code)
    with replica.transaction(durable=True):
        if taken_before:
            acked(replica, space, incarnation, sequence - 1)
        return refusing.set_aside(replica, space, author, sequence, code, reason, taken_before=taken_before)
