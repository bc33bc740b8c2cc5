"""A space off on this device, and a space that leaves it with everything that was kept of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from crdt_sync.errors import PermissionDenied
from crdt_sync_client.engine import exporting, indexes
from crdt_sync_client.engine.exporting import UnsyncedOperation
from crdt_sync_client.engine.model import RecordChange
from crdt_sync_client.engine.presenting import COLUMNS, record_of_row
from crdt_sync_client.engine.scoping import left

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space

BY_RECORD: Final = ("documents", "conflicts", "history", "refused")
BY_SPACE: Final = (
    "membership", "outbox", "sealed", "held", "chains", "quarantine", "types", "waiting", "scopes", "picks",
    "leaving", "leases", "checkouts", "at_relay", "outbox_past",
)  # fmt: skip
"""The tables with a column for it; `records` goes between these and those by record."""
_SHOWN: Final = f"SELECT {COLUMNS}, type FROM records WHERE space = ? AND json IS NOT NULL ORDER BY no"

Judge = Callable[[Sequence[UnsyncedOperation]], None]
"""Is given what no relay has; raises where the space is not to be left because of it."""


def switch(replica: Replica, space: Space, *, off: bool) -> None:
    """Whether it is off on this device: kept in the store. Inside a transaction."""
    if off:
        replica.db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, 1)", (space.off_name,))
    else:
        replica.db.execute("DELETE FROM meta WHERE name = ?", (space.off_name,))
    space.off = off


def leave(replica: Replica, space: Space, judge: Judge, *, tell: bool) -> list[RecordChange]:
    """Forget a space, its records, keys and queue; with `tell`, what watchers of its records are told.

    Whoever comes back to it writes as a new author: the relay still has what this device wrote before.
    """
    if space.stage != "active":
        raise PermissionDenied(
            f"space {space.name} is not entered yet", hint="sync once; the relay's answer settles it"
        )
    judge([each for each in exporting.unsynced(replica) if each.space_id == space.id.hex()])
    changes = _departures(replica, space) if tell else []
    with replica.transaction(durable=True):
        replica.begin_incarnation()
        remove(replica, space)
    replica.reload()
    with replica.transaction(durable=False):
        indexes.settle(replica)
    return changes


def remove(replica: Replica, space: Space) -> None:
    """Every row that is of this space. Inside a transaction; then the replica is read again."""
    db = replica.db
    for table in BY_RECORD:
        db.execute(
            f"DELETE FROM {table} WHERE record IN (SELECT no FROM records WHERE space = ?)", (space.no,)
        )
    for table in (*BY_SPACE, "records"):
        db.execute(f"DELETE FROM {table} WHERE space = ?", (space.no,))
    db.execute("DELETE FROM meta WHERE name LIKE ?", (f"%:{space.id.hex()}",))
    db.execute("DELETE FROM spaces WHERE no = ?", (space.no,))


def _departures(replica: Replica, space: Space) -> list[RecordChange]:
    changes = []
    for row in replica.db.rows(_SHOWN, (space.no,)):
        schema = space.schemas.get(row[7])
        if schema is not None and schema.type in space.types:
            record = record_of_row(replica, space, schema, row, None)
            changes.append(left(RecordChange(space.id, schema.type, record.id, "local", (), record)))
    return changes
