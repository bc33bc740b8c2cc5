"""What left the outbox lately: when the relay had it, or that it was given up.

This is for people who ask what became of a write (see `write_life`); nothing else is decided by it. So it is
bounded: the newest `KEPT` envelopes. What is older is known to be relayed, and no more.

A row stands for one envelope. It has the time of the first write in it (`clock`), and so holds what was
written to its record from then on, up to the `clock` of the record's next row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crdt_sync.ids import OpaqueId
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.store.connection import Database

KEPT: Final = 10_000
"""Envelopes; a busy week of one device, in about a megabyte."""
_PRUNED_EVERY: Final = 256
"""Calls; between them there may be more."""
_TOLD_ROWS: Final = 64
_COLUMNS: Final = (
    "space, opaque, clock, incarnation, sequence, priority, attempts, error, sealed_ms, ended_ms,"
    " discarded, row"
)
_OF_SEALED: Final = (
    f"INSERT INTO outbox_past ({_COLUMNS}) SELECT s.space, r.opaque, s.clock, s.incarnation, s.sequence,"
    " s.priority, s.attempts, coalesce(s.error, s.last_error), s.at_ms, ?, ?, ?"
    " FROM sealed s JOIN records r ON r.no = s.record WHERE "
)
_OF_OUTBOX: Final = (
    f"INSERT INTO outbox_past ({_COLUMNS}) SELECT o.space, r.opaque, o.clock, o.incarnation, NULL,"
    " o.no >> 48, 0, o.error, NULL, ?, 1, NULL FROM outbox o JOIN records r ON r.no = o.record"
    " WHERE o.record = ? ORDER BY o.no"
)


class OutboxPast:
    """See the module."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._unpruned = 0
        self._told: dict[int, dict[int, tuple[int, int]]] = {}
        """By space and row of the relay's log, the newest last: what it told in this life of the store."""

    def relayed(self, now_ms: int, head: int, which: str, parameters: Sequence[Any]) -> None:
        """The relay has these rows of `sealed s`, and its log ends at `head` (0: not known).

        Inside the transaction that drops them, before it does.
        """
        where = f"{which} ORDER BY s.sequence"
        self._db.execute(_OF_SEALED + where, (now_ms, 0, head or None, *parameters))
        self._prune()

    def discarded(self, now_ms: int, record: int) -> None:
        """What is unsent of a record (by number) is given up. As above."""
        of_record = "s.record = ? ORDER BY s.no"
        self._db.execute(_OF_SEALED + of_record, (now_ms, 1, None, record))
        self._db.execute(_OF_OUTBOX, (now_ms, record))
        self._prune()

    def relay_lost(self, space: int) -> None:
        """Places in its log mean something else from now on. Inside a transaction."""
        self._db.execute("UPDATE outbox_past SET row = NULL WHERE space = ? AND row IS NOT NULL", (space,))
        self._told.pop(space, None)

    def told(self, space: int, row: int, reached: int, members: int) -> None:
        """`reached` of `members` others have the relay's log up to that row."""
        known = self._told.setdefault(space, {})
        known.pop(row, None)
        known[row] = reached, members
        if len(known) > _TOLD_ROWS:
            del known[next(iter(known))]

    def reached(self, space: int, row: int | None) -> tuple[int, int] | None:
        """How many of how many others are known to have it up to there; None: nobody asked."""
        told = [] if row is None else [each for at, each in self._told.get(space, {}).items() if at >= row]
        return None if not told else (max(reached for reached, _ in told), told[-1][1])

    def _prune(self) -> None:
        self._unpruned += 1
        if self._unpruned >= _PRUNED_EVERY:
            self._unpruned = 0
            self._db.execute(
                "DELETE FROM outbox_past WHERE no <= (SELECT max(no) FROM outbox_past) - ?", (KEPT,)
            )


def note_delivered(replica: Replica, space: Space, row: int, reached: int, members: int) -> None:
    """`reached` of `members` others have confirmed the relay's log up to `row`; kept when all have."""
    replica.past.told(space.no, row, reached, members)
    if reached < members:
        return
    unknown = "SELECT 1 FROM outbox_past WHERE space = ? AND row <= ? AND delivered_ms IS NULL LIMIT 1"
    if replica.db.value(unknown, (space.no, row)) is None:
        return
    with replica.transaction(durable=False):
        replica.db.execute(
            "UPDATE outbox_past SET delivered_ms = ? WHERE space = ? AND row <= ? AND delivered_ms IS NULL",
            (replica.now_ms(), space.no, row),
        )


def rows_of(replica: Replica, space: Space, opaque: OpaqueId) -> list[tuple[Any, ...]]:
    """What is remembered of a record, oldest first: `clock` and what follows it in the table, and whether
    and when all others had it."""
    return replica.db.rows(
        "SELECT coalesce(clock, 0), incarnation, sequence, priority, attempts, error, sealed_ms, ended_ms,"
        " discarded, row, delivered_ms FROM outbox_past WHERE space = ? AND opaque = ? ORDER BY no",
        (space.no, opaque),
    )
