"""Groups: updates of several records that show together or not at all.

What one transaction writes travels as one update per record, in a row of consecutive sequence numbers of
its author's chain. Each carries its place in the group inside the encryption, as the payload's `group`:

    of an update    msgpack [position, size]
    of a snapshot   msgpack [[device, incarnation, last], …]

An update with sequence number `s` and `[position, size]` belongs to the group of the sequence numbers
`s - position` to `s - position + size - 1`. So two updates cannot claim one place; they can only disagree
about how far their group reaches.

A snapshot says, per author, where the newest group ends of which it holds a part. Who has not seen that
author's chain up to there may lack the other parts. The list is sorted and names each author once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from crdt_sync.errors import BadUpdate
from crdt_sync.ids import Author, DeviceId, Incarnation

MAX_GROUP: Final = 1_000
"""Updates in one group. A receiver keeps all of an unfinished one aside and merges them in one transaction:
this many small updates take it about 0.2 s."""

_encoder: Final = msgspec.msgpack.Encoder()
_place: Final = msgspec.msgpack.Decoder(tuple[int, int])
_ends: Final = msgspec.msgpack.Decoder(list[tuple[bytes, int, int]])
_DEVICE_BYTES: Final = 16


class GroupPlace(NamedTuple):
    """The place of an update in its group: `position` counts from 0, `size` is the number of its updates."""

    position: int
    size: int

    def encode(self) -> bytes:
        """The payload's `group`."""
        return _encoder.encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> GroupPlace:
        """The inverse of `encode`; raises BadUpdate."""
        try:
            place = cls(*_place.decode(raw))
        except (msgspec.MsgspecError, ValueError):
            raise BadUpdate("payload: its group is not [position, size]") from None
        if not 2 <= place.size <= MAX_GROUP or not 0 <= place.position < place.size:
            raise BadUpdate(f"payload: its group is not a place among 2 to {MAX_GROUP:,} updates")
        if place.encode() != raw:
            raise BadUpdate("payload: its group is not in canonical form")
        return place

    def span(self, sequence: int) -> tuple[int, int]:
        """First and last sequence number of the group, of which one is `sequence`. Raises BadUpdate."""
        first = sequence - self.position
        if first < 1:
            raise BadUpdate("payload: its group begins before the chain")
        return first, first + self.size - 1


def encode_ends(ends: Mapping[Author, int]) -> bytes | None:
    """A snapshot's `group`: per author the last sequence number of a group; None when there is none."""
    if not ends:
        return None
    return _encoder.encode([(author.device, author.incarnation, ends[author]) for author in sorted(ends)])


def decode_ends(raw: bytes | None) -> dict[Author, int]:
    """The inverse of `encode_ends`; raises BadUpdate."""
    if raw is None:
        return {}
    try:
        listed = _ends.decode(raw)
        ends = {
            Author(DeviceId(device), Incarnation(incarnation)): last for device, incarnation, last in listed
        }
    except (msgspec.MsgspecError, ValueError):
        raise BadUpdate("payload: its group is not a list of authors and sequence numbers") from None
    fits = all(
        len(author.device) == _DEVICE_BYTES and 0 < author.incarnation < 2**32 and 0 < last < 2**63
        for author, last in ends.items()
    )
    if not fits or encode_ends(ends) != raw:
        raise BadUpdate("payload: its group is not a list of authors and sequence numbers in canonical form")
    return ends
