"""Waiting until others have what was written here, across the sessions of one space, without I/O.

What the relay can say is up to where each other device has confirmed its log. So a wait begins when the relay
has the write: it is for the end that the log has then, which is at the write's row or behind it. It goes on
in the next session; where the relay has lost a part of its log, with the end of that log once it was given
back. Waits are in memory: whoever comes back after a restart asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crdt_sync.protocol.deliveries import Delivered
from crdt_sync.protocol.device_session import DeviceSession, State
from crdt_sync.protocol.limits import MAX_AWAITED_ROWS


@dataclass(slots=True, eq=False)
class DeliveryWait:
    """How far a write has come that the relay has: `reached` of `members` others (None: not known yet)."""

    row: int | None = None
    reached: int = 0
    members: int | None = None

    @property
    def done(self) -> bool:
        """Whether all others have it."""
        return self.members is not None and self.reached >= self.members


class DeliveryDesk:
    """See the module. Lives in one thread."""

    def __init__(self) -> None:
        self._waits: list[DeliveryWait] = []
        """Oldest first."""
        self._protocol: DeviceSession | None = None
        self._send: Callable[[bytes], None] = lambda _: None
        self._asked: list[int] = []
        self._settled = False

    def add(self, wait: DeliveryWait) -> None:
        """The relay has had the write by now."""
        self._waits.append(wait)
        self._ask()

    def remove(self, wait: DeliveryWait) -> None:
        """Nobody waits for it any more."""
        self._waits.remove(wait)
        self._ask()

    # What the session says

    def begin(self, protocol: DeviceSession, send: Callable[[bytes], None], *, behind: bool) -> None:
        """The relay has said welcome; `behind`: it has lost something, and rows may mean something else."""
        self._protocol, self._send, self._asked, self._settled = protocol, send, [], False
        for wait in self._waits if behind else ():
            wait.row, wait.reached, wait.members = None, 0, None

    def look(self, *, settled: bool) -> None:
        """Something happened in the session; `settled`: nothing is to be given back to the relay."""
        if settled is not self._settled:
            self._settled = settled
            self._ask()

    def end(self) -> None:
        """The session is over."""
        self._protocol = None

    def arrived(self, frame: Delivered) -> None:
        """The relay's answer."""
        reached = dict(zip(frame.rows, frame.reached, strict=True))
        for wait in self._waits:
            if wait.row in reached:
                wait.reached, wait.members = reached[wait.row], frame.members
        self._ask()

    def _ask(self) -> None:
        protocol = self._protocol
        if protocol is None or protocol.state is not State.LIVE or not self._settled:
            return
        rows: set[int] = set()
        for wait in self._waits:
            if wait.row is None:
                wait.row = protocol.head
            if not wait.done and (len(rows) < MAX_AWAITED_ROWS or wait.row in rows):
                rows.add(wait.row)
        wanted = sorted(rows)
        if wanted != self._asked:
            self._asked = wanted
            self._send(protocol.await_delivery(wanted))
