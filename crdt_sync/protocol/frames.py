"""Frames: what goes over the connection, one per WebSocket message.

A frame is a msgpack array that starts with its tag, and behind it a CRC-32 over the array. The checksum keeps
out what a faulty wire or memory has changed: one flipped bit in a cursor would otherwise lose rows without a
trace. Against anyone who means it, signatures and encryption stand, not this.

Decoding is strict: an unknown tag, a field too many or too few, a wrong type, a number or length out of range
and trailing bytes are all refused, and each direction knows only the frames that may travel in it. Whatever
comes out of `decode_*` has the shape that its class says; whether it may be sent *now* is for the sessions to
decide.

This module knows nothing about what is inside envelopes and membership entries: to it they are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from hashlib import sha256
from typing import Annotated, Final, TypeAlias, TypeVar
from zlib import crc32

import msgspec
from msgspec import Meta

from crdt_sync.errors import DamagedFrame, FrameTooLarge, MalformedFrame
from crdt_sync.ids import RelayId, SpaceId
from crdt_sync.protocol.deliveries import AwaitDelivery, ConfirmCursor, Delivered
from crdt_sync.protocol.leases import Lease, Promised
from crdt_sync.protocol.limits import (
    MAX_CHECKOUT_RECORDS,
    MAX_COMPACT_RECORDS,
    MAX_FETCH_RECORDS,
    MAX_FRAME_BYTES,
    MAX_PUSH_ENVELOPES,
    Limits,
)
from crdt_sync.protocol.wire_types import (
    Agent,
    Code,
    EntryBytes,
    EnvelopeBytes,
    Hash,
    Incarnation32,
    Millis,
    Nonce,
    Number,
    Opaque,
    Reason,
    Relay,
    Signature,
    Space,
    Token,
)
from crdt_sync.protocol.wire_types import Frame as Frame

CHECKSUM_BYTES: Final = 4
AUTH_DOMAIN: Final = b"crdt-sync/auth/v1"
REVIVE_DOMAIN: Final = b"crdt-sync/revive/v1"

_T = TypeVar("_T")


class Mode(IntEnum):
    """As whom a connection is opened."""

    DEVICE = 1
    """A member of the space: reads and writes."""
    INVITE = 2
    """The holder of an invite's secret: reads the membership log and appends its own join."""


class RowKind(IntEnum):
    """What a row of the log holds. Numbers of envelope kinds mean the same here."""

    UPDATE = 1
    SNAPSHOT = 2
    MEMBERSHIP = 3
    LEASE = 5
    """Who has checked out a record, see `leases`."""


class Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """One row of a space's log: its place in the order, its kind, and an envelope, an entry or a lease."""

    sequence: Number
    kind: RowKind
    payload: EnvelopeBytes


# From the relay, before anything else


class Challenge(Frame, frozen=True, tag=1):
    """The relay's first word: which versions it speaks, which life of its database it is, its limits."""

    versions: Annotated[tuple[Number, ...], Meta(min_length=1, max_length=16)]
    relay_id: Relay
    nonce: Nonce
    now_ms: Millis
    limits: Limits


# From the device, as its answer


class Hello(Frame, frozen=True, tag=2):
    """Who I am and up to where I have everything. `party` is a device id or an invite id, by mode.

    `relay_id_seen` is the relay to which `cursor` belongs, 16 zero bytes if none; the relay starts from
    the beginning when its log is not the one of which that is a place. `incarnation` is 0 in mode INVITE.

    What the device was promised, by which a relay knows that it has lost something: `promised` is how long
    the log of `relay_id_seen` was when that last acknowledged something, `acked_sequence` and `acked_hash`
    are the end of what it acknowledged of this chain.
    """

    version: Number
    mode: Mode
    space: Space
    party: Annotated[bytes, Meta(min_length=16, max_length=16)]
    incarnation: Incarnation32
    cursor: Number
    relay_id_seen: Relay
    agent: Agent
    signature: Signature
    promised: Number = 0
    acked_sequence: Number = 0
    acked_hash: Hash = bytes(32)


