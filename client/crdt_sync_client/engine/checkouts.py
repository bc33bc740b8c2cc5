"""Checkouts at a device: what to ask the relay for, what its answers mean, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from crdt_sync import errors
from crdt_sync.errors import RecordNotFound
from crdt_sync.ids import DeviceId, OpaqueId, RecordId, SpaceId
from crdt_sync.protocol.frames import CheckedOut, CheckoutResult
from crdt_sync.protocol.frames import RowKind as RowKind
from crdt_sync.protocol.leases import Late, Lease, LeaseState, decode_lease
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import reading, sending
from crdt_sync_client.engine.family import MAX_DEPTH
from crdt_sync_client.engine.leases import OwnCheckout
from crdt_sync_client.engine.model import RecordChange
from crdt_sync_client.engine.queries import Query, Where
from crdt_sync_client.engine.refused import save_refused
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

CheckoutState = Literal["held", "expired", "broken", "returned", "taken"]
"""`taken`: it was held here, and another device has it since."""

_CHILDREN: Final = (
    "SELECT id FROM records WHERE space = ? AND parent = ? AND type = ? AND deleted = 0 ORDER BY no"
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A record to check out or in."""

    type: str
    id: RecordId
    opaque: OpaqueId


@dataclass(frozen=True, slots=True)
class LateEdits:
    """Work that came after its device's checkout had ended. Times are Unix ms of the relay's clock."""

    device: DeviceId
    device_name: str
    ended_ms: int
    at_ms: int
    incarnation: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Checkout:
    """Who has, or had last, a record. `own`: this device. Times are Unix ms of this device's clock.

    `type` and `id` are None for a record that this device does not know. `sent`: updates that the relay took
    since it was checked out here. `state`: as of now.
    """

    space: SpaceId
    type: str | None
    id: RecordId | None
    device: DeviceId
    device_name: str
    own: bool
    state: CheckoutState
    since_ms: int
    until_ms: int
    token: int
    sent: int = 0
    late: tuple[LateEdits, ...] = ()


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
    chosen = {(record_type, id): None for id in found}
    if children:
        _add_children(replica, space, list(chosen), chosen)
    return [chosen_record(space, kind, id) for kind, id in chosen]


def chosen_record(space: Space, record_type: str, id: RecordId) -> Chosen:
    """A record by name, whether this device has it or not."""
    return Chosen(record_type, id, OpaqueId(space.keys.opaque_id(record_type, id)))


def _add_children(
    replica: Replica,
    space: Space,
    above: list[tuple[str, RecordId]],
    chosen: dict[tuple[str, RecordId], None],
) -> None:
    for _ in range(MAX_DEPTH):
        below: list[tuple[str, RecordId]] = []
        for parent_type, parent in above:
            for schema in space.record_types.children_of(parent_type):
                for (id,) in replica.db.rows(_CHILDREN, (space.no, parent, schema.type)):
                    name = (schema.type, RecordId(id))
                    if name not in chosen:
                        chosen[name] = None
                        below.append(name)
        above = below


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
            CheckoutOutcome(chosen.type, chosen.id, result.code, shown(replica, space, result.record, before))
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
        name = _name_of(replica, space, opaque)
        schema = None if name is None else space.schemas.get(name[0])
        if name is None or not isinstance(schema, RecordSchema) or name[0].startswith("_"):
            continue
        record = reading.get(replica, space, *name, deleted=False)
        if record is not None:
            changes.append(RecordChange(space.id, *name, "remote", (), record))
    return changes


# Showing ------------------------------------------------------------------------------------------


def shown(
    replica: Replica, space: Space, record: OpaqueId, own: OwnCheckout | None = None
) -> Checkout | None:
    """Who has a record, or had it last, as people are told; None if nobody that we know of."""
    leases = space.leases
    lease = leases.of(record)
    own = leases.own.get(record) or own
    if lease is None:
        return None
    name = (own.type, own.id) if own is not None else _name_of(replica, space, record)
    relay_ms = replica.now_ms() + leases.relay_ahead_ms
    mine = lease.device == replica.device_id
    return Checkout(
        space=space.id,
        type=None if name is None else name[0],
        id=None if name is None else name[1],
        device=lease.device,
        device_name=space.device_name(lease.device),
        own=mine,
        state=_state(lease, own, relay_ms, mine=mine),
        since_ms=lease.since_ms - leases.relay_ahead_ms,
        until_ms=lease.expires_ms - leases.relay_ahead_ms,
        token=lease.token,
        sent=0 if own is None else own.sent,
        late=tuple(_late(space, each) for each in lease.late),
    )


def all_shown(replica: Replica, space: Space) -> list[Checkout]:
    """Every record that somebody has, and those that were checked out here, until they are checked in."""
    leases = space.leases
    relay_ms = replica.now_ms() + leases.relay_ahead_ms
    records = dict.fromkeys(leases.own)
    records.update((record, None) for record, (_, lease) in leases.rows.items() if lease.held(relay_ms))
    found = (shown(replica, space, record) for record in records)
    return sorted(
        (each for each in found if each is not None),
        key=lambda each: (not each.own, each.since_ms, each.token),
    )


def holder(replica: Replica, space: Space, record_type: str, id: str) -> Checkout | None:
    """Who else has the record now; None: nobody that we know of."""
    if not space.leases.rows:
        return None
    row, lease = space.leases.rows.get(OpaqueId(space.keys.opaque_id(record_type, id)), (0, None))
    relay_ms = replica.now_ms() + space.leases.relay_ahead_ms
    if not row or lease is None or lease.device == replica.device_id or not lease.held(relay_ms):
        return None
    return shown(replica, space, lease.record)


def _state(lease: Lease, own: OwnCheckout | None, relay_ms: int, *, mine: bool) -> CheckoutState:
    if own is not None and not mine:
        return "taken"
    if lease.state is LeaseState.BROKEN:
        return "broken"
    if lease.state is LeaseState.RETURNED:
        return "returned"
    return "held" if lease.held(relay_ms) else "expired"


def _late(space: Space, late: Late) -> LateEdits:
    ahead_ms = space.leases.relay_ahead_ms
    return LateEdits(
        late.device,
        space.device_name(late.device),
        late.ended_ms - ahead_ms,
        late.at_ms - ahead_ms,
        late.incarnation,
        late.first,
        late.last,
    )


def _name_of(replica: Replica, space: Space, record: OpaqueId) -> tuple[str, RecordId] | None:
    row = replica.db.execute(
        "SELECT type, id FROM records WHERE space = ? AND opaque = ?", (space.no, record)
    ).fetchone()
    return None if row is None else (row[0], RecordId(row[1]))
