"""What one relay takes from one device, one record, one space, and from all of them together.

A limit is there so that one device, broken or ill-willed, cannot take from the others what they need: memory,
disk, time. Every default is far above what people do and far below what a machine has. What a device is told
when it meets one, and what becomes of its work, stands in docs/relay-operations.md: work is never lost, at
worst it waits in the device's outbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crdt_sync.errors import RemoteError
from crdt_sync.protocol.limits import DEFAULT_LIMITS, Limits

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

UPDATES_PER_S: Final = 1000
"""A person makes a few a minute and a device seals some thousands a second: this is for its imports."""
UPDATES_BURST: Final = 200_000
"""A device that was away for weeks, or imports a register of 100,000 assets, sends everything in one go."""
BYTES_PER_S: Final = 8 * MIB
"""More than a site's uplink; 8 such devices are what a disk of the cheapest kind writes durably."""
BYTES_BURST: Final = 512 * MIB
"""As many bytes as the burst of updates has at some 2.5 KB each."""
RECORD_BYTES: Final = 8 * MIB
"""A snapshot of the largest size there may be, and as much again of updates waiting for the next, several
times: a record that grows beyond it is not being compacted, or is no form but a file."""
SPACE_BYTES: Final = 8 * GIB
"""Some five million records of a kilobyte and a half, a hundred times a large site."""
CONNECTIONS: Final = 5000
"""Some 40 KB each. Twice the fleet that one relay is sized for."""
DEVICE_CONNECTIONS: Final = 32
"""One connection per space that a device is in."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """See the module and the constants. None is no limit. `wire` is what the challenge names."""

    wire: Limits = DEFAULT_LIMITS
    record_bytes: int | None = RECORD_BYTES
    space_bytes: int | None = SPACE_BYTES
    updates_per_s: int | None = UPDATES_PER_S
    updates_burst: int = UPDATES_BURST
    bytes_per_s: int | None = BYTES_PER_S
    bytes_burst: int = BYTES_BURST
    connections: int = CONNECTIONS
    device_connections: int = DEVICE_CONNECTIONS


DEFAULT_RELAY_LIMITS: Final = RelayLimits()


class Refusal(RemoteError):
    """Nothing of the device is taken now. It keeps its work, waits, and sends the same again later."""

    retryable = True


class OverQuota(Refusal):
    """The space has no room left at this relay."""

    code = "over_quota"


class RecordOverQuota(RemoteError):
    """The record has no room left at this relay; other records of the device may well be taken."""

    code = "record_over_quota"
    retryable = True


class RateLimited(Refusal):
    """The device sends more than its share; a moment later it may go on, best in `wait_s` seconds."""

    code = "rate_limited"

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"more at once than one device may send; go on in {wait_s} s")
        self.wait_s = wait_s


class TooManyConnections(RemoteError):
    """The relay, or the device at it, has as many connections as it may."""

    code = "too_many_connections"
