"""Resting: sealed work that is less urgent than what may travel now waits, as unsealed work does.

A chain has no gaps and what is sealed keeps its place in it. So what rests holds back whatever is sealed or
written later, and it may rest only as long as nothing of that is urgent enough for this network: then all of
it goes, in its order. A group that the relay has a part of goes on too, or others would wait for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_sync.schemas.priorities import LAST
from crdt_sync_client.engine.outbox_order import TURN_BITS
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_URGENT: Final = (
    "SELECT 1 FROM sealed WHERE space = ?1 AND error IS NULL AND priority <= ?2"
    " UNION ALL SELECT 1 FROM outbox WHERE space = ?1 AND error IS NULL AND no < ?3 LIMIT 1"
)
_BEGUN: Final = (
    "SELECT 1 FROM sealed next JOIN sealed before ON before.space = next.space"
    " AND before.incarnation = next.incarnation AND before.until = next.until"
    " AND before.sequence < next.sequence WHERE next.no = ? LIMIT 1"
)
"""What belongs to a group is kept until the relay has all of it."""


def rests(replica: Replica, space: Space) -> bool:
    """Whether what an earlier session left to be sent again, and with it all that follows, waits for now."""
    least, resend = replica.least_priority, space.session.resend
    if least >= LAST or not resend:
        return False
    if replica.db.value(_URGENT, (space.no, least, (least + 1) << TURN_BITS)) is not None:
        return False
    return replica.db.value(_BEGUN, (resend[0],)) is None
