"""Holding back: what is written to records that another device has checked out stays in the outbox.

Whatever the relay would refuse is best not sealed: a chain has no gaps, so a refused envelope keeps all that
follows from going out until that is made again (`refusing`). That is for the rare case in which something
was on its way already when the record was checked out.

What is held back: every pending update of such a record, whatever is tied to one of these in a transaction,
and so on; and what this life wrote to a record of which an earlier life's work was passed over because it is
held back, until a session for that begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_sync.ids import Author, Incarnation
from crdt_sync_client.engine.holders import Checkout, shown
from crdt_sync_client.engine.outbox_order import TURN_BITS
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_NUMBER: Final = "SELECT no FROM records WHERE space = ? AND opaque = ?"
_BY_TURN: Final = "SELECT record, incarnation FROM outbox WHERE space = ? AND error IS NULL ORDER BY no & ?"
_FIRST_TURNS: Final = (
    "SELECT incarnation, min(no & ?) FROM outbox WHERE space = ? AND error IS NULL GROUP BY incarnation"
)
_TURN: Final = (1 << TURN_BITS) - 1
_OLDEST_SEALED: Final = "SELECT incarnation FROM sealed WHERE space = ? AND error IS NULL ORDER BY no LIMIT 1"
_WAITING: Final = "SELECT record, tied, incarnation FROM outbox WHERE space = ? AND error IS NULL"


def held_back(replica: Replica, space: Space) -> frozenset[int]:
    """The records (by number) of which nothing may be sealed now in this session."""
    return _held(replica, space, space.session.skipped)


def _held(replica: Replica, space: Space, skipped: frozenset[Incarnation]) -> frozenset[int]:
    leased = _leased(replica, space)
    if not leased and not skipped:
        return frozenset()
    return _with_tied(replica, space, {no for no in leased if replica.unsent.get(no)}, skipped)


def waits_for(replica: Replica, space: Space) -> dict[int, Checkout]:
    """By record (number) that is held back: the checkout whose end it, or what is tied to it, waits for."""
    held = held_back(replica, space)
    if not held:
        return {}
    direct: dict[int, Checkout] = {}
    for lease in space.leases.foreign(replica.device_id, replica.now_ms()):
        no, found = replica.db.value(_NUMBER, (space.no, lease.record)), shown(replica, space, lease.record)
        if no in held and found is not None:
            direct[no] = found
    first = next(iter(direct.values()), None)
    return {no: found for no in held if (found := direct.get(no, first)) is not None}


def session_author(replica: Replica, space: Space) -> Author | None:
    """Whose chain the next session is about while something is held back, else None."""
    held = _held(replica, space, frozenset())
    if not held:
        return None
    incarnation = replica.db.value(_OLDEST_SEALED, (space.no,))
    if incarnation is None:
        rows = replica.db.rows(_BY_TURN, (space.no, _TURN))
        incarnation = next((of for record, of in rows if record not in held), None)
    return replica.author if incarnation is None else Author(replica.device_id, Incarnation(incarnation))


def passed_over(replica: Replica, space: Space, author: Author) -> frozenset[Incarnation]:
    """The lives whose work has waited longer than that author's: all of it is held back.

    It is so also when the checkouts for which it waits have just gone, with a log that the relay has lost.
    """
    if not replica.has_earlier_work():
        return frozenset()
    first = {
        Incarnation(incarnation): turn
        for incarnation, turn in replica.db.rows(_FIRST_TURNS, (_TURN, space.no))
    }
    own = first.pop(author.incarnation, None)
    first.pop(replica.author.incarnation, None)
    return frozenset(incarnation for incarnation, turn in first.items() if own is None or turn < own)


def _with_tied(
    replica: Replica, space: Space, held: set[int], skipped: frozenset[Incarnation]
) -> frozenset[int]:
    """These records, those with work of a life that is passed over, and all that is tied to them."""
    members: dict[int, set[int]] = {}
    ties: dict[int, set[int]] = {}
    for record, tied, incarnation in replica.db.execute(_WAITING, (space.no,)):
        if incarnation in skipped:
            held.add(record)
        if tied is not None:
            members.setdefault(tied, set()).add(record)
            ties.setdefault(record, set()).add(tied)
    ahead = list(held)
    while ahead:
        for tied in ties.get(ahead.pop(), ()):
            more = members[tied] - held
            held |= more
            ahead += more
    return frozenset(held)


def _leased(replica: Replica, space: Space) -> frozenset[int]:
    """The records (by number) that other devices have checked out."""
    if not space.leases.rows:
        return frozenset()
    found = (
        replica.db.value(_NUMBER, (space.no, lease.record))
        for lease in space.leases.foreign(replica.device_id, replica.now_ms())
    )
    return frozenset(no for no in found if no is not None)


def next_end_ms(replica: Replica, space: Space) -> int | None:
    """When, by this device's clock, the first lease ends that holds something back; None: nothing is."""
    ends = [
        lease.expires_ms - space.leases.relay_ahead_ms
        for lease in space.leases.foreign(replica.device_id, replica.now_ms())
        if replica.unsent.get(replica.db.value(_NUMBER, (space.no, lease.record)) or 0)
    ]
    return min(ends, default=None)
