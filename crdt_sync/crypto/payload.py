"""The payload of updates and snapshots: what stands inside the encryption.

    msgpack [record_type, record_id, schema_version, update, group]

`update` is a CRDT update (a snapshot's is the whole document as one update). The type and id stand here,
encrypted, because the header only has their keyed hash; the receiver checks that the two agree.
`schema_version` is the version of the type's schema the writer had. `group` ties together updates of
several records that were made in one transaction; nil where there is none.
"""

from __future__ import annotations

from typing import Final

import msgspec

from crdt_sync.errors import BadUpdate
from crdt_sync.ids import RecordId, is_record_id

MAX_TYPE_CHARS: Final = 64
_encoder: Final = msgspec.msgpack.Encoder()


class Payload(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """One record's changes. Its repr shows sizes, not contents."""

    record_type: str
    record_id: RecordId
    schema_version: int
    update: bytes
    group: bytes | None = None

    def encode(self) -> bytes:
        """The bytes to seal."""
        return _encoder.encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> Payload:
        """The inverse of `encode`; raises BadUpdate for anything that is no payload."""
        try:
            payload = _decoder.decode(raw)
        except (msgspec.MsgspecError, ValueError):
            raise BadUpdate("payload: not [type, id, schema version, update, group]") from None
        if _encoder.encode(payload) != raw:
            raise BadUpdate("payload: not in canonical form")
        if not 0 < len(payload.record_type) <= MAX_TYPE_CHARS or not is_record_id(payload.record_id):
            raise BadUpdate("payload: its record type or record id is none")
        if not 0 <= payload.schema_version < 2**32:
            raise BadUpdate("payload: its schema version is out of range")
        return payload

    def __repr__(self) -> str:
        return f"<Payload of a {self.record_type}, {len(self.update)} bytes of update>"


_decoder: Final = msgspec.msgpack.Decoder(Payload)
