"""What the relay's refusals of our work mean: by the relay's code, an error of ours and what is done.

    code                                    what the device does by itself
    any, but for those of the last lines    sends the same bytes again: they may have been damaged on the way
    bad_signature, chain_broken, others     then sets the record aside and tries again, ten times in all
    permission, invalid, too_large, …       then sets the record aside; it waits for `retry` or `discard`
    checked_out, record_over_quota          sets the record aside until the relay may take it
    over_quota, rate_limited                stays connected, sends nothing for a while and goes on

Whatever is set aside blocks nothing else, and what is written to that record later waits behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from crdt_sync.errors import (
    CheckedOut,
    InvalidWork,
    NotPermitted,
    OverQuota,
    RateLimited,
    Revoked,
    SpaceGone,
    WorkRefused,
    WorkTooLarge,
)

Then = Literal["again", "person", "while", "all"]
"""What follows when the same bytes are refused for good, see the table."""

MAX_ATTEMPTS: Final = 10
"""Then a person has to say that it is to be tried again."""
SAME_BYTES: Final = 3
"""A refusal may come from bytes that were damaged on the way, so they are sent again; so often."""
OUT_OF_ORDER: Final = 10
"""How often what only came out of order: nothing is wrong with it, the next session lines it up."""
RETRY_S: Final = (5, 10, 30, 60, 300)
"""Between attempts with one record, the last again and again; each with up to `LATER_BY` more."""
WHILE_S: Final = (30, 60, 300)
"""The same for what the relay will take sooner or later."""
SHARE_S: Final = (1, 2, 5, 10, 30)
"""The same for a device that sent more than its share, of which the relay gives more with every second."""
LATER_BY: Final = 0.25
"""The most that is added to a wait, as a share of it."""
LONGEST_S: Final = 300 * (1 + LATER_BY)
"""A time farther off than that was noted before the clock was set back."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """`same_bytes`: so many sessions send the same bytes before anything else is done."""

    error: type[WorkRefused]
    then: Then = "again"
    same_bytes: int = SAME_BYTES


_OTHERS: Final = Treatment(WorkRefused)
TREATMENTS: Final[Mapping[str, Treatment]] = {
    "bad_signature": Treatment(InvalidWork),
    "malformed_envelope": Treatment(InvalidWork, "person"),
    "equivocation": Treatment(InvalidWork),
    "chain_broken": Treatment(WorkRefused, same_bytes=OUT_OF_ORDER),
    "unknown_epoch": Treatment(WorkRefused, same_bytes=1),
    "invalid": Treatment(InvalidWork, "person"),
    "permission": Treatment(NotPermitted, "person"),
    "not_permitted": Treatment(NotPermitted, "person"),
    "unknown_member": Treatment(Revoked, "person"),
    "revoked": Treatment(Revoked, "person"),
    "unknown_space": Treatment(SpaceGone, "person"),
    "too_large": Treatment(WorkTooLarge, "person"),
    "checked_out": Treatment(CheckedOut, "while", 1),
    "record_over_quota": Treatment(OverQuota, "while", 1),
    "over_quota": Treatment(OverQuota, "all", 1),
    "rate_limited": Treatment(RateLimited, "all", 1),
}
"""By the relay's code; others as `_OTHERS`, so that a newer relay can say more."""


def treatment(code: str) -> Treatment:
    """What is done about a refusal with that code."""
    return TREATMENTS.get(code, _OTHERS)


def work_refused(code: str, reason: str) -> WorkRefused:
    """The error for a refusal, with the relay's reason."""
    return treatment(code).error(code, reason)


def delay_s(then: Then, attempts: int, jitter: float) -> float | None:
    """Seconds until a record is tried again by itself, after so many attempts; None: not by itself.

    `jitter` is from 0 up to 1.
    """
    if then == "person" or (then == "again" and attempts >= MAX_ATTEMPTS):
        return None
    waits = WHILE_S if then in ("while", "all") else RETRY_S
    first = 1 if then in ("while", "all") else SAME_BYTES
    return waits[min(max(attempts - first, 0), len(waits) - 1)] * (1 + jitter * LATER_BY)


def pause_s(code: str, times: int, jitter: float) -> float:
    """Seconds until anything is sent again, after the same update was held up so many times.

    `jitter` is from 0 up to 1.
    """
    waits = SHARE_S if treatment(code).error is RateLimited else WHILE_S
    return waits[min(times, len(waits)) - 1] * (1 + jitter * LATER_BY)
