"""Verifies each signature once per world.

Whether a signature is good depends on the bytes of the envelope and the key alone, so the answer of the first
device is the answer of all. Nothing is skipped: every different (bytes, key) is really verified.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sync.crypto.envelope import Envelope
from crdt_sync.errors import BadSignature


class Verifier:
    """In the shape of both engines' hooks for verifying many."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], bool] = {}

    def __call__(self, claims: Sequence[tuple[Envelope, bytes]]) -> list[bool]:
        return [self._holds(envelope, key) for envelope, key in claims]

    def _holds(self, envelope: Envelope, key: bytes) -> bool:
        claim = (envelope.raw, key)
        known = self._known.get(claim)
        if known is None:
            try:
                envelope.verify(key)
                known = True
            except BadSignature:
                known = False
            self._known[claim] = known
        return known
