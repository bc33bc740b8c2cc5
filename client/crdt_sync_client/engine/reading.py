"""Reading: from the materialised rows only, never from documents.

What can be asked for is in `queries`. Records of a type whose schema is not there yet, and records of which
only parts have arrived, are not shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.errors import NotReady, TypeNotKnown
from crdt_sync.ids import DeviceId, RecordId, SpaceId
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import holding_back, unmerged
from crdt_sync_client.engine.holders import Checkout
from crdt_sync_client.engine.model import OutboxItem, Quarantined, Record, StatusCounts
from crdt_sync_client.engine.presenting import COLUMNS, Orphans, record_of_row
from crdt_sync_client.engine.queries import Prepared, Query
from crdt_sync_client.engine.refused import Refused
from crdt_sync_client.engine.space import Space
from crdt_sync_client.engine.waiting import FIRST

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


def get(replica: Replica, space: Space, record_type: str, id: str, *, deleted: bool) -> Record | None:
    """One record by id, or None."""
    _check_ready(replica, space)
    schema = space.schema(record_type)
    row = replica.db.execute(
        f"SELECT {COLUMNS} FROM records WHERE space = ? AND opaque = ? AND json IS NOT NULL",
        (space.no, space.keys.opaque_id(record_type, id)),
    ).fetchone()
    if row is None or (row[3] and not deleted):
        return None
    return record_of_row(replica, space, schema, row, _orphans(replica, space, schema))


def find(replica: Replica, space: Space, query: Query, *, offset: int = 0) -> list[Record]:
    """The records in the order asked for, else in the order they came to this device."""
    _check_ready(replica, space)
    prepared = Prepared(space.schema(query.type), query)
    sql = prepared.select(COLUMNS, space.no, limit=query.limit, offset=offset)
    return _records(replica, space, prepared, replica.db.execute(*sql))


def page(replica: Replica, space: Space, query: Query, after: str | None) -> tuple[list[Record], str | None]:
    """`limit` of the records, from the end of the page on that gave the token `after`, and the next token."""
    _check_ready(replica, space)
    prepared = Prepared(space.schema(query.type), query)
    limit = prepared.limit
    one_more = None if limit is None else limit + 1
    rows: list[Any] = []
    for nulls in prepared.parts(after):
        if one_more is None or len(rows) < one_more:
            left = None if one_more is None else one_more - len(rows)
            sql = prepared.select(COLUMNS, space.no, limit=left, after=after, nulls=nulls)
            rows += replica.db.rows(*sql)
    if limit is None or len(rows) <= limit or limit == 0:
        return _records(replica, space, prepared, rows[:limit]), None
    return _records(replica, space, prepared, rows[:limit]), prepared.token(rows[limit - 1])


def count(replica: Replica, space: Space, query: Query) -> int:
    """How many there are, whatever the limit."""
    _check_ready(replica, space)
    return int(replica.db.value(*Prepared(space.schema(query.type), query).count(space.no)))


def not_ready(space: str, done: int, total: int) -> NotReady:
    """The error for a space of which so many rows have come."""
    told = f" ({done} of {total})" if total else ""
    return NotReady(
        f"space {space} has not been received whole yet{told}",
        hint="wait for it: `await device.ready()`, or `crdt-sync sync`",
    )


def _check_ready(replica: Replica, space: Space) -> None:
    if replica.require_ready and space.catching_up == FIRST:
        raise not_ready(space.name, space.cursor, space.session.head)


def _records(replica: Replica, space: Space, prepared: Prepared, rows: Iterable[Any]) -> list[Record]:
    schema = prepared.schema
    orphans = _orphans(replica, space, schema)
    return [record_of_row(replica, space, schema, row, orphans, prepared.fields) for row in rows]


def _orphans(replica: Replica, space: Space, schema: RecordSchema) -> Orphans | None:
    return None if schema.parent is None else Orphans(replica, space)


def outbox(replica: Replica, space_no: int | None) -> list[OutboxItem]:
    """Unacknowledged work by record and state, oldest first."""
    spaces: dict[int, SpaceId] = {space.no: space.id for space in replica.spaces.values()}
    rows = replica.db.rows(
        "SELECT q.space, r.type, r.id, q.state, min(q.priority), sum(q.updates), sum(q.size),"
        " min(q.at_ms), max(q.attempts), max(q.error), min(q.sealed_ms), q.record FROM ("
        "  SELECT space, record, CASE WHEN error IS NULL THEN 'pending' ELSE 'failed' END AS state,"
        "   no >> 48 AS priority, 1 AS updates, length(change) AS size, at_ms, 0 AS attempts, error,"
        "   NULL AS sealed_ms"
        "   FROM outbox"
        "  UNION ALL"
        "  SELECT space, record, CASE WHEN error IS NULL THEN 'sending' ELSE 'failed' END,"
        "   priority, updates, length(envelope), at_ms, attempts, coalesce(error, last_error), at_ms"
        "   FROM sealed"
        " ) q JOIN records r ON r.no = q.record WHERE ?1 IS NULL OR q.space = ?1"
        " GROUP BY q.record, q.state ORDER BY min(q.at_ms), q.record",
        (space_no,),
    )
    waits_for = _waits_for(replica) if rows else {}
    items = []
    for row in rows:
        known = OutboxItem(spaces[row[0]], row[1], RecordId(row[2]), *row[3:-2])
        item = replace(known, sealed_ms=row[-2], waits_for=waits_for.get(row[-1]))
        refused = replica.refused.get(row[-1])
        items.append(item if refused is None else _with_refusal(item, refused))
    return items


def _waits_for(replica: Replica) -> dict[int, Checkout]:
    found: dict[int, Checkout] = {}
    for space in replica.spaces.values():
        found |= holding_back.waits_for(replica, space)
    return found


def _with_refusal(item: OutboxItem, refused: Refused) -> OutboxItem:
    known = replace(item, attempts=max(refused.attempts, item.attempts), code=refused.code)
    if item.state != "failed" or refused.retry_ms is None:
        return replace(known, error=item.error or refused.error)
    return replace(known, state="waiting", retry_at_ms=refused.retry_ms)


def status_counts(replica: Replica, space_no: int | None) -> StatusCounts:
    """Counts of records with unsent or failed work, open conflicts, quarantined envelopes and records.

    Asked more often than they change: counted once after each transaction that could have changed them.
    """
    if replica.in_transaction:
        return _count_status(replica, space_no)
    counted = replica.status.get(space_no)
    if counted is None:
        counted = replica.status[space_no] = _count_status(replica, space_no)
    return counted


_COUNT_UNSENT: Final = (
    "SELECT (SELECT count(*) FROM ("
    "SELECT record FROM outbox WHERE ?1 IS NULL OR space = ?1"
    " UNION SELECT record FROM sealed WHERE ?1 IS NULL OR space = ?1)),"
    " (SELECT count(*) FROM ("
    "SELECT record FROM outbox WHERE error IS NOT NULL AND (?1 IS NULL OR space = ?1)"
    " UNION SELECT record FROM sealed WHERE error IS NOT NULL AND (?1 IS NULL OR space = ?1))"
    " WHERE record NOT IN (SELECT record FROM refused WHERE retry_ms IS NOT NULL))"
)
_COUNT_SHOWN: Final = (
    "SELECT (SELECT count(*) FROM records INDEXED BY records_by_type"
    " WHERE deleted = 0 AND substr(type, 1, 1) != '_' AND (?1 IS NULL OR space = ?1))"
    " - (SELECT count(*) FROM records INDEXED BY records_unshown"
    " WHERE json IS NULL AND deleted = 0 AND substr(type, 1, 1) != '_' AND (?1 IS NULL OR space = ?1))"
)
"""From indexes alone: the table itself is most of a store, and this is asked for after every write."""


_PUT_ASIDE: Final = "code != ?2 AND (code != ?3 OR device != ?4)"


def _not_put_aside(replica: Replica) -> tuple[str, str, bytes]:
    return TypeNotKnown.code, unmerged.STAND_IN, replica.device_id


def _count_status(replica: Replica, space_no: int | None) -> StatusCounts:
    unsent, failed = replica.db.execute(_COUNT_UNSENT, (space_no,)).fetchone()
    conflicts = replica.db.value(
        "SELECT count(*) FROM conflicts c JOIN records r ON r.no = c.record"
        " WHERE c.state = 'open' AND (?1 IS NULL OR r.space = ?1)",
        (space_no,),
    )
    quarantined = replica.db.value(
        "SELECT count(*) FROM quarantine WHERE (?1 IS NULL OR space = ?1) AND " + _PUT_ASIDE,
        (space_no, *_not_put_aside(replica)),
    )
    records = replica.db.value(_COUNT_SHOWN, (space_no,))
    return StatusCounts(
        pending=unsent - failed,
        failed=failed,
        conflicts=conflicts,
        quarantined=quarantined,
        records=records,
        remaking=sum(
            progress.until - progress.after
            for space in replica.spaces.values()
            if space_no in (None, space.no)
            for progress in space.record_types.remaking.values()
        ),
    )


def quarantined(replica: Replica, space: Space) -> list[Quarantined]:
    """What was put aside and kept, oldest first; not what only waits for its record type.

    Nor is what the relay has of our own refused work: that is in the outbox, or was made again.
    """
    rows = replica.db.rows(
        "SELECT device, code, reason, at_ms, type FROM quarantine"
        f" WHERE space = ?1 AND {_PUT_ASIDE} ORDER BY no",
        (space.no, *_not_put_aside(replica)),
    )
    return [
        Quarantined(
            space.id, DeviceId(device), space.device_name(DeviceId(device)), code, reason, at_ms, kind
        )
        for device, code, reason, at_ms, kind in rows
    ]
