"""What a device does in one connection of one space, without I/O: from the relay's challenge to the end.

It is driven as every connection is (see `connection_driver`), with `next_push` as a second source of steps,
and `last_step` to be run after the end.

What comes in is stored in batches: everything that waits when the store has time becomes one step, up to a
bound, so that a batch is as large as the device is busy. What goes out is sealed together with the write that
made it necessary (see `write_queue`), together with the batch that made room, or on its own (`next_push`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from crdt_sync.errors import ProtocolViolation, RemoteError, WorkRefused
from crdt_sync.membership.entries import parse_entry
from crdt_sync.protocol.deliveries import ConfirmCursor, Delivered
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import (
    Ack,
    Appended,
    AppendRefused,
    Bye,
    Challenge,
    CheckoutAnswer,
    CompactRequest,
    ConfirmRequest,
    Deliver,
    Fetched,
    Forked,
    FromRelay,
    RowKind,
    SnapshotResult,
    Welcome,
)
from crdt_sync.protocol.limits import HANDSHAKE_TIMEOUT_S
from crdt_sync.rare import rare

from .checkout_desk import CheckoutDesk, CheckoutStep
from .connection_driver import ConnectionDriver
from .delivery_desk import DeliveryDesk
from .endings import Reconnect, late_handshake, refusal
from .engine import Engine
from .engine.model import SessionStart
from .fetching import Fetching
from .giving import ForkStep, GiveBackStep, GivingBack
from .greeting import greeting
from .network import Policy
from .push_window import PushWindow
from .session_steps import (
    BatchStep,
    ConfirmStep,
    CursorStep,
    FetchedStep,
    PushBounds,
    PushStep,
    SnapshotStep,
    Step,
    WantedStep,
    WelcomeStep,
)

logger = logging.getLogger("crdt_sync.client")

WELCOME_TIMEOUT_S: Final = 2 * HANDSHAKE_TIMEOUT_S
"""From the wish to connect to the relay's welcome. A relay gives a handshake half of it."""
INBOX_BYTES: Final = 8 * 1024 * 1024
"""Frames taken off the socket and not yet stored; the reader stops there, and the relay with it."""
BATCH_ROWS: Final = 512
BATCH_BYTES: Final = 1024 * 1024
"""One batch for the engine: some 100 ms of its thread, for which local writes wait."""
LAZY_CURSORS: Final = 64
"""A cursor that moved over our own rows only is stored with the next batch, or after that many moves."""

Answered = Callable[[Appended | AppendRefused | None], None]
"""Told the relay's answer to a membership entry, None when the session ended without one."""


