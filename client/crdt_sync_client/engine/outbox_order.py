"""The order of what waits in the outbox: a row's number is its priority and then its turn.

So the rows in the order of their numbers are those of priority 1 first, oldest first, then those of 2, and
sealing reads them like that without sorting anything. What keeps a record's updates in their order:

- all pending rows of a record by one author have one priority, that of the most urgent of them;
- so do all rows of a transaction, and with them all that waits for its records.

An update that is more urgent than what waits for its record takes that along: its rows get new numbers, with
the turns they had. One that is less urgent goes with what waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crdt_sync.ids import Incarnation
from crdt_sync.schemas.priorities import LAST, USUAL

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.store.connection import Database

TURN_BITS: Final = 48
"""Of a number; a device that writes a thousand times a second has enough for 8,900 years."""
_TURN: Final = (1 << TURN_BITS) - 1
BY_TURN: Final = f"ORDER BY no & {_TURN}"
"""In a question: in the order in which they were written, whatever their priorities."""

_INSERT: Final = (
    "INSERT INTO outbox (no, space, record, incarnation, schema_version, change, at_ms, tied, clock,"
    " error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class NewRow(NamedTuple):
    """An update for the outbox. `tied`: the number of its transaction. `clock`: that of its
    first write. `error`: why it may not be sent."""

    space: int
    record: int
    incarnation: Incarnation
    schema_version: int
    change: bytes
    at_ms: int
    tied: int | None
    clock: int
    priority: int
    error: str | None = None


def priority_of(number: int) -> int:
    """The priority of the row with that number."""
    return number >> TURN_BITS


class OutboxOrder:
    """Gives rows their numbers. Memory follows the store, see `Replica`."""

    def __init__(self, db: Database, incarnation: Incarnation) -> None:
        """`incarnation` of the present author: only its rows can be followed by others."""
        self._db = db
        self._incarnation = incarnation
        self._unusual: dict[int, int] = {}
        """Records (by number) of which rows of another than the usual priority may wait, and that."""
        self._turn = 0
        last = db.value("SELECT max(no) FROM outbox")
        if last is None:
            return
        for record, number in db.execute(
            "SELECT record, min(no) FROM outbox WHERE (no < ? OR no >= ?) AND incarnation = ?"
            " AND error IS NULL GROUP BY record",
            (USUAL << TURN_BITS, (USUAL + 1) << TURN_BITS, incarnation),
        ):
            self._unusual[record] = priority_of(number)
        while last:  # the last of each priority that there is
            self._turn = max(self._turn, last & _TURN)
            last = db.value("SELECT max(no) FROM outbox WHERE no < ?", (priority_of(last) << TURN_BITS,))

    def add(self, replica: Replica, rows: Sequence[NewRow]) -> None:
        """Queue these, oldest first. Inside a transaction, before they are counted as unsent."""
        plain = not self._unusual and all(row.priority == USUAL for row in rows)
        level = {} if plain else self._level(replica, rows)
        numbered: list[tuple[Any, ...]] = []
        for row in rows:
            self._turn += 1
            priority = level.get(row.record, USUAL) if row.error is None else row.priority
            *columns, _, error = row
            numbered.append(((priority << TURN_BITS) | self._turn, *columns, error))
            if priority != USUAL and row.error is None:
                self._unusual[row.record] = priority
        self._db.many(_INSERT, numbered)

    def oldest(self, space: int) -> int | None:
        """The incarnation of the row that waits longest in that space."""
        first: tuple[int, int] | None = None
        start = 0
        while True:  # the first of each priority that there is
            row = self._db.execute(
                "SELECT no, incarnation FROM outbox WHERE no >= ? AND space = ? AND error IS NULL"
                " ORDER BY no LIMIT 1",
                (start, space),
            ).fetchone()
            if row is None:
                return None if first is None else first[1]
            number, incarnation = row
            if first is None or number & _TURN < first[0]:
                first = number & _TURN, incarnation
            start = (priority_of(number) + 1) << TURN_BITS

    def sealed(self, records: Iterable[int]) -> None:
        """Something of these records left the outbox. Inside that transaction."""
        for record in self._unusual.keys() & set(records) if self._unusual else ():
            place = (*_range(self._unusual[record]), record, self._incarnation)
            left = "SELECT 1 FROM outbox WHERE no >= ? AND no < ? AND record = ? AND incarnation = ? LIMIT 1"
            if self._db.value(left, place) is None:
                del self._unusual[record]

    def _level(self, replica: Replica, rows: Sequence[NewRow]) -> dict[int, int]:
        """The priority of each record that these rows are of, with what waits and what is tied."""
        level: dict[int, int] = {}
        tied: dict[int, set[int]] = {}
        for row in rows:
            if row.error is None:
                level[row.record] = min(level.get(row.record, LAST), row.priority)
                if row.tied is not None:
                    tied.setdefault(row.tied, set()).add(row.record)
        waiting = {record: self._waiting(replica, record) for record in level}
        settled = False
        while not settled:
            settled = True
            for records in tied.values():
                most = min(level[record] for record in records)
                if any(level[record] != most for record in records):
                    level.update(dict.fromkeys(records, most))
                    settled = False
            for record, stored in waiting.items():
                if stored is None or stored == level[record]:
                    continue
                settled = False
                if stored < level[record]:
                    level[record] = stored
                    continue
                most = level[record]
                for lifted in self._lift(record, most):
                    if lifted in level:
                        waiting[lifted] = most
                        level[lifted] = min(level[lifted], most)
        return level

    def _waiting(self, replica: Replica, record: int) -> int | None:
        """The priority of what waits of a record; None where nothing does."""
        if record in self._unusual:
            return self._unusual[record]
        if not replica.unsent.get(record):
            return None
        found = self._db.value(
            "SELECT 1 FROM outbox WHERE record = ? AND incarnation = ? AND error IS NULL LIMIT 1",
            (record, self._incarnation),
        )
        return USUAL if found else None

    def _lift(self, record: int, priority: int) -> Iterable[int]:
        """Give what waits of the record that priority, and all that is tied to it; the records concerned."""
        lifted = {record}
        ahead = [record]
        while ahead:
            rows = self._db.rows(
                "SELECT no, tied FROM outbox"
                " WHERE record = ? AND incarnation = ? AND error IS NULL AND no >= ?",
                (ahead.pop(), self._incarnation, (priority + 1) << TURN_BITS),
            )
            self._db.many(
                "UPDATE outbox SET no = ? WHERE no = ?",
                [((priority << TURN_BITS) | (no & _TURN), no) for no, _ in rows],
            )
            for tie in {tie for _, tie in rows if tie is not None}:
                for (other,) in self._db.rows(
                    "SELECT DISTINCT record FROM outbox WHERE tied = ? AND incarnation = ? AND error IS NULL",
                    (tie, self._incarnation),
                ):
                    if other not in lifted:
                        lifted.add(other)
                        ahead.append(other)
        self._unusual.update(dict.fromkeys(lifted, priority))
        return lifted


def _range(priority: int) -> tuple[int, int]:
    return priority << TURN_BITS, (priority + 1) << TURN_BITS
