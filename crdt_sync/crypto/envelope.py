"""Envelopes: the encrypted and signed unit of exchange.

    header 136 bytes | public section | nonce 12 | ciphertext with its tag | signature 64

All integers are big-endian. The header and the public section are what a relay may read; they are the
associated data of the encryption, so a payload cannot be moved under another header. The signature is
Ed25519 over a tag and everything before it. An envelope's hash is SHA-256 over all its bytes.

    version u8 = 1 | kind u8 | suite u8 = 1 | flags u8 = 0 | public_len u32 | epoch u32 | incarnation u32
    sequence u64 | space 16 | record 16 | device 16 | prev 32 | members_head 16 | frontier 16

An *update* is a link in the chain of its author (device and incarnation) in the space: `sequence`
counts from 1 and `prev` is the hash of the link before, see `chain`. A *snapshot* stands outside the
chain: sequence 0, `prev` zeros, and its public section is the cover vector, see `cover`. `members_head`
is the start of the hash of the newest membership entry the author knew, `frontier` the hash of the
other authors' chains it had seen.

Parsing and verifying need no space key: the relay does both. What parsing does *not* know: whether the
device is a member, whether the epoch exists, whether the record id belongs to the payload.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from functools import lru_cache
from typing import Final

import msgspec

from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.device_keys import SIGNATURE_BYTES, DeviceKeys, device_id_of, verify_signature
from crdt_sync.crypto.padding import BLOCK_BYTES, pad, padded_size, unpad
from crdt_sync.crypto.space_keys import NONCE_BYTES, TAG_BYTES, SealingKey
from crdt_sync.errors import BadSignature, DecryptionFailed, MalformedEnvelope
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, SpaceId

VERSION: Final = 1
SUITE: Final = 1
"""AES-256-GCM-SIV, Ed25519, SHA-256."""
_WIRE: Final = struct.Struct(">BBBBIIIQ16s16s16s32s16s16s")
HEADER_BYTES: Final = _WIRE.size
HASH_BYTES: Final = 32
SHORT_HASH_BYTES: Final = 16
MIN_ENVELOPE_BYTES: Final = HEADER_BYTES + NONCE_BYTES + BLOCK_BYTES + TAG_BYTES + SIGNATURE_BYTES
_NO_PREV: Final = bytes(HASH_BYTES)
_SIGNATURE_TAG: Final = b"crdt-sync/envelope/v1"


class Kind(IntEnum):
    """What a row of a space's log is. Only updates and snapshots are envelopes of this layout today."""

    UPDATE = 1
    SNAPSHOT = 2
    MEMBERSHIP = 3
    EPHEMERAL = 4


_ENVELOPE_KINDS: Final = {1: Kind.UPDATE, 2: Kind.SNAPSHOT}


