"""A device enters the space with an invite, over the network: one try, as the product makes it.

The session, the engine's steps and what an end means are the product's; here they get a connection, a store
that takes its time, and a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from crdt_sync.errors import CrdtSyncError, RelayUnreachable
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
from crdt_sync_client.endings import append_refusal, refusal
from crdt_sync_client.joining import ANSWER_TIMEOUT_S
from crdt_sync_sim.device_sync import AGENT, STORE_US, demand_sound
from crdt_sync_sim.network import Endpoint
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.world import seconds

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode

RELAY_URL: Final = "ws://relay:1"


class DeviceJoin:
    """One try. `over` hears how it ended: None when the device is in; nothing when its process dies."""

    def __init__(self, device: DeviceNode, link: str, over: Callable[[CrdtSyncError | None], object]) -> None:
        self._device = device
        self._life = device.life
        self._link = link
        self._over = over
        self._start = device.engine.begin_join(link)
        self._session = DeviceSession(version=device.speaks)
        self._entries: list[bytes] = []
        self._asked = False
        self._end: Endpoint | None = None
        self._done = False
        device.network.connect(
            device.name,
            RELAY,
            lambda end: device.now(lambda: self._connected(end)),
            lambda why: device.now(lambda: self._finish(RelayUnreachable(f"no connection: {why}"))),
        )
        device.later(seconds(ANSWER_TIMEOUT_S), lambda: self._finish(RelayUnreachable("no answer in time")))

    def _connected(self, end: Endpoint) -> None:
        device = self._device
        if self._done or self._life != device.life:
            end.close()
            return
        self._end = end
        device.adopt(end)
        end.on_message = lambda data: device.now(lambda: self._received(data))
        end.on_close = lambda code: device.now(lambda: self._finish(refusal(code, "", "", RELAY_URL)))

    def _received(self, data: bytes) -> None:
        if self._done:
            return
        try:
            self._take(self._session.receive(data))
        except CrdtSyncError as exc:
            self._finish(exc)

    def _take(self, frame: FromRelay) -> None:
        match frame:
            case Challenge():
                start = self._start
                self._send(
                    self._session.hello_with_invite(
                        space=start.space, invite=start.invite, sign=start.sign, agent=AGENT
                    )
                )
            case Bye():
                self._finish(refusal(frame.code, frame.error, frame.reason, RELAY_URL))
            case Deliver():
                self._entries += [row.payload for row in frame.rows if row.kind is RowKind.MEMBERSHIP]
                self._ask_when_ready()
            case Welcome():
                self._ask_when_ready()
            case Appended():
                self._store(lambda: self._device.engine.confirm_join(self._start.space), self._finish)
            case AppendRefused():
                refused = append_refusal(frame, RELAY_URL)
                self._store(
                    lambda: self._device.engine.abandon_space(self._start.space),
                    lambda: self._finish(refused),
                )
            case _:
                pass

    def _ask_when_ready(self) -> None:
        """Append the entry once the whole log is here."""
        if self._asked or self._session.cursor < self._session.head:
            return
        self._asked = True
        engine, made = self._device.engine, list[bytes]()
        now_ms = self._session.relay_now_ms
        self._store(
            lambda: made.append(engine.join_from_log(self._link, self._entries, now_ms)),
            lambda: self._send(self._session.append(made[0])),
        )

    def _store(self, work: Callable[[], object], then: Callable[[], object]) -> None:
        """Do it when the store has time."""

        def run() -> None:
            if self._done:
                return
            try:
                work()
            except Exception as exc:
                self._finish(_as_error(exc))
            else:
                then()

        self._device.later(self._device.world.streams["storage"].randint(*STORE_US), run)

    def _send(self, message: bytes) -> None:
        if self._end is not None and not self._done:
            self._end.send(message)

    def _finish(self, error: CrdtSyncError | None = None) -> None:
        if self._done or self._life != self._device.life:
            return
        self._done = True
        end, self._end = self._end, None
        if end is not None:
            end.close()
            self._device.release(end)
        if error is None:
            self._device.entered(self._start.space)
        self._over(error)


def _as_error(exc: Exception) -> CrdtSyncError:
    if isinstance(exc, CrdtSyncError):
        return exc
    demand_sound(exc)
    return RelayUnreachable(f"joining failed: {type(exc).__name__}")
