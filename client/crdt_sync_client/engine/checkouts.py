"""Checkouts at a device: what to ask the relay for, what its answers mean, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crdt_sync import errors
from crdt_sync.errors import RecordNotFound
from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.protocol.frames import CheckedOut, CheckoutResult
from crdt_sync.protocol.frames import RowKind as RowKind
from crdt_sync.protocol.leases import Lease, decode_lease
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import holders, reading, sending
from crdt_sync_client.engine.family import MAX_DEPTH
from crdt_sync_client.engine.holders import Checkout
from crdt_sync_client.engine.leases import OwnCheckout
from crdt_sync_client.engine.model import RecordChange
from crdt_sync_client.engine.presenting import COLUMNS, Orphans, record_of_row
from crdt_sync_client.engine.queries import Query, Where
from crdt_sync_client.engine.refused import save_refused
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_CHILDREN: Final = (
    "SELECT id FROM records WHERE space = ? AND parent = ? AND type = ? AND deleted <= ? ORDER BY no"
)
_SHOWN: Final = (
    f"SELECT {COLUMNS} FROM records WHERE space = ? AND opaque = ? AND json IS NOT NULL AND deleted = 0"
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A record to check out or in. `type` and `id` are empty for one that is not known here, to be freed."""

    type: str
    id: RecordId
    opaque: OpaqueId


@dataclass(frozen=True, slots=True)
class CheckoutOutcome:
    """What the relay answered about one record. `checkout` is how it stands since, None if nobody had it."""

    type: str
    id: RecordId
    code: str
    checkout: Checkout | None


# Choosing -----------------------------------------------------------------------------------------


def choose(
    replica: Replica, space: Space, record_type: str, ids: Sequence[str], where: Where, *, children: bool
) -> list[Chosen]:
    """The records of that type with these ids, or for which `where` holds, and with `children` those below.

    Raises UnknownType, ValidationError, and RecordNotFound for an id that is not here.
    """
    space.schema(record_type)
    if ids:
        for id in ids:
            if reading.get(replica, space, record_type, id, deleted=False) is None:
                raise RecordNotFound(f"there is no {record_type} {id} on this device", hint="sync first")
        found = [RecordId(id) for id in ids]
    else:
        found = [record.id for record in reading.find(replica, space, Query(record_type, where))]
    chosen = [chosen_record(space, record_type, id) for id in dict.fromkeys(found)]
    return [*chosen, *below(replica, space, chosen)] if children else chosen


def chosen_record(space: Space, record_type: str, id: RecordId) -> Chosen:
    """A record by name, whether this device has it or not."""
    return Chosen(record_type, id, OpaqueId(space.keys.opaque_id(record_type, id)))


def below(replica: Replica, space: Space, above: Iterable[Chosen], *, deleted: bool = False) -> list[Chosen]:
    """The records on this device that belong to these, at any depth; with `deleted` deleted ones too."""
    parents = [(each.type, each.id) for each in above]
    names = set(parents)
    found: list[Chosen] = []
    for _ in range(MAX_DEPTH):
        children: list[tuple[str, RecordId]] = []
        for parent_type, parent in parents:
            for schema in space.record_types.children_of(parent_type):
                for (id,) in replica.db.rows(_CHILDREN, (space.no, parent, schema.type, deleted)):
                    name = (schema.type, RecordId(id))
                    if name not in names:
                        names.add(name)
                        children.append(name)
        found += [chosen_record(space, *name) for name in children]
        parents = children
    return found


# What the relay says ------------------------------------------------------------------------------


def take_row(replica: Replica, space: Space, row: int, raw: bytes) -> list[RecordChange]:
    """A row of the log tells who has a record; the change of what that says of itself, if it is here.

    Raises MalformedFrame.
    """
    return _take(replica, space, row, decode_lease(raw))


def _take(replica: Replica, space: Space, row: int, lease: Lease) -> list[RecordChange]:
    if not space.leases.take(replica.db, row, lease):
        return []
    return _changes(replica, space, [lease.record])


def answered(
    replica: Replica,
    space: Space,
    asked: Mapping[OpaqueId, Chosen],
    results: Sequence[CheckoutResult],
    ttl_ms: int | None,
) -> tuple[list[CheckoutOutcome], list[RecordChange]]:
    """The relay's answer about these records, kept before anybody hears of it. Inside a transaction.

    Without `ttl_ms` the relay was asked for what it had promised before. Gives what came of each, and the
    changes of what that says of records that are here.
    """
    db, leases = replica.db, space.leases
    outcomes: list[CheckoutOutcome] = []
    news: list[OpaqueId] = []
    for result in results:
        if result.lease is not None and leases.take(db, result.sequence, result.lease):
            news.append(result.record)
        chosen = asked[result.record]
        before = leases.own.get(result.record)
        if result.code in ("granted", "renewed") and result.lease is not None:
            own = OwnCheckout(chosen.type, chosen.id, result.lease.token, ttl_ms or 0, replica.now_ms())
            leases.keep_own(db, result.record, own, goes_on=ttl_ms is None)
        outcomes.append(
            CheckoutOutcome(
                chosen.type, chosen.id, result.code, holders.shown(replica, space, result.record, own=before)
            )
        )
    return outcomes, _changes(replica, space, news)


def given_back(replica: Replica, space: Space, records: Iterable[OpaqueId]) -> None:
    """These are checked out here no more, and nobody has to be told of it again. Inside a transaction."""
    for record in records:
        space.leases.drop_own(replica.db, record)


def refused(replica: Replica, space: Space, frame: CheckedOut, reason: str) -> list[RecordChange]:
    """A push was refused because another device has a record of it: that waits, the rest is made again."""
    with replica.transaction(durable=True):
        changes = _take(replica, space, frame.row, frame.lease)
        sending.acked(replica, space, frame.incarnation, frame.taken)
        sending.refused(replica, space, frame.incarnation, frame.sequence, errors.CheckedOut.code, reason)
        # The next session lines it up again, to be held back like all work on what others have.
        for no, known in list(replica.refused.items()):
            if known.code == errors.CheckedOut.code and known.aside:
                replica.refused[no] = known._replace(retry_ms=replica.now_ms())
                save_refused(replica.db, no, replica.refused[no])
        return changes


def _changes(replica: Replica, space: Space, records: Iterable[OpaqueId]) -> list[RecordChange]:
    changes: list[RecordChange] = []
    for opaque in records:
        name = holders.name_of(replica, space, opaque)
        schema = None if name is None else space.schemas.get(name[0])
        if name is None or not isinstance(schema, RecordSchema) or name[0].startswith("_"):
            continue
        row = replica.db.execute(_SHOWN, (space.no, opaque)).fetchone()
        if row is not None:
            orphans = None if schema.parent is None else Orphans(replica, space)
            record = record_of_row(replica, space, schema, row, orphans)
            changes.append(RecordChange(space.id, *name, "remote", (), record))
    return changes
