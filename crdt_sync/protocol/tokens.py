"""What a device signs to get an access token for a relay's HTTP API."""

from __future__ import annotations

from typing import Final

from crdt_sync.ids import Author, RelayId, SpaceId

TOKEN_DOMAIN: Final = b"crdt-sync/token/v1"


def token_message(*, nonce: bytes, relay_id: RelayId, space: SpaceId, author: Author) -> bytes:
    """Bound to this challenge, relay, space and device; of no use as a `Hello`, nor the other way round."""
    return TOKEN_DOMAIN + nonce + relay_id + space + author.device + author.incarnation.to_bytes(4, "big")