class Create(Frame, frozen=True, tag=3):
    """Make a space. Answered by `Appended`; the founder then connects anew with `Hello`."""

    version: Number
    genesis: EntryBytes
    setup_token: Token
    agent: Agent


class Welcome(Frame, frozen=True, tag=4):
    """You are who you say. `head` is the end of the log, `cursor` where delivery starts from.

    `own_sequence` and `own_hash` are the end of the chain of this device and incarnation as the relay
    has it: 0 and 32 zero bytes if it has nothing.
    """

    head: Number
    cursor: Number
    members_head: Hash
    own_sequence: Number
    own_hash: Hash
    now_ms: Millis


class Deliver(Frame, frozen=True, tag=5):
    """Rows of the log in order. Afterwards a device that had everything up to `after` has it up to `cursor`.

    `after` is the cursor of the frame before, or of `Welcome`: a frame that is lost, swapped or doubled on
    the way is noticed before anything is stored. `rows` may be empty: then only the cursor moved (own rows
    are not echoed). `caught_up` says that `cursor` was the end of the log when this was made.
    """

    after: Number
    rows: list[Row]
    cursor: Number
    caught_up: bool


class Got(Frame, frozen=True, tag=6):
    """Everything up to `cursor` is durable on the device; opens the delivery window again."""

    cursor: Number


class Push(Frame, frozen=True, tag=7):
    """Update envelopes in the order of their chain."""

    envelopes: Annotated[list[EnvelopeBytes], Meta(min_length=1, max_length=MAX_PUSH_ENVELOPES)]


class Ack(Frame, frozen=True, tag=8):
    """Everything of that incarnation up to `sequence` is durable at the relay, whose log ends at `head`."""

    incarnation: Incarnation32
    sequence: Number
    head: Number


class Refuse(Frame, frozen=True, tag=9):
    """That envelope, and what followed it in its `Push`, was not stored. `code` as in `crdt_sync.errors`."""

    incarnation: Incarnation32
    sequence: Number
    code: Code
    reason: Reason


class Append(Frame, frozen=True, tag=10):
    """An entry for the end of the membership log."""

    entry: EntryBytes


class Appended(Frame, frozen=True, tag=11):
    """The entry is durable, as row `sequence`. `members_head` is its hash, so the head of the log."""

    sequence: Number
    members_head: Hash


class AppendRefused(Frame, frozen=True, tag=12):
    """The entry was not stored. If `members_head` is not what it was built on, build it again."""

    code: Code
    reason: Reason
    members_head: Hash


class CompactRequest(Frame, frozen=True, tag=13):
    """Please make a snapshot of each of these records."""

    records: Annotated[list[Opaque], Meta(min_length=1, max_length=MAX_COMPACT_RECORDS)]


class PushSnapshot(Frame, frozen=True, tag=14):
    """A snapshot envelope; its public section names what it covers."""

    envelope: EnvelopeBytes


class SnapshotResult(Frame, frozen=True, tag=15):
    """What became of a snapshot: `stored`, `stale` (nothing new) or `mismatch` (not as in the log)."""

    record: Opaque
    code: Code
    reason: Reason


class CompactDecline(Frame, frozen=True, tag=16):
    """These I cannot compact now, for example because own changes to them are still on their way."""

    records: Annotated[list[Opaque], Meta(min_length=1, max_length=MAX_COMPACT_RECORDS)]


class ConfirmSnapshot(Frame, frozen=True, tag=17):
    """This device finds in the snapshot with that hash (of its bytes) exactly what it covers."""

    record: Opaque
    content_hash: Hash


class Bye(Frame, frozen=True, tag=18):
    """The last word before closing. `code` is a close code, `error` as in `crdt_sync.errors`."""

    code: Annotated[int, Meta(ge=1000, le=4999)]
    error: Code
    reason: Reason