@lru_cache(maxsize=65_536)
def _author(device: DeviceId, incarnation: Incarnation) -> Author:
    return Author(device, incarnation)


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fields a relay sees, in wire order. Make one with `for_update` or `for_snapshot`."""

    version: int
    kind: Kind
    suite: int
    flags: int
    public_len: int
    epoch: int
    incarnation: Incarnation
    sequence: int
    space: SpaceId
    record: OpaqueId
    device: DeviceId
    prev: bytes
    members_head: bytes
    frontier: bytes

    @classmethod
    def for_update(
        cls,
        *,
        space: SpaceId,
        record: OpaqueId,
        author: Author,
        epoch: int,
        sequence: int,
        prev: bytes,
        members_head: bytes,
        frontier: bytes,
    ) -> Header:
        """The header of link `sequence` (from 1) of the author's chain. Hashes are cut to their field."""
        return cls(
            VERSION, Kind.UPDATE, SUITE, 0, 0, epoch, author.incarnation, sequence, space, record,
            author.device, prev, members_head[:SHORT_HASH_BYTES], frontier[:SHORT_HASH_BYTES],
        )  # fmt: skip

    @classmethod
    def for_snapshot(
        cls,
        *,
        space: SpaceId,
        record: OpaqueId,
        author: Author,
        epoch: int,
        public: bytes,
        members_head: bytes,
        frontier: bytes,
    ) -> Header:
        """The header of a snapshot whose public section is the encoded cover vector `public`."""
        return cls(
            VERSION, Kind.SNAPSHOT, SUITE, 0, len(public), epoch, author.incarnation, 0, space, record,
            author.device, _NO_PREV, members_head[:SHORT_HASH_BYTES], frontier[:SHORT_HASH_BYTES],
        )  # fmt: skip

    @property
    def author(self) -> Author:
        """The device and the life of it that made this envelope."""
        return _author(self.device, self.incarnation)

    def pack(self) -> bytes:
        """The 136 bytes of the wire."""
        return _WIRE.pack(
            self.version, self.kind, self.suite, self.flags, self.public_len, self.epoch,
            self.incarnation, self.sequence, self.space, self.record, self.device, self.prev,
            self.members_head, self.frontier,
        )  # fmt: skip

    @classmethod
    def unpack(cls, raw: bytes) -> Header:
        """The header at the start of `raw`; raises MalformedEnvelope naming the field that is wrong."""
        if len(raw) < HEADER_BYTES:
            raise MalformedEnvelope(f"header: {len(raw)} bytes of {HEADER_BYTES}")
        fields = _WIRE.unpack_from(raw)
        kind = _ENVELOPE_KINDS.get(fields[1])
        if fields[0] != VERSION or kind is None:
            raise _refused_layout(fields[0], fields[1])
        header = cls(fields[0], kind, *fields[2:])
        chained = kind is Kind.UPDATE
        if (
            header.suite != SUITE
            or header.flags
            or not header.epoch
            or not header.incarnation
            or chained != (header.sequence > 0)
            or (header.public_len if chained else header.prev != _NO_PREV)
        ):
            raise _refused_field(header)
        return header


def _refused_layout(version: int, kind: int) -> MalformedEnvelope:
    """The version comes first: another one may well have other kinds."""
    if version != VERSION:
        return MalformedEnvelope(
            f"header field version: {version}, and this program knows {VERSION}",
            hint="update crdt-sync on this machine",
        )
    return MalformedEnvelope(f"header field kind: {kind} is neither an update nor a snapshot")


def _refused_field(header: Header) -> MalformedEnvelope:
    """Which field of a header is out of bounds, worded. Apart from `unpack`, which must be fast."""
    if header.suite != SUITE:
        return MalformedEnvelope(f"header field suite: {header.suite}, and the only suite is {SUITE}")
    if header.flags:
        return MalformedEnvelope(f"header field flags: {header.flags}, and there are no flags")
    if not header.epoch:
        return MalformedEnvelope("header field epoch: 0, and epochs count from 1")
    if not header.incarnation:
        return MalformedEnvelope("header field incarnation: 0, and no device has that")
    if header.kind is Kind.UPDATE:
        if not header.sequence:
            return MalformedEnvelope("header field sequence: 0, and updates count from 1")
        return MalformedEnvelope("header field public_len: an update has no public section")
    if header.sequence:
        return MalformedEnvelope("header field sequence: a snapshot has none, it must be 0")
    return MalformedEnvelope("header field prev: a snapshot has none, it must be zeros")


