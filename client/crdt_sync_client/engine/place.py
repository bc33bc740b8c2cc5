"""Where this device stands in the relay's log: the cursor, what was promised, and in which life of the relay.

The three are stored together, so that what the next session says holds (see `Hello.promised`). A relay that
has begun a new life and lost nothing is no reason to write: as long as nothing moves, the place in its
earlier life is the same place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


def move_cursor(replica: Replica, space: Space, cursor: int) -> None:
    """Everything up to there is here. Inside a transaction."""
    if cursor > space.cursor:
        space.cursor = cursor
        store_place(replica, space)


def promise(replica: Replica, space: Space, head: int) -> None:
    """The relay acknowledged something when its log ended there. Inside a transaction."""
    if head > space.giving.promised:
        space.giving.promised = head
        store_place(replica, space)


def store_place(replica: Replica, space: Space) -> None:
    """Inside a transaction."""
    if space.session.relay is not None:
        space.relay_seen = space.session.relay
    replica.db.execute(
        "UPDATE spaces SET relay_seen = ?, cursor = ?, promised = ? WHERE no = ?",
        (space.relay_seen, space.cursor, space.giving.promised, space.no),
    )
