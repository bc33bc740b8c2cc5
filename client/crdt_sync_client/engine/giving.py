"""What a space knows about giving its relay back what that has lost. Who does it is `giving_back`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_sync.ids import OpaqueId

if TYPE_CHECKING:
    from crdt_sync_client.engine.arrivals import Arrival

NOT_NOW: Final = 0
COMPARING: Final = 1
"""The log is read anew, and what the relay has is kept beside what is here."""
GIVING: Final = 2
"""All of it was seen; what it lacks is on its way to it."""
LATE: Final = 3
"""What it lacks it was given, but for records of which something waits for the rest of its group."""


class Giving:
    """A copy of columns in the store, and the progress of this session."""

    __slots__ = (
        "_seen",
        "after",
        "again",
        "carries",
        "late",
        "looks_on",
        "lost",
        "on_its_way",
        "promised",
        "revives",
        "stage",
        "unfinished",
    )

    def __init__(self, promised: int = 0, stage: int = NOT_NOW) -> None:
        self.promised = promised
        """How long the relay's log was when it last acknowledged something."""
        self.stage = stage
        self.revives = False
        """Whether the next connection gives the membership log back. Not stored."""
        self.carries = False
        """Whether the members' log has a new end since a fork, which the relay is to get. Not stored."""
        self.lost: list[bytes] = []
        """Membership entries to be carried once the relay's branch has let this device in. Not stored."""
        self.after = 0
        """Records up to this number were looked at in this session."""
        self.looks_on = False
        """Whether there are more, which the last call left for the next."""
        self.unfinished: set[OpaqueId] = set()
        """Those of them that could not be given back yet."""
        self.again: set[OpaqueId] = set()
        """Records that are to be looked at once more."""
        self.late: set[OpaqueId] = set()
        """The records that `LATE` is about."""
        self.on_its_way: dict[OpaqueId, None] = {}
        self._seen: dict[OpaqueId, list[tuple[Arrival, bytes]]] = {}

    @property
    def gives(self) -> bool:
        """Whether there may be something to give back, and all of the relay's log was seen."""
        return self.stage in (GIVING, LATE)

    @property
    def of_all(self) -> bool:
        """Whether it is about all records."""
        return self.stage in (COMPARING, GIVING)

    def concerns(self, opaque: OpaqueId) -> bool:
        """Whether the relay may lack something of that record."""
        return self.of_all or opaque in self.late

    def begin_again(self) -> None:
        """Look at all records once more."""
        self.after = 0
        self.unfinished.clear()
        self.again = set(self.late)

    def look_again(self) -> None:
        """Something has changed: look once more at what could not be given back."""
        self.again |= self.unfinished | self.late
        self.unfinished.clear()

    def has_come(self, opaque: OpaqueId) -> None:
        """What waited of that record may show now, and the relay has lost it: look at it once more."""
        if self.concerns(opaque):
            self.again.add(opaque)

    def saw(self, opaque: OpaqueId, arrival: Arrival, update: bytes) -> None:
        """The relay has this, which was checked."""
        if self.concerns(opaque):
            self._seen.setdefault(opaque, []).append((arrival, update))

    def take_seen(self) -> dict[OpaqueId, list[tuple[Arrival, bytes]]]:
        """What was seen since the last time."""
        seen, self._seen = self._seen, {}
        return seen