class FetchRecords(Frame, frozen=True, tag=19):
    """Please send all rows of these records. One is open at a time.

    `after` is of the first record: the rest of it, from behind that row.
    """

    records: Annotated[list[Opaque], Meta(min_length=1, max_length=MAX_FETCH_RECORDS)]
    after: Number


class Fetched(Frame, frozen=True, tag=20):
    """Rows of the records that were asked for, record by record in that order, as the log was up to `head`.

    `whole`: so many of the records, from the first on, are complete with these rows. What is missing of the
    others is to be asked for again, of the first of them from behind the last row that is here.
    """

    rows: list[Row]
    whole: Annotated[int, Meta(ge=0, le=MAX_FETCH_RECORDS)]
    head: Number


class CheckOut(Frame, frozen=True, tag=21):
    """Please lend these records to this device for `ttl_ms`, or for longer those that it has; 0: as is usual.

    Each is granted or refused by itself. `newest_token` is the greatest token this device knows of, 0 if
    none. Answered by `CheckoutAnswer`, as `CheckIn` is; of both together one is open at a time.

    `held` is for a relay that has lost something: what this device was promised of each of the records, in
    their order. Then it asks for what is left of that, whatever `ttl_ms` says.
    """

    records: Annotated[list[Opaque], Meta(min_length=1, max_length=MAX_CHECKOUT_RECORDS)]
    ttl_ms: Millis
    newest_token: Number
    held: Annotated[list[Promised], Meta(max_length=MAX_CHECKOUT_RECORDS)] = msgspec.field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        if self.held and len(self.held) != len(self.records):
            raise ValueError("held is of other records than are asked for")


class CheckIn(Frame, frozen=True, tag=22):
    """These records are free again. `breaks`: whoever holds them; for admins."""

    records: Annotated[list[Opaque], Meta(min_length=1, max_length=MAX_CHECKOUT_RECORDS)]
    breaks: bool


