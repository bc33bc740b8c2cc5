"""A device's side of the network: the real session, batches, window and backoff, in virtual time.

What `crdt_sync_client.sync_loop` and `live_session` do with tasks is done here with events: connect, shake
hands, take what arrives in batches, push what is written, come back after an end with the product's own
backoff.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.envelope import Header
from crdt_sync.errors import BadMembership, CrdtSyncError, RelayRefused, RelayUnreachable, RemoteError
from crdt_sync.protocol.device_session import DeviceSession, State, close_code_for
from crdt_sync.protocol.frames import (
    Ack,
    Bye,
    Challenge,
    CompactRequest,
    FromRelay,
    Refuse,
    Welcome,
)
from crdt_sync.protocol.limits import HANDSHAKE_TIMEOUT_S
from crdt_sync_client.backoff import Backoff
from crdt_sync_client.incoming_batch import IncomingBatch
from crdt_sync_client.push_window import PushWindow
from crdt_sync_client.relay_connection import refusal
from crdt_sync_sim.network import Endpoint
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.world import seconds

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode

APPLY_US: Final = (100, 2_000)
"""How long frames wait in the inbox while the store's thread is busy."""
PUSH_US: Final = (50, 1_000)
MAX_REBIRTHS: Final = 3
"""As in `crdt_sync_client.sync_loop`."""
_AGENT: Final = "crdt-sync-sim"
_URL: Final = "ws://relay:1"


