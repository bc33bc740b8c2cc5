"""Giving up unsent work of a record: what was written here and no relay has is dropped.

A CRDT has no undo, and a document in which a value was written over does not have what stood there before. So
nothing is turned back: the document goes, and the record is fetched whole from the relay (see `absent`), as
everybody else has it. One that the relay has never heard of is gone.

With the document would go what a relay that has lost something had of the record before, so nothing is
dropped until the relay has all of that again (see `giving_back`).

What may have reached the relay is never dropped: work that is on its way, or that an older copy of this store
left behind, has to settle first. What a transaction wrote goes as a whole, since others see all of it or
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from crdt_sync.errors import LocalError, RecordNotFound
from crdt_sync.ids import OpaqueId
from crdt_sync_client.engine import absent, exporting, giving_back, refusing
from crdt_sync_client.engine.exporting import UnsyncedOperation
from crdt_sync_client.engine.older_copy import OLDER_COPY
from crdt_sync_client.engine.open_records import decode_heads
from crdt_sync_client.engine.refused import taken
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

Keep = Callable[[Sequence[UnsyncedOperation]], None]
"""Keeps what is about to be dropped; nothing is dropped when it raises."""


def discard(replica: Replica, space: Space, record_type: str, id: str, keep: Keep) -> list[UnsyncedOperation]:
    """Drop the unsent work of a record, and of those that transactions tie to it; returns what it was.

    Raises RecordNotFound when there is none, LocalError while some of it may be on its way, or the relay
    lacks something of a record that it once had.
    """
    opaque = space.keys.opaque_id(record_type, id)
    no = replica.db.value("SELECT no FROM records WHERE space = ? AND opaque = ?", (space.no, opaque))
    if no is None or not replica.unsent.get(no):
        raise RecordNotFound(
            f"nothing of {record_type} {id} waits to be sent", hint="`crdt-sync outbox ls` shows what does"
        )
    records = refusing.tied_unsent(replica, {no})
    _refuse_what_is_under_way(replica, records)
    _refuse_what_the_relay_lost(replica, space, records)
    names = {(space.id.hex(), *name) for name in refusing.names(replica, records)}
    dropped = [each for each in exporting.unsynced(replica) if (each.space_id, each.type, each.id) in names]
    keep(dropped)
    with replica.transaction(durable=True):
        for record in sorted(records):
            _drop(replica, space, record)
        replica.begin_incarnation()
        space.session.end()
    return dropped


def _refuse_what_is_under_way(replica: Replica, records: set[int]) -> None:
    for record in records:
        sent = "SELECT 1 FROM sealed WHERE record = ? AND (error IS NULL OR error = ?)"
        held = "SELECT 1 FROM outbox WHERE record = ? AND error = ?"
        if (
            replica.db.value(sent, (record, OLDER_COPY)) is None
            and replica.db.value(held, (record, OLDER_COPY)) is None
        ):
            continue
        ((record_type, id),) = refusing.names(replica, [record])
        raise LocalError(
            f"work on {record_type} {id} is on its way: the relay may have it already",
            hint="`crdt-sync sync` first; what the relay refuses can be discarded then",
        )


def _refuse_what_the_relay_lost(replica: Replica, space: Space, records: set[int]) -> None:
    for record in sorted(records):
        opaque = replica.db.value("SELECT opaque FROM records WHERE no = ?", (record,))
        if giving_back.holds_unsent_back(replica, space, record, OpaqueId(opaque)):
            ((record_type, id),) = refusing.names(replica, [record])
            raise LocalError(
                f"the relay has lost changes of {record_type} {id} that are here: they would be dropped too",
                hint="`crdt-sync sync`, since others may give them back; or `crdt-sync outbox retry`",
            )


def _drop(replica: Replica, space: Space, record: int) -> None:
    db = replica.db
    opaque, raw = db.execute(
        "SELECT opaque, heads FROM records JOIN documents ON record = no WHERE no = ?", (record,)
    ).fetchone()
    replica.past.discarded(replica.now_ms(), record)
    for table in ("outbox", "sealed"):
        db.execute(f"DELETE FROM {table} WHERE record = ?", (record,))
    taken(replica, record)
    absent.leave(replica, space, [(record, OpaqueId(opaque))], "cleared", wanted=True)
    if not decode_heads(raw):  # nobody else has heard of it
        known = absent.find(replica, space, OpaqueId(opaque))
        assert known is not None
        absent.drop(replica, space, OpaqueId(opaque), known)
    replica.count_unsent(record)
