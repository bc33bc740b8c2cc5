"""The keys of a device: Ed25519 to sign, and HPKE with ML-KEM-768 + X25519 to receive keys.

A device's id is the start of the hash of its public signing key, so an id cannot be claimed without
the key and a key cannot be swapped under an id. The HPKE key is a hybrid: whoever records today's
traffic and owns a quantum computer later still has to break ML-KEM. Signatures are classical; they only
have to hold while they are checked.

Private keys are expanded from a seed that the caller's entropy provides, so the same entropy makes the
same device (the simulator relies on it).
"""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from crdt_sync.ids import ID_BYTES, DeviceId, Entropy

SIGN_PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
HPKE_PUBLIC_BYTES: Final = 1184 + 32
"""ML-KEM-768 encapsulation key (FIPS 203) and X25519 public key, one after the other."""
_SEED_LENGTHS: Final = (32, 64, 32)
"""Ed25519 seed, ML-KEM seed (d and z), X25519 private key."""
_SEED_BYTES: Final = sum(_SEED_LENGTHS)
_FORMAT: Final = b"\x01"
_DEVICE_TAG: Final = b"crdt-sync/device/v1"
_VERIFIERS_CACHED: Final = 4096
"""Constructing a public key costs 15 µs; this many members' keys stay constructed."""


@lru_cache(maxsize=_VERIFIERS_CACHED)
def device_id_of(sign_public: bytes) -> DeviceId:
    """The id of the device that has this public signing key."""
    return DeviceId(hashlib.sha256(_DEVICE_TAG + sign_public).digest()[:ID_BYTES])


@lru_cache(maxsize=_VERIFIERS_CACHED)
def _verifier(sign_public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(sign_public)


def verify_signature(sign_public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` was made with the key behind `sign_public` (32 bytes).

    False, never an error, for a public key or signature that is none. Releases the GIL while it computes.
    """
    try:
        _verifier(sign_public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class DevicePublic:
    """What others may know of a device: its public signing key (32 bytes) and public HPKE key (1216)."""

    __slots__ = ("device_id", "hpke", "sign")

    def __init__(self, sign: bytes, hpke: bytes) -> None:
        if len(sign) != SIGN_PUBLIC_BYTES or len(hpke) != HPKE_PUBLIC_BYTES:
            raise ValueError("a device's public keys are 32 and 1216 bytes long")
        self.sign = sign
        self.hpke = hpke
        self.device_id = device_id_of(sign)

    def __repr__(self) -> str:
        return f"DevicePublic(device_id={self.device_id.hex()})"


class DeviceKeys:
    """A device's private keys. Make them with `generate`, keep them with `to_bytes`."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _SEED_BYTES:
            raise ValueError(f"a device's seed is {_SEED_BYTES} bytes long")
        self._seed = seed
        self._signer = Ed25519PrivateKey.from_private_bytes(seed[: _SEED_LENGTHS[0]])
        self.sign_public: bytes = self._signer.public_key().public_bytes_raw()
        self.device_id: DeviceId = device_id_of(self.sign_public)

    @classmethod
    def generate(cls, entropy: Entropy) -> DeviceKeys:
        """A new device; takes 128 bytes of entropy."""
        return cls(entropy(_SEED_BYTES))

    @classmethod
    def from_bytes(cls, raw: bytes) -> DeviceKeys:
        """The inverse of `to_bytes`; raises ValueError for anything else."""
        if len(raw) != len(_FORMAT) + _SEED_BYTES or raw[: len(_FORMAT)] != _FORMAT:
            raise ValueError("not the stored form of a device's keys")
        return cls(raw[len(_FORMAT) :])

    def to_bytes(self) -> bytes:
        """The private keys, for the device's own encrypted store and nothing else."""
        return _FORMAT + self._seed

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes. `message` begins with the tag of its purpose."""
        return self._signer.sign(message)

    @cached_property
    def hpke_private(self) -> MLKEM768X25519PrivateKey:
        """The key that opens what was sealed to this device."""
        kem, dh = self._hpke_parts()
        return MLKEM768X25519PrivateKey(kem, dh)

    @cached_property
    def public(self) -> DevicePublic:
        """What the device shows to others."""
        kem, dh = self._hpke_parts()
        return DevicePublic(
            self.sign_public, kem.public_key().public_bytes_raw() + dh.public_key().public_bytes_raw()
        )

    def _hpke_parts(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        kem_from, dh_from = _SEED_LENGTHS[0], _SEED_LENGTHS[0] + _SEED_LENGTHS[1]
        return (
            MLKEM768PrivateKey.from_seed_bytes(self._seed[kem_from:dh_from]),
            X25519PrivateKey.from_private_bytes(self._seed[dh_from:]),
        )

    def __repr__(self) -> str:
        return f"DeviceKeys(device_id={self.device_id.hex()}, private=…)"
