"""What one batch of frames asks of the engine, in the order the relay sent it.

Built in the event loop, stored on the engine's thread, read in the event loop again. All deliveries and
acknowledgements become one `receive`, so one transaction, however they are mixed: acknowledgements are
settled last, once per chain, because they commute with what others wrote. Only the answer to a membership
entry of our own stays exactly where the relay put it: what comes after may build on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from crdt_sync.errors import WorkRefused
from crdt_sync.ids import Incarnation, SpaceId
from crdt_sync.protocol.frames import (
    Ack,
    Appended,
    AppendRefused,
    CheckedOut,
    Deliver,
    FromRelay,
    Refuse,
)
from crdt_sync.rare import rare

from .endings import printable
from .engine import Engine
from .engine.model import Received
from .refusals import work_refused

logger = logging.getLogger("crdt_sync.client")


class IncomingBatch:
    """One hop's worth of frames."""

    def __init__(
        self,
        engine: Engine,
        space: SpaceId,
        frames: Sequence[FromRelay],
        *,
        appends: Sequence[bytes],
    ) -> None:
        """`appends` are our membership entries that wait for an answer, oldest first."""
        self._engine = engine
        self._space = space
        self.received: list[Received] = []
        self.reconnect = False
        """The session cannot go on: what follows was not stored, and comes again in the next one."""
        self.over = False
        """Nothing more can be sent in this session."""
        self.refusal: WorkRefused | None = None
        """What the relay did not take, first."""
        self.pause_s: float | None = None
        """After a refusal: for so long nothing may be sent; None: the next session goes on at once."""
        self.error: Exception | None = None
        """Why the batch was not stored whole; what comes before it was, what follows was not."""
        self.cursor = 0
        """Where the log stands after the batch."""
        self.caught_up = False
        """Whether its last delivery ended where the log did."""
        self.only_cursor = True
        """Whether the batch holds nothing but a moved cursor."""
        self.settles_work = False
        """Whether it acknowledges or refuses something that was sent."""
        self._steps: list[Callable[[], object]] = []
        self._acks: dict[Incarnation, tuple[int, int]] = {}
        self._rows: list[tuple[int, int, bytes]] = []
        self._rows_cursor: int | None = None
        waiting = list(appends)
        for frame in frames:
            match frame:
                case Deliver():
                    for row in frame.rows:
                        self._rows.append((row.sequence, int(row.kind), row.payload))
                        if rare("row_per_transaction"):
                            self._rows_cursor, self.caught_up = row.sequence, False
                            self._settle()
                    self._rows_cursor = self.cursor = frame.cursor
                    self.caught_up = frame.caught_up
                    if frame.rows:
                        self.only_cursor = False
                case Ack():
                    self._acks[frame.incarnation] = frame.sequence, frame.head
                    self.only_cursor = False
                    self.settles_work = True
                case Refuse():
                    self.settles_work = True
                    self._step(self._refuse(frame))
                case CheckedOut():
                    self.settles_work = True
                    self._step(self._checked_out(frame))
                case Appended():
                    self._step(self._applied(waiting.pop(0)))
                case AppendRefused():
                    waiting.pop(0)
                case _:
                    pass
        self._settle()

    @property
    def brings_more(self) -> bool:
        """Whether something new came: contents, or members."""
        return any(each.envelopes or each.members_changed for each in self.received)

    def store(self) -> None:
        """Run on the engine's thread. Never raises: `error` holds what stopped it."""
        try:
            for step in self._steps:
                step()
                if self.reconnect:
                    return
            self.over = self._engine.session_over(self._space)
        except Exception as exc:
            self.error = exc
        finally:
            # They know this batch, and it them: together they would stay until the collector came by, and
            # a first sync is many batches of megabytes.
            self._steps.clear()

    def pass_over(self) -> None:
        """It is not stored: its cursor will be, with another."""
        self._steps.clear()

    def _step(self, step: Callable[[], object]) -> None:
        self.only_cursor = False
        self._settle()
        self._steps.append(step)

    def _settle(self) -> None:
        """Turn the rows and acknowledgements gathered so far into one step."""
        cursor, caught_up = self._rows_cursor, self.caught_up
        acks = [(incarnation, *upto) for incarnation, upto in self._acks.items()]
        self._acks = {}
        if cursor is None:
            self._steps.extend(self._acked(*ack) for ack in acks)
            return
        rows = self._rows
        self._rows, self._rows_cursor = [], None

        def receive() -> None:
            received = self._engine.receive(self._space, rows, cursor, caught_up=caught_up, acks=acks)
            self.received.append(received)
            self.reconnect = received.reconnect
            if received.clocks_ahead:
                logger.warning(
                    "%d updates carry times far ahead of this device's clock, which does not follow them;"
                    " check the clocks of the devices of the space",
                    received.clocks_ahead,
                )

        self._steps.append(receive)

    def _acked(self, incarnation: Incarnation, sequence: int, head: int) -> Callable[[], object]:
        return lambda: self._engine.acked(self._space, incarnation, sequence, head)

    def _refuse(self, frame: Refuse) -> Callable[[], object]:
        code, reason = frame.code, printable(frame.reason)
        if self.refusal is None:
            self.refusal = work_refused(code, reason)

        def refuse() -> None:
            engine, place = self._engine, (frame.incarnation, frame.sequence)
            engine.refused(self._space, *place, code, reason)
            self.pause_s = engine.pause_s(self._space)

        return refuse

    def _checked_out(self, frame: CheckedOut) -> Callable[[], object]:
        if self.refusal is None:
            self.refusal = work_refused("checked_out", "another device has checked out the record")

        def wait() -> None:
            changes = self._engine.push_checked_out(self._space, frame)
            self.received.append(Received(changes=tuple(changes)))

        return wait

    def _applied(self, entry: bytes) -> Callable[[], object]:
        return lambda: self._engine.apply_membership(self._space, entry)
