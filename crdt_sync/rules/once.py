"""The rule `once`: a field that is filled in one time, such as a ticket number or a server's id.

The first by the clock is shown. Two devices that filled it apart with different values have made a
conflict that a person decides: one of the two numbers is on a paper somewhere. A filled field is not
written again; planning refuses that, except from a device in a role named by `correct`.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sync.records.writes import Write
from crdt_sync.roles import Role
from crdt_sync.rules.base import ValueRule, by_clock


class Once(ValueRule):
    """The first write that fills the field.

    correct  roles that may write another value over one that stands; none by default
    """

    __slots__ = ("correct",)
    name = "once"
    opens_conflict = True

    def __init__(self, *, correct: Sequence[Role] = ()) -> None:
        self.correct = tuple(correct)

    def choose(self, writes: Sequence[Write]) -> Write:
        if len(writes) == 1:
            return writes[0]
        filling = [write for write in writes if write.value is not None]
        return min(filling or writes, key=by_clock)
