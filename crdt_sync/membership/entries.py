"""Entries of a space's membership log: their bytes, hashes and signatures.

    entry    msgpack [body, signature 64, invite_signature 64 or empty, hpke 1216 or empty]
    body     msgpack [version = 1, kind, space 16, index, prev 32, at_ms, signer 16, payload]
    payload  msgpack by kind:
        genesis   [sign 32, hpke_hash 32, commitment 32, private]
        invite    [invite_id 16, invite_sign 32, role, expires_at_ms, sealed]
        withdraw  [invite_id 16]
        join      [invite_id 16, sign 32, hpke_hash 32, private]
        carry     [[entry, …]], see `carrying`

`body` and `payload` are byte strings within their msgpack. An entry's hash is SHA-256 over a tag and
its body: `prev` of the entry after it. The genesis entry has index 0, `prev` and `space` zeros, and *its*
hash begins with the space's id, so a space's id cannot be given another beginning.

The signer signs the body; a join is signed by the invite's key too, under a tag of its own. The HPKE key
hangs on outside the body, which has its hash: 1,216 bytes that only who rotates keys needs can be left
out of what travels (`without_hpke`) and still be checked when they come.

`private` (names) and `sealed` (the keys an invite brings) are encrypted and opaque here: everything in
this module works without any space key. `at_ms` is what the signer claims; nothing is decided by it.
Kinds 5 to 8 are spoken for (revoke, rotate, role, recovery); an entry of a kind that a program does not
know stops it at that place in the log, it must never be skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

import msgspec

from crdt_sync.crypto.device_keys import (
    HPKE_PUBLIC_BYTES,
    SIGN_PUBLIC_BYTES,
    SIGNATURE_BYTES,
    DeviceKeys,
    verify_signature,
)
from crdt_sync.errors import BadMembership
from crdt_sync.ids import ID_BYTES, DeviceId, InviteId, SpaceId
from crdt_sync.roles import Role

VERSION: Final = 1
HASH_BYTES: Final = 32
NO_HASH: Final = bytes(HASH_BYTES)
NO_SPACE: Final = SpaceId(bytes(ID_BYTES))
MAX_ENTRY_BYTES: Final = 16 * 1024
"""An entry of today's kinds is under 2 KiB; an invite into a space of 200 epochs is about 9 KiB."""
MAX_PRIVATE_BYTES: Final = 2 * 1024
_MAX_MS: Final = 2**53 - 1
_ROLES: Final = frozenset(int(role) for role in Role)
_ENTRY_TAG: Final = b"crdt-sync/membership/v1"
_SIGNATURE_TAG: Final = b"crdt-sync/membership-signature/v1"
_INVITE_SIGNATURE_TAG: Final = b"crdt-sync/membership-invite-signature/v1"
_HPKE_TAG: Final = b"crdt-sync/hpke-key/v1"
_INVITE_TAG: Final = b"crdt-sync/invite/v1"


class EntryKind(IntEnum):
    """What an entry does. The numbers stand on the wire and never change; 5 to 8 are reserved."""

    GENESIS = 1
    INVITE = 2
    WITHDRAW = 3
    JOIN = 4
    CARRY = 9


