"""What the device says about itself: is everything synced, and if not, why.

States of a space, and of a device with several spaces the most telling one of them:

    off          switched off on this device: what is written waits
    offline      not asked to connect
    connecting   reaching the relay, proving who we are
    syncing      connected, `done` of `total` envelopes of this round received or acknowledged
    idle         connected, nothing to send, everything received
    backoff      the relay could not be reached; next try in `retry_in_s`
    needs_auth   the relay does not know this device, or not by that key
    revoked      this device is no member of the space any more, or the relay's operator has shut it out
    error        the relay refused us for another reason, or sent what cannot be; asked again rarely
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from .engine.model import UnfinishedGroup

SyncState = Literal[
    "off", "offline", "connecting", "syncing", "idle", "backoff", "needs_auth", "revoked", "error"
]
RecordSync = Literal["synced", "pending", "sending", "failed", "conflict"]
"""Of a record: pending is not sent yet, sending is on its way, failed waits for a person to say what next."""

_TELLING: Final[tuple[SyncState, ...]] = (
    "revoked",
    "needs_auth",
    "error",
    "backoff",
    "connecting",
    "syncing",
    "idle",
    "offline",
    "off",
)
"""Most telling first: what a person should look at."""


@dataclass(frozen=True, slots=True)
class SpaceStatus:
    """One space. Counts are of records (`pending`, `failed`) and of open conflicts."""

    space_id: str
    name: str
    role: str
    relay: str
    state: SyncState = "offline"
    pending: int = 0
    failed: int = 0
    conflicts: int = 0
    done: int = 0
    total: int = 0
    last_synced_at: int | None = None
    retry_in_s: float | None = None
    problem: str | None = None
    bytes_sent: int = 0
    """Since the device was opened, as are those received."""
    bytes_received: int = 0
    quarantined: int = 0
    """Updates that came and were put aside, see `Device.quarantined`."""
    remaking: int = 0
    """At most so many records are still shown by an earlier version of their schema."""
    absent: int = 0
    """Records that are not on this device, only in the space."""
    wanted: int = 0
    """Those of them that are on their way."""
    checked_out: int = 0
    """Records that this device has to itself, see `Device.check_out`."""
    checkouts_ended: int = 0
    """Records whose checkout here ran out, was broken or lost, and that were not checked in yet."""
    unreadable: Mapping[str, int] = field(default_factory=dict)
    """Record types whose newest version needs a newer program, and that version."""
    unfinished: tuple[UnfinishedGroup, ...] = ()
    """Changes made together of which a part has not come: nothing of them shows until it has."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; times in Unix milliseconds."""
        return {
            "id": self.space_id,
            "name": self.name,
            "role": self.role,
            "relay": self.relay,
            "state": self.state,
            "pending": self.pending,
            "failed": self.failed,
            "conflicts": self.conflicts,
            "done": self.done,
            "total": self.total,
            "last_synced_at": self.last_synced_at,
            "retry_in_s": self.retry_in_s,
            "problem": self.problem,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "quarantined": self.quarantined,
            "remaking": self.remaking,
            "absent": self.absent,
            "wanted": self.wanted,
            "checked_out": self.checked_out,
            "checkouts_ended": self.checkouts_ended,
            "unreadable": dict(self.unreadable),
            "unfinished": [
                {
                    "device": group.device.hex(),
                    "device_name": group.device_name,
                    "arrived": group.arrived,
                    "size": group.size,
                    "since_at": group.since_ms,
                }
                for group in self.unfinished
            ],
        }


@dataclass(frozen=True, slots=True)
class Status:
    """The device: the sums of its spaces."""

    device_id: str
    name: str
    state: SyncState
    pending: int
    failed: int
    conflicts: int
    last_synced_at: int | None
    spaces: tuple[SpaceStatus, ...] = field(default=())

    @classmethod
    def of(cls, *, device_id: str, name: str, spaces: tuple[SpaceStatus, ...]) -> Status:
        """Sums up: the most telling state, the oldest `last_synced_at` (None if any space never was)."""
        states = {space.state for space in spaces}
        times = [space.last_synced_at for space in spaces]
        known = [time for time in times if time is not None]
        return cls(
            device_id=device_id,
            name=name,
            state=next((state for state in _TELLING if state in states), "offline"),
            pending=sum(space.pending for space in spaces),
            failed=sum(space.failed for space in spaces),
            conflicts=sum(space.conflicts for space in spaces),
            last_synced_at=min(known) if known and len(known) == len(times) else None,
            spaces=spaces,
        )

    @property
    def done(self) -> int:
        """How much of `total` is received or sent in the present connections."""
        return sum(space.done for space in self.spaces)

    @property
    def total(self) -> int:
        return sum(space.total for space in self.spaces)

    @property
    def bytes_sent(self) -> int:
        """To all relays, since the device was opened."""
        return sum(space.bytes_sent for space in self.spaces)

    @property
    def bytes_received(self) -> int:
        return sum(space.bytes_received for space in self.spaces)

    @property
    def retry_in_s(self) -> float | None:
        """Seconds to the next try of a space that waits for one."""
        return min((s.retry_in_s for s in self.spaces if s.retry_in_s is not None), default=None)

    def tells_the_same(self, other: Status) -> bool:
        """Whether nothing differs but how long ago, how soon, and how many bytes it took."""
        return self._still() == other._still()

    def _still(self) -> Status:
        spaces = tuple(
            replace(
                space,
                last_synced_at=None,
                retry_in_s=None if space.retry_in_s is None else 0.0,
                bytes_sent=0,
                bytes_received=0,
            )
            for space in self.spaces
        )
        return replace(self, spaces=spaces, last_synced_at=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device_id,
            "name": self.name,
            "state": self.state,
            "pending": self.pending,
            "failed": self.failed,
            "conflicts": self.conflicts,
            "done": self.done,
            "total": self.total,
            "retry_in_s": self.retry_in_s,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "last_synced_at": self.last_synced_at,
            "spaces": [space.to_json() for space in self.spaces],
        }


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one `sync` did: envelopes acknowledged by the relay, envelopes received, over all spaces."""

    sent: int
    received: int
    bytes_sent: int
    bytes_received: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "received": self.received,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "seconds": round(self.seconds, 3),
        }
