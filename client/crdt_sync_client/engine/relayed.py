"""Whether the relay has a write: by the time of the write, which it keeps however it is sent.

Work that is made again, because a store was copied or the relay refused something, has another author and
another place in the outbox, but its old time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_sync.ids import RecordId
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_BEGUN_BY: Final = "WHERE record = ?1 AND coalesce(clock, 0) <= ?2"
"""What a store of an earlier format queued has no time: it counts as written before."""


def is_relayed(replica: Replica, space: Space, record_type: str, id: RecordId, clock: int) -> bool:
    """See `Engine.is_relayed`: whether nothing waits that began by then."""
    opaque = space.keys.opaque_id(record_type, id)
    no = replica.db.value("SELECT no FROM records WHERE space = ? AND opaque = ?", (space.no, opaque))
    if no is None or not replica.unsent.get(no):
        return True
    waits = f"SELECT 1 FROM outbox {_BEGUN_BY} UNION ALL SELECT 1 FROM sealed {_BEGUN_BY} LIMIT 1"
    return replica.db.value(waits, (no, clock)) is None
