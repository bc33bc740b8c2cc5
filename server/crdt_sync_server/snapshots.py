"""Whether a snapshot may take the place of updates in the log.

The relay cannot look into a snapshot; it holds what the snapshot *says* it covers against its log. It accepts
only when all of this is so, and then prunes what is covered and nothing else:

1. everything the current snapshot covers is covered again, so that it can be superseded;
2. every update the vector names is in the record's tail with that hash, or stands so in the current snapshot;
3. every update it names as known but unmerged is in the tail, or is named so in the current snapshot;
4. no update of the record before the snapshot's place in the log is passed over in silence: each is
   covered or named as unmerged;
5. something new is covered, else the snapshot is stale;
6. it names an entry of the membership log as the newest that its author had seen (asked by `spaces`).

One that is *given back* to a relay that has lost something (see `returning`) may name what the log never had,
and needs to cover nothing new: the relay cannot know what it lacks. It is put at the end, so that everyone
meets it, and rules 1, 4 and 6 hold as ever: nothing that is here is given up for it.

Its place in the log is that of the newest row it covers. But nobody may meet it before the membership entries
that its author had seen: who made it may have joined after what it covers. Then it is put at the end.

What it does not know: whether the content is what the updates give. A member who lies about that is found out
by the other members, who have the updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from crdt_sync.crypto.cover import CoverVector
from crdt_sync.ids import Author
from crdt_sync_server.storage.port import TailRow


class Accepted(NamedTuple):
    """The snapshot stands at `sequence` in place of the rows `covered`."""

    sequence: int
    covered: list[int]


class Rejected(NamedTuple):
    """`code` is `stale` or `mismatch`, as in `SnapshotResult`."""

    code: str
    reason: str


def judge(
    cover: CoverVector,
    tail: Sequence[TailRow],
    hash_of: Callable[[Author, int], bytes | None],
    previous: tuple[int, CoverVector] | None,
    not_before: int,
    end: int,
    *,
    given_back: bool = False,
) -> Accepted | Rejected:
    """See the module. `previous` is the place and the cover of the record's current snapshot.

    `not_before` is the row of the newest membership entry that the author had seen, `end` the next row to be.
    """
    place, before = previous if previous is not None else (0, CoverVector.EMPTY)
    lost = cover.lacks(before)
    if lost is not None:
        return Rejected("mismatch", f"covers less of {_short(lost)} than the current snapshot")
    in_tail = {(row.author, row.chain_sequence) for row in tail}
    for author, head in cover.covered.items():
        if before.covered.get(author) == head:
            continue
        here = (author, head.sequence) in in_tail
        if not here and given_back:
            continue
        if not here or hash_of(author, head.sequence) != head.hash:
            return Rejected(
                "mismatch", f"names an update {head.sequence} of {_short(author)} that the log does not have"
            )
    for author, sequence in cover.unmerged:
        known = (author, sequence) in in_tail or (author, sequence) in before.unmerged
        if not known and not given_back:
            return Rejected(
                "mismatch",
                f"names an unmerged update {sequence} of {_short(author)} that the log does not have",
            )
    covered = [row.sequence for row in tail if cover.covers(row.author, row.chain_sequence)]
    if not covered and not given_back:
        return Rejected("stale", "covers no update that the current snapshot does not cover")
    place = max(place, *covered, 0)
    if place < not_before or given_back:
        place = end
    for row in tail:
        known = cover.covers(row.author, row.chain_sequence) or (
            (row.author, row.chain_sequence) in cover.unmerged
        )
        if row.sequence < place and not known:
            return Rejected("mismatch", f"misses update {row.chain_sequence} of {_short(row.author)}")
    return Accepted(place, covered)


def _short(author: Author) -> str:
    return f"device {author.device.hex()[:8]}"
