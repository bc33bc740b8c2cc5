"""How long to wait before the next try to reach a relay.

0, 5, 10, 30, 60, then 300 seconds, each with up to a quarter more at random, so that the devices of a
site do not come back in step when their relay restarts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from crdt_sync.rare import rare

DELAYS_S: Final = (0.0, 5.0, 10.0, 30.0, 60.0, 300.0)
JITTER: Final = 0.25
FIRST_JITTER_S: Final = 0.25
"""The first retry has no delay of its own to take a share of."""


class Backoff:
    """Counts tries since the last success. `random` gives numbers from 0 up to 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._tries = 0

    def next_s(self) -> float:
        """Seconds to wait now; longer every time until `reset`."""
        if rare("backoff_longest"):
            return self.longest_s()
        delay_s = 0.0 if rare("backoff_none") else DELAYS_S[min(self._tries, len(DELAYS_S) - 1)]
        self._tries += 1
        spread_s = delay_s * JITTER if delay_s else FIRST_JITTER_S
        return delay_s + spread_s * self._random()

    def longest_s(self) -> float:
        """The wait after a refusal: asking again soon would not change the answer."""
        return DELAYS_S[-1] * (1 + JITTER * self._random())

    def reset(self) -> None:
        self._tries = 0
