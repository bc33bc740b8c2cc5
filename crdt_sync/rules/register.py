"""Rules for fields that hold one value: `register`, `client_wins`, `server_wins` and `manual`."""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sync.records.changes import Value
from crdt_sync.records.writes import Write, value_bytes
from crdt_sync.roles import Role
from crdt_sync.rules.base import ValueRule, by_clock


class Register(ValueRule):
    """The latest write by clock; with `prefer` or `order`, something else is looked at first.

    prefer  roles, strongest first: a write in one of them beats writes in roles named later or not at all
    order   values, weakest first: a value beats those named before it and those not named
    """

    __slots__ = ("_rank_of_role", "_rank_of_value", "order", "prefer")
    name = "register"

    def __init__(self, *, prefer: Sequence[Role] = (), order: Sequence[Value] = ()) -> None:
        self.prefer = tuple(prefer)
        self.order = tuple(order)
        self._rank_of_role = {role: len(prefer) - place for place, role in enumerate(prefer)}
        self._rank_of_value = {value_bytes(value): place for place, value in enumerate(order, start=1)}

    def choose(self, writes: Sequence[Write]) -> Write:
        if len(writes) == 1:
            return writes[0]
        return max(writes, key=lambda write: (self.rank(write), by_clock(write)))

    def rank(self, write: Write) -> tuple[int, int]:
        """What is looked at before the clock: how far the write's role and its value are preferred."""
        by_value = self._rank_of_value.get(value_bytes(write.value), 0) if self._rank_of_value else 0
        return (self._rank_of_role.get(write.role, 0), by_value)


class ClientWins(Register):
    """Writes of people in the field before all others, then the clock: for what was done and measured."""

    __slots__ = ()
    name = "client_wins"

    def __init__(self) -> None:
        super().__init__(prefer=(Role.FIELD,))


class ServerWins(Register):
    """Writes of office and supervisor, who rank alike, then of admins, then of the others; then the clock.

    For what is planned: schedules, assignments, the state of an asset.
    """

    __slots__ = ()
    name = "server_wins"

    def __init__(self) -> None:
        super().__init__()
        self._rank_of_role = {Role.OFFICE: 2, Role.SUPERVISOR: 2, Role.ADMIN: 1}


class Manual(Register):
    """No rule may decide: a person does. Until then the latest by clock is shown, marked as provisional."""

    __slots__ = ()
    name = "manual"
    opens_conflict = True

    def __init__(self) -> None:
        super().__init__()