class Genesis(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """The founding: the founder's public keys, the first epoch's commitment, and names, sealed."""

    sign: bytes
    hpke_hash: bytes
    commitment: bytes
    private: bytes


class Invite(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """An offer of one place with a role, to whoever holds the secret behind `invite_sign`."""

    invite_id: InviteId
    invite_sign: bytes
    role: int
    expires_at_ms: int
    sealed: bytes


class Withdraw(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Takes an unused invite back."""

    invite_id: InviteId


class Join(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """A device taking up an invite: its public keys and, sealed, its name."""

    invite_id: InviteId
    sign: bytes
    hpke_hash: bytes
    private: bytes


class Carry(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Entries of another branch of this log, which a relay had and lost; they take effect here."""

    entries: tuple[bytes, ...]


SignWithInvite = Callable[[bytes], bytes]
EntryPayload: TypeAlias = Genesis | Invite | Withdraw | Join | Carry


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    kind: int
    space: SpaceId
    index: int
    prev: bytes
    at_ms: int
    signer: DeviceId
    payload: bytes


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    body: bytes
    signature: bytes
    invite_signature: bytes
    hpke: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_wire_decoder: Final = msgspec.msgpack.Decoder(_Wire)
_body_decoder: Final = msgspec.msgpack.Decoder(_Body)
_payload_decoders: Final[dict[int, msgspec.msgpack.Decoder[Any]]] = {
    EntryKind.GENESIS: msgspec.msgpack.Decoder(Genesis),
    EntryKind.INVITE: msgspec.msgpack.Decoder(Invite),
    EntryKind.WITHDRAW: msgspec.msgpack.Decoder(Withdraw),
    EntryKind.JOIN: msgspec.msgpack.Decoder(Join),
    EntryKind.CARRY: msgspec.msgpack.Decoder(Carry),
}
_KIND_OF: Final = {
    Genesis: EntryKind.GENESIS,
    Invite: EntryKind.INVITE,
    Withdraw: EntryKind.WITHDRAW,
    Join: EntryKind.JOIN,
    Carry: EntryKind.CARRY,
}


def invite_id_of(invite_sign: bytes) -> InviteId:
    """The id of the invite that has this public key."""
    return InviteId(hashlib.sha256(_INVITE_TAG + invite_sign).digest()[:ID_BYTES])


def hpke_hash(hpke_public: bytes) -> bytes:
    """What stands in a body for an HPKE public key."""
    return hashlib.sha256(_HPKE_TAG + hpke_public).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """A well-formed entry. Whether it may stand in a log, the log decides (`MembershipLog.apply`)."""

    raw: bytes
    body: bytes
    hash: bytes
    kind: EntryKind
    space: SpaceId
    index: int
    prev: bytes
    at_ms: int
    signer: DeviceId
    payload: EntryPayload
    signature: bytes
    invite_signature: bytes
    hpke: bytes | None

    def signed_by(self, sign_public: bytes) -> bool:
        """Whether the holder of this signing key signed the body as its signer."""
        return verify_signature(sign_public, _SIGNATURE_TAG + self.body, self.signature)

    def signed_with_invite(self, invite_sign: bytes) -> bool:
        """Whether the holder of this invite's secret signed the body."""
        return verify_signature(invite_sign, _INVITE_SIGNATURE_TAG + self.body, self.invite_signature)

    def without_hpke(self) -> bytes:
        """The same entry, with the same hash, but 1.2 KB lighter: without the HPKE key it names."""
        return _encoder.encode(_Wire(self.body, self.signature, self.invite_signature, b""))

    def __repr__(self) -> str:
        return f"<{self.kind.name.lower()} entry {self.index}, {self.hash.hex()[:8]}>"


def make_entry(
    payload: EntryPayload,
    *,
    space: SpaceId,
    index: int,
    prev: bytes,
    at_ms: int,
    keys: DeviceKeys,
    invite_sign: SignWithInvite | None = None,
    hpke: bytes = b"",
) -> bytes:
    """Encode and sign an entry. `invite_sign` signs for the invite, which a join needs."""
    encoded = _encoder.encode(payload)
    body = _encoder.encode(
        _Body(VERSION, _KIND_OF[type(payload)], space, index, prev, at_ms, keys.device_id, encoded)
    )
    by_invite = invite_sign(_INVITE_SIGNATURE_TAG + body) if invite_sign else b""
    return _encoder.encode(_Wire(body, keys.sign(_SIGNATURE_TAG + body), by_invite, hpke))


def parse_entry(raw: bytes) -> Entry:
    """Take an entry apart; raises BadMembership. Needs no key, and checks no signature."""
    if len(raw) > MAX_ENTRY_BYTES:
        raise BadMembership(
            f"membership entry: {len(raw)} bytes, more than the {MAX_ENTRY_BYTES} that are allowed"
        )
    wire: _Wire = _decode(_wire_decoder, raw, "entry")
    body: _Body = _decode(_body_decoder, wire.body, "body")
    if body.version != VERSION:
        raise BadMembership(
            f"membership entry: version {body.version}, and this program knows {VERSION}", hint=_UPDATE_HINT
        )
    decoder = _payload_decoders.get(body.kind)
    if decoder is None:
        raise BadMembership(
            f"membership entry: this program does not know entries of kind {body.kind}", hint=_UPDATE_HINT
        )
    payload: EntryPayload = _decode(decoder, body.payload, "payload")
    _check_body(body)
    _check_payload(payload)
    _check_attachments(wire, payload)
    return Entry(
        raw=raw,
        body=wire.body,
        hash=hashlib.sha256(_ENTRY_TAG + wire.body).digest(),
        kind=EntryKind(body.kind),
        space=body.space,
        index=body.index,
        prev=body.prev,
        at_ms=body.at_ms,
        signer=body.signer,
        payload=payload,
        signature=wire.signature,
        invite_signature=wire.invite_signature,
        hpke=wire.hpke or None,
    )


_UPDATE_HINT: Final = "update crdt-sync on this machine"


def _decode(decoder: msgspec.msgpack.Decoder[Any], raw: bytes, part: str) -> Any:
    """Decode, and insist on the one encoding that we would have written."""
    try:
        decoded = decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        raise BadMembership(f"membership entry: its {part} does not have the right shape") from None
    if _encoder.encode(decoded) != raw:
        raise BadMembership(f"membership entry: its {part} is not in canonical form")
    return decoded


def _check_body(body: _Body) -> None:
    lengths = (len(body.space), len(body.prev), len(body.signer))
    if lengths != (ID_BYTES, HASH_BYTES, ID_BYTES):
        raise BadMembership("membership entry: space, prev or signer has a wrong length")
    if not 0 <= body.index < 2**32 or not 0 <= body.at_ms <= _MAX_MS:
        raise BadMembership("membership entry: index or time is out of range")
    founds = body.kind == EntryKind.GENESIS
    if founds != (body.index == 0) or founds != (body.prev == NO_HASH) or founds != (body.space == NO_SPACE):
        raise BadMembership(
            "membership entry: index 0, no prev and no space belong to a genesis entry and to no other"
        )


def _check_payload(payload: EntryPayload) -> None:
    match payload:
        case Genesis():
            fits = len(payload.commitment) == HASH_BYTES and _device_fits(payload)
        case Join():
            fits = len(payload.invite_id) == ID_BYTES and _device_fits(payload)
        case Invite():
            fits = (
                len(payload.invite_sign) == SIGN_PUBLIC_BYTES
                and payload.invite_id == invite_id_of(payload.invite_sign)
                and payload.role in _ROLES
                and 0 < payload.expires_at_ms <= _MAX_MS
            )
        case Withdraw():
            fits = len(payload.invite_id) == ID_BYTES
        case Carry():
            fits = bool(payload.entries)
    if not fits:
        raise BadMembership(
            f"membership entry: a field of its {type(payload).__name__.lower()} is out of range"
        )


def _device_fits(payload: Genesis | Join) -> bool:
    return (
        len(payload.sign) == SIGN_PUBLIC_BYTES
        and len(payload.hpke_hash) == HASH_BYTES
        and len(payload.private) <= MAX_PRIVATE_BYTES
    )


def _check_attachments(wire: _Wire, payload: EntryPayload) -> None:
    expected = SIGNATURE_BYTES if isinstance(payload, Join) else 0
    if len(wire.signature) != SIGNATURE_BYTES or len(wire.invite_signature) != expected:
        raise BadMembership("membership entry: it lacks a signature, or has one too many")
    if not wire.hpke:
        return
    named = payload.hpke_hash if isinstance(payload, Genesis | Join) else b""
    if len(wire.hpke) != HPKE_PUBLIC_BYTES or hpke_hash(wire.hpke) != named:
        raise BadMembership("membership entry: its HPKE key is not the one its body names")
