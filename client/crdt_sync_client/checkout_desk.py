"""Asking the relay for checkouts in one session, without I/O: one question at a time, answers kept first.

Whoever asks is told the outcomes when they are in the store, or None when the session ended before the answer
came. Then it is unknown what the relay did: asking again is harmless, and the log tells it too.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crdt_sync.ids import OpaqueId, SpaceId
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import CheckoutAnswer
from crdt_sync.protocol.leases import Promised
from crdt_sync.protocol.limits import MAX_CHECKOUT_RECORDS

from .engine import Engine
from .engine.checkouts import CheckoutOutcome, Chosen
from .engine.model import RecordChange
from .session_steps import PushStep, Step

logger = logging.getLogger("crdt_sync.client")

Told = Callable[[list[CheckoutOutcome] | None], None]


@dataclass(frozen=True, slots=True)
class Question:
    """At most `MAX_CHECKOUT_RECORDS` records to check out for `ttl_ms`, or with `back` to check in.

    `breaks`: whoever has them. `newest_token`: the greatest this device knows of. `told` hears the outcomes.
    `held`: what was promised of each, by a relay that may have forgotten it; then `ttl_ms` says nothing.
    """

    records: Sequence[Chosen]
    told: Told
    ttl_ms: int = 0
    newest_token: int = 0
    back: bool = False
    breaks: bool = False
    held: Sequence[Promised] = ()


class CheckoutStep(Step):
    """Keep what the relay answered."""

    def __init__(self, engine: Engine, space: SpaceId, question: Question, answer: CheckoutAnswer) -> None:
        super().__init__(engine, space)
        self.outcomes: list[CheckoutOutcome] = []
        self.changes: list[RecordChange] = []
        """For watchers."""
        self._question = question
        self._answer = answer

    def work(self) -> None:
        question = self._question
        asked: dict[OpaqueId, Chosen] = {chosen.opaque: chosen for chosen in question.records}
        self.outcomes, self.changes = self.engine.checkout_answered(
            self.space, asked, self._answer.results, None if question.held else question.ttl_ms
        )


class CheckoutDesk:
    """See the module. `send` takes the bytes of a message, `clock` gives seconds."""

    def __init__(
        self, protocol: DeviceSession, send: Callable[[bytes], None], clock: Callable[[], float]
    ) -> None:
        self._protocol = protocol
        self._send = send
        self._clock = clock
        self._rest_ends_s: float | None = None
        self._questions: deque[Question] = deque()
        """The first is on its way, if any is."""
        self._answer: CheckoutAnswer | None = None
        self._begun = False
        self._over = False

    @property
    def ready(self) -> bool:
        """Whether there is an answer to keep."""
        return self._answer is not None

    @property
    def rest_s(self) -> float | None:
        """Seconds until something may go that is held back because another device has its record checked out.

        None: nothing is held back, as of the last push.
        """
        return None if self._rest_ends_s is None else max(0.0, self._rest_ends_s - self._clock())

    def rest_over(self) -> bool:
        """Whether that time has come, said once: then `push_soon` is due, and the next push says it anew."""
        if self.rest_s != 0:
            return False
        self._rest_ends_s = None
        return True

    def pushed(self, step: PushStep) -> None:
        """The store was asked for what may go."""
        self._rest_ends_s = None if step.rest_s is None else self._clock() + step.rest_s

    def begin(self, forgotten: Sequence[tuple[Chosen, Promised]]) -> None:
        """The relay has said welcome. It is asked first for what it may have forgotten to have promised."""
        self._begun = True
        newest = max((promised.token for _, promised in forgotten), default=0)
        for at in reversed(range(0, len(forgotten), MAX_CHECKOUT_RECORDS)):
            some = forgotten[at : at + MAX_CHECKOUT_RECORDS]
            question = Question(
                [chosen for chosen, _ in some],
                _asked_again,
                newest_token=newest,
                held=[promised for _, promised in some],
            )
            self._questions.appendleft(question)
        self._go_on()

    def ask(self, question: Question) -> None:
        """Ask when the questions before it are answered."""
        if self._over:
            question.told(None)
            return
        self._questions.append(question)
        self._go_on()

    def arrived(self, answer: CheckoutAnswer) -> None:
        self._answer = answer

    def next_step(self, engine: Engine, space: SpaceId) -> CheckoutStep:
        """What the store has to do when there is an answer."""
        answer, self._answer = self._answer, None
        assert answer is not None
        return CheckoutStep(engine, space, self._questions[0], answer)

    def done(self, step: CheckoutStep) -> None:
        """The answer is kept, or could not be."""
        if self._over:  # they have all been told
            return
        question = self._questions.popleft()
        question.told(None if step.error is not None else step.outcomes)
        self._go_on()

    def end(self) -> None:
        """The session is over."""
        self._over = True
        while self._questions:
            self._questions.popleft().told(None)

    def _go_on(self) -> None:
        if self._over or not self._begun or not self._questions or not self._protocol.may_ask_checkouts:
            return
        if self._answer is not None:
            return
        question = self._questions[0]
        records = [chosen.opaque for chosen in question.records]
        if question.back:
            self._send(self._protocol.check_in(records, breaks=question.breaks))
        else:
            asked = self._protocol.check_out(records, question.ttl_ms, question.newest_token, question.held)
            self._send(asked)


def _asked_again(outcomes: list[CheckoutOutcome] | None) -> None:
    forgotten = [outcome.code for outcome in outcomes or () if outcome.code != "renewed"]
    if forgotten:
        logger.warning(
            "the relay had forgotten %d checkouts of this device; other devices have %d of them now",
            len(forgotten),
            forgotten.count("checked_out"),
        )
