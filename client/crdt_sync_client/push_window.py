"""How much may be on its way to the relay at once.

At most `FLIGHTS` pushes are unacknowledged. While they are, further local writes wait unsealed, and what
waits for one record is merged into one envelope: the busier the link, the fewer and larger the envelopes.
A device at rest has no flight, so a single write goes out at once.

Asking the engine for the next envelopes takes a hop to its thread, during which nobody else may ask: that
is what `begin` and `finish` bracket. Whoever comes meanwhile marks the window dirty, and the one who
finishes asks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from crdt_sync.crypto.envelope import Header

FLIGHTS: Final = 2
"""One being committed by the relay while the next travels; more would only split what could be merged."""
MAX_ENVELOPES: Final = 512
"""Per push. Sealing them takes some 25 ms of the store's thread, for which local writes wait."""
MAX_BYTES: Final = 1024 * 1024
"""Per push, if the relay allows it: a third of a second on a slow mobile link."""


class PushWindow:
    """See the module. Lives in the event loop."""

    def __init__(self, count: int, size_bytes: int) -> None:
        """At most that many envelopes and bytes in one push, by the relay's limits."""
        self.max_count = min(count, MAX_ENVELOPES)
        self.max_bytes = min(size_bytes, MAX_BYTES)
        self._flights: deque[tuple[dict[int, int], int]] = deque()
        self._asking = False
        self._dirty = True
        self.sent = 0
        """Envelopes handed out in this session."""
        self.acknowledged = 0
        """Of those, how many the relay has."""

    def begin(self) -> bool:
        """Whether the caller may ask the engine now; it must then call `finish`."""
        if self._asking or len(self._flights) >= FLIGHTS:
            self._dirty = True
            return False
        self._asking = True
        self._dirty = False
        return True

    def finish(self, envelopes: Sequence[bytes]) -> None:
        """The engine gave these; they are on their way."""
        self._asking = False
        if not envelopes:
            return
        self.sent += len(envelopes)
        last: dict[int, int] = {}
        for envelope in envelopes:
            header = Header.unpack(envelope)
            last[header.incarnation] = header.sequence
        self._flights.append((last, len(envelopes)))
        # There may be more; the next ask that comes back empty says so.
        self._dirty = True

    def mark(self) -> None:
        """There is something new to send."""
        self._dirty = True

    def acked(self, incarnation: int, sequence: int) -> None:
        """The relay has everything of that chain up to `sequence`."""
        for last, _ in self._flights:
            if last.get(incarnation, sequence + 1) <= sequence:
                del last[incarnation]
        while self._flights and not self._flights[0][0]:
            self.acknowledged += self._flights.popleft()[1]

    @property
    def wants(self) -> bool:
        """Whether `begin` would be allowed and useful."""
        return self._dirty and not self._asking and len(self._flights) < FLIGHTS

    @property
    def idle(self) -> bool:
        """Nothing on its way and nothing to send, as of the last ask."""
        return not (self._dirty or self._asking or self._flights)
