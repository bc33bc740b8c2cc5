"""A device's side of the network: the product's own sync, its shell turned into events of virtual time.

What to send, to store, to seal, when a session ends and how long to stay away is decided by the product's
`SessionDriver` and `Reconnecting`. This module gives them a connection, a store that takes its time, and a
clock, as `crdt_sync_client.sync_loop` and `live_session` do with asyncio.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from crdt_sync.errors import CrdtSyncError, RelayRefused, RelayUnreachable
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync_client.checkout_desk import Question
from crdt_sync_client.endings import Reconnect, Reconnecting
from crdt_sync_client.giving import GiveBackStep, after_refusal
from crdt_sync_client.session_driver import WELCOME_TIMEOUT_S, Answered, SessionDriver
from crdt_sync_client.session_steps import (
    BatchStep,
    FetchedStep,
    PushBounds,
    PushStep,
    SnapshotStep,
    Step,
    WelcomeStep,
)
from crdt_sync_sim.device_line import AGENT, DeviceLine, Dialling, demand_sound
from crdt_sync_sim.network import Endpoint
from crdt_sync_sim.world import Timer, seconds

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode

PUSH_US: Final = (50, 1_000)


class DeviceSync:
    """Keeps one device connected for as long as its process lives."""

    def __init__(self, device: DeviceNode) -> None:
        self._device = device
        self._world = device.world
        self._reconnecting = Reconnecting(self._world.streams[f"backoff/{device.name}"].random)
        self._storage = self._world.streams["storage"]
        self._dialling: Dialling | None = None
        self._driver: SessionDriver | None = None
        self._line: DeviceLine
        self._retry: Timer | None = None
        self._pushing = False
        self._rest: Timer | None = None

    # What the rest of the simulator asks

    @property
    def idle(self) -> bool:
        """Live, everything received, everything sent acknowledged."""
        return self._driver is not None and self._driver.idle

    @property
    def cursor(self) -> int:
        """Up to where the log is stored here, in this session."""
        return 0 if self._driver is None else self._driver.cursor

    @property
    def problem(self) -> CrdtSyncError | None:
        """Why the last connection failed; None since the last that caught up."""
        return self._reconnecting.problem

    @property
    def waits_for(self) -> str:
        """What has to come before it goes on, for people who ask why a device is stuck."""
        driver = self._driver
        if driver is None:
            return "its next attempt to connect" if self._dialling is None else "a connection to the relay"
        if not driver.welcomed:
            return "the relay's welcome"
        if driver.has_work:
            return "its store, to take in what has come"
        if self.cursor < driver.head:
            return f"no. {self.cursor + 1} to {driver.head} of the log"
        if not driver.window.idle and not driver.window.wants:
            return "the relay's acknowledgement of what it pushed"
        return "nothing: it takes itself to be done" if driver.idle else "its turn to push"

    def reconnect_now(self) -> None:
        """The app asks; the waits start over."""
        if self._driver is None and self._dialling is None:
            self._reconnecting.asked()
            self.connect()

    def ready_to_push(self) -> dict[SpaceId, PushBounds]:
        """Where a write may be sealed in its own commit, with the bounds; then call `pushed`."""
        driver = self._driver
        if driver is None or not driver.welcomed or not driver.window.begin():
            return {}
        return {self._device.space: driver.bounds}

    def pushed(self, envelopes: Sequence[bytes] | None, *, more: bool = False) -> None:
        """What was sealed with a write, after `ready_to_push` gave bounds; None if nothing was tried. `more`:
        there is more to send."""
        driver = self._driver
        if driver is not None:
            if envelopes:
                self._world.note("push", self._device.name, f"{len(envelopes)}")
            driver.pushed(envelopes, more=more)
            self._line.look()

    @property
    def relay_now_ms(self) -> int:
        """The relay's wall clock, as far as this device can tell."""
        return 0 if self._driver is None else self._driver.relay_now_ms

    def append(self, entry: bytes, answered: Answered) -> None:
        """Put an entry into the membership log. `answered` is told None when no session lived to hear."""
        driver = self._driver
        if driver is None or not driver.can_send:
            answered(None)
            return
        driver.append(entry, answered)
        self._line.look()

    def ask_checkouts(self, question: Question) -> None:
        """Ask the relay; `told` hears None when no session lived to hear."""
        driver = self._driver
        if driver is None or not driver.welcomed:
            question.told(None)
            return
        driver.checkouts.ask(question)
        self._line.look()

    def push_soon(self) -> None:
        """Something was written and not sealed with it."""
        if self._driver is not None:
            self._driver.push_soon()
            self._line.look()

    def again(self) -> None:
        """Something is to be sent that takes another session."""
        if self._driver is not None:
            self._driver.end(Reconnect("another session has to send what is left"))
            self._line.look()

    def fetch_soon(self) -> None:
        """A record is wanted."""
        if self._driver is not None:
            self._driver.fetch_soon()
            self._line.look()

    # Connecting

    def connect(self) -> None:
        """Try now."""
        if self._retry is not None:
            self._retry.cancel()
        self._dialling = Dialling(
            self._device, WELCOME_TIMEOUT_S, opened=self._opened, failed=self._unreachable
        )

    def _unreachable(self, error: RelayUnreachable) -> None:
        self._dialling = None
        self._failed(error, fruitful=False)

    def _opened(self, end: Endpoint, late_us: int) -> None:
        self._dialling = None
        device = self._device
        try:
            start = device.engine.session_start(device.space)
        except Exception as exc:
            end.close()
            device.release(end)
            demand_sound(exc)
            self._failed(exc, fruitful=False)
            return
        driver = self._driver = SessionDriver(
            device.engine,
            start,
            protocol=DeviceSession(version=device.speaks),
            clock=lambda: self._world.now_s,
            agent=AGENT,
        )
        self._pushing = False
        self._line = DeviceLine(
            device,
            driver,
            end,
            late_us,
            ran=partial(self._note, driver),
            looked=partial(self._looked, driver),
            over=partial(self._over, driver),
        )

    def _looked(self, driver: SessionDriver) -> None:
        if driver.idle:
            self._reconnecting.caught_up()
        if driver.welcomed and driver.window.wants and not self._pushing:
            self._pushing = True
            delay_us = max(self._storage.between(PUSH_US), seconds(driver.window.pause_s) + 1)
            self._device.later(delay_us, self._push, driver)
        rest_s = driver.checkouts.rest_s
        if rest_s is not None and (self._rest is None or not self._rest.waiting):
            self._rest = self._device.later(seconds(rest_s) + 1, self._rested)

    def _rested(self) -> None:
        """A checkout may have run out that held something back."""
        self._rest = None
        if self._driver is not None and self._driver.checkouts.rest_over():
            self.push_soon()
        elif self._driver is not None:
            self._line.look()

    def _push(self, driver: SessionDriver) -> None:
        if driver is not self._driver:
            return
        self._pushing = False
        step = driver.next_push()
        if step is None:
            self._line.look()
        else:
            self._line.do(step)

    def _note(self, driver: SessionDriver, step: Step) -> None:
        device, note = self._device, self._world.note
        match step:  # first the step that is done most
            case BatchStep():
                device.took(step.frames, step.batch)
            case WelcomeStep():
                frame, resend = step.frame, step.welcomed.resend
                note("welcome", device.name, f"head={frame.head} cursor={frame.cursor} resend={resend}")
                self._try_again_in_time(driver)
            case FetchedStep():
                device.fetched(step)
            case SnapshotStep():
                made = len(step.records) - len(step.left_out)
                note("compact", device.name, f"{made} of {len(step.records)}")
            case GiveBackStep() if not step.snapshots:
                device.look_after()
            case _:
                pass
        if isinstance(step, PushStep) and step.envelopes:
            note("push", device.name, f"{len(step.envelopes)}")
            device.urgency.sealed(device, step.envelopes)

    def _try_again_in_time(self, driver: SessionDriver) -> None:
        """What was refused and is to be tried again needs a session that begins then."""
        wait_s = self._device.engine.retry_in_s(self._device.space)
        if wait_s is not None:
            self._device.later(seconds(wait_s) + 1, self._try_again, driver)

    def _try_again(self, driver: SessionDriver) -> None:
        if driver is self._driver:
            driver.end(Reconnect("what was refused is tried again"))
            self._line.look()

    # The end of a session

    def _over(self, driver: SessionDriver) -> None:
        self._driver = None
        last = driver.last_step()
        if last is not None:
            last.run()
            demand_sound(last.error)
        error = driver.error
        assert error is not None  # nobody ends a session here but the relay, a fault or the driver
        if isinstance(error, RelayRefused):
            device = self._device
            error = after_refusal(device.engine, device.space, error, tried=driver.revives)
        self._failed(error, fruitful=driver.fruitful)

    def gone(self) -> None:
        """Its process is gone, and nothing of it happens any more."""
        vars(self).clear()

    def _failed(self, error: Exception, *, fruitful: bool) -> None:
        error.__traceback__ = None  # which knows all that knows the error
        delay_s = self._reconnecting.ended(error, fruitful=fruitful)
        kind = "again" if delay_s is None else "backoff"
        self._world.note(kind, self._device.name, f"{_code(error)} {delay_s or 0.0:.3f}")
        self._retry = self._device.later(seconds(delay_s or 0.0), self.connect)


def _code(error: Exception) -> str:
    """What a note calls an error."""
    if isinstance(error, Reconnect):
        return error.message
    return error.code if isinstance(error, CrdtSyncError) else type(error).__name__
