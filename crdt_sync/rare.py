"""Points where a simulator makes rare timing common.

Some paths are taken only when a batch is full, a ring has run over or a cache has no room: in production now
and then, in a test of minutes hardly ever. Code that has such a path asks at it:

    if len(self._rows) > RING_ROWS or rare("ring_dropped"):

In production the answer is no and costs a comparison. A simulator that runs the code in its own thread puts
a function in charge of the answers for as long as a run takes. Whatever a point does must be something
that could happen without it: it changes how often, never what.

The idea is FoundationDB's `BUGGIFY` (Zhou et al., "FoundationDB: A Distributed Unbundled Transactional Key
Value Store", SIGMOD 2021, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

Point = Literal[
    "backoff_longest",
    "backoff_none",
    "compaction_declined",
    "compaction_early",
    "envelope_per_update",
    "frame_per_commit",
    "frame_per_row",
    "page_of_one_row",
    "push_of_one",
    "push_without_pause",
    "record_evicted",
    "ring_dropped",
    "row_per_transaction",
]

POINTS: Final[Mapping[Point, str]] = {
    "backoff_longest": "a device waits as long as after many failures before it connects again",
    "backoff_none": "a device connects again at once",
    "compaction_declined": "a device declines to make a snapshot, as if it could not vouch for the record",
    "compaction_early": "the relay asks for a snapshot although the record is being written to",
    "envelope_per_update": "updates that wait for one record are not merged into one envelope",
    "frame_per_commit": "the relay commits frame by frame, as after a commit that failed",
    "frame_per_row": "live rows are delivered one per frame, as if each were as long as a frame",
    "page_of_one_row": "rows are read from the relay's log one by one, as if each were as long as a page",
    "push_of_one": "one envelope per push, as if each were as long as a push",
    "push_without_pause": "what is written is sealed and sent at once, without waiting for more to merge",
    "record_evicted": "an open record makes room, as if the cache of open records were full",
    "ring_dropped": "the live end of a log is dropped from memory, so that its readers go to the storage",
    "row_per_transaction": "rows that a device received are stored one by one",
}
"""Every point there is, and what happens at it."""

_decide: Callable[[Point], bool] | None = None


def rare(point: Point) -> bool:
    """Whether the rare thing happens here and now. Always False unless inside `decided_by`."""
    return _decide is not None and _decide(point)


@contextmanager
def decided_by(decide: Callable[[Point], bool]) -> Iterator[None]:
    """Let `decide` answer, in the whole process, until the block ends. For one simulated world at a time."""
    global _decide
    if _decide is not None:
        raise RuntimeError("another simulated world decides already")
    _decide = decide
    try:
        yield
    finally:
        _decide = None
