"""When the relay refuses work of ours: it is set aside, and everything else goes on.

An envelope that is refused breaks its author's chain: nothing that follows it there can be taken any more,
and another envelope at its place would look as if this device told two stories. So:

1. The refused record is *set aside*: what is unsent of it stays in the store and in its document, marked with
   the reason. What a transaction tied to it waits with it, so that nobody sees a part of that. So does all
   that is unsent of a record of which later work is set aside already: none of it can be made again alone.
2. All other work of that chain is *made again* by a new author, with its old time, as `older_copy` does with
   what a copied store wrote, and goes on at once.
3. What is written to the record later waits behind what is set aside (`refused.hold_back`).
4. *Released*, by itself when its time has come or by a person, the work is made again by a new author too.

The relay that refused an envelope says that it does not have it. One that lies and delivers it later shows a
change that was made twice, side by side with itself; a counter then counts it twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.envelope import Header
from crdt_sync.errors import ChainBroken
from crdt_sync.ids import Author, Incarnation, OpaqueId, RecordId
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine import had_already, unmerged
from crdt_sync_client.engine.older_copy import OLDER_COPY, Rescues
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.outbox_order import BY_TURN
from crdt_sync_client.engine.refused import Refused, save_refused
from crdt_sync_client.engine.space import Space
from crdt_sync_client.refusals import LONGEST_S, delay_s, pause_s, treatment

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

Named = tuple[str, RecordId]

_MOVING: Final = "moving"
"""In place of an error: it is being made again in this transaction."""
_OF_CHAIN: Final = "space = ? AND incarnation = ? AND error IS NULL"


def is_final(replica: Replica, space: Space, author: Author, sequence: int, code: str, reason: str) -> bool:
    """Whether a refusal means that the envelope has to be set aside; else it is sent again as it is."""
    place = (space.no, author.incarnation, sequence)
    row = replica.db.execute(
        "SELECT no, record FROM sealed"
        " WHERE space = ? AND incarnation = ? AND sequence = ? AND error IS NULL",
        place,
    ).fetchone()
    if row is None:
        return False
    no, record = row
    how = treatment(code)
    most = 1 if record in replica.refused and code != ChainBroken.code else how.same_bytes
    refusals = space.session.refusals
    times = refusals[place[1:]] = refusals.get(place[1:], 0) + 1
    if how.then != "all" and times >= most:
        del refusals[place[1:]]
        return True
    with replica.transaction(durable=False):
        replica.db.execute("UPDATE sealed SET last_error = ? WHERE no = ?", (f"{code}: {reason}", no))
    if how.then == "all":
        space.session.pause_s = pause_s(code, times, replica.entropy(1)[0] / 256)
    return False


def set_aside(
    replica: Replica,
    space: Space,
    author: Author,
    sequence: int,
    code: str,
    reason: str,
    *,
    taken_before: bool,
) -> list[Named]:
    """Set aside what was refused, and make the rest of its chain again. Inside a transaction.

    `taken_before`: the relay has what came before it in the chain. Returns the records that wait.
    """
    db, chain = replica.db, (space.no, author.incarnation)
    taken = space.acked.get(author, 0)
    _cut_chain(replica, space, author, sequence if taken_before else 0)
    had_already.forget(replica, space, "s.incarnation = ? AND s.error IS NULL", (author.incarnation,))
    unmerged.note_refused(replica, space, author, taken)
    ties = _ties(replica, space, author)
    refused = _closure(_records_at(replica, space, author, sequence), ties)
    noted = {record: _noted(replica, record, code, reason) for record in sorted(refused)}
    for record in sorted(_partly_aside(replica, space, author) - refused):
        known = _known_aside(replica, record) or _noted(replica, record, code, reason)
        for tied in sorted(_closure({record}, ties) - noted.keys()):
            noted[tied] = _known_aside(replica, tied) or known
    rest = {
        record: None
        for table in ("sealed", "outbox")
        for (record,) in db.rows(f"SELECT record FROM {table} WHERE {_OF_CHAIN} ORDER BY no", chain)
        if record not in noted
    }
    for record, note in noted.items():
        save_refused(db, record, note)
        replica.refused[record] = note
        db.execute(
            f"UPDATE sealed SET error = ? WHERE record = ? AND {_OF_CHAIN}", (note.error, record, *chain)
        )
        # A later life may have gone on with the record: that waits behind it, like all that comes.
        db.execute("UPDATE outbox SET error = ? WHERE record = ? AND error IS NULL", (note.error, record))
        replica.count_unsent(record)
    for table in ("sealed", "outbox"):
        db.execute(f"UPDATE {table} SET error = ? WHERE {_OF_CHAIN}", (_MOVING, *chain))
    before = replica.author
    _make_again(replica, space, rest, moving=True)
    if author == replica.author == before:
        replica.begin_incarnation()
    space.session.end()
    return names(replica, noted)


def release(replica: Replica, space: Space, records: Iterable[int], *, anew: bool) -> None:
    """Line up what is set aside of these records (by number), and what it is tied to. Inside a transaction.

    `anew`: its attempts are counted from the start, because a person asks for it.
    """
    together = sorted(_tied_aside(replica, set(records)))
    _make_again(replica, space, together, moving=False)
    for record in together:
        known = replica.refused.get(record)
        if known is not None:
            attempts = 0 if anew else known.attempts
            replica.refused[record] = known._replace(attempts=attempts, retry_ms=None, aside=False)
            save_refused(replica.db, record, replica.refused[record])
        replica.count_unsent(record)
    space.session.end()


def due(replica: Replica, space: Space, now_ms: int) -> list[int]:
    """The records of a space that are to be tried again by now."""
    return [no for no, retry_ms in _waiting(replica, space, now_ms) if retry_ms <= now_ms]


def next_retry_ms(replica: Replica, space: Space, now_ms: int) -> int | None:
    """When the next record of a space is tried again by itself; None: none is."""
    return min((retry_ms for _, retry_ms in _waiting(replica, space, now_ms)), default=None)


def _waiting(replica: Replica, space: Space, now_ms: int) -> list[tuple[int, int]]:
    """Records that are tried again by themselves, and when: now, where the clock has been set back since."""
    latest_ms = now_ms + int(LONGEST_S * 1000)
    return [
        (no, one.retry_ms if one.retry_ms <= latest_ms else now_ms)
        for no, one in replica.refused.items()
        if one.aside and one.retry_ms is not None and _is_in(replica, no, space)
    ]


def aside_in(replica: Replica, space: Space) -> list[int]:
    """The records of a space of which something is set aside."""
    noted = {no for no, one in replica.refused.items() if one.aside and _is_in(replica, no, space)}
    # What was marked is the truth: the note of a record goes when the relay takes what it was about.
    return sorted(noted | _marked(replica, space))


def _is_in(replica: Replica, record: int, space: Space) -> bool:
    return bool(replica.db.value("SELECT space FROM records WHERE no = ?", (record,)) == space.no)


def _noted(replica: Replica, record: int, code: str, reason: str) -> Refused:
    """What is known of the record now, with one refusal more."""
    known, how, now_ms = replica.refused.get(record), treatment(code), replica.now_ms()
    attempts = how.same_bytes if known is None else known.attempts + 1
    jitter = replica.entropy(1)[0] / 256
    wait_s = delay_s(how.then, attempts, jitter)
    retry_ms = None if wait_s is None else now_ms + int(wait_s * 1000)
    return Refused(code, reason, attempts, known.since_ms if known else now_ms, now_ms, retry_ms)


def _records_at(replica: Replica, space: Space, author: Author, sequence: int) -> set[int]:
    """The record of that envelope, and those of the group that it is a part of."""
    rows = replica.db.rows(
        "SELECT s.record FROM sealed s JOIN sealed r ON r.sequence = ? AND (s.no = r.no OR s.until = r.until)"
        " WHERE s.space = ?2 AND s.incarnation = ?3 AND r.space = ?2 AND r.incarnation = ?3",
        (sequence, space.no, author.incarnation),
    )
    return {record for (record,) in rows}


def _known_aside(replica: Replica, record: int) -> Refused | None:
    known = replica.refused.get(record)
    return known if known is not None and known.aside else None


def _partly_aside(replica: Replica, space: Space, author: Author) -> set[int]:
    """Records that have unsent work of that chain, and other work that is set aside already.

    A part of a transaction is set aside because of the rest; what its record had before went on its way.
    """
    unsent = replica.db.rows(
        f"SELECT record FROM sealed WHERE {_OF_CHAIN} UNION SELECT record FROM outbox WHERE {_OF_CHAIN}",
        (space.no, author.incarnation) * 2,
    )
    return {record for (record,) in unsent} & _marked(replica, space)


def _marked(replica: Replica, space: Space) -> set[int]:
    """The records of a space of which work is marked as set aside."""
    rows = replica.db.rows(
        "SELECT record FROM outbox WHERE space = ?1 AND error IS NOT NULL AND error != ?2"
        " UNION SELECT record FROM sealed WHERE space = ?1 AND error IS NOT NULL AND error != ?2",
        (space.no, OLDER_COPY),
    )
    return {record for (record,) in rows}


def _ties(replica: Replica, space: Space, author: Author) -> list[tuple[str, int]]:
    """What transactions tie together of what may be sent: sealed work of the author, other of any life."""
    sealed = replica.db.rows(
        f"SELECT until, record FROM sealed WHERE {_OF_CHAIN} AND until IS NOT NULL",
        (space.no, author.incarnation),
    )
    unsealed = replica.db.rows(
        "SELECT tied, incarnation, record FROM outbox WHERE space = ? AND error IS NULL AND tied IS NOT NULL",
        (space.no,),
    )
    ties = [(f"until {until}", record) for until, record in sealed]
    return ties + [(f"tied {incarnation} {tied}", record) for tied, incarnation, record in unsealed]


def _tied_aside(replica: Replica, records: set[int]) -> set[int]:
    """The same among what is set aside, whoever wrote it."""
    return _closure(
        records,
        (
            (f"{column} {incarnation} {number}", record)
            for table, column in (("sealed", "until"), ("outbox", "tied"))
            for number, incarnation, record in replica.db.rows(
                f"SELECT {column}, incarnation, record FROM {table}"
                f" WHERE error IS NOT NULL AND error != ? AND {column} IS NOT NULL",
                (OLDER_COPY,),
            )
        ),
    )


def tied_unsent(replica: Replica, records: set[int]) -> set[int]:
    """These records, and all that unsent transactions tie to them, whoever wrote them."""
    return _closure(
        records,
        (
            (f"{column} {incarnation} {number}", record)
            for table, column in (("sealed", "until"), ("outbox", "tied"))
            for number, incarnation, record in replica.db.rows(
                f"SELECT {column}, incarnation, record FROM {table} WHERE {column} IS NOT NULL"
            )
        ),
    )


def _closure(records: set[int], ties: Iterable[tuple[str, int]]) -> set[int]:
    by_tie: dict[str, set[int]] = {}
    by_record: dict[int, set[str]] = {}
    for tie, record in ties:
        by_tie.setdefault(tie, set()).add(record)
        by_record.setdefault(record, set()).add(tie)
    found, ahead = set(records), list(records)
    while ahead:
        for tie in by_record.get(ahead.pop(), ()):
            new = by_tie[tie] - found
            found |= new
            ahead += new
    return found


def _cut_chain(replica: Replica, space: Space, author: Author, sequence: int) -> None:
    """The chain ends before that envelope, the first that the relay does not have; 0: before all unsent."""
    first = replica.db.value(
        f"SELECT envelope FROM sealed WHERE {_OF_CHAIN} AND sequence >= ? ORDER BY sequence LIMIT 1",
        (space.no, author.incarnation, sequence),
    )
    header = Header.unpack(first)
    head = ChainHead(header.sequence - 1, header.prev)
    space.advance(author, head, own=False)
    space.acked[author] = head.sequence
    replica.db.execute(
        "UPDATE chains SET sequence = ?, hash = ?, acked = ?"
        " WHERE space = ? AND device = ? AND incarnation = ?",
        (*head, head.sequence, space.no, author.device, author.incarnation),
    )


def _make_again(replica: Replica, space: Space, records: Iterable[int], *, moving: bool) -> None:
    remakes = Remakes(replica, space, moving=moving)
    for record in records:
        remakes.take(record)
    remakes.save()


def names(replica: Replica, records: Iterable[int]) -> list[Named]:
    return [
        (record_type, RecordId(id))
        for no in sorted(records)
        for record_type, id in replica.db.rows("SELECT type, id FROM records WHERE no = ?", (no,))
    ]


class Remakes(Rescues):
    """Makes unsent work again that is marked: set aside, or `moving`. Use once: `take`, then `save`."""

    def __init__(self, replica: Replica, space: Space, *, moving: bool) -> None:
        super().__init__(replica, space)
        self._marked = "error = ?" if moving else "error IS NOT NULL AND error != ?"
        self._mark = _MOVING if moving else OLDER_COPY

    def take(self, no: int) -> None:
        """All marked work of a record, the oldest author's first."""
        opaque = self._replica.db.value("SELECT opaque FROM records WHERE no = ?", (no,))
        for author in self._authors(no):
            record = self._replica.records.find(self._space, OpaqueId(opaque), self._replica.author)
            assert record is not None
            starts = [
                blocks.start
                for update in self._held_updates(record, author)
                for blocks in parse_update(update).blocks
                if blocks.client == author.client_id
            ]
            self._take_out(record, author, min(starts, default=record.doc.end(author)))
            values = (record.doc.state(), record.no)
            self._replica.db.execute("UPDATE documents SET state = ? WHERE record = ?", values)

    def _authors(self, no: int) -> Iterator[Author]:
        found: dict[int, None] = {}
        for table, order in (("sealed", "ORDER BY no"), ("outbox", BY_TURN)):
            rows = self._replica.db.rows(
                f"SELECT incarnation FROM {table} WHERE record = ? AND {self._marked} {order}",
                (no, self._mark),
            )
            found.update(dict.fromkeys(incarnation for (incarnation,) in rows))
        for incarnation in found:
            yield Author(self._replica.device_id, Incarnation(incarnation))

    def _held_updates(self, record: OpenRecord, author: Author) -> list[bytes]:
        place = (record.no, author.incarnation, self._mark)
        sealed = self._replica.db.rows(
            f"SELECT envelope FROM sealed WHERE record = ? AND incarnation = ? AND {self._marked}"
            " ORDER BY sequence",
            place,
        )
        waiting = self._replica.db.rows(
            f"SELECT change FROM outbox WHERE record = ? AND incarnation = ? AND {self._marked} {BY_TURN}",
            place,
        )
        return [self._opened(raw) for (raw,) in sealed] + [change for (change,) in waiting]

    def _forget(self, record: OpenRecord, author: Author) -> None:
        for table in ("outbox", "sealed"):
            self._replica.db.execute(
                f"DELETE FROM {table} WHERE record = ? AND incarnation = ? AND {self._marked}",
                (record.no, author.incarnation, self._mark),
            )
