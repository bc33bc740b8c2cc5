"""Identifiers, each a type of its own so that one cannot stand where another belongs.

An *author* is one life of one device: the pair (device, incarnation). It names the device's array in a
record document and fixes the client id under which that array's items are made, so that authorship in
a document is structural and checkable by anyone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple, NewType

SpaceId = NewType("SpaceId", bytes)
"""16 bytes: the start of the hash of the space's genesis entry."""
DeviceId = NewType("DeviceId", bytes)
"""16 bytes: the start of the hash of the device's public signing key."""
OpaqueId = NewType("OpaqueId", bytes)
"""16 bytes: a record's name at the relay, a keyed hash of its type and id."""
RelayId = NewType("RelayId", bytes)
"""16 random bytes: one life of a relay's database."""
InviteId = NewType("InviteId", bytes)
"""16 bytes: the start of the hash of an invite's public key."""
RecordId = NewType("RecordId", str)
"""A UUID in its canonical lower-case text form."""
Incarnation = NewType("Incarnation", int)
"""One life of a device's store: 1 to 2**32 - 1, drawn at random."""

Entropy = Callable[[int], bytes]
"""Gives that many random bytes. `os.urandom` in the product, a seeded stream in the simulator."""

ID_BYTES: Final = 16

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def b64url(raw: bytes) -> str:
    """Base64 for URLs and array names, without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def from_b64url(text: str) -> bytes:
    """The inverse of `b64url`; raises ValueError for anything `b64url` would not have written."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as exc:
        raise ValueError("not base64url text") from exc
    if b64url(raw) != text:
        raise ValueError("not canonical base64url text")
    return raw


def is_record_id(text: str) -> bool:
    """Whether `text` is a UUID in the one form that record ids have."""
    return _UUID.match(text) is not None


def new_record_id(entropy: Entropy) -> RecordId:
    """A random (version 4) UUID."""
    raw = bytearray(entropy(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return _uuid_text(bytes(raw))


def keyed_record_id(space: SpaceId, record_type: str, key: str) -> RecordId:
    """The UUID (version 8, RFC 9562) of an imported row that has a natural key.

    The same key in the same space always gives the same id, so importing a file twice updates its
    records instead of doubling them. The relay never sees this id, only its keyed hash.
    """
    material = b"crdt-sync/record-key/v1" + space + record_type.encode() + b"\0" + key.encode()
    raw = bytearray(hashlib.sha256(material).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return _uuid_text(bytes(raw))


def _uuid_text(raw: bytes) -> RecordId:
    text = raw.hex()
    return RecordId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def new_incarnation(entropy: Entropy) -> Incarnation:
    """A random incarnation. Random, not counted: two copies of one store must not choose the same."""
    return Incarnation(int.from_bytes(entropy(4), "big") or 1)


class _AuthorParts(NamedTuple):
    device: DeviceId
    incarnation: Incarnation


class Author(_AuthorParts):
    """One life of one device. Ordered by bytes: the last resort when a merge rule has a tie.

    A tuple, because authors are keys everywhere, and tuples are hashed and compared by the interpreter.
    """

    __slots__ = ()

    def __new__(cls, device: DeviceId, incarnation: Incarnation) -> Author:
        """Raises ValueError for what is no device id or no incarnation."""
        if len(device) != ID_BYTES or not 0 < incarnation < 2**32:
            raise ValueError("an author is a 16-byte device id and an incarnation from 1 to 2**32 - 1")
        return tuple.__new__(cls, (device, incarnation))

    @property
    def array_name(self) -> str:
        """Name of this author's array in every record document: 27 characters."""
        return _array_name(self)

    @property
    def client_id(self) -> int:
        """The CRDT client id this author's items carry: 53 bits, fixed by the author, never reused."""
        return _client_id(self)

    @classmethod
    def from_array_name(cls, name: str) -> Author:
        """The author an array belongs to; raises ValueError for a name no author has."""
        return _author_of(name)


@lru_cache(maxsize=65_536)
def _array_name(author: Author) -> str:
    return b64url(author.device + author.incarnation.to_bytes(4, "big"))


@lru_cache(maxsize=65_536)
def _client_id(author: Author) -> int:
    material = b"crdt-sync/client-id/v1" + author.device + author.incarnation.to_bytes(4, "big")
    return int.from_bytes(hashlib.sha256(material).digest()[:8], "big") >> 11


@lru_cache(maxsize=65_536)
def _author_of(name: str) -> Author:
    raw = from_b64url(name)
    if len(raw) != ID_BYTES + 4:
        raise ValueError("not the name of an author's array")
    return Author(DeviceId(raw[:ID_BYTES]), Incarnation(int.from_bytes(raw[ID_BYTES:], "big")))
