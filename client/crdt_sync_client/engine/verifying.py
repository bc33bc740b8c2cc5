"""Checking many signatures: one after the other, or on two threads.

Verifying an Ed25519 signature takes about 65 µs and lets go of the interpreter lock meanwhile, so two
threads are nearly twice as fast; it is most of the time a fresh device cannot spend otherwise. Results do
not depend on which is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from crdt_sync.crypto.envelope import Envelope
from crdt_sync.errors import BadSignature

VerifyMany = Callable[[Sequence[tuple[Envelope, bytes]]], list[bool]]
"""Given (envelope, public signing key) pairs, whether each signature is good. May use threads."""

_WORTH_A_THREAD: Final = 32
"""Handing work over costs about 100 µs: less than this many signatures are faster done here."""


def verify_one_by_one(pairs: Sequence[tuple[Envelope, bytes]]) -> list[bool]:
    """On the calling thread."""
    return [_verifies(envelope, sign_public) for envelope, sign_public in pairs]


def verify_on_two_threads(pairs: Sequence[tuple[Envelope, bytes]]) -> list[bool]:
    """Half on the calling thread, half on one that is made for it."""
    if len(pairs) < _WORTH_A_THREAD:
        return verify_one_by_one(pairs)
    half = len(pairs) // 2
    with ThreadPoolExecutor(1, thread_name_prefix="crdt-sync-verify") as pool:
        second = pool.submit(verify_one_by_one, pairs[half:])
        return verify_one_by_one(pairs[:half]) + second.result()


def _verifies(envelope: Envelope, sign_public: bytes) -> bool:
    try:
        envelope.verify(sign_public)
    except BadSignature:
        return False
    return True
