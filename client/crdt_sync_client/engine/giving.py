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


class Giving:
    """A copy of columns in the store, and the progress of this session."""

    __slots__ = (
        "_seen",
        "after",
        "again",
        "carries",
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
        self.unfinished: set[OpaqueId] = set()
        """Those of them that could not be given back yet."""
        self.again: set[OpaqueId] = set()
        """Those of these that are to be looked at once more."""
        self.on_its_way: dict[OpaqueId, None] = {}
        self._seen: dict[OpaqueId, list[tuple[Arrival, bytes]]] = {}

    def begin_again(self) -> None:
        """Look at all records once more."""
        self.after = 0
        self.unfinished.clear()
        self.again.clear()

    def look_again(self) -> None:
        """Something has changed: look once more at what could not be given back."""
        self.again |= self.unfinished
        self.unfinished.clear()

    def saw(self, opaque: OpaqueId, arrival: Arrival, update: bytes) -> None:
        """The relay has this, which was checked."""
        if self.stage:
            self._seen.setdefault(opaque, []).append((arrival, update))

    def take_seen(self) -> dict[OpaqueId, list[tuple[Arrival, bytes]]]:
        """What was seen since the last time."""
        seen, self._seen = self._seen, {}
        return seen
