"""Records of the space that are not on this device: known by type and id, without document and values.

A record is absent because it was cleaned up, does not match what this device is to hold, was given up for a
fresh copy, or could not be read any more. It keeps its row, so that everybody who asks hears that it is
absent and not that there is none, and its number, so that it can come back. Nobody merges into it, shows it,
makes a snapshot of it or writes to it: half a document would pass for a whole one.

It comes back whole: it is *wanted*, the session asks the relay for all rows of it (`FetchRecords`), and
`ReceivedBatch.run_fetched` makes it anew from them. What arrives for it until then is passed over, but noted
(`missed`): an answer from before that is not whole, and is asked for again.

Unsent work never leaves with a record. Only one that cannot be read (`damaged`) goes while it has some, which
stays in the outbox and is put back into the document that comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from crdt_sync.errors import CrdtSyncError, RecordAbsent, RecordNotFound
from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.schemas.builtin import SCHEMA_TYPE

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space
    from crdt_sync_client.store.connection import Database

Why = Literal["closed", "filter", "cleared", "damaged", "asked"]
"""Cleaned up after its end; does not match; given up for a fresh copy; unreadable; never was here."""

_OF: Final = "SELECT no, type, id, absent FROM records WHERE space = ? AND opaque = ? AND absent IS NOT NULL"
_MARKS: Final = "UPDATE records SET json = NULL, standing = NULL, absent = ?, wanted = ? WHERE no = ?"
_WANT: Final = "UPDATE records SET wanted = ? WHERE space = ? AND opaque = ? AND absent IS NOT NULL"
MAX_SEQUENCE: Final = 2**63 - 1
_ASKED: Final = 2
"""In the column `wanted`: somebody waits for it."""


class Absent(NamedTuple):
    """One that is not here. `no` is its number."""

    no: int
    type: str
    id: RecordId
    why: Why


def load(db: Database, space: Space) -> None:
    """Count a space's absent records, and take up the wanted ones, and those that somebody opened."""
    space.absent = db.value(
        "SELECT count(*) FROM records INDEXED BY records_absent WHERE space = ? AND absent IS NOT NULL",
        (space.no,),
    )
    if not space.absent:
        return
    rows = db.rows(
        "SELECT opaque, wanted FROM records INDEXED BY records_absent"
        " WHERE space = ? AND absent IS NOT NULL AND wanted > 0 ORDER BY wanted DESC, no",
        (space.no,),
    )
    space.wanted = {OpaqueId(opaque): None for opaque, _ in rows}
    space.scope.opened = {OpaqueId(opaque) for opaque, wanted in rows if wanted == _ASKED}


def find(replica: Replica, space: Space, opaque: OpaqueId) -> Absent | None:
    """What is known of a record that is not here; None for one that is, or that nobody has heard of."""
    if not space.absent:
        return None
    row = replica.db.execute(_OF, (space.no, opaque)).fetchone()
    return None if row is None else Absent(row[0], row[1], RecordId(row[2]), cast(Why, row[3]))


def missing(replica: Replica, space: Space, record_type: str, id: str) -> CrdtSyncError:
    """The error for a record that was asked for and has no document here."""
    if find(replica, space, space.keys.opaque_id(record_type, id)) is not None:
        return RecordAbsent(
            f"{record_type} {id} is not on this device, only in the space",
            hint=f"fetch it while the relay can be reached: `crdt-sync fetch {record_type} {id}`",
        )
    return RecordNotFound(f"there is no {record_type} {id}", hint="sync, or list them with `crdt-sync ls`")


# Going ----------------------------------------------------------------------------------------------


def leave(
    replica: Replica, space: Space, records: Iterable[tuple[int, OpaqueId]], why: Why, *, wanted: bool = False
) -> int:
    """Take records (number, opaque id) off this device; how many. Inside a transaction.

    With them go their conflicts and what their history keeps. `wanted`: they are fetched anew.
    """
    db = replica.db
    gone = list(records)
    numbers = [(no,) for no, _ in gone]
    db.many(_MARKS, [(why, int(wanted), no) for no, _ in gone])
    for table in ("documents", "conflicts", "history", "leaving"):
        db.many(f"DELETE FROM {table} WHERE record = ?", numbers)
    for no, opaque in gone:
        space.scope.leaving.discard(no)
        replica.records.forget(space, opaque)
        if wanted:
            space.wanted[opaque] = None
    space.absent += len(gone)
    return len(gone)


