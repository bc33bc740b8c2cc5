"""What frames are made of: the base of all frames, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from crdt_sync.ids import DeviceId, Incarnation, OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES, MAX_MEMBERSHIP_BYTES, MAX_REASON_CHARS

_MAX_INT: Final = 2**63 - 1

Space: TypeAlias = Annotated[SpaceId, Meta(min_length=16, max_length=16)]
Device: TypeAlias = Annotated[DeviceId, Meta(min_length=16, max_length=16)]
Opaque: TypeAlias = Annotated[OpaqueId, Meta(min_length=16, max_length=16)]
Relay: TypeAlias = Annotated[RelayId, Meta(min_length=16, max_length=16)]
Hash: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Nonce: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
EnvelopeBytes: TypeAlias = Annotated[bytes, Meta(min_length=1, max_length=MAX_ENVELOPE_BYTES)]
EntryBytes: TypeAlias = Annotated[bytes, Meta(min_length=1, max_length=MAX_MEMBERSHIP_BYTES)]
Incarnation32: TypeAlias = Annotated[Incarnation, Meta(ge=0, le=2**32 - 1)]
Number: TypeAlias = Annotated[int, Meta(ge=0, le=_MAX_INT)]
Millis: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Code: TypeAlias = Annotated[str, Meta(max_length=40)]
Reason: TypeAlias = Annotated[str, Meta(max_length=MAX_REASON_CHARS)]
Agent: TypeAlias = Annotated[str, Meta(max_length=100)]
Token: TypeAlias = Annotated[str, Meta(max_length=200)]


class Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Base of all frames."""
