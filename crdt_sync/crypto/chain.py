"""The chain of an author: every update names the hash of the one before, per space and incarnation.

Whoever keeps the head of a chain notices each update that is missing, repeated, reordered or replaced,
without any key. An author who signs two different updates with one sequence number *equivocates*;
either his store was copied or he is lying, and both updates are evidence.

A head knows the hash of its own link only. For an older sequence number the caller must say which hash
it has stored (`stored_hash`); where it has none any more (the update was compacted away) an old update
counts as a duplicate, since nothing could be done with it anyway.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from crdt_sync.errors import ChainBroken, Equivocation
from crdt_sync.ids import Author, SpaceId

if TYPE_CHECKING:
    from crdt_sync.crypto.envelope import Envelope

_CHAIN_TAG: Final = b"crdt-sync/chain/v1"
_FRONTIER_TAG: Final = b"crdt-sync/frontier/v1"
FRONTIER_BYTES: Final = 16


class Duplicate:
    """The update is already there: acknowledge it again and change nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "DUPLICATE"


DUPLICATE: Final = Duplicate()


class ChainHead(NamedTuple):
    """The newest link of a chain: its sequence number and the hash of its bytes (32)."""

    sequence: int
    hash: bytes

    @classmethod
    def start(cls, space: SpaceId, author: Author) -> ChainHead:
        """The head of a chain without links: sequence 0 and the hash that the first update names."""
        material = _CHAIN_TAG + space + author.device + author.incarnation.to_bytes(4, "big")
        return cls(0, hashlib.sha256(material).digest())

    def accept(self, envelope: Envelope, *, stored_hash: bytes | None = None) -> ChainHead | Duplicate:
        """The head after `envelope`, an update of this chain, or DUPLICATE when it was there before.

        Raises ChainBroken when something is missing in between or it follows another update than this
        head, Equivocation when it differs from the update that has its place. Check the signature first:
        an unsigned claim says nothing about its author.
        """
        header = envelope.header
        if header.sequence == self.sequence + 1:
            if header.prev != self.hash:
                raise ChainBroken(
                    f"header field prev: update {header.sequence} of device {header.device.hex()[:8]} "
                    f"does not follow the update {self.sequence} that is known",
                    hint="its store may have been copied or restored; restart it under a new incarnation",
                )
            return ChainHead(header.sequence, envelope.hash)
        if header.sequence > self.sequence:
            raise ChainBroken(
                f"header field sequence: update {header.sequence} of device {header.device.hex()[:8]} "
                f"came after {self.sequence}; {header.sequence - self.sequence - 1} are missing",
                hint="send the missing updates first",
            )
        known = self.hash if header.sequence == self.sequence else stored_hash
        if known is not None and known != envelope.hash:
            raise Equivocation(
                f"header field sequence: device {header.device.hex()[:8]} signed two different "
                f"updates {header.sequence}",
                hint="its store may have been copied, or it is not honest; keep both and look into it",
            )
        return DUPLICATE


def frontier_hash(heads: Mapping[Author, ChainHead]) -> bytes:
    """16 bytes that fix which chains, up to which link, an author had seen.

    Leave the author's own chain out (its `prev` covers it): the hash then stays the same while the
    author only writes, and a caller can keep it until it receives something.
    """
    digest = hashlib.sha256(_FRONTIER_TAG)
    for author in sorted(heads):
        head = heads[author]
        digest.update(
            author.device
            + author.incarnation.to_bytes(4, "big")
            + head.sequence.to_bytes(8, "big")
            + head.hash
        )
    return digest.digest()[:FRONTIER_BYTES]
