"""Work that the relay refuses for good: of one device, of one record, with whatever code.

It is as when a relay of another version finds something wrong with an update. The relay answers as it does to
any refused update: what came before it in the push is taken, and what follows is not. It does so until the
story is over; then it is looked at what the devices made of it: that work is set aside with its reason and
everybody sees it, and nothing else waits but what was written together with it. Afterwards people act: they
try again, and the relay takes it; or they give it up, and it is nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.envelope import Header
from crdt_sync.errors import CrdtSyncError, RecordNotFound
from crdt_sync.ids import DeviceId, OpaqueId
from crdt_sync.protocol.frames import Push, Refuse
from crdt_sync_server.effects import Arrival, Effect, Send
from crdt_sync_sim.checks import Violation

if TYPE_CHECKING:
    from crdt_sync_server.engine import RelayEngine
    from crdt_sync_sim.device_node import DeviceNode
    from crdt_sync_sim.oracle import RecordName
    from crdt_sync_sim.run import Simulation

CODES: Final = ("permission", "invalid", "too_large")
"""Those after which a device waits for a person; what it tries again by itself is not refused for good."""


class Refusing:
    """The relay's part. `codes`: of whom it refuses what, and why."""

    def __init__(self) -> None:
        self.codes: dict[tuple[DeviceId, OpaqueId], str] = {}

    def process(self, engine: RelayEngine, arrivals: Sequence[Arrival], now_ms: int) -> list[Effect]:
        """As the engine's, but for what is refused."""
        if not self.codes:
            return engine.process(arrivals, now_ms)
        effects: list[Effect] = []
        taken: list[Arrival] = []
        for arrival in arrivals:
            refused = self._refused(arrival)
            if refused is None:
                taken.append(arrival)
                continue
            before, answer = refused
            effects += engine.process([*taken, *before], now_ms)
            effects.append(Send(arrival.peer, answer))
            taken = []
        return effects + engine.process(taken, now_ms)

    def _refused(self, arrival: Arrival) -> tuple[list[Arrival], Refuse] | None:
        """What of a push is taken, and the answer about the first that is not."""
        peer, frame = arrival
        if not isinstance(frame, Push) or peer.author is None:
            return None
        for index, raw in enumerate(frame.envelopes):
            header = Header.unpack(raw)
            code = self.codes.get((header.device, header.record))
            if code is not None:
                before = [Arrival(peer, Push(frame.envelopes[:index]))] if index else []
                return before, Refuse(header.incarnation, header.sequence, code, "the story says so")
        return None


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Of which device what record is refused, as the relay knows them, and what people do in the end."""

    device: str
    record: RecordName
    key: tuple[DeviceId, OpaqueId]
    code: str
    give_up: bool


class Poison:
    """See the module: all of it in one run."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._all: list[Poisoned] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, device: DeviceNode, record: RecordName, code: str, *, give_up: bool = False) -> None:
        """From now on the relay refuses what that device sends of it."""
        if not device.ready:
            return
        space = device.engine._replica.space(device.space)
        key = device.engine.device_id, space.keys.opaque_id(*record)
        self._sim.world.note("refuse", device.name, f"{record[0]} {record[1]} {code}")
        self._sim.relay.refusing.codes[key] = code
        self._all.append(Poisoned(device.name, record, key, code, give_up))

    def take(self, device: DeviceNode, record: RecordName) -> None:
        """The relay takes it from now on; nobody has been told."""
        for each in self._all:
            if (each.device, each.record) == (device.name, record):
                self._sim.relay.refusing.codes.pop(each.key, None)

    # When everything has settled

    def check(self) -> Iterator[Violation]:
        """Rule 11."""
        for device in self._sim.members:
            mine = {each.record for each in self._all if each.device == device.name}
            items = device.engine.outbox()
            aside = {(item.type, item.id) for item in items}
            if aside & mine:
                self._sim.asked.add(11)
            allowed = self._sim.oracle.groups.tied(device.name, mine)
            for item in items:
                name = item.type, item.id
                if item.state not in ("failed", "waiting"):
                    yield _of(device, name, f"has {item.state} work of {item.type} {item.id}")
                elif name not in allowed:
                    yield _of(device, name, f"keeps back {item.type} {item.id}, which nobody refused")
                elif not (item.code and item.error):
                    yield _of(device, name, f"does not say why {item.type} {item.id} waits")
            failed = sum(item.state == "failed" for item in items)
            shown = device.engine.status_counts(device.space).failed
            if shown < len({(item.type, item.id) for item in items if item.state == "failed"}):
                yield Violation(
                    11, f"{device.name} shows {shown} failed records of {failed}", devices=(device.name,)
                )

    def end(self) -> None:
        """The relay takes everything from now on; people try again, or give up."""
        self._sim.relay.refusing.codes.clear()
        for device in self._sim.members:
            if not device.engine.outbox():
                continue
            for each in self._all:
                if each.device == device.name and each.give_up:
                    give_up(device, each.record)
            try_again(device)
        self._all.clear()


def give_up(device: DeviceNode, record: RecordName) -> None:
    """Its owner gives up what is unsent of a record; it is nowhere then."""
    if not device.ready:
        return
    before = set(device.unsent_writes())
    try:
        device.engine.discard(*record, lambda _: None, space=device.space)
    except RecordNotFound:
        return
    except CrdtSyncError as refused:  # it may be on its way
        device.world.note("discard_refused", device.name, refused.code)
        return
    device.changes += 1
    device.oracle.wiped(before - set(device.unsent_writes()))
    device.world.note("discard", device.name, f"{record[0]} {record[1]}")
    device.look_after()
    device.sync.again()


def try_again(device: DeviceNode) -> None:
    """Its owner tries again whatever was refused."""
    if device.ready and device.engine.retry(device.space):
        device.changes += 1
        device.world.note("retry", device.name)
        device.look_after()
        device.sync.again()


def _of(device: DeviceNode, record: RecordName, what: str) -> Violation:
    return Violation(11, f"{device.name} {what}", record=record, devices=(device.name,))
