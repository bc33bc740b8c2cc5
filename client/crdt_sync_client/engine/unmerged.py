"""Updates that the relay has and this device has not merged: snapshots made here name them as such.

One that came and could not be merged, or waits for the rest of its group, is noted where that is found out.
Here are those that did not come, or came and do not show:

- what it builds on is not here: a relay that has lost that was sent this by its author before anybody could
  give the rest back; so also what is our own, if its record was fetched anew before it was sent;
- a snapshot of another device names them;
- they are our own: the part of a group that the relay had taken before it refused the rest. All of the group
  is made again by a new author, so what is left of the old one at the relay never becomes part of a record.
  Nobody may pass it over in silence: the relay would take no snapshot of the record from this device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.ids import Author, OpaqueId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine.arrivals import Opened
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

STAND_IN: Final = "unmerged"
"""In place of an error's code, in a row of the quarantine without an envelope."""
BY_SNAPSHOT: Final = "named as not merged by a snapshot; not received"
WAITS: Final = "builds on changes that this device and the relay do not have"
OF_REFUSED: Final = "part of a group of which the relay refused the rest"

_INSERT: Final = (
    "INSERT OR IGNORE INTO quarantine"
    " (space, seq, opaque, device, incarnation, sequence, hash, code, reason, envelope, at_ms, type)"
    " VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, x'', ?, NULL)"
)
_SHOW: Final = (
    "DELETE FROM quarantine WHERE space = ? AND opaque = ? AND code = 'unmerged' AND reason = ?"
    " RETURNING device, incarnation, sequence"
)
_OWN: Final = "SELECT envelope FROM sealed WHERE space = ? AND incarnation = ? AND sequence = ?"


def note(
    replica: Replica, space: Space, opaque: OpaqueId, author: Author, sequence: int, why: str, now_ms: int
) -> None:
    """The relay has that update of the record, and it is not in the record here. Inside a transaction."""
    space.unmerged.setdefault(opaque, set()).add((author, sequence))
    stand_in = hashlib.sha256(opaque + author.device + f"{author.incarnation}:{sequence}".encode()).digest()
    values = (
        space.no, opaque, author.device, author.incarnation, sequence, stand_in, STAND_IN, why, now_ms,
    )  # fmt: skip
    replica.db.execute(_INSERT, values)


def note_waiting(
    replica: Replica, space: Space, record: OpenRecord, opened: Iterable[Opened], now_ms: int
) -> None:
    """These have just been taken in by the record; what of them shows is found here. Inside a transaction."""
    if record.doc.pending:
        for arrival, _, checked, *_ in opened:
            if arrival.cover is None and checked is not None and record.doc.waits(checked.parsed):
                sequence = arrival.envelope.header.sequence
                note(replica, space, record.opaque, arrival.author, sequence, WAITS, now_ms)
    elif record.opaque in space.unmerged:
        for device, incarnation, sequence in replica.db.rows(_SHOW, (space.no, record.opaque, WAITS)):
            space.unmerged[record.opaque].discard((Author(device, incarnation), sequence))


def note_own_waiting(
    replica: Replica, space: Space, author: Author, updates: Iterable[tuple[OpaqueId, int]]
) -> None:
    """The relay has taken these of an earlier life (record, sequence), still in `sealed`. In a transaction.

    What was unsent when its record was fetched anew builds on what that had before, which a relay may have
    lost. Work of this life never does so: it is written to what shows.
    """
    for opaque, sequence in updates:
        record = replica.records.find(space, opaque, replica.author)
        if record is None or not record.doc.pending:
            continue
        raw = replica.db.value(_OWN, (space.no, author.incarnation, sequence))
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        payload = Payload.decode(envelope.open(space.keys.envelope_key(envelope.header.epoch)))
        if record.doc.waits(parse_update(payload.update)):
            note(replica, space, opaque, author, sequence, WAITS, replica.now_ms())


def forget(replica: Replica, space: Space, opaque: OpaqueId, author: Author, sequence: int) -> None:
    """That update is in the record now. Inside a transaction."""
    space.unmerged.get(opaque, set()).discard((author, sequence))
    replica.db.execute(
        "DELETE FROM quarantine WHERE space = ? AND opaque = ? AND device = ?"
        " AND incarnation = ? AND sequence = ?",
        (space.no, opaque, author.device, author.incarnation, sequence),
    )


def note_refused(replica: Replica, space: Space, author: Author, taken: int) -> None:
    """What the relay has, up to `taken`, of a chain of ours that is about to be set aside from there on.

    Only the beginning of a group is still among what is sealed then.
    """
    rows = replica.db.rows(
        "SELECT opaque, sequence FROM sealed s JOIN records r ON r.no = s.record"
        " WHERE s.space = ? AND incarnation = ? AND sequence <= ? AND s.error IS NULL",
        (space.no, author.incarnation, taken),
    )
    now_ms = replica.now_ms() if rows else 0
    for opaque, sequence in rows:
        note(replica, space, OpaqueId(opaque), author, sequence, OF_REFUSED, now_ms)
