"""Who has which record, as this device knows it and people are told. Nothing here changes anything.

What is known is in `leases`, in memory; where nobody has anything checked out, asking costs a look.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from crdt_sync.ids import OpaqueId, RecordId
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
class LateWork:
    """Work that came at `at`, when its device's checkout had ended at `ended_at` without being checked in."""

    device: str
    device_id: str
    ended_at: int
    at: int

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Checkout:
    """Who has a record, or had it last. `own`: this device. Times are Unix ms of this device's clock.

    `state` as it was when this was asked: "held", "expired", "broken" by an admin, "returned", or "taken": it
    was held here and another device has it since. `sent`: updates that the relay took since it was checked
    out here. `late`: what came after the checkout that it belongs to had ended, the oldest first. `space` and
    `device_id` are hex; `type` and `id` None for a record that is not known on this device.
    """

    space: str
    type: str | None
    id: str | None
    device: str
    device_id: str
    own: bool
    state: CheckoutState
    since_at: int
    until_at: int
    token: int
    sent: int = 0
    late: tuple[LateWork, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values by these names."""
        body = {name: getattr(self, name) for name in self.__slots__}
        return body | {"late": [each.to_json() for each in self.late]}


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
        space=space.id.hex(),
        type=None if name is None else name[0],
        id=None if name is None else name[1],
        device=space.device_name(lease.device),
        device_id=lease.device.hex(),
        own=mine,
        state=_state(lease, own, relay_ms, mine=mine),
        since_at=lease.since_ms - leases.relay_ahead_ms,
        until_at=lease.expires_ms - leases.relay_ahead_ms,
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
        key=lambda each: (not each.own, each.since_at, each.token),
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


def own_counts(replica: Replica, space: Space) -> tuple[int, int]:
    """How many records this device has to itself, and how many it had and lost before it checked in."""
    leases, held, ended = space.leases, 0, 0
    for record, own in leases.own.items():
        lease = leases.of(record)
        if leases.holds(replica.device_id, record, replica.now_ms()):
            held += 1
        elif lease is None or _state(lease, own, 0, mine=lease.device == replica.device_id) != "returned":
            ended += 1
    return held, ended


def _state(lease: Lease, own: OwnCheckout | None, relay_ms: int, *, mine: bool) -> CheckoutState:
    if own is not None and not mine:
        return "taken"
    if lease.state is LeaseState.BROKEN:
        return "broken"
    if lease.state is LeaseState.RETURNED:
        return "returned"
    return "held" if lease.held(relay_ms) else "expired"


def _late(space: Space, late: Late) -> LateWork:
    ahead_ms = space.leases.relay_ahead_ms
    return LateWork(
        space.device_name(late.device), late.device.hex(), late.ended_ms - ahead_ms, late.at_ms - ahead_ms
    )


def name_of(replica: Replica, space: Space, record: OpaqueId) -> tuple[str, RecordId] | None:
    row = replica.db.execute(
        "SELECT type, id FROM records WHERE space = ? AND opaque = ?", (space.no, record)
    ).fetchone()
    return None if row is None else (row[0], RecordId(row[1]))
