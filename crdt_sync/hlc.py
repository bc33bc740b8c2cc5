"""Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).

A time is a 53-bit integer, so that JavaScript reads it whole: 41 bits of milliseconds since 2020-01-01
UTC (enough until 2089) and 12 bits of counter. The clock only ever chooses among *concurrent* writes;
which write came after which is known from the documents themselves.

A time received from a device whose clock runs ahead is never followed by more than `MAX_AHEAD_MS`:
following it would let one wrong clock drag every other one along. The write itself is kept.
"""

from __future__ import annotations

from typing import Final, NewType

Hlc = NewType("Hlc", int)

EPOCH_MS: Final = 1_577_836_800_000
"""2020-01-01T00:00:00Z in Unix milliseconds."""
COUNTER_BITS: Final = 12
MAX_HLC: Final = 2**53 - 1
MAX_AHEAD_MS: Final = 5 * 60 * 1000
"""Five minutes: more than network-set clocks ever differ, less than people notice in an audit trail."""


def hlc_from_ms(unix_ms: int) -> Hlc:
    """The first time of that Unix millisecond; times before 2020 count as its first millisecond."""
    return Hlc(min(max(unix_ms - EPOCH_MS, 0) << COUNTER_BITS, MAX_HLC))


def hlc_to_ms(time: Hlc) -> int:
    """The Unix millisecond a time stands for."""
    return (time >> COUNTER_BITS) + EPOCH_MS


class HybridClock:
    """Gives strictly growing times. Keep `last` with the store and start from it again."""

    __slots__ = ("last",)

    def __init__(self, last: Hlc = Hlc(0)) -> None:
        self.last = last

    def tick(self, now_ms: int) -> Hlc:
        """The time of a new local write: after every time given out or followed before."""
        self.last = Hlc(max(self.last + 1, hlc_from_ms(now_ms)))
        return self.last

    def follow(self, time: Hlc, now_ms: int) -> bool:
        """Take note of a received time; False when it was too far ahead to be followed."""
        if time > self.last:
            if time > hlc_from_ms(now_ms + MAX_AHEAD_MS):
                return False
            self.last = time
        return True
