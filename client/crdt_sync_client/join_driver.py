"""Entering a space with an invite, without I/O: what to send, what an answer means, when to try again.

`InviteDriver` is one connection as the bearer of the invite: it reads the membership log, appends our entry
and hears the answer. `Joining` is the way in as a whole, over as many connections as it takes. Its rules:

- Before our entry leaves it is stored, with the space as `joining`. From then on the very same bytes are
  handed over again, for as long as they follow the log: the relay takes an entry once, however often it
  comes. Only when the log has grown by somebody else's entry is ours made anew, because then the old one
  can never be taken. So a device never becomes two members, and never a member without knowing.
- When a connection is lost after the entry was sent, nobody knows whether it was taken. Then the device
  asks by connecting as a member: a welcome confirms it. If it is not known there, the invite is tried again.
- An invite that is said to be used may have been used by us, so that is asked too.
- The space is forgotten only when the entry can never be taken any more: the invite was used by another
  device, or withdrawn, or has expired, or the relay does not know it.

What a relay says about a space is believed only as far as the signed membership log proves it; the engine
checks the log before a byte of ours goes out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from crdt_sync.errors import InviteUsed, RelayRefused, RelayUnreachable
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import (
    Appended,
    AppendRefused,
    Bye,
    Challenge,
    Deliver,
    FromRelay,
    RowKind,
    Welcome,
)
from crdt_sync.protocol.limits import HANDSHAKE_TIMEOUT_S

from .connection_driver import ConnectionDriver
from .endings import APPEND_TRIES, STALE_HEAD, append_refusal, refusal
from .engine import Engine
from .engine.model import JoinStart
from .session_driver import SessionDriver
from .session_steps import Step
from .unsettled import forget, says_no, unsettled

MAX_LOG_BYTES: Final = 64 * 1024 * 1024
"""A membership log larger than that is not read: some 20,000 members, and more than a phone should hold."""
ANSWER_TIMEOUT_S: Final = 4 * HANDSHAKE_TIMEOUT_S
"""For the whole exchange, which is at most four short ones."""
MAX_CONNECTIONS: Final = 6
"""Of one `Joining`: three times with the invite, and as often as a member. Then a person tries again."""


class EntryStep(Step):
    """Check the log and store our entry, ready to be sent."""

    def __init__(self, engine: Engine, space: SpaceId, link: str, log: list[bytes], now_ms: int) -> None:
        super().__init__(engine, space)
        self.entry = b""
        self._link = link
        self._log = log
        self._now_ms = now_ms

    def work(self) -> None:
        self.entry = self.engine.join_from_log(self._link, self._log, self._now_ms)


class ConfirmStep(Step):
    """The relay has our entry: the space is ours."""

    def work(self) -> None:
        self.engine.confirm_join(self.space)


class InviteDriver(ConnectionDriver):
    """One connection as the bearer of an invite."""

    timeout_s = ANSWER_TIMEOUT_S

    def __init__(
        self, engine: Engine, link: str, start: JoinStart, *, protocol: DeviceSession, agent: str
    ) -> None:
        super().__init__(protocol=protocol, url=start.relay_url)
        self.joined = False
        """The relay took our entry, and the store knows."""
        self.sent = False
        """Whether our entry may have reached the relay."""
        self._engine = engine
        self._link = link
        self._start = start
        self._agent = agent
        self._welcomed = False
        self._log: list[bytes] = []
        self._log_bytes = 0
        self._tried = 0
        """How long the log was when our entry was made for its end."""
        self._tries_left = APPEND_TRIES
        self._asked = False
        self._taken = False
        self._at_work = False

    @property
    def has_work(self) -> bool:
        if self._taken:
            return True
        whole = self._welcomed and self.protocol.cursor >= self.protocol.head
        return whole and not self._asked and len(self._log) > self._tried

    def arrived(self, frame: FromRelay, size_bytes: int) -> None:
        match frame:
            case Challenge():
                start = self._start
                self.outgoing.append(
                    self.protocol.hello_with_invite(
                        space=start.space, invite=start.invite, sign=start.sign, agent=self._agent
                    )
                )
            case Welcome():
                self._welcomed = True
            case Deliver():
                self._take_rows(frame)
            case Appended():
                self._taken = True
            case AppendRefused():
                self._refused(frame)
            case Bye():
                self.end(refusal(frame.code, frame.error, frame.reason, self.url))
            case _:
                pass

    def _take_rows(self, frame: Deliver) -> None:
        entries = [row.payload for row in frame.rows if row.kind is RowKind.MEMBERSHIP]
        self._log += entries
        self._log_bytes += sum(map(len, entries))
        if self._log_bytes > MAX_LOG_BYTES:
            self.end(RelayRefused("the membership log is larger than this device takes", close_code=4413))

    def _refused(self, answer: AppendRefused) -> None:
        self._tries_left -= 1
        if answer.code != STALE_HEAD or not self._tries_left:
            self.end(append_refusal(answer, self.url))
        # Another entry came first: it is here, or on its way to us. Ours is made anew when it is here.
        self._asked = False

    def next_step(self) -> Step | None:
        if self.ended or self._at_work or not self.has_work:
            return None
        self._at_work = True
        if self._taken:
            return ConfirmStep(self._engine, self._start.space)
        self._asked = True
        self._tried = len(self._log)
        return EntryStep(
            self._engine, self._start.space, self._link, list(self._log), self.protocol.relay_now_ms
        )

    def done(self, step: Step) -> None:
        self._at_work = False
        if step.error is not None:
            self.end(step.error)
        elif isinstance(step, ConfirmStep):
            self.joined = True
            self.end()
        elif isinstance(step, EntryStep) and self.can_send:
            self.sent = True
            self.outgoing.append(self.protocol.append(step.entry))

    def late(self) -> None:
        self.end(
            RelayUnreachable(
                f"the relay at {self.url} did not answer in time",
                hint="try again; `crdt-sync space ls` shows whether it worked after all",
            )
        )


class Joining:
    """The way into one space. Ask `next_driver`, serve it to its end, tell `ended`; until it is decided.

    Every method runs on the engine's thread.
    """

    def __init__(self, engine: Engine, link: str) -> None:
        """Raises InviteGarbled."""
        self.joined = False
        self.error: Exception | None = None
        """Why it did not work. A new `Joining` with the same link may be tried at any time."""
        self._engine = engine
        self._link = link
        self._start = engine.begin_join(link)
        self._as_member = unsettled(engine, self._start.space) is not None
        self._reason: Exception | None = None
        self._connections = 0

    @property
    def space(self) -> SpaceId:
        return self._start.space

    @property
    def decided(self) -> bool:
        return self.joined or self.error is not None

    def next_driver(
        self, *, protocol: DeviceSession, clock: Callable[[], float], agent: str
    ) -> InviteDriver | SessionDriver:
        """What to do in the next connection, at once. A session is over for us when it is welcomed."""
        self._connections += 1
        if self._as_member:
            start = self._engine.session_start(self.space)
            return SessionDriver(self._engine, start, protocol=protocol, clock=clock, agent=agent)
        return InviteDriver(self._engine, self._link, self._start, protocol=protocol, agent=agent)

    def ended(self, driver: ConnectionDriver) -> None:
        """That connection is over, or could not be made."""
        if isinstance(driver, SessionDriver):
            self._asked(driver)
        elif isinstance(driver, InviteDriver):
            self._knocked(driver)
        if not self.decided and self._connections >= MAX_CONNECTIONS:
            self.error = self._reason

    def _knocked(self, driver: InviteDriver) -> None:
        if driver.joined:
            self.joined = True
            return
        error = self._reason = _reason(driver)
        pending = unsettled(self._engine, self.space) is not None
        unknown = driver.sent and not says_no(error)
        if pending and (unknown or isinstance(error, InviteUsed)):
            self._as_member = True
            return
        if says_no(error):
            forget(self._engine, self.space)
        self.error = error

    def _asked(self, driver: SessionDriver) -> None:
        if driver.welcomed:
            self.joined = True
        elif not says_no(driver.error):
            self.error = _reason(driver)
        elif isinstance(self._reason, InviteUsed):
            forget(self._engine, self.space)
            self.error = self._reason
        else:
            self._as_member = False
            self._reason = driver.error


def _reason(driver: ConnectionDriver) -> Exception:
    return driver.error or RelayUnreachable("the connection was closed", hint="try again")
