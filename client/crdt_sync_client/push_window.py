"""How much may be on its way to the relay at once.

At most `FLIGHTS` pushes are unacknowledged. While they are, further local writes wait unsealed, and what
waits for one record is merged into one envelope: the busier the link, the fewer and larger the envelopes.
A device at rest has no flight, so a single write goes out at once.

A device that writes fast would still make an envelope of nearly every write, and each costs the relay and
every reader a signature check. So a push of many envelopes is followed by a pause in proportion: what
is written meanwhile is merged. A lone write is followed by a millisecond, which nobody notices.

Asking the engine for the next envelopes takes a hop to its thread, during which nobody else may ask: that
is what `begin` and `finish` bracket. Whoever comes meanwhile marks the window dirty, and the one who
finishes asks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from crdt_sync.crypto.envelope import Header
from crdt_sync.rare import rare

FLIGHTS: Final = 2
"""One being committed by the relay while the next travels; more would only split what could be merged."""
MAX_ENVELOPES: Final = 512
"""Per push. Sealing them takes some 25 ms of the store's thread, for which local writes wait."""
MAX_BYTES: Final = 64 * 1024
"""Per push, unless a single envelope is larger. What one push brought stays brought when the link breaks,
so a backlog gets ahead on a link that lives for seconds: 64 KiB take half a second at 1 Mbit/s and eight
at 64 kbit/s, well within a heartbeat, whose answer waits behind the frame."""
PAUSE_PER_ENVELOPE_S: Final = 0.001
"""About what one envelope costs all who handle it, with a handful of readers."""
MAX_PAUSE_S: Final = 0.1
"""Below what a person notices."""


class PushWindow:
    """See the module. Lives in the event loop."""

    def __init__(
        self, count: int, size_bytes: int, clock: Callable[[], float], *, more: bool = False
    ) -> None:
        """At most that many envelopes and bytes in one push, by the relay's limits. `clock` gives seconds.

        `more`: there may be something to send already.
        """
        self._clock = clock
        self._pause_ends_s = 0.0
        self._hurries = 0
        self.max_count = min(count, MAX_ENVELOPES)
        self.max_bytes = min(size_bytes, MAX_BYTES)
        self._flights: deque[tuple[dict[int, int], int]] = deque()
        self._asking = False
        self._dirty = more
        self._was_dirty = more
        self.held = False
        """Nothing more may be sent in this session; when the pause is over, another goes on."""
        self.sent = 0
        """Envelopes handed out in this session."""
        self.acknowledged = 0
        """Of those, how many the relay has."""

    def begin(self) -> bool:
        """Whether the caller may ask the engine now; it must then call `finish` or `cancel`."""
        if self._asking or self.held or len(self._flights) >= FLIGHTS or self.pause_s > 0:
            self._dirty = True
            return False
        self._asking = True
        self._was_dirty, self._dirty = self._dirty, False
        return True

    def cancel(self) -> None:
        """The engine was not asked after all: what there was to send before `begin` is still there."""
        self._asking = False
        self._dirty = self._dirty or self._was_dirty

    def finish(self, envelopes: Sequence[bytes], *, more: bool = False) -> None:
        """The engine gave these; they are on their way. `more`: there may be more to send."""
        self._asking = False
        self._dirty = self._dirty or more
        if not envelopes:
            return
        self.sent += len(envelopes)
        last: dict[int, int] = {}
        for envelope in envelopes:
            header = Header.unpack(envelope)
            last[header.incarnation] = header.sequence
        self._flights.append((last, len(envelopes)))
        if not rare("push_without_pause"):
            self._pause_ends_s = self._clock() + min(len(envelopes) * PAUSE_PER_ENVELOPE_S, MAX_PAUSE_S)

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

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """No pauses: somebody waits until everything is sent, and merging more would prolong that."""
        self._hurries += 1
        try:
            yield
        finally:
            self._hurries -= 1

    def hold(self, pause_s: float) -> None:
        """The relay takes nothing for now: send no more, and nothing at all before so many seconds."""
        self.held = True
        self._flights.clear()
        self._pause_ends_s = self._clock() + pause_s
        self._dirty = True

    @property
    def pause_s(self) -> float:
        """Seconds until the next push may be made."""
        return 0.0 if self._hurries and not self.held else max(0.0, self._pause_ends_s - self._clock())

    @property
    def wants(self) -> bool:
        """Whether there is something to ask for and room for it, now or after the pause."""
        return self._dirty and not self._asking and len(self._flights) < FLIGHTS

    @property
    def idle(self) -> bool:
        """Nothing on its way and nothing to send, as of the last ask."""
        return not (self._dirty or self._asking or self._flights)
