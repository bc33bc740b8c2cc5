"""Records in memory: a bounded cache of open documents, and the one place that reads them from the store.

A document costs about 50 µs to open and about 5 KiB to keep, so the most recently used stay open. They
belong to the engine's thread. A document that a failed transaction had touched is dropped, never
repaired: the store has the truth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.groups import decode_ends
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, RecordId
from crdt_sync.rare import rare
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.update_check import CheckedUpdate
from crdt_sync.records.view import RecordView
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.store.connection import Database

MAX_OPEN: Final = 256
"""At about 5 KiB each, 1.3 MiB."""

RecordKey = tuple[int, OpaqueId]


class Standing(NamedTuple):
    """A conflict as it stands in a record."""

    id: str
    path: tuple[str, ...]
    kind: str


class StandingState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What of a record's conflicts is stored beside it, so that reading a record needs no other table."""

    conflicts: list[Standing] = []
    provisional: list[tuple[str, ...]] = []


NOTHING_STANDING: Final = StandingState()
_encode = msgspec.msgpack.Encoder().encode
_decode_standing = msgspec.msgpack.Decoder(StandingState).decode
_decode_heads = msgspec.msgpack.Decoder(list[tuple[bytes, int, int, bytes]]).decode

Heads = dict[Author, ChainHead]


def encode_standing(state: StandingState) -> bytes | None:
    """None when there is nothing, which is the case for nearly every record."""
    return _encode(state) if state.conflicts or state.provisional else None


def decode_standing(raw: bytes | None) -> StandingState:
    return NOTHING_STANDING if raw is None else _decode_standing(raw)


def encode_heads(heads: Mapping[Author, ChainHead]) -> bytes:
    return _encode([(a.device, a.incarnation, head.sequence, head.hash) for a, head in heads.items()])


def decode_heads(raw: bytes) -> Heads:
    return {
        Author(DeviceId(device), Incarnation(incarnation)): ChainHead(sequence, link)
        for device, incarnation, sequence, link in _decode_heads(raw)
    }


class OpenRecord:
    """One record in memory. `json` is None until it is materialised, `stored` once it has its rows.

    `parent` is the id of the record that it names as its parent.

    `heads` names the newest envelope of each author that is merged and that the relay has: the cover
    vector of a snapshot made now. `group_ends` names per author the last sequence number of the newest group
    that the document holds a part of.
    """

    __slots__ = (
        "deleted",
        "doc",
        "gone",
        "group_ends",
        "heads",
        "id",
        "json",
        "no",
        "opaque",
        "parent",
        "schema",
        "seen",
        "space",
        "standing",
        "stored",
        "type",
    )

    def __init__(self, space: Space, record_type: str, id: RecordId, opaque: OpaqueId, no: int) -> None:
        self.space = space
        self.type = record_type
        self.id = id
        self.opaque = opaque
        self.no = no
        self.doc: RecordDocument
        self.heads: Heads = {}
        self.group_ends: dict[Author, int] = {}
        self.json: str | None = None
        self.deleted = False
        self.parent: str | None = None
        self.standing = NOTHING_STANDING
        self.stored = False
        self.gone = False
        """It is not on this device any more."""
        self.seen: RecordView | None = None
        """The last view made of `doc`, under `schema`: the next one starts from it."""
        self.schema: RecordSchema | None = None


class OpenRecords:
    """The cache. Keys are (space number, opaque id)."""

    def __init__(self, db: Database, max_open: int = MAX_OPEN) -> None:
        self._db = db
        self._max_open = max_open
        self._open: OrderedDict[RecordKey, OpenRecord] = OrderedDict()
        self._next_no: int | None = None

    def find(self, space: Space, opaque: OpaqueId, author: Author) -> OpenRecord | None:
        """The record with its document open for writing as `author`, or None when there is none."""
        key = (space.no, opaque)
        record = self._open.get(key)
        if record is not None:
            self._open.move_to_end(key)
            return record
        row = self._db.execute(
            "SELECT no, type, id, json, deleted, standing, parent, state, heads, group_ends"
            " FROM records JOIN documents ON record = no WHERE space = ? AND opaque = ?",
            key,
        ).fetchone()
        if row is None:
            return None
        no, record_type, id, json, deleted, standing, parent, state, heads, ends = row
        record = OpenRecord(space, record_type, RecordId(id), opaque, no)
        record.json = json
        record.deleted = bool(deleted)
        record.standing = decode_standing(standing)
        record.parent = parent
        record.heads = decode_heads(heads)
        record.group_ends = decode_ends(ends)
        record.doc = RecordDocument(state, author=author)
        record.stored = True
        self.keep(record)
        return record

    def opened(self, space: Space, opaque: OpaqueId) -> OpenRecord | None:
        """The record if it is in memory; the store is not asked."""
        return self._open.get((space.no, opaque))

    def new(
        self,
        space: Space,
        record_type: str,
        id: RecordId,
        opaque: OpaqueId,
        author: Author,
        state: bytes | None,
        checked: CheckedUpdate | None = None,
        *,
        no: int | None = None,
    ) -> OpenRecord:
        """A record that is not in the store yet. It is kept once the caller says so.

        `checked` is what a check of `state` gave, where there was one; `no` its number, where it had one.
        """
        record = OpenRecord(space, record_type, id, opaque, self.next_no() if no is None else no)
        record.doc = RecordDocument(state, author=author, checked=checked)
        return record

    def next_no(self) -> int:
        """A number that no record has had."""
        no = self._next_no
        if no is None:
            no = 1 + (self._db.value("SELECT max(no) FROM records") or 0)
        self._next_no = no + 1
        return no

    def keep(self, record: OpenRecord) -> None:
        """Hold the record open; the least recently used one makes room."""
        self._open[(record.space.no, record.opaque)] = record
        if len(self._open) > self._max_open or (len(self._open) > 1 and rare("record_evicted")):
            self._open.popitem(last=False)

    def drop(self, records: Iterable[OpenRecord]) -> None:
        for record in records:
            self._open.pop((record.space.no, record.opaque), None)

    def forget(self, space: Space, opaque: OpaqueId) -> None:
        """The store does not have it any more."""
        self._open.pop((space.no, opaque), None)

    def clear(self) -> None:
        """Forget everything, and take record numbers from the store again."""
        self._open.clear()
        self._next_no = None
