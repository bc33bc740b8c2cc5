"""Making membership entries, and reading the names in them that only members can read.

Names (of the space, of devices) are sealed under a key of the epoch in which they were given and padded,
so that a relay sees neither them nor their length. The device's id is bound in, so that no name can be
put on another device.

    private = epoch u32 | nonce 12 | ciphertext of msgpack [device_name, space_name]

Everyone reads a log as it comes; a new entry is made for the place after the log's present head. When
another entry was faster, the relay refuses and the entry is made again on the new head.
"""

from __future__ import annotations

from typing import Final

import msgspec

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.padding import pad, unpad
from crdt_sync.crypto.space_keys import FIRST_EPOCH, NONCE_BYTES, SpaceKeys
from crdt_sync.errors import BadMembership, ValidationError
from crdt_sync.ids import DeviceId, Entropy, InviteId, SpaceId
from crdt_sync.membership.entries import (
    NO_HASH,
    NO_SPACE,
    Genesis,
    Invite,
    Join,
    Withdraw,
    hpke_hash,
    make_entry,
    parse_entry,
)
from crdt_sync.membership.invites import InviteContents, InviteSecret, place_of, seal_contents
from crdt_sync.membership.log import Member, MembershipLog
from crdt_sync.roles import Role

MAX_NAME_BYTES: Final = 200
_EPOCH_BYTES: Final = 4
_NAMES_TAG: Final = b"crdt-sync/names/v1"


class Names(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """The sealed names of an entry. `space` is empty but for the founder's."""

    device: str
    space: str


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Names)


def make_genesis(
    device: DeviceKeys,
    keys: SpaceKeys,
    *,
    space_name: str,
    device_name: str,
    at_ms: int,
    entropy: Entropy,
) -> tuple[bytes, SpaceId]:
    """The first entry of a new space, and the id the space has by it. The device becomes its admin."""
    names = Names(check_name("device name", device_name), check_name("space name", space_name))
    payload = Genesis(
        device.sign_public,
        hpke_hash(device.public.hpke),
        keys.commitment(FIRST_EPOCH),
        _seal_names(names, keys, device.device_id, entropy),
    )
    raw = make_entry(
        payload, space=NO_SPACE, index=0, prev=NO_HASH, at_ms=at_ms, keys=device, hpke=device.public.hpke
    )
    return raw, SpaceId(parse_entry(raw).hash[: len(NO_SPACE)])


def make_invite(
    log: MembershipLog,
    device: DeviceKeys,
    keys: SpaceKeys,
    *,
    space_name: str,
    role: Role,
    expires_at_ms: int,
    at_ms: int,
    entropy: Entropy,
) -> tuple[bytes, InviteSecret]:
    """An entry that offers a place in the space, and the secret for the link. An admin's to make."""
    secret = InviteSecret.generate(entropy)
    index = log.index + 1
    sealed = seal_contents(
        secret,
        keys=keys,
        space_name=space_name,
        genesis_hash=log.genesis_hash,
        place=place_of(log.space_id, index, log.head, role, expires_at_ms),
        nonce=entropy(NONCE_BYTES),
    )
    payload = Invite(secret.invite_id, secret.sign_public, role, expires_at_ms, sealed)
    raw = make_entry(payload, space=log.space_id, index=index, prev=log.head, at_ms=at_ms, keys=device)
    return raw, secret


def make_withdraw(log: MembershipLog, device: DeviceKeys, invite_id: InviteId, *, at_ms: int) -> bytes:
    """An entry that takes an unused invite back. An admin's to make."""
    return make_entry(
        Withdraw(invite_id),
        space=log.space_id,
        index=log.index + 1,
        prev=log.head,
        at_ms=at_ms,
        keys=device,
    )


def make_join(
    log: MembershipLog,
    device: DeviceKeys,
    secret: InviteSecret,
    contents: InviteContents,
    *,
    device_name: str,
    at_ms: int,
    entropy: Entropy,
) -> bytes:
    """An entry by which the device takes up the invite that `open_invite` gave the contents of."""
    names = Names(check_name("device name", device_name), "")
    payload = Join(
        secret.invite_id,
        device.sign_public,
        hpke_hash(device.public.hpke),
        _seal_names(names, contents.keys, device.device_id, entropy),
    )
    return make_entry(
        payload,
        space=log.space_id,
        index=log.index + 1,
        prev=log.head,
        at_ms=at_ms,
        keys=device,
        invite_sign=secret.sign,
        hpke=device.public.hpke,
    )


def open_names(member: Member, keys: SpaceKeys) -> Names:
    """The names that a member's entry carries; the founder's has the space's name too.

    Raises UnknownEpoch when this device lacks the key, BadMembership when they were sealed wrongly: the
    member did that to its own name, so show its id instead and go on.
    """
    sealed = member.sealed_name
    nonce_end = _EPOCH_BYTES + NONCE_BYTES
    key = keys.names_key(int.from_bytes(sealed[:_EPOCH_BYTES], "big"))
    padded = key.decrypt(sealed[_EPOCH_BYTES:nonce_end], sealed[nonce_end:], _NAMES_TAG + member.device_id)
    try:
        if padded is not None:
            return _decoder.decode(unpad(padded))
    except (msgspec.MsgspecError, ValueError):
        pass
    raise BadMembership(f"the name of device {member.device_id.hex()[:8]} cannot be read")


def _seal_names(names: Names, keys: SpaceKeys, device: DeviceId, entropy: Entropy) -> bytes:
    epoch, nonce = keys.current_epoch, entropy(NONCE_BYTES)
    sealed = keys.names_key(epoch).encrypt(nonce, pad(_encoder.encode(names)), _NAMES_TAG + device)
    return epoch.to_bytes(_EPOCH_BYTES, "big") + nonce + sealed


def check_name(what: str, name: str) -> str:
    """The name of a device or a space, if it may be one: 1 to 200 bytes, not only blanks.

    Raises ValidationError, which calls it `what`.
    """
    size = len(name.encode())
    if not name.strip() or size > MAX_NAME_BYTES:
        raise ValidationError(
            what,
            f"has {size} bytes, and may have 1 to {MAX_NAME_BYTES}" if name.strip() else "is empty",
            hint="give one that people recognise",
        )
    return name