class CheckoutResult(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What became of one record: `granted`, `renewed`, `returned`, `broken`, or the code of a refusal.

    `lease` is how it stands now, None if nobody ever had the record; `sequence` its row in the log, else 0.
    """

    record: Opaque
    code: Code
    sequence: Number
    lease: Lease | None


class CheckoutAnswer(Frame, frozen=True, tag=23):
    """The results, record by record in the order of the question. What is granted is durable."""

    results: Annotated[list[CheckoutResult], Meta(min_length=1, max_length=MAX_CHECKOUT_RECORDS)]


class CheckedOut(Frame, frozen=True, tag=24):
    """Nothing of a `Push` was stored: this envelope of it is of a record that another device has checked out.

    Everything of that incarnation up to `taken` is durable at the relay, nothing behind it is there. `lease`
    is in force; `row` is its place in the log.
    """

    incarnation: Incarnation32
    sequence: Number
    taken: Number
    row: Number
    lease: Lease


class Revive(Frame, frozen=True, tag=25):
    """In place of `Hello`: the membership log, for a relay that lost it or the end of it.

    `party` is the device that says so, a member by these entries. Answered by `Appended` with the number of
    entries that the relay has now, or by `Forked`.
    """

    version: Number
    space: Space
    party: Annotated[bytes, Meta(min_length=16, max_length=16)]
    entries: Annotated[list[EntryBytes], Meta(min_length=1, max_length=65_536)]
    agent: Agent
    signature: Signature


class Forked(Frame, frozen=True, tag=32):
    """The answer to `Revive` when the relay's log went on differently: after `common` entries come these."""

    common: Number
    entries: Annotated[list[EntryBytes], Meta(min_length=1, max_length=65_536)]


class GiveBack(Frame, frozen=True, tag=26):
    """A snapshot of a record of which the relay has lost something; it may cover what the log never had.

    Answered by `SnapshotResult`.
    """

    envelope: EnvelopeBytes


class ConfirmRequest(Frame, frozen=True, tag=27):
    """Does this snapshot of somebody else hold what it covers? `rest` are the updates that it does not."""

    envelope: EnvelopeBytes
    rest: Annotated[list[EnvelopeBytes], Meta(max_length=MAX_PUSH_ENVELOPES)]


class DenySnapshot(Frame, frozen=True, tag=28):
    """Not confirmed: `differs` (other content than it says), or `unable` (this device cannot tell now)."""

    record: Opaque
    content_hash: Hash
    code: Code


FromDevice: TypeAlias = (
    Hello
    | Create
    | Revive
    | Got
    | Push
    | Append
    | PushSnapshot
    | CompactDecline
    | GiveBack
    | ConfirmSnapshot
    | DenySnapshot
    | FetchRecords
    | CheckOut
    | CheckIn
    | AwaitDelivery
    | Bye
)
FromRelay: TypeAlias = (
    Challenge
    | Welcome
    | Deliver
    | Ack
    | Refuse
    | Appended
    | AppendRefused
    | Forked
    | CompactRequest
    | ConfirmRequest
    | SnapshotResult
    | Fetched
    | CheckoutAnswer
    | CheckedOut
    | Delivered
    | ConfirmCursor
    | Bye
)

_encoder: Final = msgspec.msgpack.Encoder()
_device_decoder: Final[msgspec.msgpack.Decoder[FromDevice]] = msgspec.msgpack.Decoder(FromDevice)
_relay_decoder: Final[msgspec.msgpack.Decoder[FromRelay]] = msgspec.msgpack.Decoder(FromRelay)


def encode(frame: Frame) -> bytes:
    """The bytes of one WebSocket message."""
    return with_checksum(_encoder.encode(frame))


def with_checksum(array: bytes) -> bytes:
    """A frame's array as it travels."""
    return array + crc32(array).to_bytes(CHECKSUM_BYTES, "big")


def decode_from_device(data: bytes, *, max_bytes: int = MAX_FRAME_BYTES) -> FromDevice:
    """A frame that a device sent. Raises FrameTooLarge, DamagedFrame or MalformedFrame."""
    return _decode(_device_decoder, data, max_bytes)


def decode_from_relay(data: bytes, *, max_bytes: int = MAX_FRAME_BYTES) -> FromRelay:
    """A frame that a relay sent. Raises FrameTooLarge, DamagedFrame or MalformedFrame."""
    return _decode(_relay_decoder, data, max_bytes)


def _decode(decoder: msgspec.msgpack.Decoder[_T], data: bytes, max_bytes: int) -> _T:
    if len(data) > max_bytes:
        raise FrameTooLarge(
            f"a frame of {len(data):,} bytes is above the limit of {max_bytes:,}",
            hint="send less in one frame; the limits stand in the relay's challenge",
        )
    array = memoryview(data)[:-CHECKSUM_BYTES]
    if crc32(array).to_bytes(CHECKSUM_BYTES, "big") != data[-CHECKSUM_BYTES:]:
        raise DamagedFrame(
            "the checksum of a frame does not fit: it was damaged on the way", hint="connecting again helps"
        )
    try:
        return decoder.decode(array)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        # msgspec names the place and the expected type, never the value, so this is safe to send and log.
        raise MalformedFrame(
            f"not a frame of this protocol: {str(exc)[:200]}",
            hint="the peer runs another version or is not a crdt-sync peer; see docs/protocol.md",
        ) from None


def auth_message(
    *, nonce: bytes, relay_id: RelayId, space: SpaceId, party: bytes, incarnation: int, mode: Mode
) -> bytes:
    """What a device or invite key signs in `Hello`: bound to this connection, relay, space and identity."""
    return AUTH_DOMAIN + nonce + relay_id + space + party + incarnation.to_bytes(4, "big") + bytes([mode])


def revive_message(
    *, nonce: bytes, relay_id: RelayId, space: SpaceId, party: bytes, entries: Sequence[bytes]
) -> bytes:
    """What a device signs in `Revive`: bound to this connection and to every entry."""
    digest = sha256()
    for entry in entries:
        digest.update(len(entry).to_bytes(4, "big") + entry)
    return REVIVE_DOMAIN + nonce + relay_id + space + party + digest.digest()