class SessionDriver(ConnectionDriver):
    """See the module."""

    timeout_s = WELCOME_TIMEOUT_S

    def __init__(
        self,
        engine: Engine,
        start: SessionStart,
        *,
        protocol: DeviceSession,
        clock: Callable[[], float],
        agent: str,
        deliveries: DeliveryDesk | None = None,
    ) -> None:
        """`start` is the engine's, made for this connection. `clock` gives seconds."""
        super().__init__(protocol=protocol, url=start.relay_url)
        self.window = PushWindow(0, 0, clock)
        self.welcomed = False
        self.first_cursor = 0
        """Where this session's delivery began."""
        self.cursor = 0
        """Everything up to here is in the store, or is our own."""
        self.received = 0
        """Envelopes the engine took in this session."""
        self.acknowledged = 0
        self.refusal: WorkRefused | None = None
        """What the relay did not take in this session."""
        self.membership_batches = 0
        """Batches that changed the membership log."""
        self._engine = engine
        self._start = start
        self._clock = clock
        self._agent = agent
        self._challenged_s = 0.0
        self._first: WelcomeStep | ForkStep | None = None
        """What the relay's answer to our first word asks of the store."""
        self._lazy_cursors = 0
        self._inbox: deque[tuple[FromRelay, int]] = deque()
        self._inbox_bytes = 0
        self._at_work = False
        self._unstored_cursors = 0
        self._at_end = False
        """Whether nothing in the store waits to hear that it has everything."""
        self._ungot_bytes = 0
        self._appends: deque[tuple[bytes, Answered]] = deque()
        self._unanswered: deque[bytes] = deque()
        """Hashes of the entries whose answer has not arrived."""
        self._compactions: deque[CompactRequest | ConfirmRequest] = deque()
        self.fetching = Fetching()
        self.giving = GivingBack()
        self.deliveries = deliveries or DeliveryDesk()
        self._to_confirm = self._confirmed = 0
        self.checkouts = CheckoutDesk(protocol, self.outgoing.append, clock)
        self._compacts = True

    # What the shell may ask

    @property
    def head(self) -> int:
        """The end of the relay's log, as far as it told."""
        return self.protocol.head

    @property
    def relay_now_ms(self) -> int:
        """The relay's wall clock. What the relay is to judge by its clock is best reckoned with it."""
        return self.protocol.relay_now_ms + int((self._clock() - self._challenged_s) * 1000)

    @property
    def caught_up(self) -> bool:
        """Everything that the relay told of is stored."""
        return self.welcomed and self.cursor >= self.protocol.head and not (self.has_work or self._at_work)

    @property
    def idle(self) -> bool:
        """Caught up, everything sent is acknowledged, and everything wanted is fetched."""
        return self.caught_up and self.window.idle and self.fetching.idle and self.giving.idle

    @property
    def revives(self) -> bool:
        """Whether this connection is to give the membership log back."""
        return bool(self._start.revive)

    @property
    def fruitful(self) -> bool:
        """Whether the session brought something to either side."""
        return self.received > 0 or self.acknowledged > 0

    @property
    def full(self) -> bool:
        """More waits to be stored than may; take nothing off the socket until it is less."""
        return self._inbox_bytes > INBOX_BYTES

    @property
    def has_work(self) -> bool:
        if self._inbox or self._compactions or self._first or self._may_fetch:
            return True
        return self.welcomed and (self.giving.ready or self.checkouts.ready)

    @property
    def _may_fetch(self) -> bool:
        return self.welcomed and self.fetching.ready(cursor=self.cursor, at_end=self._at_end)

    # What happens to the connection

    def arrived(self, frame: FromRelay, size_bytes: int) -> None:
        match frame:
            case Challenge():
                self._challenged_s = self._clock()
                self.outgoing.append(greeting(self.protocol, self._start, self._agent))
            case Welcome():
                self._first = WelcomeStep(self._engine, self._start.space, self.protocol.relay_id, frame)
            case Forked():
                self._first = ForkStep(self._engine, self._start.space, frame)
            case Fetched():
                self.fetching.arrived(frame)
            case CheckoutAnswer():
                self.checkouts.arrived(frame)
            case Delivered():
                self.deliveries.arrived(frame)
            case Bye():
                self.end(refusal(frame.code, frame.error, frame.reason, self.url))
            case Appended() if self._start.revive:
                self.end(Reconnect("the relay has the membership log again"))
            case _:
                if isinstance(frame, Appended | AppendRefused) and not self._answers(frame):
                    self.end(ProtocolViolation("the relay answered another membership entry than was sent"))
                    return
                self._inbox.append((frame, size_bytes))
                self._inbox_bytes += size_bytes

    def _answers(self, frame: Appended | AppendRefused) -> bool:
        """Whether it is about the oldest entry without an answer: what swapped or replayed answers confirm
        would stand in our log, and nowhere else."""
        entry_hash = self._unanswered.popleft()
        return isinstance(frame, AppendRefused) or frame.members_head == entry_hash

    def late(self) -> None:
        if not self.welcomed:
            self.end(late_handshake())

    def end(self, error: Exception | None = None) -> None:
        if error is None and self.can_send and self.welcomed and self.cursor > self._confirmed:
            self.parting = self.protocol.got(self.cursor)
        super().end(error)
        self.deliveries.end()
        while self._appends:
            self._appends.popleft()[1](None)
        self.checkouts.end()

    # What the device wants sent

    def push_soon(self) -> None:
        """There may be something to send."""
        self.window.mark()

    def append(self, entry: bytes, answered: Answered) -> None:
        """Send a membership entry; it is applied to the store before `answered` hears of `Appended`."""
        self._appends.append((entry, answered))
        self._unanswered.append(parse_entry(entry).hash)
        self.outgoing.append(self.protocol.append(entry))

    def fetch_soon(self) -> None:
        """There may be a record to fetch, or to give back."""
        self.fetching.look()
        self.giving.look(again=True)

    def follow(self, policy: Policy) -> None:
        """What may travel from now on."""
        self.fetching.paused = not policy.fetch
        self._compacts = policy.snapshots

    @property
    def bounds(self) -> PushBounds:
        """For whoever asks the engine for a push, after `window.begin`."""
        return self.window.max_count, self.window.max_bytes

    def pushed(self, envelopes: Sequence[bytes] | None, *, more: bool = False) -> None:
        """The engine sealed these, after `window.begin`, and may have `more`; None if it was not asked."""
        if envelopes is None:
            self.window.cancel()
            return
        self.window.finish(envelopes, more=more)
        if envelopes and self.can_send:  # else the next session sends them: they are in the store
            self.outgoing.append(self.protocol.push(envelopes))

    def next_push(self) -> PushStep | None:
        """Something to seal, if there is room for it on the way and no pause is due (`window.pause_s`)."""
        if self.window.held and self.window.pause_s <= 0:
            self.end(Reconnect("sending again what the relay had no room or time for"))
        if self.ended or not self.welcomed or not self.window.wants or not self.window.begin():
            return None
        step = PushStep(self._engine, self._start.space, self.bounds)
        step.relay_now_ms = self.relay_now_ms
        return step

    # What the store has to do

    def next_step(self) -> Step | None:
        if self.ended or self._at_work:
            return None
        engine, space = self._engine, self._start.space
        step: Step
        if self._first is not None:
            step, self._first = self._first, None
        elif self._compactions:
            asked = self._compactions.popleft()
            if isinstance(asked, ConfirmRequest):
                step = ConfirmStep(engine, space, asked)
            else:
                step = SnapshotStep(engine, space, asked.records)
        elif self._inbox and self.welcomed:
            step = self._batch_step()
        elif self.checkouts.ready and self.welcomed:
            step = self.checkouts.next_step(engine, space)
        elif self.giving.ready and self.welcomed:
            step = self.giving.next_step(engine, space, self.protocol.push_budget[1])
        elif self._may_fetch:
            try:
                step = self.fetching.next_step(engine, space)
            except RemoteError as exc:
                self.end(exc)
                return None
        else:
            return None
        self._at_work = True
        return step

    def last_step(self) -> CursorStep | None:
        """After the end: what is still to be stored."""
        if not self._unstored_cursors or isinstance(self.error, RemoteError):
            return None
        self._unstored_cursors = 0
        return CursorStep(self._engine, self._start.space, self.cursor)

    def done(self, step: Step) -> None:
        match step:
            case BatchStep():
                self._at_work = False
                self._stored(step)
            case PushStep():
                self.pushed(step.envelopes, more=step.more)
                self.checkouts.pushed(step)
            case CheckoutStep():
                self._at_work = False
                self.checkouts.done(step)
            case WelcomeStep():
                self._at_work = False
                self._begun(step)
            case ForkStep():
                self._at_work = False
                self.end(step.error or Reconnect("the relay is given one membership log made of two"))
            case SnapshotStep():
                self._at_work = False
                self._compacted(step)
            case ConfirmStep():
                self._at_work = False
                if self.can_send and step.error is None:
                    self.outgoing.append(self.protocol.judged(step.record, step.snapshot, step.answer))
            case GiveBackStep():
                self._at_work = False
                for snapshot in self.giving.done(step):
                    if self.can_send:
                        self.outgoing.append(self.protocol.give_back(snapshot))
            case WantedStep() | FetchedStep():
                self._at_work = False
                if isinstance(step, FetchedStep) and step.received is not None:
                    self.received += step.received.envelopes
                asked = self.fetching.done(step)
                if asked is not None and self.can_send:
                    self.outgoing.append(self.protocol.fetch(*asked))
            case _:
                pass
        if isinstance(step, PushStep) and step.over:
            self.end(Reconnect("another session has to send what waited for a checkout to end"))
        if step.error is not None:
            self.end(step.error)
        if self.welcomed and not self.ended:
            self.deliveries.look(settled=self.giving.idle)

    def _begun(self, step: WelcomeStep) -> None:
        if step.error is not None:
            return
        if step.welcomed.relay_behind:
            logger.warning("the relay has lost a part of its log; comparing, to give back what it lacks")
        if step.welcomed.reconnect:
            self.end(Reconnect("this store is behind what it sent before", hint="the device tries again"))
            return
        self.welcomed = True
        for entry in step.lost_entries:
            self.append(entry, lambda answer: None)
        if step.gives_back:
            self.giving.look(again=True)
        if step.wants:
            self.fetching.look()
        more = step.more or self.window.wants  # what was written meanwhile marked this one
        self.window = PushWindow(*self.protocol.push_budget, self._clock, more=more)
        self.cursor = self.first_cursor = self._confirmed = step.frame.cursor
        self.deliveries.begin(self.protocol, self.outgoing.append, behind=step.welcomed.relay_behind)
        # While work is held back until everything has come, every moved cursor counts.
        self._lazy_cursors = 0 if step.welcomed.holding else LAZY_CURSORS
        self._at_end = step.welcomed.at_end
        self.checkouts.begin(step.promised)

    def _batch_step(self) -> BatchStep:
        frames = self._take_batch()
        for frame in frames:
            if isinstance(frame, Ack):
                self.window.acked(frame.incarnation, frame.sequence)
            elif isinstance(frame, Deliver) and any(row.kind is RowKind.LEASE for row in frame.rows):
                self.window.mark()  # something that was held back may be free now
        self.acknowledged = self.window.acknowledged
        bounds = self.bounds if self.window.wants and self.window.begin() else None
        step = BatchStep(
            self._engine,
            self._start.space,
            frames,
            appends=[entry for entry, _ in self._appends],
            bounds=bounds,
        )
        idle = bounds is None and not self.window.wants
        lazy = step.batch.only_cursor and self._at_end and idle and not rare("cursor_stored")
        step.needs_store = not (lazy and self._unstored_cursors < self._lazy_cursors)
        return step

    def _take_batch(self) -> list[FromRelay]:
        frames: list[FromRelay] = []
        rows = size_bytes = 0
        while self._inbox:
            frame, frame_bytes = self._inbox[0]
            more = len(frame.rows) if isinstance(frame, Deliver) else 0
            full = rows + more > BATCH_ROWS or size_bytes + frame_bytes > BATCH_BYTES
            if frames and (full or rare("batch_of_one_frame")):
                break
            self._inbox.popleft()
            frames.append(frame)
            rows += more
            size_bytes += frame_bytes
        self._inbox_bytes -= size_bytes
        self._ungot_bytes += size_bytes
        return frames

    def _stored(self, step: BatchStep) -> None:
        batch = step.batch
        if step.pushes:
            self.pushed(step.envelopes, more=step.more)
            self.checkouts.pushed(step)
        for received in batch.received:
            self.received += received.envelopes
            self.membership_batches += received.members_changed
            if received.quarantined:
                logger.warning("%d envelopes were put aside", len(received.quarantined))
        if not step.needs_store:
            self._unstored_cursors += 1
            batch.pass_over()
        elif batch.cursor:
            self._unstored_cursors = 0
            self._at_end = batch.caught_up
        if batch.error is not None:
            return
        if step.wants:
            self.fetching.look()
        if step.gives_back:
            self.giving.look(again=batch.settles_work or batch.brings_more)
        if batch.refusal is not None and self.refusal is None:
            self._refused(batch.refusal, batch.pause_s)
        held = self.window.held and not batch.reconnect
        if batch.reconnect or (batch.over and not held) or rare("session_over"):
            self._unstored_cursors = 0  # where the log stands is for the next session to find out
            self.end(Reconnect("another session has to send what is left"))
            return
        self.cursor = max(self.cursor, batch.cursor)
        self._answer(step.frames)

    def _answer(self, frames: Sequence[FromRelay]) -> None:
        due = self._ungot_bytes >= self.protocol.limits.got_every_bytes or rare("got_early")
        asked = [frame.upto for frame in frames if isinstance(frame, ConfirmCursor)]
        self._to_confirm = max(self._to_confirm, *asked, 0)
        due = due or self._confirmed < self._to_confirm <= self.cursor
        if self.can_send and due:
            self._ungot_bytes, self._confirmed = 0, self.cursor
            self.outgoing.append(self.protocol.got(self.cursor))
        for frame in frames:
            match frame:
                case Appended() | AppendRefused():
                    if self._appends:  # the end has told them all
                        self._appends.popleft()[1](frame)
                case SnapshotResult() if self.giving.answered(frame.record, frame.code):
                    pass
                case SnapshotResult() if frame.code == "mismatch":
                    logger.warning("the relay refused a snapshot: it does not match its log")
                case CompactRequest() if self._compacts:
                    self._compactions.append(frame)
                case ConfirmRequest():
                    self._compactions.append(frame)
                case CompactRequest() if self.can_send:
                    self.outgoing.append(self.protocol.decline(frame.records))
                case _:
                    pass

    def _refused(self, refusal: WorkRefused, pause_s: float | None) -> None:
        """What followed in that push was not taken either: another session sorts it out, now or later."""
        logger.warning("the relay refused an update: %s", refusal.relay_code)
        self.refusal = refusal
        if pause_s is not None:
            self.window.hold(pause_s)

    def _compacted(self, step: SnapshotStep) -> None:
        if not self.can_send or step.error is not None:
            return
        for snapshot in step.snapshots:
            self.outgoing.append(self.protocol.push_snapshot(snapshot))
        left_out = step.left_out
        if left_out:
            self.outgoing.append(self.protocol.decline(left_out))
