"""Unsent work taken out of the store in a form that people and programs can read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import CrdtSyncError
from crdt_sync.hlc import hlc_to_ms
from crdt_sync.ids import Author, Incarnation, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.writes import check_write

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space

_QUEUED: Final = (
    "SELECT q.kind, q.space, r.type, r.id, q.incarnation, q.bytes, q.at_ms, q.error FROM ("
    " SELECT 1 AS kind, no, space, record, incarnation, envelope AS bytes, at_ms, error FROM sealed"
    " UNION ALL SELECT 2, no, space, record, incarnation, change, at_ms, error FROM outbox"
    ") q JOIN records r ON r.no = q.record ORDER BY q.kind, q.no"
)


@dataclass(frozen=True, slots=True)
class UnsyncedOperation:
    """What one write, or several sealed together, assigned in a record, and no relay has.

    `writes` are (path, value, Unix ms); `$` names in a path are marks: the record or a row exists, or was
    deleted. `damaged` says why the values cannot be read, where they cannot.
    """

    space: str
    space_id: str
    type: str
    id: RecordId
    state: Literal["pending", "sending", "failed"]
    error: str | None
    at_ms: int
    writes: tuple[tuple[tuple[str, ...], Any, int], ...]
    damaged: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values but for bytes, which are in `writes` as they are."""
        return {
            "space": self.space,
            "space_id": self.space_id,
            "type": self.type,
            "id": self.id,
            "state": self.state,
            "error": self.error,
            "at_ms": self.at_ms,
            "writes": [{"path": path, "value": value, "at_ms": at_ms} for path, value, at_ms in self.writes],
            "damaged": self.damaged,
        }


def unsynced(replica: Replica) -> Iterator[UnsyncedOperation]:
    """All work that no relay has acknowledged, in the order in which it goes out."""
    spaces = {space.no: space for space in replica.spaces.values()}
    for kind, space_no, record_type, id, incarnation, raw, at_ms, error in replica.db.execute(_QUEUED):
        space = spaces[space_no]
        author = Author(replica.device_id, Incarnation(incarnation))
        damaged = None
        writes: tuple[tuple[tuple[str, ...], Any, int], ...] = ()
        try:
            writes = tuple(_writes(_opened(space, raw) if kind == 1 else raw, author))
        except (CrdtSyncError, ValueError) as exc:
            damaged = type(exc).__name__
        yield UnsyncedOperation(
            space=space.name,
            space_id=space.id.hex(),
            type=record_type,
            id=RecordId(id),
            state="failed" if error is not None else "sending" if kind == 1 else "pending",
            error=error,
            at_ms=at_ms,
            writes=writes,
            damaged=damaged,
        )


def unsent_updates(replica: Replica, space: Space, record: int) -> Iterator[bytes]:
    """The updates of one record (by number) that no relay has acknowledged, in no order."""
    for (raw,) in replica.db.rows("SELECT envelope FROM sealed WHERE record = ?", (record,)):
        yield _opened(space, raw)
    for (change,) in replica.db.rows("SELECT change FROM outbox WHERE record = ?", (record,)):
        yield change


def _opened(space: Space, raw: bytes) -> bytes:
    envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
    return Payload.decode(envelope.open(space.keys.envelope_key(envelope.header.epoch))).update


def _writes(update: bytes, author: Author) -> Iterator[tuple[tuple[str, ...], Any, int]]:
    for blocks in parse_update(update).blocks:
        for _, raw in blocks.items:
            write = check_write(raw, author)
            yield write.path, write.value, hlc_to_ms(write.hlc)
