"""The cover vector of a snapshot: exactly which updates of its record are merged in it.

Per author the vector names one update *of this record*, by sequence number and hash: all the author's
updates of the record up to there are merged. `unmerged` names updates that the snapshot's author holds
but did not merge (they are in quarantine): they are not covered, even where the vector reaches past them.

It is the public section of a snapshot, so that a relay without keys can hold it against its log and
prune what is covered, and nothing else.

    msgpack [[[device, incarnation, sequence, hash32], …], [[device, incarnation, sequence], …]]

Both lists are sorted by bytes and free of repetitions; there is one encoding of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar, Final

import msgspec

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.errors import MalformedEnvelope
from crdt_sync.ids import Author, DeviceId, Incarnation

_HASH_BYTES: Final = 32
_Covered = tuple[bytes, int, int, bytes]
_Unmerged = tuple[bytes, int, int]
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[list[_Covered], list[_Unmerged]])


@lru_cache(maxsize=65_536)
def _author(device: bytes, incarnation: int) -> Author:
    return Author(DeviceId(device), Incarnation(incarnation))


class CoverVector:
    """What a snapshot covers. Immutable; two with the same content are equal."""

    __slots__ = ("covered", "unmerged")

    EMPTY: ClassVar[CoverVector]
    covered: Mapping[Author, ChainHead]
    """Per author the last update of this record that is merged."""
    unmerged: frozenset[tuple[Author, int]]
    """(author, sequence) of updates of this record that are known but not merged."""

    def __init__(
        self, covered: Mapping[Author, ChainHead], unmerged: Iterable[tuple[Author, int]] = ()
    ) -> None:
        self.covered = MappingProxyType(dict(covered))
        self.unmerged = frozenset(unmerged)

    def covers(self, author: Author, sequence: int) -> bool:
        """Whether that author's update of this record is merged in the snapshot."""
        head = self.covered.get(author)
        return head is not None and sequence <= head.sequence and (author, sequence) not in self.unmerged

    def lacks(self, other: CoverVector) -> Author | None:
        """An author of whom `other` covers more than this vector, or None: may this one replace it?"""
        for author, head in other.covered.items():
            mine = self.covered.get(author)
            if mine is None or mine.sequence < head.sequence:
                return author
        for author, sequence in self.unmerged:
            if other.covers(author, sequence):
                return author
        return None

    def encode(self) -> bytes:
        """The public section of a snapshot."""
        covered = [(a.device, a.incarnation, *self.covered[a]) for a in sorted(self.covered)]
        unmerged = [(author.device, author.incarnation, seq) for author, seq in sorted(self.unmerged)]
        return _encoder.encode((covered, unmerged))

    @classmethod
    def decode(cls, raw: bytes) -> CoverVector:
        """The inverse of `encode`; raises MalformedEnvelope for anything `encode` would not have written."""
        try:
            covered, unmerged = _decoder.decode(raw)
            vector = cls(
                {_author(device, inc): ChainHead(seq, link) for device, inc, seq, link in covered},
                [(_author(device, inc), seq) for device, inc, seq in unmerged],
            )
        except (msgspec.MsgspecError, ValueError) as exc:
            raise MalformedEnvelope(f"public section: not a cover vector ({exc})") from None
        fits = all(0 < seq < 2**64 and len(link) == _HASH_BYTES for _, _, seq, link in covered)
        if not fits or not all(0 < seq < 2**64 for _, _, seq in unmerged) or vector.encode() != raw:
            raise MalformedEnvelope("public section: not a cover vector in its one canonical form")
        return vector

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CoverVector):
            return NotImplemented
        return self.covered == other.covered and self.unmerged == other.unmerged

    def __hash__(self) -> int:
        return hash((frozenset(self.covered.items()), self.unmerged))

    def __repr__(self) -> str:
        return f"<CoverVector of {len(self.covered)} authors, {len(self.unmerged)} unmerged>"


CoverVector.EMPTY = CoverVector({})
