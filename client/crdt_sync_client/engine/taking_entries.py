"""Entries of the membership log, taken into a space one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sync.errors import BadMembership, InviteError
from crdt_sync.membership.entries import parse_entry
from crdt_sync_client.engine.forks import carry_what_waited, take_branch
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


def take_entry(replica: Replica, space: Space, raw: bytes) -> bool:
    """Take a membership entry; False for one that is there already. Inside a transaction.

    Raises BadMembership, also for what no honest relay lets pass, an invite used twice.
    """
    entry = parse_entry(raw)
    if space.log.position_of(entry.hash) is not None:
        return False
    place = space.log.position_of(entry.prev)
    if place is not None and place < space.log.index:  # the log went on differently at the relay
        take_branch(replica, space, place + 1, [raw], whole=False)
        return True
    try:
        space.log.apply(raw)
    except InviteError as error:
        raise BadMembership(f"membership entry: {error.message}") from None
    replica.db.execute(
        "INSERT INTO membership (space, position, entry) VALUES (?, ?, ?)", (space.no, entry.index, raw)
    )
    if space.giving.lost:
        carry_what_waited(replica, space)
    if entry.signer == replica.device_id and space.stage != "active":
        space.stage, space.pending_entry = "active", None
        replica.db.execute(
            "UPDATE spaces SET stage = 'active', pending_entry = NULL WHERE no = ?", (space.no,)
        )
    return True