class DeviceSync:
    """Keeps one device connected for as long as its process lives."""

    def __init__(self, device: DeviceNode) -> None:
        self._device = device
        self._world = device.world
        self._backoff = Backoff(self._world.streams[f"backoff/{device.name}"].random)
        self._life = device.life
        self._attempt = 0
        self._rebirths = 0
        self._end: Endpoint | None = None
        self._session = DeviceSession()
        self._window = PushWindow(*self._session.push_budget, self._now_s)
        self._bye: Bye | None = None
        self._welcomed = False
        self._inbox: deque[tuple[FromRelay, int]] = deque()
        self._inbox_bytes = 0
        self._applying = False
        self._pushing = False
        self._ungot_bytes = 0
        self.cursor = 0
        self.caught_up_once = False
        self.problem: CrdtSyncError | None = None

    @property
    def idle(self) -> bool:
        """Live, everything received, everything sent acknowledged."""
        return (
            self._welcomed
            and self.cursor >= self._session.head
            and not self._inbox
            and not self._applying
            and self._window.idle
        )

    def _now_s(self) -> float:
        return self._world.now_s

    # Connecting

    def connect(self) -> None:
        self._attempt += 1
        attempt, device = self._attempt, self._device
        self._bye = None
        self._welcomed = False
        self._session = DeviceSession()
        self._inbox.clear()
        self._inbox_bytes = self._ungot_bytes = 0
        device.network.connect(
            device.name,
            RELAY,
            lambda end: device.now(lambda: self._connected(attempt, end)),
            lambda why: device.now(lambda: self._unreachable(attempt, why)),
        )
        device.later(seconds(2 * HANDSHAKE_TIMEOUT_S), lambda: self._check_handshake(attempt))

    def reconnect_now(self) -> None:
        """The app asks; the backoff starts over."""
        if self._end is None:
            self._backoff.reset()
            self.connect()

    def _current(self, attempt: int) -> bool:
        """Whether that attempt is still the one, of a process that still lives.

        A connection is opened by the network, which does not know about lives.
        """
        return attempt == self._attempt and self._life == self._device.life

    def _unreachable(self, attempt: int, why: str) -> None:
        if self._current(attempt):
            self._failed(RelayUnreachable(f"the relay cannot be reached: {why}"))

    def _check_handshake(self, attempt: int) -> None:
        if attempt == self._attempt and not self._welcomed:
            self._finish(RelayUnreachable("the relay did not finish the handshake in time"))

    def _connected(self, attempt: int, end: Endpoint) -> None:
        if not self._current(attempt):
            end.close()
            return
        device = self._device
        self._end = end
        device.adopt(end)
        end.on_message = lambda data: device.now(lambda: self._received(attempt, data))
        end.on_close = lambda code: device.now(lambda: self._closed(attempt, code))

    def _closed(self, attempt: int, code: int) -> None:
        if attempt != self._attempt:
            return
        bye = self._bye
        if bye is not None:
            self._finish(refusal(bye.code, bye.error, bye.reason, _URL))
        else:
            self._finish(refusal(code, "", "", _URL))

    def _finish(self, error: CrdtSyncError, *, code: int = 1000) -> None:
        """The connection is over for this reason; come back later."""
        self._drop(code)
        self._failed(error)

    def _drop(self, code: int) -> None:
        self._attempt += 1
        self._welcomed = False
        self._inbox.clear()
        self._inbox_bytes = 0
        end, self._end = self._end, None
        if end is not None:
            end.close(code)
            self._device.release(end)

    def _failed(self, error: CrdtSyncError) -> None:
        self._attempt += 1
        self.problem = error
        refused = isinstance(error, RelayRefused | BadMembership)
        delay_s = self._backoff.longest_s() if refused else self._backoff.next_s()
        self._world.note("backoff", self._device.name, f"{error.code} {delay_s:.3f}")
        attempt = self._attempt
        self._device.later(seconds(delay_s), lambda: self.connect() if attempt == self._attempt else None)

    def _refuse(self, error: CrdtSyncError) -> None:
        """What the relay sent cannot be: say so and close."""
        code = close_code_for(error)
        if self._end is not None:
            self._end.send(self._session.bye(code, error.code, error.message))
        self._finish(error, code=int(code))

    # Receiving

    def _received(self, attempt: int, data: bytes) -> None:
        if attempt != self._attempt:
            return
        try:
            frame = self._session.receive(data)
        except RemoteError as exc:
            self._world.note("refuse", self._device.name, exc.code)
            self._refuse(exc)
            return
        match frame:
            case Bye():
                self._bye = frame
            case Challenge():
                self._hello()
            case Welcome():
                self._welcome(frame)
            case _:
                self._inbox.append((frame, len(data)))
                self._inbox_bytes += len(data)
                self._apply_soon()

    def _hello(self) -> None:
        device = self._device
        start = device.engine.session_start(device.space)
        assert self._end is not None
        self._end.send(
            self._session.hello(
                space=device.space,
                device=start.device,
                incarnation=start.incarnation,
                cursor=start.cursor,
                relay_seen=start.relay_seen,
                sign=start.sign,
                agent=_AGENT,
            )
        )

    def _welcome(self, frame: Welcome) -> None:
        device = self._device
        try:
            welcomed = device.engine.welcome(
                device.space, self._session.relay_id, frame.own_sequence, frame.own_hash, frame.head
            )
        except RemoteError as exc:
            self._refuse(exc)
            return
        except Exception as exc:
            self._broke(exc)
            return
        detail = f"head={frame.head} cursor={frame.cursor} resend={welcomed.resend}"
        self._world.note("welcome", device.name, detail)
        if welcomed.reconnect:
            self._world.note("rebirth", device.name)
            self._drop(1000)
            self._rebirths += 1
            if self._rebirths < MAX_REBIRTHS:
                self.connect()
            else:
                self._rebirths = 0
                self._failed(RelayUnreachable("this store is behind what it sent before"))
            return
        self._rebirths = 0
        self._welcomed = True
        self.cursor = frame.cursor
        self._window = PushWindow(*self._session.push_budget, self._now_s)
        self._push_soon()

    # Batches

    def _apply_soon(self) -> None:
        if not self._applying:
            self._applying = True
            attempt = self._attempt
            delay_us = self._world.streams["storage"].randint(*APPLY_US)
            self._device.later(delay_us, lambda: self._apply(attempt))

    def _apply(self, attempt: int) -> None:
        self._applying = False
        if attempt != self._attempt or not self._inbox:
            if self._inbox:
                self._apply_soon()
            return
        device = self._device
        frames = [frame for frame, _ in self._inbox]
        self._ungot_bytes += self._inbox_bytes
        self._inbox.clear()
        self._inbox_bytes = 0
        batch = IncomingBatch(device.engine, device.space, frames, appends=[])
        for frame in frames:
            if isinstance(frame, Ack):
                self._window.acked(frame.incarnation, frame.sequence)
        batch.store()
        device.took(frames, batch)
        if batch.error is not None:
            if isinstance(batch.error, RemoteError):
                self._world.note("refuse", device.name, batch.error.code)
                self._refuse(batch.error)
            else:
                self._broke(batch.error)
            return
        if batch.reconnect:
            self._world.note("another_session", device.name)
            self._drop(1000)
            self.connect()
            return
        self.cursor = max(self.cursor, batch.cursor)
        self._answer(frames)
        self._push_soon()
        if self.idle:
            self._backoff.reset()
            self.problem = None

    def _answer(self, frames: list[FromRelay]) -> None:
        assert self._end is not None
        if self._session.state is not State.LIVE:
            return  # the relay has said its last word
        if self._ungot_bytes >= self._session.limits.got_every_bytes:
            self._ungot_bytes = 0
            self._end.send(self._session.got(self.cursor))
        for frame in frames:
            match frame:
                case Refuse():
                    self._world.note("refused", self._device.name, frame.code)
                    self._finish(RelayUnreachable("the relay refused an update; connecting again"))
                    return
                case CompactRequest():
                    self._compact(frame)
                case _:
                    pass

    def _compact(self, request: CompactRequest) -> None:
        device = self._device
        assert self._end is not None
        snapshots = device.engine.make_snapshots(device.space, request.records)
        made = {Header.unpack(snapshot).record for snapshot in snapshots}
        self._world.note("compact", device.name, f"{len(made)} of {len(request.records)}")
        for snapshot in snapshots:
            self._end.send(self._session.push_snapshot(snapshot))
        left_out = [record for record in request.records if record not in made]
        if left_out:
            self._end.send(self._session.decline(left_out))

    # Pushing

    def push_soon(self) -> None:
        """Something was written."""
        self._window.mark()
        self._push_soon()

    def _push_soon(self) -> None:
        if self._welcomed and self._window.wants and not self._pushing:
            self._pushing = True
            attempt = self._attempt
            delay_us = self._world.streams["storage"].randint(*PUSH_US)
            delay_us = max(delay_us, seconds(self._window.pause_s) + 1)
            self._device.later(delay_us, lambda: self._push(attempt))

    def _push(self, attempt: int) -> None:
        self._pushing = False
        if attempt != self._attempt:
            self._push_soon()
            return
        device, window = self._device, self._window
        while window.wants and window.begin():
            try:
                envelopes = device.engine.next_push(
                    device.space, max_count=window.max_count, max_bytes=window.max_bytes
                )
            except Exception as exc:
                window.finish([])
                self._broke(exc)
                return
            window.finish(envelopes)
            if envelopes and self._end is not None and self._session.state is State.LIVE:
                self._world.note("push", device.name, f"{len(envelopes)}")
                self._end.send(self._session.push(envelopes))
        self._push_soon()
        if self.idle:
            self._backoff.reset()

    def _broke(self, error: Exception) -> None:
        """Our own store failed, a full disk for example: end the session, not the device."""
        if device_is_sound(error):
            self._world.note("store_failed", self._device.name, type(error).__name__)
            self._finish(RelayUnreachable(f"syncing failed: {type(error).__name__}"))
        else:
            raise error


def device_is_sound(error: Exception) -> bool:
    """Whether an error is one that a healthy program meets: the storage's own, and none of ours."""
    return type(error).__module__.startswith("apsw") or "Full" in type(error).__name__
