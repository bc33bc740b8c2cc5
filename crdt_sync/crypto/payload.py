"""The payload of updates and snapshots: what stands inside the encryption.

    form u8 | msgpack [record_type, record_id, schema_version, update, group]

`update` is a CRDT update (a snapshot's is the whole document as one update). The type and id stand here,
encrypted, because the header only has their keyed hash; the receiver checks that the two agree.
`schema_version` is the version of the type's schema the writer had. `group` ties together updates of
several records that were made in one transaction; nil where there is none.

`form` is 0 when the msgpack follows as it is, and 1 when it is deflated (zlib, RFC 1950): whole records
and schemas are mostly field names and prose, and shrink to a third. Only what is long enough and
becomes shorter is deflated. What the length then tells is bounded by the padding; see the threat model.
"""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from crdt_sync.errors import BadUpdate
from crdt_sync.ids import RecordId, is_record_id

MAX_TYPE_CHARS: Final = 64
MAX_PAYLOAD_BYTES: Final = 2 * 1024 * 1024
"""After inflating. Twice the largest envelope: a bomb of a few bytes must not fill the memory of a phone."""
DEFLATE_FROM_BYTES: Final = 512
"""Single edits are 100 to 200 bytes: nothing to gain there but time to lose."""
_PLAIN: Final = b"\0"
_DEFLATED: Final = b"\1"
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
        plain = _encoder.encode(self)
        if len(plain) >= DEFLATE_FROM_BYTES:
            deflated = zlib.compress(plain)
            if len(deflated) < len(plain):
                return _DEFLATED + deflated
        return _PLAIN + plain

    @classmethod
    def decode(cls, raw: bytes) -> Payload:
        """The inverse of `encode`; raises BadUpdate for anything that is no payload."""
        plain = _plain(raw)
        try:
            payload = _decoder.decode(plain)
        except (msgspec.MsgspecError, ValueError):
            raise BadUpdate("payload: not [type, id, schema version, update, group]") from None
        if _encoder.encode(payload) != plain:
            raise BadUpdate("payload: not in canonical form")
        if not 0 < len(payload.record_type) <= MAX_TYPE_CHARS or not is_record_id(payload.record_id):
            raise BadUpdate("payload: its record type or record id is none")
        if not 0 <= payload.schema_version < 2**32:
            raise BadUpdate("payload: its schema version is out of range")
        return payload

    def __repr__(self) -> str:
        return f"<Payload of a {self.record_type}, {len(self.update)} bytes of update>"


_decoder: Final = msgspec.msgpack.Decoder(Payload)


def _plain(raw: bytes) -> bytes:
    """The msgpack of a payload, inflated where need be; raises BadUpdate."""
    form, body = raw[:1], raw[1:]
    if form == _PLAIN:
        return body
    if form != _DEFLATED:
        raise BadUpdate("payload: neither plain nor deflated")
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(body, MAX_PAYLOAD_BYTES)
    except zlib.error:
        raise BadUpdate("payload: cannot be inflated") from None
    if not inflater.eof or inflater.unused_data:
        raise BadUpdate(f"payload: does not inflate to at most {MAX_PAYLOAD_BYTES:,} bytes and nothing else")
    return plain
