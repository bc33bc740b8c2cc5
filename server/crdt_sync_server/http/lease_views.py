"""Leases as the HTTP API words them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

from crdt_sync.protocol.frames import CheckedOut
from crdt_sync.protocol.leases import Lease, LeaseState
from crdt_sync_server.http import bodies

_STATES: Final[dict[LeaseState, Literal["held", "returned", "broken"]]] = {
    LeaseState.HELD: "held",
    LeaseState.RETURNED: "returned",
    LeaseState.BROKEN: "broken",
}


def lease_view(row: int, lease: Lease, *, in_force: bool) -> bodies.LeaseView:
    """As it is answered."""
    return bodies.LeaseView(
        record=lease.record.hex(),
        device=lease.device.hex(),
        token=lease.token,
        since_ms=lease.since_ms,
        expires_ms=lease.expires_ms,
        state=_STATES[lease.state],
        in_force=in_force,
        row=row,
        former=[
            bodies.FormerView(device=each.device.hex(), token=each.token, ended_ms=each.ended_ms)
            for each in lease.former
        ],
        late=[
            bodies.LateView(
                device=each.device.hex(),
                token=each.token,
                ended_ms=each.ended_ms,
                incarnation=each.incarnation,
                first=each.first,
                last=each.last,
                at_ms=each.at_ms,
            )
            for each in lease.late
        ],
    )


def why_checked_out(frame: CheckedOut) -> str:
    """For people, as a push is told."""
    until = datetime.fromtimestamp(frame.lease.expires_ms / 1000, UTC).isoformat(timespec="seconds")
    return f"device {frame.lease.device.hex()} has checked out the record until {until}"
