"""How much a device may send: a token bucket of updates and one of bytes for each, on the relay's own clock.

A bucket is full at first, loses what the device sends and gains steadily. A device at rest has the whole
burst; one that never rests has the rate. Time is the relay's monotonic clock, so that nobody's idea of the
time of day counts; a clock that goes back stands still here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from crdt_sync.ids import DeviceId
from crdt_sync.rare import rare
from crdt_sync_server.limits import RelayLimits

_REMEMBERED: Final = 4096
"""Devices with a bucket that may not be full; when there are more, the full ones are forgotten."""


class _Bucket:
    """What is left, in thousandths, so that a millisecond of a rate is a whole number."""

    __slots__ = ("at_ms", "left", "most", "per_s")

    def __init__(self, per_s: int | None, burst: int, now_ms: int) -> None:
        self.per_s = per_s
        self.most = self.left = burst * 1000
        self.at_ms = now_ms

    def refill(self, now_ms: int) -> None:
        if self.per_s is not None:
            self.left = min(self.most, self.left + max(0, now_ms - self.at_ms) * self.per_s)
        self.at_ms = max(self.at_ms, now_ms)

    @property
    def full(self) -> bool:
        return self.left == self.most

    @property
    def empty(self) -> bool:
        return self.per_s is not None and self.left < 1000

    @property
    def wait_ms(self) -> int:
        """Until there is enough for a second again, or the whole burst if that is less."""
        if self.per_s is None:
            return 0
        return max(0, min(self.most, self.per_s * 1000) - self.left) // self.per_s

    def take(self, amount: int) -> None:
        """May go into debt with the last that is taken: no envelope is larger than a burst."""
        if self.per_s is not None:
            self.left -= amount * 1000


class Rates:
    """See the module."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._buckets: dict[DeviceId, tuple[_Bucket, _Bucket]] = {}

    def admit(self, device: DeviceId, sizes_bytes: Sequence[int], now_ms: int) -> int:
        """How many of these updates, from the first on, the device may send now. They are taken."""
        limits = self._limits
        if limits.updates_per_s is None and limits.bytes_per_s is None:
            return len(sizes_bytes)
        buckets = self._buckets.get(device)
        if buckets is None:
            if len(self._buckets) >= _REMEMBERED:
                self._forget(now_ms)
            buckets = self._buckets[device] = (
                _Bucket(limits.updates_per_s, limits.updates_burst, now_ms),
                _Bucket(limits.bytes_per_s, limits.bytes_burst, now_ms),
            )
        updates, size = buckets
        updates.refill(now_ms)
        size.refill(now_ms)
        for index, size_bytes in enumerate(sizes_bytes):
            if updates.empty or size.empty or rare("rate_limited"):
                return index
            updates.take(1)
            size.take(size_bytes)
        return len(sizes_bytes)

    def wait_s(self, device: DeviceId) -> int:
        """For how long a device that was just refused something does best to wait: 1 at least."""
        waits_ms = [bucket.wait_ms for bucket in self._buckets.get(device, ())]
        return max(1, -(-max(waits_ms, default=0) // 1000))

    def _forget(self, now_ms: int) -> None:
        for device, buckets in list(self._buckets.items()):
            for bucket in buckets:
                bucket.refill(now_ms)
            if all(bucket.full for bucket in buckets):
                del self._buckets[device]
