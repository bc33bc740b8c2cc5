"""Follows one write through a run: acknowledged, carried by which messages, shown where, and where it ended.

The run is the same seed once more, with a look after every event of the world: looking changes nothing, so
the run is the same, and its digest shows that it was. What envelopes carry is known for certain: the space's
keys are at hand here, so those of the record are opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from crdt_sync.crypto.envelope import Kind, parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import CrdtSyncError
from crdt_sync.protocol.frames import Ack, Deliver, Push, PushSnapshot, decode_from_device, decode_from_relay
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.oracle import Promise, write_id
from crdt_sync_sim.run import Simulation
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.world import Event, World


class WatchedWorld(World):
    """A world that shows itself after every event."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, keep_trace=True)
        self.look: Callable[[], object] = lambda: None

    def run(self, until_us: int, *, stop: Callable[[], bool] | None = None) -> bool:
        def looked() -> bool:
            self.look()
            return stop is not None and stop()

        return super().run(until_us, stop=looked)


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that happened, in microseconds of the world's time."""

    at_us: int
    node: str
    what: str


@dataclass(slots=True)
class _Here:
    """What one device had of the write when it was last looked at."""

    shown: bool = False
    waits: bool = False
    """The record is in the outbox, or sealed and not acknowledged."""


class WriteTrace:
    """See the module. Make it for a simulation that has not begun, run that, then read `causes`.

    `bad` is where the write's way ended; None when it never did.
    """

    def __init__(self, sim: Simulation, promise: Promise) -> None:
        assert isinstance(sim.world, WatchedWorld), "only a watched world can be looked at"
        self._sim = sim
        self._promise = promise
        self._bytes = promise.write.encode()
        self._here = {name: _Here() for name in sim.devices}
        self._looked_at: dict[str, object] = {}
        self._events = 0
        self._delivered: dict[str, int] = {}
        """Device -> the place in the log of an envelope with the write that is on its way to it."""
        self._sent: set[tuple[str, str, int]] = set()
        self._opened: dict[bytes, bool] = {}
        self._acks_after: tuple[int, int] | None = None
        self._written = self._pushed = False
        self.causes: list[Cause] = []
        self.bad: Cause | None = None
        self._tap = sim.network.tap
        sim.network.tap = self._see
        sim.world.look = self._look

    # What goes over the network

    def _see(self, sender: str, receiver: str, message: bytes) -> None:
        if self._tap is not None:
            self._tap(sender, receiver, message)
        try:
            frame = decode_from_relay(message) if sender == RELAY else decode_from_device(message)
        except CrdtSyncError:
            return
        if isinstance(frame, Push):
            for raw in frame.envelopes:
                self._carried(sender, raw, "pushed in")
        elif isinstance(frame, PushSnapshot):
            self._carried(sender, frame.envelope, "pushed in")
        elif isinstance(frame, Deliver):
            for row in frame.rows:
                if int(row.kind) in (Kind.UPDATE, Kind.SNAPSHOT) and self._carries(row.payload):
                    self._delivered.setdefault(receiver, row.sequence)
                    self._carried(
                        f"{RELAY} to {receiver}", row.payload, f"sent as no. {row.sequence} of the log in"
                    )
        elif isinstance(frame, Ack) and receiver == self._promise.device:
            self._acknowledged(frame)

    def _acknowledged(self, frame: Ack) -> None:
        pushed = self._acks_after
        if pushed is not None and frame.incarnation == pushed[0] and frame.sequence >= pushed[1]:
            self._acks_after = None
            self._add(RELAY, f"acknowledged it to {self._promise.device}; the log ends at {frame.head}")

    def _carried(self, who: str, raw: bytes, how: str) -> None:
        if not self._carries(raw):
            return
        header = parse(raw, max_bytes=MAX_ENVELOPE_BYTES).header
        if (who, how, header.sequence) in self._sent:
            return
        self._sent.add((who, how, header.sequence))
        kind = "snapshot" if header.kind == Kind.SNAPSHOT else "envelope"
        self._add(who, f"{how} {kind} {header.incarnation}.{header.sequence}")
        if who == self._promise.device and header.kind == Kind.UPDATE:
            self._pushed = True
            self._acks_after = (header.incarnation, header.sequence)

    def _carries(self, raw: bytes) -> bool:
        found = self._opened.get(raw)
        if found is None:
            found = self._opened[raw] = self._is_in(raw)
        return found

    def _is_in(self, raw: bytes) -> bool:
        for device in self._sim.devices.values():
            if device.ready:
                keys = device.engine._replica.space(device.space).keys
                break
        else:
            return False
        try:
            envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
            if envelope.header.record != keys.opaque_id(*self._promise.record):
                return False
            plain = envelope.open(keys.envelope_key(envelope.header.epoch))
        except CrdtSyncError:
            return False
        return self._bytes in Payload.decode(plain).update

    # What the devices have

    def _look(self) -> None:
        events = self._sim.world.trace.events
        new, self._events = events[self._events :], len(events)
        busy = {event.node for event in new}
        for device in self._sim.devices.values():
            state = device.life, device.changes, device.sync.cursor
            if device.ready and (device.name in busy or self._looked_at.get(device.name) != state):
                self._looked_at[device.name] = state
                self._look_at(device, new)

    def _look_at(self, device: DeviceNode, new: list[Event]) -> None:
        promise, here = self._promise, self._here[device.name]
        wanted = write_id(promise.write)
        shown = wanted in device.visible(promise.record).ids
        waits = device.name == promise.device and promise.record in device.unsent()
        removed = (promise.record, wanted) in self._sim.oracle.removed
        if shown:
            self._delivered.pop(device.name, None)
        if shown and not here.shown:
            if device.name == promise.device and not self._written:
                self._written = True
                # A write may be on its way in the moment in which it is saved; that it was saved comes first.
                told = f"wrote {self.what} and was told that it is saved"
                self.causes.insert(0, Cause(self._sim.world.now_us, device.name, told))
                if not waits and not self._pushed and promise.at_us >= self._sim.story_us:
                    self._add(device.name, f"has it in no outbox{_during(new, device.name)}", bad=True)
            else:
                self._add(device.name, "shows it")
        if here.shown and not shown:
            self._add(device.name, f"no longer shows it{_during(new, device.name)}", bad=not removed)
        if here.waits and not waits and not self._pushed and shown and self.bad is None:
            self._add(device.name, f"took it out of its outbox unsent{_during(new, device.name)}", bad=True)
        place = self._delivered.get(device.name)
        if place is not None and self._stored_cursor(device) >= place:
            del self._delivered[device.name]
            message = f"took no. {place} of the log and does not show it{_during(new, device.name)}"
            self._add(device.name, message, bad=not removed)
        here.shown, here.waits = shown, waits

    def _stored_cursor(self, device: DeviceNode) -> int:
        return device.engine._replica.space(device.space).cursor

    @property
    def what(self) -> str:
        """The write, for people."""
        write, names = self._promise.write, {id: name for name, (_, id) in self._sim.records.items()}
        record_type, id = self._promise.record
        return f"{names.get(id, f'{record_type} {id[:8]}')}.{'.'.join(write.path)} = {write.value!r}"

    def _add(self, node: str, what: str, *, bad: bool = False) -> None:
        cause = Cause(self._sim.world.now_us, node, what)
        self.causes.append(cause)
        if bad and self.bad is None:
            self.bad = cause


def _during(new: list[Event], node: str) -> str:
    """What the world has on record of the same moment."""
    noted = list(_noted(new, node))
    return f" ({'; '.join(noted)})" if noted else ""


def _noted(new: list[Event], node: str) -> Iterator[str]:
    for event in new:
        if event.kind == "event":
            yield event.detail
        elif event.node == node:
            yield f"{event.kind} {event.detail}".strip()
