"""Verifying many signatures, on two threads when there are many.

Ed25519 verification takes some 50 µs and releases the interpreter lock, so a second thread nearly doubles the
rate where there is a second core. For a few signatures the hand-over costs more than it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from crdt_sync.crypto.envelope import Envelope
from crdt_sync.errors import BadSignature

Claim: TypeAlias = tuple[Envelope, bytes]
"""An envelope and the public signing key (32 bytes) it claims to be signed with."""

_WORTH_A_THREAD: Final = 16


def verify_here(claims: Sequence[Claim]) -> list[bool]:
    """For each claim whether it is true, on the calling thread."""
    return [_holds(envelope, key) for envelope, key in claims]


def _holds(envelope: Envelope, key: bytes) -> bool:
    try:
        envelope.verify(key)
    except BadSignature:
        return False
    return True


class TwoThreads:
    """`verify_here`, with half of a large batch on a second thread."""

    def __init__(self) -> None:
        self._second = ThreadPoolExecutor(1, thread_name_prefix="verify")

    def __call__(self, claims: Sequence[Claim]) -> list[bool]:
        if len(claims) < _WORTH_A_THREAD:
            return verify_here(claims)
        half = len(claims) // 2
        rest = self._second.submit(verify_here, claims[half:])
        return verify_here(claims[:half]) + rest.result()

    def close(self) -> None:
        self._second.shutdown()
