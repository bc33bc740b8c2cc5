"""Access tokens: a device proves its key, and may call the API for some minutes without proving it again.

A token is a random secret that means nothing outside this process; its hash is kept in memory only. Whoever
restarts the relay ends all of them, and a device gets the next one by itself. A token is for one device in
one space; whether that device is a member is asked at every use: revoking a device ends its tokens at once.

The nonce of a challenge carries its own time and the relay's seal, so that asking for challenges costs the
relay nothing to remember. Only a nonce that was used is remembered, for as long as it is good.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from typing import Final, NamedTuple

from crdt_sync.ids import Author, Entropy, SpaceId, b64url

NONCE_TTL_S: Final = 60
"""From the challenge to its answer; ample for a slow radio link."""
MAX_TOKENS: Final = 20_000
"""At once. The oldest goes first; its device gets another one by itself."""
_SEAL_BYTES: Final = 16
"""With the time (8) and the random bytes a nonce has `bodies.NONCE_BYTES`."""
_RANDOM_BYTES: Final = 16
_TOKEN_BYTES: Final = 24


class Holder(NamedTuple):
    """Whose a token is. `refused`: codes of refusals that are in the books, as of a connection."""

    space: SpaceId
    author: Author
    agent: str
    refused: set[str] | None = None


class Tokens:
    """See the module. Times are seconds of the relay's monotonic clock."""

    def __init__(self, entropy: Entropy, ttl_s: int) -> None:
        self.ttl_s = ttl_s
        self._entropy = entropy
        self._key = entropy(32)
        self._used: OrderedDict[bytes, float] = OrderedDict()
        self._tokens: OrderedDict[bytes, tuple[float, Holder]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def challenge(self, now_s: float) -> bytes:
        """A nonce to be signed."""
        body = int(now_s * 1000).to_bytes(8, "big") + self._entropy(_RANDOM_BYTES)
        return body + self._seal(body)

    def redeem(self, nonce: bytes, now_s: float) -> bool:
        """Whether the nonce is one of ours, fresh, and not used before. It is used then."""
        body, seal = nonce[:-_SEAL_BYTES], nonce[-_SEAL_BYTES:]
        if len(body) != 8 + _RANDOM_BYTES or not hmac.compare_digest(seal, self._seal(body)):
            return False
        age_s = now_s - int.from_bytes(body[:8], "big") / 1000
        while self._used and next(iter(self._used.values())) < now_s - NONCE_TTL_S:
            self._used.popitem(last=False)
        if age_s > NONCE_TTL_S or nonce in self._used:
            return False
        self._used[nonce] = now_s
        return True

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_SEAL_BYTES]

    def issue(self, holder: Holder, now_s: float) -> str:
        """A new token. Others of the device stay good: requests may be on their way."""
        token = b64url(self._entropy(_TOKEN_BYTES))
        while self._tokens and (
            len(self._tokens) >= MAX_TOKENS or next(iter(self._tokens.values()))[0] <= now_s
        ):
            self._tokens.popitem(last=False)
        self._tokens[_hashed(token)] = now_s + self.ttl_s, holder
        return token

    def holder(self, token: str, now_s: float) -> Holder | None:
        """Whose token it is; None for one that is over or was never given."""
        found = self._tokens.get(_hashed(token))
        return found[1] if found is not None and found[0] > now_s else None

    def revoke(self, token: str) -> None:
        """End this one."""
        self._tokens.pop(_hashed(token), None)

    def revoke_author(self, space: SpaceId, author: Author) -> int:
        """End all tokens of a device in a space; how many it were."""
        gone = [
            key
            for key, (_, holder) in self._tokens.items()
            if holder.space == space and holder.author.device == author.device
        ]
        for key in gone:
            del self._tokens[key]
        return len(gone)


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
