"""The keys of a space: one that names records for ever, and one per epoch that encrypts.

The *id key* turns (type, record id) into the opaque id a record has at the relay. It never changes, so
that a record keeps its opaque id; whoever ever was a member can therefore still recognise the opaque id
of a record whose id he knows. The *epoch keys* encrypt; each epoch's key for envelopes and its key for
names are derived from it and never used for anything else.

The membership log carries a *commitment* to each epoch's key and to the id key, a hash that shows
nothing of them: a member who hands a newcomer other keys than everyone else has is found out.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crdt_sync.errors import UnknownEpoch
from crdt_sync.ids import ID_BYTES, Entropy, OpaqueId

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
FIRST_EPOCH: Final = 1

_FORMAT: Final = 1
_HEAD: Final = struct.Struct(f">B{KEY_BYTES}sI")
_EPOCH: Final = struct.Struct(f">I{KEY_BYTES}s")
_OPAQUE_TAG: Final = b"crdt-sync/opaque-id/v1"
_COMMITMENT_TAG: Final = b"crdt-sync/epoch-commitment/v1"
_OPAQUE_IDS_KEPT: Final = 2_048
"""Of each space: 0.5 MB. An HMAC costs as much as a statement of SQL, and a record in use is named often."""
_ENVELOPE_INFO: Final = b"crdt-sync/envelope-key/v1"
_NAMES_INFO: Final = b"crdt-sync/names-key/v1"


def derive_key(secret: bytes, info: bytes) -> bytes:
    """32 bytes for the purpose that `info` names (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def _opaque_ids(id_key: bytes) -> Callable[[str, str], OpaqueId]:
    """`SpaceKeys.opaque_id` under that key, with a memory."""

    @lru_cache(maxsize=_OPAQUE_IDS_KEPT)
    def opaque_id(record_type: str, record_id: str) -> OpaqueId:
        named = _OPAQUE_TAG + record_type.encode() + b"\0" + record_id.encode()
        return OpaqueId(hmac.digest(id_key, named, "sha256")[:ID_BYTES])

    return opaque_id


class SealingKey:
    """An AES-256-GCM-SIV key (RFC 8452) with the cipher already set up.

    GCM-SIV because nonces are random: should one ever repeat, all that shows is whether two plaintexts
    were equal. `epoch` is 0 for a key that belongs to no epoch.
    """

    __slots__ = ("_cipher", "epoch")

    def __init__(self, key: bytes, epoch: int = 0) -> None:
        self._cipher = AESGCMSIV(key)
        self.epoch = epoch

    def encrypt(self, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """Ciphertext with its 16-byte tag at the end. `nonce` is 12 bytes."""
        return self._cipher.encrypt(nonce, plaintext, associated)

    def decrypt(self, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes | None:
        """The plaintext; None when key, nonce, ciphertext or associated data are not those of `encrypt`."""
        try:
            return self._cipher.decrypt(nonce, ciphertext, associated)
        except (InvalidTag, ValueError):
            return None

    def __repr__(self) -> str:
        return f"SealingKey(epoch={self.epoch}, key=…)"


class SpaceKeys:
    """Everything a member holds of a space's keys. Immutable."""

    __slots__ = ("_envelope_keys", "_id_key", "_names_keys", "current_epoch", "epochs", "opaque_id")

    epochs: Mapping[int, bytes]
    """Epoch number, from 1, to its 32-byte key."""
    current_epoch: int
    """The newest epoch: new envelopes are sealed under it."""
    opaque_id: Callable[[str, str], OpaqueId]
    """From a record's type and id to its name at the relay: 16 bytes of HMAC-SHA256 under the id key."""

    def __init__(self, id_key: bytes, epochs: Mapping[int, bytes]) -> None:
        if len(id_key) != KEY_BYTES or not epochs:
            raise ValueError("a space has a 32-byte id key and at least one epoch")
        if any(len(key) != KEY_BYTES or not 0 < epoch < 2**32 for epoch, key in epochs.items()):
            raise ValueError("an epoch is a number from 1 and a 32-byte key")
        self._id_key = id_key
        self.epochs = _RedactedMapping(epochs)
        self.current_epoch = max(epochs)
        self._envelope_keys: dict[int, SealingKey] = {}
        self._names_keys: dict[int, SealingKey] = {}
        self.opaque_id = _opaque_ids(id_key)

    @classmethod
    def generate(cls, entropy: Entropy) -> SpaceKeys:
        """The keys of a new space, in its first epoch."""
        return cls(entropy(KEY_BYTES), {FIRST_EPOCH: entropy(KEY_BYTES)})

    def envelope_key(self, epoch: int) -> SealingKey:
        """The key for envelopes of that epoch; raises UnknownEpoch when this device was never given it."""
        return self._derived(self._envelope_keys, epoch, _ENVELOPE_INFO)

    def names_key(self, epoch: int) -> SealingKey:
        """The key for names in the membership log; raises UnknownEpoch as `envelope_key` does."""
        return self._derived(self._names_keys, epoch, _NAMES_INFO)

    def commitment(self, epoch: int) -> bytes:
        """32 bytes that fix the id key and that epoch's key without showing them."""
        material = _COMMITMENT_TAG + epoch.to_bytes(4, "big") + self._id_key + self._epoch_key(epoch)
        return hashlib.sha256(material).digest()

    def to_bytes(self) -> bytes:
        """All the keys, for the device's own encrypted store and for invites."""
        parts = [_HEAD.pack(_FORMAT, self._id_key, len(self.epochs))]
        parts += [_EPOCH.pack(epoch, self.epochs[epoch]) for epoch in sorted(self.epochs)]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, raw: bytes) -> SpaceKeys:
        """The inverse of `to_bytes`; raises ValueError for anything else."""
        if len(raw) < _HEAD.size:
            raise ValueError("not the stored form of a space's keys")
        form, id_key, count = _HEAD.unpack_from(raw)
        if form != _FORMAT or len(raw) != _HEAD.size + count * _EPOCH.size:
            raise ValueError("not the stored form of a space's keys")
        keys = cls(id_key, dict(_EPOCH.iter_unpack(raw[_HEAD.size :])))
        if keys.to_bytes() != raw:
            raise ValueError("not the canonical form of a space's keys")
        return keys

    def _epoch_key(self, epoch: int) -> bytes:
        try:
            return self.epochs[epoch]
        except KeyError:
            raise UnknownEpoch(
                f"this device has no key for epoch {epoch} of the space",
                hint="sync again; the key comes with the membership log",
            ) from None

    def _derived(self, cache: dict[int, SealingKey], epoch: int, info: bytes) -> SealingKey:
        key = cache.get(epoch)
        if key is None:
            derived = derive_key(self._epoch_key(epoch), info + epoch.to_bytes(4, "big"))
            key = cache[epoch] = SealingKey(derived, epoch)
        return key

    def __repr__(self) -> str:
        return f"SpaceKeys(epochs={sorted(self.epochs)}, keys=…)"


class _RedactedMapping(Mapping[int, bytes]):
    """A read-only mapping that does not show its values when printed."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[int, bytes]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, epoch: int) -> bytes:
        return self._entries[epoch]

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<keys of epochs {sorted(self._entries)}>"
