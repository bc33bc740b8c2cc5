"""Invites: a link whose fragment carries a one-time secret that no relay is ever sent.

    crdt-sync://HOST:PORT/join/SPACE?tls=0|1#FRAGMENT

SPACE is the space's id and FRAGMENT the 32-byte secret with a 4-byte checksum behind it, both in base64url.
The checksum covers space and secret, so a link that lost a character on its way is told apart from one
that was used; host and port may be edited by hand when the relay is reached under another name.

Two things are derived from the secret: an Ed25519 key, whose public half stands in the invite's entry and
which signs the join (the relay admits the guest by it), and a key under which the entry carries the
space's keys. So an invite works while no admin is online, and the relay, which has the entry but not
the secret, can neither open it nor use it. Whoever has the link before it is used can do both: it is as
confidential as the channel it is sent through, which is why it lets one device in, once, and expires.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from crdt_sync.crypto.padding import pad, unpad
from crdt_sync.crypto.space_keys import NONCE_BYTES, SealingKey, SpaceKeys, derive_key
from crdt_sync.errors import BadMembership, InviteGarbled, InviteWithdrawn
from crdt_sync.ids import ID_BYTES, Entropy, InviteId, SpaceId, b64url, from_b64url
from crdt_sync.membership.entries import HASH_BYTES, Invite, invite_id_of
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role

SECRET_BYTES: Final = 32
_CHECKSUM_BYTES: Final = 4
_CHECKSUM_TAG: Final = b"crdt-sync/invite-link/v1"
_SIGN_INFO: Final = b"crdt-sync/invite-sign/v1"
_SEAL_INFO: Final = b"crdt-sync/invite-seal/v1"
_SEAL_TAG: Final = b"crdt-sync/invite-sealed/v1"
_HOST: Final = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")
_GARBLED_HINT: Final = "copy the whole link again, up to its last character, or ask for a new one"
_MAX_LINK_CHARS: Final = 512
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}


class InviteSecret:
    """The secret of one invite, and what is derived from it."""

    __slots__ = ("_raw", "_seal_key", "_signer", "invite_id", "sign_public")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != SECRET_BYTES:
            raise ValueError(f"an invite's secret is {SECRET_BYTES} bytes long")
        self._raw = raw
        self._signer = Ed25519PrivateKey.from_private_bytes(derive_key(raw, _SIGN_INFO))
        self._seal_key = SealingKey(derive_key(raw, _SEAL_INFO))
        self.sign_public: bytes = self._signer.public_key().public_bytes_raw()
        self.invite_id: InviteId = invite_id_of(self.sign_public)

    @classmethod
    def generate(cls, entropy: Entropy) -> InviteSecret:
        """A new secret; takes 32 bytes of entropy."""
        return cls(entropy(SECRET_BYTES))

    def to_bytes(self) -> bytes:
        """The secret itself, for a link or the device's own encrypted store."""
        return self._raw

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature (64 bytes) with the invite's key."""
        return self._signer.sign(message)

    def seal(self, plaintext: bytes, associated: bytes, nonce: bytes) -> bytes:
        """`nonce | ciphertext` that only the holder of the secret can open."""
        return nonce + self._seal_key.encrypt(nonce, pad(plaintext), _SEAL_TAG + associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes | None:
        """What `seal` was given; None when it is not what this secret sealed."""
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        padded = self._seal_key.decrypt(nonce, ciphertext, _SEAL_TAG + associated)
        try:
            return None if padded is None else unpad(padded)
        except ValueError:
            return None

    def __repr__(self) -> str:
        return f"InviteSecret(invite_id={self.invite_id.hex()}, secret=…)"


@dataclass(frozen=True, slots=True)
class InviteLink:
    """An invite as a person passes it on. `format` writes it out; printing the object does not."""

    host: str
    port: int
    tls: bool
    space: SpaceId
    secret: InviteSecret

    @classmethod
    def for_relay(cls, relay_url: str, space: SpaceId, secret: InviteSecret) -> InviteLink:
        """The link to a space at the relay with that ws:// or wss:// address; raises ValueError."""
        parts = urlsplit(relay_url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path.strip("/"):
            raise ValueError("a relay's address has the form ws://HOST:PORT or wss://HOST:PORT")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        return cls(host, port, parts.scheme == "wss", space, secret)

    @property
    def relay_url(self) -> str:
        """The relay's WebSocket address."""
        return f"{'wss' if self.tls else 'ws'}://{self.host}:{self.port}"

    def format(self) -> str:
        """The link, secret included: for the person to pass on, not for logs."""
        raw = self.secret.to_bytes()
        fragment = b64url(raw + _checksum(self.space, raw))
        return f"crdt-sync://{self.host}:{self.port}/join/{b64url(self.space)}?tls={self.tls:d}#{fragment}"

    @classmethod
    def parse(cls, text: str) -> InviteLink:
        """The inverse of `format`; raises InviteGarbled, which never shows the link."""
        text = text.strip()
        if not text.startswith("crdt-sync://") or len(text) > _MAX_LINK_CHARS:
            raise _garbled("it does not begin with crdt-sync://")
        address, _, fragment = text.removeprefix("crdt-sync://").partition("#")
        place, _, query = address.partition("?")
        authority, _, path = place.partition("/")
        host, _, port = authority.rpartition(":")
        if not _HOST.fullmatch(host) or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65_535:
            raise _garbled("it names no relay as HOST:PORT")
        if query not in ("tls=0", "tls=1"):
            raise _garbled("the part between ? and # is wrong")
        verb, _, space_text = path.partition("/")
        space, secret = _decoded(space_text), _decoded(fragment)
        if verb != "join" or len(space) != ID_BYTES:
            raise _garbled("it names no space")
        if len(secret) != SECRET_BYTES + _CHECKSUM_BYTES:
            raise _garbled("the part after # is incomplete")
        raw = secret[:SECRET_BYTES]
        if secret[SECRET_BYTES:] != _checksum(space, raw):
            raise _garbled("a character of it was changed on its way")
        return cls(host, int(port), query == "tls=1", SpaceId(space), InviteSecret(raw))

    def __repr__(self) -> str:
        return f"InviteLink(relay={self.relay_url}, space={self.space.hex()}, secret=…)"


def _checksum(space: bytes, secret: bytes) -> bytes:
    return hashlib.sha256(_CHECKSUM_TAG + space + secret).digest()[:_CHECKSUM_BYTES]


def _decoded(text: str) -> bytes:
    try:
        return from_b64url(text)
    except ValueError:
        return b""


def _garbled(why: str) -> InviteGarbled:
    return InviteGarbled(f"this is not a whole invite link: {why}", hint=_GARBLED_HINT)


class _Sealed(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """What an invite brings, under the key from its secret."""

    keys: bytes
    space_name: str
    genesis_hash: bytes

    def __repr__(self) -> str:
        return "<sealed contents of an invite>"


_sealed_decoder: Final = msgspec.msgpack.Decoder(_Sealed)
_encoder: Final = msgspec.msgpack.Encoder()


class InviteContents(NamedTuple):
    """What an invite brings to whoever may open it. The keys inside print redacted."""

    keys: SpaceKeys
    space_name: str
    role: Role
    genesis_hash: bytes
    log_head: bytes
    """Head of the membership log when the invite was made: the log it stands in cannot be shorter."""


def seal_contents(
    secret: InviteSecret, *, keys: SpaceKeys, space_name: str, genesis_hash: bytes, place: bytes, nonce: bytes
) -> bytes:
    """The sealed part of an invite's entry. `place` is what binds it to its place in the log."""
    contents = _encoder.encode(_Sealed(keys.to_bytes(), space_name, genesis_hash))
    return secret.seal(contents, place, nonce)


def place_of(space: SpaceId, index: int, prev: bytes, role: Role, expires_at_ms: int) -> bytes:
    """Everything of an invite's entry that its sealed part vouches for to the guest."""
    return space + index.to_bytes(4, "big") + prev + bytes([role]) + expires_at_ms.to_bytes(8, "big")


def open_invite(log: MembershipLog, secret: InviteSecret, *, now_ms: int) -> InviteContents:
    """What the invite with that secret brings, checked against the log it stands in.

    Raises InviteGarbled when the log has no such invite, InviteUsed, InviteWithdrawn, InviteExpired by
    `now_ms`, and BadMembership when what it brings does not fit the log: someone is cheating.
    """
    state = log.invites.get(secret.invite_id)
    if state is None:
        raise InviteGarbled(
            "the space has no such invite", hint="check that the link is whole, or ask for a new one"
        )
    state.check_usable(now_ms)
    entry = state.entry
    assert isinstance(entry.payload, Invite)
    place = place_of(log.space_id, entry.index, entry.prev, state.role, state.expires_at_ms)
    opened = secret.open(entry.payload.sealed, place)
    if opened is None:
        raise BadMembership("invite: its sealed part does not open with the link's secret; it was changed")
    try:
        sealed = _sealed_decoder.decode(opened)
        keys = SpaceKeys.from_bytes(sealed.keys)
    except (msgspec.MsgspecError, ValueError):
        raise BadMembership("invite: its sealed part does not have the right shape") from None
    if len(sealed.genesis_hash) != HASH_BYTES or sealed.genesis_hash != log.genesis_hash:
        raise BadMembership("invite: it was made for a space with another genesis; the log was swapped")
    for epoch, commitment in log.epochs.items():
        if epoch not in keys.epochs:
            raise InviteWithdrawn(
                "this invite is from before the space's keys were changed",
                hint="ask an admin of the space for a new invite",
            )
        if keys.commitment(epoch) != commitment:
            raise BadMembership("invite: it brings other keys than the space has; do not join with it")
    return InviteContents(keys, sealed.space_name, state.role, sealed.genesis_hash, entry.prev)
