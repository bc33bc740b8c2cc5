"""Work of ours that the relay refuses and the space has all the same.

A relay that was put back from a copy has lost what it took since, perhaps before its author heard of it.
Others had received that by then, and give it back inside snapshots. Its author sends it once more, and may
be refused now: its record is full, or lent to somebody. Made again by a new author it would stand there
twice.

What the log has shown of a record tells: its heads name the newest envelope of each author that the relay
has. So before something is set aside, what these cover is forgotten, as if acknowledged. Where they come to
cover it later, this store is an older copy of itself in that (see `older_copy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.ids import Author, Incarnation, OpaqueId
from crdt_sync_client.engine.open_records import decode_heads
from crdt_sync_client.engine.refused import taken
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_OF_SEALED: Final = (
    "SELECT s.no, s.record, s.incarnation, s.sequence, s.hash, r.opaque, d.heads FROM sealed s"
    " JOIN records r ON r.no = s.record JOIN documents d ON d.record = s.record WHERE s.space = ? AND "
)


def forget(replica: Replica, space: Space, which: str, parameters: Sequence[Any]) -> None:
    """Drop those of the rows `which` of `sealed s` that the space has. Inside a transaction."""
    db, records = replica.db, set()
    for no, record, incarnation, sequence, link, opaque, heads in db.rows(
        _OF_SEALED + which, (space.no, *parameters)
    ):
        author = Author(replica.device_id, Incarnation(incarnation))
        head = decode_heads(heads).get(author)
        if head is None or (author, sequence) in space.unmerged.get(OpaqueId(opaque), ()):
            continue
        if head.sequence > sequence or head == ChainHead(sequence, link):
            replica.past.relayed(replica.now_ms(), 0, "s.no = ?", (no,))
            db.execute("DELETE FROM sealed WHERE no = ?", (no,))
            records.add(record)
    for record in sorted(records):
        taken(replica, record)
        replica.count_unsent(record)
