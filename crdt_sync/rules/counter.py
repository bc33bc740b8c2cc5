"""The rule `counter`: the sum of every device's increments.

Each author keeps one running total of its own in the document and replaces only that, so no increment
made elsewhere can be lost. Integers stay integers. With floats among the totals they are summed exactly
(`math.fsum`), so that the order of the authors cannot change the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from crdt_sync.records.writes import Write
from crdt_sync.rules.base import Rule


class Counter(Rule):
    """Sums the running totals of all authors."""

    __slots__ = ()
    name = "counter"
    shape = "counter"

    def total(self, writes: Sequence[Write]) -> int | float:
        """The value of the counter. A total that is no number, from a broken peer, counts as nothing."""
        values = (write.value for write in writes)
        numbers = [
            value for value in values if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        if any(isinstance(number, float) for number in numbers):
            return _sum_of_floats(numbers)
        return sum(numbers)


def _sum_of_floats(numbers: Sequence[int | float]) -> float:
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # infinities of both signs, from a broken peer
        return math.nan
