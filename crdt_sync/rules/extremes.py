"""Rules that keep the greatest or the least of what was written apart: `max` and `min`.

Numbers are compared as numbers, dates and date-times as points in time: `10:00Z` is before `11:30+01:00`
is before `10:45Z`, and a date is the first moment of its day in UTC. A value that cannot be compared (a
field that was cleared, something out of an older schema) only counts when nothing else does.

Only concurrent writes are compared. Whoever has seen a value and writes a lower one corrects it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date
from typing import Final, TypeAlias

from crdt_sync.records.changes import Value
from crdt_sync.records.writes import Write
from crdt_sync.rules.base import ValueRule, by_clock

Measure: TypeAlias = tuple[int, int | float, str]
"""Kind (numbers above points in time), whole part, digits behind the point."""

_NUMBER: Final = 1
_MOMENT: Final = 0
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d)))?", re.ASCII
)
"""RFC 3339, the `date` and `date-time` of JSON Schema."""


class Max(ValueRule):
    """The greatest: a meter that only goes up, last seen."""

    __slots__ = ()
    name = "max"

    def choose(self, writes: Sequence[Write]) -> Write:
        if len(writes) == 1:
            return writes[0]
        found = _measured(writes)
        return max(found, key=lambda each: (each[0], by_clock(each[1])))[1] if found else _latest(writes)


class Min(ValueRule):
    """The least: first seen, the best offer."""

    __slots__ = ()
    name = "min"

    def choose(self, writes: Sequence[Write]) -> Write:
        if len(writes) == 1:
            return writes[0]
        found = _measured(writes)
        if not found:
            return _latest(writes)
        least = min(measure for measure, _ in found)
        return _latest([write for measure, write in found if measure == least])


def _latest(writes: Sequence[Write]) -> Write:
    return max(writes, key=by_clock)


def _measured(writes: Sequence[Write]) -> list[tuple[Measure, Write]]:
    """What can be compared; where numbers and times stand side by side, the numbers."""
    found = [(each, write) for write in writes if (each := measure(write.value)) is not None]
    kind = max((each[0] for each, _ in found), default=_NUMBER)
    return [(each, write) for each, write in found if each[0] == kind]


def measure(value: Value) -> Measure | None:
    """What a value is compared by; None when it is neither a number nor a point in time."""
    if isinstance(value, str):
        return _moment(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return (_NUMBER, value, "")


def _moment(text: str) -> Measure | None:
    """Seconds since the year 1, and the digits of the fraction: exact, however many there are."""
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = found.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return None
    seconds = days * 86_400
    if hour is not None:
        seconds += int(hour) * 3600 + int(minute) * 60 + int(second)
    if sign is not None:
        offset = int(zone_hours) * 3600 + int(zone_minutes) * 60
        seconds += -offset if sign == "+" else offset
    return (_MOMENT, seconds, (fraction or "").rstrip("0"))