def give_up(replica: Replica, space: Space, opaques: Sequence[OpaqueId]) -> int:
    """Take records off that cannot be read, to fetch them anew; unsent work stays in the outbox.

    What they were made of is not known any more, so nothing is written to them as the author of before.
    Record types are given up too; they come back like other records. Inside a transaction.
    """
    found = []
    for opaque in opaques:
        row = replica.db.execute(
            "SELECT no FROM records WHERE space = ? AND opaque = ? AND absent IS NULL", (space.no, opaque)
        ).fetchone()
        if row is not None:
            found.append((row[0], opaque))
    if found:
        leave(replica, space, found, "damaged", wanted=True)
        replica.begin_incarnation()
        space.session.end()
    return len(found)


# Coming back ----------------------------------------------------------------------------------------


def want(replica: Replica, space: Space, opaques: Iterable[OpaqueId], *, asked: bool = False) -> None:
    """Have absent records fetched; `asked`: before others. Inside a transaction."""
    wanted = list(opaques)
    replica.db.many(_WANT, [(_ASKED if asked else 1, space.no, opaque) for opaque in wanted])
    if asked:
        space.scope.opened.update(wanted)
        space.wanted = {**dict.fromkeys(wanted), **space.wanted}
    else:
        space.wanted.update(dict.fromkeys(wanted))


def unwant(replica: Replica, space: Space, opaques: Iterable[OpaqueId]) -> None:
    """Leave them where they are. Inside a transaction."""
    opaques = list(opaques)
    replica.db.many(_WANT, [(0, space.no, opaque) for opaque in opaques])
    for opaque in opaques:
        space.wanted.pop(opaque, None)


def ask(replica: Replica, space: Space, record_type: str, id: RecordId) -> bool:
    """Have a record fetched that may not even be known here; whether it is not here yet."""
    if record_type == SCHEMA_TYPE:
        raise RecordNotFound(f"there is no {record_type} {id}", hint="`crdt-sync schema ls` lists the types")
    space.schema(record_type)
    opaque = space.keys.opaque_id(record_type, id)
    row = replica.db.execute(
        "SELECT no, absent FROM records WHERE space = ? AND opaque = ?", (space.no, opaque)
    ).fetchone()
    if row is not None and row[1] is None:
        return False
    with replica.transaction(durable=True):
        if row is None:
            replica.db.execute(
                "INSERT INTO records (no, space, opaque, type, id, absent) VALUES (?, ?, ?, ?, ?, 'asked')",
                (replica.records.next_no(), space.no, opaque, record_type, id),
            )
            space.absent += 1
        want(replica, space, [opaque], asked=True)
    return True


def next_wanted(space: Space, limit: int) -> list[OpaqueId]:
    """What to ask the relay for now. Whatever was missed so far is in its answer."""
    asked = list(islice(space.wanted, limit))
    for opaque in asked:
        space.session.missed.pop(opaque, None)
    return asked


def note_missed(space: Space, opaque: OpaqueId, seq: int = MAX_SEQUENCE) -> None:
    """That row of the log was passed over; or one of our own, whose number nobody tells us."""
    missed = space.session.missed
    missed[opaque] = max(seq, missed.get(opaque, 0))


def revive(replica: Replica, space: Space, opaque: OpaqueId, absent: Absent) -> None:
    """Its row goes, for that of the record that is made anew under its number. Inside a transaction."""
    replica.db.execute("DELETE FROM records WHERE no = ?", (absent.no,))
    space.absent -= 1
    space.wanted.pop(opaque, None)


def drop(replica: Replica, space: Space, opaque: OpaqueId, absent: Absent) -> None:
    """The relay has nothing of it: it is no record of this space. Inside a transaction."""
    revive(replica, space, opaque, absent)
