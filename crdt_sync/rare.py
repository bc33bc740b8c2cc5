"""Points where a simulator makes rare timing common.

Some paths are taken only when a batch is full, a ring has run over or a cache has no room: in production now
and then, in a test of minutes hardly ever. Code that has such a path asks at it:

    if len(self._rows) > RING_ROWS or rare("ring_dropped"):

In production the answer is no and costs a look into an empty tuple. A simulator that runs the code in its own
thread puts a function in charge of the answers for as long as a run takes. Whatever a point does must be
something that could happen without it: it changes how often, never what.

The idea is FoundationDB's `BUGGIFY` (Zhou et al., "FoundationDB: A Distributed Unbundled Transactional Key
Value Store", SIGMOD 2021, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

Point = Literal[
    "ack_late",
    "backoff_longest",
    "backoff_none",
    "batch_of_one_frame",
    "commit_of_one_frame",
    "compaction_declined",
    "compaction_early",
    "cursor_stored",
    "envelope_per_update",
    "frame_per_commit",
    "frame_per_row",
    "got_early",
    "look_of_one",
    "own_rows_told",
    "page_of_one_row",
    "push_of_one",
    "push_without_pause",
    "rate_limited",
    "record_evicted",
    "record_full",
    "ring_dropped",
    "row_per_transaction",
    "session_over",
    "space_full",
    "upkeep_of_one",
]

POINTS: Final[Mapping[Point, str]] = {
    "ack_late": "the relay acknowledges a push only with what it spreads next, or at the next tick",
    "backoff_longest": "a device waits as long as after many failures before it connects again",
    "backoff_none": "a device connects again at once",
    "batch_of_one_frame": "a device stores frame by frame what came while its store was busy",
    "commit_of_one_frame": "the relay commits frame by frame, as if each were as long as a commit may be",
    "compaction_declined": "a device declines to make a snapshot, as if it could not vouch for the record",
    "compaction_early": "the relay asks for a snapshot although the record is being written to",
    "cursor_stored": "a cursor that moved over own rows only is stored at once, not with the next batch",
    "envelope_per_update": "updates that wait for one record are not merged into one envelope",
    "frame_per_commit": "the relay commits frame by frame, as after a commit that failed",
    "frame_per_row": "live rows are delivered one per frame, as if each were as long as a frame",
    "got_early": "a device confirms what it received at once, as if it had been a lot",
    "look_of_one": "a device looks record by record for what a relay has lost, as if there were many",
    "own_rows_told": "a busy device is told of each of its own rows that its cursor passed",
    "page_of_one_row": "rows are read from the relay's log one by one, as if each were as long as a page",
    "push_of_one": "one envelope per push, as if each were as long as a push",
    "push_without_pause": "what is written is sealed and sent at once, without waiting for more to merge",
    "rate_limited": "the relay refuses a push, as if its device had sent more than its share",
    "record_evicted": "an open record makes room, as if the cache of open records were full",
    "record_full": "the relay refuses an update, as if its record had no room left",
    "ring_dropped": "the live end of a log is dropped from memory, so that its readers go to the storage",
    "row_per_transaction": "rows that a device received are stored one by one",
    "session_over": "a device connects again after a batch, as if another session had to send what is left",
    "space_full": "the relay refuses an update, as if its space had no room left",
    "upkeep_of_one": "a new version of a schema is taken up record by record, as if there were many",
}
"""Every point there is, and what happens at it."""


def _never(_: Point) -> bool:
    return False


_decide: Callable[[Point], bool] = _never
_asked_about: Container[Point] = ()


def rare(point: Point) -> bool:
    """Whether the rare thing happens here and now. Always False unless inside `decided_by`."""
    return point in _asked_about and _decide(point)


@contextmanager
def decided_by(decide: Callable[[Point], bool], points: Container[Point]) -> Iterator[None]:
    """Let `decide` answer, in the whole process, until the block ends. For one simulated world at a time.

    It is asked about those `points` only, which may change meanwhile.
    """
    global _asked_about, _decide
    if _decide is not _never:
        raise RuntimeError("another simulated world decides already")
    _asked_about, _decide = points, decide
    try:
        yield
    finally:
        _asked_about, _decide = (), _never
