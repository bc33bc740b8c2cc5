"""What is known of a record of which the relay refused something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from crdt_sync_client.engine.outbox_order import NewRow

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.store.connection import Database

_COLUMNS: Final = "code, reason, attempts, since_ms, last_ms, retry_ms, aside"


class Refused(NamedTuple):
    """`code` and `reason` are the relay's. Times are Unix ms; `retry_ms` None: when somebody says so.

    `aside`: its work is kept back. It is not while it is being tried again.
    """

    code: str
    reason: str
    attempts: int
    since_ms: int
    last_ms: int
    retry_ms: int | None
    aside: bool = True

    @property
    def error(self) -> str:
        """As it stands with the work that may not be sent."""
        return f"{self.code}: {self.reason}"


def load_refused(db: Database) -> dict[int, Refused]:
    """By record number."""
    return {
        row[0]: Refused(*row[1:])._replace(aside=bool(row[7]))
        for row in db.rows(f"SELECT record, {_COLUMNS} FROM refused")
    }


def save_refused(db: Database, record: int, refused: Refused) -> None:
    """Inside a transaction."""
    db.execute(
        f"INSERT OR REPLACE INTO refused (record, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (record, *refused),
    )


def taken(replica: Replica, record: int) -> None:
    """The relay has everything of that record that was sent. Inside a transaction."""
    if record not in replica.refused:
        return
    still_waits = replica.db.value(
        "SELECT 1 FROM outbox WHERE record = ?1 AND error IS NOT NULL"
        " UNION ALL SELECT 1 FROM sealed WHERE record = ?1 AND error IS NOT NULL LIMIT 1",
        (record,),
    )
    if still_waits is None:
        del replica.refused[record]
        replica.db.execute("DELETE FROM refused WHERE record = ?", (record,))


def hold_back(replica: Replica, rows: Sequence[NewRow]) -> list[NewRow]:
    """New rows for the outbox; those wait that are written to a record of which something waits.

    What is tied to them waits too, and with it all that is written to its record later. Inside a transaction.
    """
    behind = {row.record: replica.refused[row.record] for row in rows if _waits(replica, row.record)}
    if not behind:
        return list(rows)
    ties: dict[int, set[int]] = {}
    for row in rows:
        if row.tied is not None:
            ties.setdefault(row.tied, set()).add(row.record)
    settled = False
    while not settled:
        settled = True
        for records in ties.values():
            first = next((behind[record] for record in sorted(records) if record in behind), None)
            for record in records:
                if record not in behind and first is not None:
                    behind[record] = replica.refused[record] = first
                    save_refused(replica.db, record, first)
                    settled = False
    return [row._replace(error=behind[row.record].error) if row.record in behind else row for row in rows]


def _waits(replica: Replica, record: int) -> bool:
    """Whether work of that record is set aside; it is not while it is tried again."""
    return record in replica.refused and replica.refused[record].aside