class Envelope:
    """A parsed envelope. Well-formed, and nothing more until `verify` and `open` have said so."""

    __slots__ = ("_hash", "ciphertext", "header", "nonce", "public", "raw", "signature")

    def __init__(
        self, header: Header, public: bytes, nonce: bytes, ciphertext: bytes, signature: bytes, raw: bytes
    ) -> None:
        self.header = header
        self.public = public
        self.nonce = nonce
        self.ciphertext = ciphertext
        self.signature = signature
        self.raw = raw
        self._hash: bytes | None = None

    @property
    def hash(self) -> bytes:
        """SHA-256 over all bytes: the `prev` of the author's next update."""
        if self._hash is None:
            self._hash = envelope_hash(self.raw)
        return self._hash

    def cover(self) -> CoverVector:
        """What a snapshot says it covers; raises MalformedEnvelope. Empty for an update."""
        if self.header.kind is Kind.UPDATE:
            return CoverVector.EMPTY
        return CoverVector.decode(self.public)

    def verify(self, sign_public: bytes) -> None:
        """Check that the device with this public signing key made the envelope; raises BadSignature."""
        header = self.header
        if device_id_of(sign_public) != header.device:
            raise BadSignature("header field device: not the device whose key the envelope is checked with")
        signed = _SIGNATURE_TAG + self.raw[:-SIGNATURE_BYTES]
        if not verify_signature(sign_public, signed, self.signature):
            raise BadSignature(
                f"signature: does not fit {_described(header)}; "
                "its header, ciphertext or signature was changed, or another device signed it"
            )

    def open(self, key: SealingKey) -> bytes:
        """The payload; raises DecryptionFailed. Says nothing about who wrote it: `verify` does."""
        body = self.raw[: HEADER_BYTES + self.header.public_len]
        padded = key.decrypt(self.nonce, self.ciphertext, body)
        if padded is None:
            raise DecryptionFailed(
                f"ciphertext: {_described(self.header)} does not open with the key of epoch {key.epoch}; "
                "its header, nonce or ciphertext was changed, or it was sealed with another key"
            )
        try:
            return unpad(padded)
        except ValueError as exc:
            raise DecryptionFailed(f"padding of {_described(self.header)}: {exc}") from None

    def verify_and_open(self, sign_public: bytes, key: SealingKey) -> bytes:
        """The payload of an envelope that this device made; raises BadSignature or DecryptionFailed.

        When the signature does not fit, the encryption is asked for a second opinion, so that the error
        can say whether it is the contents that were changed or only the signature.
        """
        try:
            self.verify(sign_public)
        except BadSignature as exc:
            try:
                self.open(key)
            except DecryptionFailed:
                raise BadSignature(f"{exc.message} (header, nonce or ciphertext: they do not open)") from None
            raise BadSignature(f"{exc.message} (the signature: header and ciphertext are intact)") from None
        return self.open(key)

    def __repr__(self) -> str:
        return f"<Envelope {_described(self.header)}, {len(self.raw)} bytes>"


def _described(header: Header) -> str:
    what = f"update {header.sequence}" if header.kind is Kind.UPDATE else "a snapshot"
    return f"{what} by device {header.device.hex()[:8]}"


def envelope_hash(raw: bytes) -> bytes:
    """SHA-256 (32 bytes) over an envelope's bytes."""
    return hashlib.sha256(raw).digest()


def check_size(raw: bytes, *, max_bytes: int) -> None:
    """Raises MalformedEnvelope for an envelope that is longer than allowed."""
    if len(raw) > max_bytes:
        raise MalformedEnvelope(f"envelope: {len(raw)} bytes, more than the {max_bytes} that are allowed")


def parse(raw: bytes, *, max_bytes: int) -> Envelope:
    """Take an envelope apart; raises MalformedEnvelope naming the part that is wrong. Needs no key."""
    check_size(raw, max_bytes=max_bytes)
    size = len(raw)
    if size < MIN_ENVELOPE_BYTES:
        raise MalformedEnvelope(f"envelope: {size} bytes, and the least is {MIN_ENVELOPE_BYTES}")
    header = Header.unpack(raw)
    nonce_at = HEADER_BYTES + header.public_len
    sealed_at = nonce_at + NONCE_BYTES
    signature_at = size - SIGNATURE_BYTES
    padded_bytes = signature_at - sealed_at - TAG_BYTES
    if padded_bytes < BLOCK_BYTES:
        raise MalformedEnvelope("header field public_len: leaves no room for a ciphertext")
    if padded_size(padded_bytes) != padded_bytes:
        raise MalformedEnvelope(
            f"ciphertext: {padded_bytes} bytes is not a padded size; bytes are missing or added"
        )
    return Envelope(
        header,
        raw[HEADER_BYTES:nonce_at],
        raw[nonce_at:sealed_at],
        raw[sealed_at:signature_at],
        raw[signature_at:],
        raw,
    )


def seal(
    header: Header, payload: bytes, *, public: bytes = b"", key: SealingKey, keys: DeviceKeys, nonce: bytes
) -> bytes:
    """The envelope's bytes. `nonce` is 12 random bytes, never used twice on purpose.

    Raises ValueError when header, keys and public section do not belong together: a mistake of ours,
    caught before anything wrong is signed.
    """
    if header.device != keys.device_id or header.epoch != key.epoch or header.public_len != len(public):
        raise ValueError("the header names another device, epoch or public section")
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce is {NONCE_BYTES} bytes long")
    body = header.pack() + public
    unsigned = b"".join((body, nonce, key.encrypt(nonce, pad(payload), body)))
    return unsigned + keys.sign(_SIGNATURE_TAG + unsigned)
