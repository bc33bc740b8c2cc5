"""Leases: who has checked out a record, until when, as the relay says it.

A lease is about an opaque record id; the relay that grants it knows nothing else of the record. Its state is
a row of the space's log, at most one per record, so that every member learns of it in order, keeps it with
its cursor, and meets the newest state only. It is the relay's word: nobody signs it, because nobody else
arbitrates.

A *token* grows with every lease that a relay grants in a space and is never given twice, so of two devices
that both believe to hold a record the one with the greater token is right. See `next_token`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from crdt_sync.errors import MalformedFrame
from crdt_sync.hlc import COUNTER_BITS, EPOCH_MS
from crdt_sync.ids import DeviceId, Incarnation, OpaqueId
from crdt_sync.protocol.limits import MAX_LEASE_NOTES

Opaque = Annotated[OpaqueId, Meta(min_length=16, max_length=16)]
Device = Annotated[DeviceId, Meta(min_length=16, max_length=16)]
Incarnation32 = Annotated[Incarnation, Meta(ge=0, le=2**32 - 1)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Millis = Annotated[int, Meta(ge=0, le=2**53 - 1)]

TOKEN_AHEAD_MS: Final = 24 * 3_600_000
"""How far ahead of the relay's clock a token may be that a device says it has seen. More is a lie or a clock
that was wrong by more than a day, and would let a single device use up all tokens."""


class LeaseState(IntEnum):
    """What became of a lease. One that is held may have run out: its expiry says so."""

    HELD = 1
    RETURNED = 2
    """Checked in by its holder."""
    BROKEN = 3
    """Ended by an admin, at `expires_ms`."""


class Former(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A lease that ended at `ended_ms` without its holder having checked in: work may still be with it."""

    device: Device
    token: Number
    ended_ms: Millis


class Late(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Updates `first` to `last` of an author, which the relay took only after the author's lease had ended.

    Of the sequence numbers between the two those count that are of this record. `at_ms`: when the last came.
    """

    device: Device
    token: Number
    ended_ms: Millis
    incarnation: Incarnation32
    first: Number
    last: Number
    at_ms: Millis


class Lease(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The newest lease of a record, and what is still to be known of those before. Times are the relay's."""

    record: Opaque
    device: Device
    token: Number
    since_ms: Millis
    expires_ms: Millis
    state: LeaseState
    former: Annotated[tuple[Former, ...], Meta(max_length=MAX_LEASE_NOTES)] = ()
    late: Annotated[tuple[Late, ...], Meta(max_length=MAX_LEASE_NOTES)] = ()

    def held(self, now_ms: int) -> bool:
        """Whether it is in force at `now_ms`, in Unix milliseconds of the relay's clock."""
        return self.state is LeaseState.HELD and now_ms < self.expires_ms


class Promised(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What a device was promised of a record: the lease with that token, until then by the relay's clock."""

    token: Number
    expires_ms: Millis


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Lease]] = msgspec.msgpack.Decoder(Lease)


def encode_lease(lease: Lease) -> bytes:
    """The payload of a lease's row."""
    return _encoder.encode(lease)


def decode_lease(raw: bytes) -> Lease:
    """The lease in a row. Raises MalformedFrame."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedFrame(
            f"a row of the log holds no lease: {str(exc)[:200]}",
            hint="the relay runs another version or is faulty; see docs/protocol.md",
        ) from None


def next_token(last: int, seen: int, now_ms: int) -> int:
    """The token of the next lease, greater than any before.

    `last` is the greatest that this database gave, `seen` the greatest that the asking device knows of. Like
    the hybrid clock it is 53 bits that follow the time, so that a relay that has lost its database, or got an
    older copy of it back, goes on beyond what it gave before, though it knows nothing of it. Should its clock
    have been set back as well, then `seen` still keeps it beyond what the asking device has met.
    """
    if not plausible(seen, now_ms):
        seen = 0
    return max(last + 1, seen + 1, _clock_ms(now_ms) << COUNTER_BITS)


def plausible(token: int, now_ms: int) -> bool:
    """Whether a relay can have given that token, as far as its clock `now_ms` tells."""
    return token >> COUNTER_BITS <= _clock_ms(now_ms) + TOKEN_AHEAD_MS


def _clock_ms(now_ms: int) -> int:
    return max(now_ms - EPOCH_MS, 0)
