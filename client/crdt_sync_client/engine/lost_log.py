"""What a relay has lost and this device has, without showing it: nobody else may have it (see `giving_back`).

It waits for the rest of its group (`gathering`), or for a version of its record's type (`upkeep`). Its place
in the log is 0 until the relay delivers it again. It is merged when what it waits for comes, and then its
record is given back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_sync.ids import OpaqueId

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space

_LOSE: Final = "UPDATE quarantine SET seq = 0 WHERE space = ? AND type IS NOT NULL"
_ASIDE: Final = "SELECT DISTINCT opaque FROM quarantine WHERE space = ? AND seq = 0 AND type IS NOT NULL"


def lose(replica: Replica, space: Space) -> None:
    """The relay may have none of it any more. Inside a transaction."""
    space.waiting.log_is_lost(replica.db, space.no)
    replica.db.execute(_LOSE, (space.no,))


def records(replica: Replica, space: Space) -> set[OpaqueId]:
    """Those of which something is in no log."""
    found = space.waiting.of_lost_log()
    if space.unmerged:
        found.update(OpaqueId(opaque) for (opaque,) in replica.db.rows(_ASIDE, (space.no,)))
    return found


def has(replica: Replica, space: Space, opaque: OpaqueId) -> bool:
    """Whether something of that record is in no log."""
    if space.waiting.is_of_lost_log(opaque):
        return True
    return opaque in space.unmerged and opaque in records(replica, space)
