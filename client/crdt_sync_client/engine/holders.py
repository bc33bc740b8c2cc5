"""Who has which record, as this device knows it and people are told. Nothing here changes anything.

What is known is in `leases`, in memory; where nobody has anything checked out, asking costs a look.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from crdt_sync.ids import DeviceId, OpaqueId, RecordId, SpaceId
from crdt_sync.protocol.leases import Late, Lease, LeaseState

if TYPE_CHECKING:
    from crdt_sync_client.engine.leases import OwnCheckout
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space

Name = tuple[str, RecordId]
CheckoutState = Literal["held", "expired", "broken", "returned", "taken"]
"""`taken`: it was held here, and another device has it since."""

_NOBODY: Final[tuple[int, Lease | None]] = (0, None)


def utc_text(at_ms: int) -> str:
    """A moment in Unix milliseconds, for people anywhere."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True, slots=True)
class LateEdits:
    """Work that came after its device's checkout had ended. Times are Unix ms of this device's clock."""

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


def shown(
    replica: Replica,
    space: Space,
    record: OpaqueId,
    *,
    own: OwnCheckout | None = None,
    name: Name | None = None,
) -> Checkout | None:
    """Who has a record, or had it last, as people are told; None if nobody that we know of.

    `own`: what this device had of it before. Without `name` that is looked up.
    """
    leases = space.leases
    lease = leases.of(record)
    own = leases.own.get(record) or own
    if lease is None:
        return None
    if name is None:
        name = (own.type, own.id) if own is not None else name_of(replica, space, record)
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


def held_now(replica: Replica, space: Space, record: OpaqueId, name: Name) -> Checkout | None:
    """Who has the record now, this device or another; None: nobody that we know of.

    Asked for every record that is shown: from memory, and at once where nobody has anything.
    """
    leases = space.leases
    row, lease = leases.rows.get(record, _NOBODY)
    if lease is None or not lease.held(replica.now_ms() + leases.relay_ahead_ms):
        return None
    if (
        not row and lease.device != replica.device_id
    ):  # a relay has lost that, and its holder has not come yet
        return None
    return shown(replica, space, record, name=name)


def holder(replica: Replica, space: Space, record_type: str, id: str) -> Checkout | None:
    """Who else has the record now; None: nobody that we know of."""
    if not space.leases.rows:
        return None
    name = (record_type, RecordId(id))
    found = held_now(replica, space, OpaqueId(space.keys.opaque_id(*name)), name)
    return None if found is None or found.own else found


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


def name_of(replica: Replica, space: Space, record: OpaqueId) -> tuple[str, RecordId] | None:
    row = replica.db.execute(
        "SELECT type, id FROM records WHERE space = ? AND opaque = ?", (space.no, record)
    ).fetchone()
    return None if row is None else (row[0], RecordId(row[1]))
