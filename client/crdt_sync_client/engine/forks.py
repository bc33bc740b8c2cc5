"""A relay that lost a part of the members' log, where the log went on without it: one log is made of both.

The relay's branch stands, and what this device's own has besides goes to its end (see
`crdt_sync.membership.carrying`). The store holds that log from then on, so nobody who was let in on either
side stops being a member here; the relay is given the new end at the beginning of the next session, like
any entry that it lacks. A device that is no member on the relay's branch gets that branch as the answer to
`Revive`, and brings the whole log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crdt_sync.errors import BadMembership, ForkedLog, InviteError
from crdt_sync.membership.carrying import carry_over
from crdt_sync.membership.log import MembershipLog
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

logger = logging.getLogger("crdt_sync.client")


def take_branch(
    replica: Replica, space: Space, common: int, entries: Sequence[bytes], *, whole: bool = True
) -> None:
    """The relay's log has our first `common` entries and goes on with these. Inside a transaction.

    Raises BadMembership, also when this device cannot be a member with them (ForkedLog); where they are not
    the `whole` branch, the entry that lets it in is still to come.
    """
    ours = space.log.entries
    if not 0 < common <= len(ours):
        raise BadMembership("membership log: the relay says that it goes on where it does not")
    log = MembershipLog.restore(space.id, ours[:common])
    try:
        for raw in entries:
            log.apply(raw)
    except InviteError as error:
        raise BadMembership(f"membership entry: {error.message}") from None
    lost = [*space.giving.lost, *ours[common:]]
    made = carry_over(log, lost, replica.keys, at_ms=replica.now_ms())
    member = log.role_of(replica.device_id) is not None
    if whole and not member:
        raise ForkedLog(
            "the relay has lost the entry that let this device in, and its invite lets nobody in any more",
            hint="ask an admin for a new invite, then: crdt-sync join LINK; all that is here is kept",
        )
    replica.db.execute("DELETE FROM membership WHERE space = ? AND position >= ?", (space.no, common))
    replica.db.many(
        "INSERT INTO membership (space, position, entry) VALUES (?, ?, ?)",
        [(space.no, position, raw) for position, raw in enumerate(log.entries) if position >= common],
    )
    space.log = log
    space.giving.lost = [] if member else lost
    space.giving.carries = bool(made.entries)
    if member:
        logger.warning(
            "others took the place of %d membership entries that the relay has lost; all but %d count on",
            len(lost),
            len(made.left_out),
        )


def carry_what_waited(replica: Replica, space: Space) -> None:
    """This device may have become a member again on the relay's branch. Inside a transaction."""
    if space.giving.lost and space.log.role_of(replica.device_id) is not None:
        take_branch(replica, space, space.log.index + 1, [])


def carries_now(space: Space, *, caught_up: bool) -> bool:
    """Whether the relay is to be given the new end of the log: another session begins with that."""
    due = caught_up and space.giving.carries
    if due:
        space.giving.carries = False
    return due
