"""What a changed record type asks for, bit by bit: records made anew, and updates judged anew.

A new version of a schema may concern a hundred thousand records, and other work must not wait for them. So
the change itself only notes what is to be done, in its own transaction; each step here does some of it, and
keeps how far it has come. A record that is written meanwhile is made by the new version at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.envelope import Kind, parse
from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.rare import rare
from crdt_sync_client.engine import absent, admission, scoping
from crdt_sync_client.engine.arrivals import Arrival, Opened, open_arrival
from crdt_sync_client.engine.materialising import Materialised, Materialiser
from crdt_sync_client.engine.receiving import ReceivedBatch
from crdt_sync_client.engine.record_types import Remaking
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

AT_ONCE: Final = 256
"""Records made anew, and updates judged anew, in one step: some 25 ms."""
NUMBERS_AT_ONCE: Final = 20_000
"""Record numbers passed over in one step, whatever their types: they are read one after the other."""

_STALE: Final = (
    "SELECT no, opaque, absent FROM records NOT INDEXED WHERE no > ? AND no <= ? AND space = ? AND type = ?"
    " ORDER BY no LIMIT ?"
)
_ASIDE: Final = (
    "SELECT no, seq, envelope FROM quarantine WHERE space = ? AND type = ? AND no >= ? ORDER BY no LIMIT ?"
)
_GROUP: Final = (
    "SELECT no, seq, envelope FROM quarantine WHERE space = ? AND device = ? AND incarnation = ?"
    " AND sequence BETWEEN ? AND ? AND type IS NOT NULL ORDER BY sequence"
)


def step(replica: Replica, space: Space) -> Materialised:
    """Do a bit of what is to be done in a space, if there is anything. Inside a transaction."""
    done = Materialised()
    remaking = space.record_types.remaking
    left = 1 if rare("upkeep_of_one") else AT_ONCE
    for record_type in list(remaking):
        while left > 0 and record_type in remaking:
            act = _judge if remaking[record_type].judging else _remake
            result, count = act(replica, space, record_type, remaking[record_type], left)
            done.add(result)
            left -= max(count, 1)
    return done


def _remake(
    replica: Replica, space: Space, record_type: str, progress: Remaking, limit: int
) -> tuple[Materialised, int]:
    materialiser = Materialiser(replica, "remote")
    end = min(progress.until, progress.after + NUMBERS_AT_ONCE)
    rows = replica.db.rows(_STALE, (progress.after, end, space.no, record_type, limit))
    remade = []
    in_question = []
    for _, opaque, gone in rows:
        record = replica.records.find(space, OpaqueId(opaque), replica.author)
        if record is not None:
            materialiser.remake(record)
            remade.append(record)
        elif gone == "filter":
            in_question.append(OpaqueId(opaque))
    # Whether they belong here is asked of what they show, and that may be something else now.
    absent.want(replica, space, in_question)
    after = rows[-1][0] if len(rows) == limit else end
    space.record_types.keep(replica.db, record_type, Remaking(after, progress.until))
    result = materialiser.save()
    scoping.sift(replica, space, remade, result, new=())
    return result, len(rows) if after == progress.until else limit


def _judge(
    replica: Replica, space: Space, record_type: str, progress: Remaking, limit: int
) -> tuple[Materialised, int]:
    """Merge what was put aside for who wrote it, and may be merged by now."""
    rows = replica.db.rows(_ASIDE, (space.no, record_type, progress.judging, limit))
    admitted: dict[int, Opened] = {}
    for no, seq, raw in rows:
        if no not in admitted:
            admitted.update(_admitted(replica, space, no, seq, raw))
    judging = rows[-1][0] + 1 if len(rows) == limit else 0
    space.record_types.keep(replica.db, record_type, Remaking(progress.after, progress.until, judging))
    if not admitted:
        return Materialised(), len(rows)
    replica.db.many("DELETE FROM quarantine WHERE no = ?", [(no,) for no in admitted])
    for opened in admitted.values():
        header = opened.arrival.envelope.header
        space.unmerged.get(header.record, set()).discard((opened.arrival.author, header.sequence))
        if not opened.arrival.seq:
            space.giving.has_come(header.record)
    merged = ReceivedBatch(replica, space, caught_up=False).merge_again(list(admitted.values()))
    return merged, len(admitted)


def _admitted(replica: Replica, space: Space, no: int, seq: int, raw: bytes) -> dict[int, Opened]:
    """That update with all of its group, by the numbers of their rows; none when one may not be merged."""
    opened = _open(space, seq, raw)
    if opened is None:
        return {}
    found = {no: opened}
    if opened.span[1]:
        author = opened.arrival.author
        place = (space.no, author.device, author.incarnation, *opened.span)
        for other, other_seq, other_raw in replica.db.rows(_GROUP, place):
            part = _open(space, other_seq, other_raw)
            if part is not None and part.span == opened.span:
                found[other] = part
    allowed = all(admission.problem(space.record_types, each) is None for each in found.values())
    return found if allowed else {}


def _open(space: Space, seq: int, raw: bytes) -> Opened | None:
    envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
    header = envelope.header
    cover = envelope.cover() if header.kind == Kind.SNAPSHOT else None
    try:
        role = space.log.member(header.device).role
        return open_arrival(space, Arrival(seq, envelope, role, header.author, cover=cover))
    except CrdtSyncError:  # it did open when it came
        return None
