"""What must always hold, asked of a world at its end.

Each check returns violations, with the number of the rule in `INVARIANTS`. Checks that change
what they look at (replaying frames) come last. A rule that was not asked is neither kept nor broken, and the
report says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from crdt_sync.errors import CrdtSyncError
from crdt_sync.protocol.leases import Lease, LeaseState, decode_lease
from crdt_sync.protocol.limits import DEFAULT_LIMITS
from crdt_sync_server.compaction import LONG_TAIL
from crdt_sync_server.effects import Arrival, Grown
from crdt_sync_server.storage.port import SpaceKey
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.holdings import gives_back, has_all_of
from crdt_sync_sim.newcomer import missing_at_relay
from crdt_sync_sim.oracle import Oracle, Promise, RecordName, write_id
from crdt_sync_sim.work import CANARY

if TYPE_CHECKING:
    from crdt_sync_sim.run import Simulation

FRAMES_IN_WINDOW: Final = 2
"""A window may be passed by one frame, and answers travel beside it."""
MAX_WAITING_PER_DEVICE: Final = 600
"""Frames at the relay that wait for a commit: answers and pushes of one device are bounded by its window."""
SETTLED_TAIL: Final = LONG_TAIL + 64
"""Longer tails than this are compacted without waiting for quiet; one push may come on top."""
MIN_NAME_CHARS: Final = 8
"""Shorter field names could be in ciphertext by chance: 8 bytes are there once in 10**13 MB."""
MAX_DETAILS: Final = 6
"""Of one violation; the table of differences has all."""
INVARIANTS: Final = {
    1: "same content, conflicts and values everywhere",
    2: "no acknowledged write is lost",
    3: "nothing readable outside the devices",
    4: "one holder of a checkout",
    5: "replaying changes nothing",
    6: "queues and logs are bounded",
    7: "everything is sent and converges in time",
    8: "what is written together shows together",
    9: "devices that keep a part keep the right one",
    10: "the urgent goes first",
    11: "what is refused for good waits alone, and is seen",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule broken. `rule` is the number in `INVARIANTS`; 0 is the scenario's own expectation."""

    rule: int
    message: str
    details: tuple[str, ...] = ()
    record: RecordName | None = None
    """The record it is about, where it is about one."""
    paths: tuple[tuple[str, ...], ...] = ()
    """The fields it is about, where they are known; rows and set elements as longer paths."""
    devices: tuple[str, ...] = ()
    """The devices it is about: the one that lacks something first."""
    missing: Promise | None = None
    """The first acknowledged write that the first of `devices` lacks, where that is the matter."""

    def __str__(self) -> str:
        lines = [f"[{self.rule}] {self.message}", *(f"      {line}" for line in self.details)]
        return "\n".join(lines)

    @property
    def kind(self) -> str:
        """The kind of failure, for minimising: which rule, without names and numbers."""
        return f"{self.rule}:{re.sub(r'[0-9a-f-]{8,}|[0-9]+', '#', self.message)}"


def how_telling(violation: Violation) -> tuple[bool, bool, int, int]:
    """To sort by: the write lost first says most, then one that two devices do not share, then low rules."""
    missing = violation.missing
    at_us = 0 if missing is None else missing.at_us
    return missing is None, violation.rule != 2, at_us, violation.rule or 99


@dataclass(frozen=True, slots=True)
class Invariant:
    """How one of the rules fared in a run. `why` says why it was not asked."""

    number: int
    name: str
    state: Literal["ok", "broken", "not asked"]
    why: str = ""


def check_all(sim: Simulation) -> list[Violation]:
    """Every check, in order. Assumes that the network is whole and that all nodes run."""
    found = [
        *same_content(sim), *nothing_lost(sim), *nothing_readable(sim), *bounded(sim), *nothing_stuck(sim),
        *whole(sim),
    ]  # fmt: skip
    sim.asked |= {1, 2, 3, 6, 7}
    if sim.oracle.groups.count:
        sim.asked.add(8)
    found += [*one_holder(sim), *held_as_believed(sim), *urgent_first(sim)]
    if not found:
        found += replay_changes_nothing(sim)
        sim.asked.add(5)
    return found


def invariants(asked: set[int], violations: Sequence[Violation]) -> tuple[Invariant, ...]:
    """All of them, by number."""
    broken = {violation.rule for violation in violations}
    return tuple(
        Invariant(number, name, "broken")
        if number in broken
        else Invariant(number, name, "ok")
        if number in asked
        else Invariant(number, name, "not asked", _why_not_asked(number, asked))
        for number, name in INVARIANTS.items()
    )


def _why_not_asked(number: int, asked: set[int]) -> str:
    if number == 4:
        return "nobody checked anything out"
    if number == 9:
        return "every device kept everything"
    if number == 10:
        return "nobody said how urgent it is what waits"
    if number == 11:
        return "nothing was refused for good"
    if number == 8:
        return "nothing was written together"
    if 1 in asked:
        return "it is asked last, where nothing else is broken"
    return "it is asked of devices that have converged"


# 1


def same_content(sim: Simulation) -> Iterator[Violation]:
    """Same envelopes, so same content, same open conflicts, same chosen values, on every device."""
    devices = sim.members
    first = devices[0]
    names = first.record_names()
    left_over = {device.name: _left_over(sim, device) for device in devices}
    # The first is compared with every other: it is asked once.
    has = {name: (first.engine.content_hash(*name), shown(first, name)) for name in names}
    for other in devices[1:]:
        theirs = [name for name in other.record_names() if name in names or name not in left_over[other.name]]
        if names != theirs:
            only = [f"only on {first.name}: {name}" for name in names if name not in theirs]
            only += [f"only on {other.name}: {name}" for name in theirs if name not in names]
            yield Violation(
                1, f"{first.name} and {other.name} have different records", tuple(only[:10]),
                record=min({*names} ^ {*theirs}), devices=(first.name, other.name),
            )  # fmt: skip
        for name in names:
            if name in theirs and name not in left_over[other.name]:
                yield from _same_record(sim.oracle, first, other, name, *has[name])
    yield from _same_conflicts(devices, left_over)


def _left_over(sim: Simulation, device: DeviceNode) -> set[RecordName]:
    """Records of which it shows what everybody else has lost and it may not give back, being a reader say.

    Its author may have it all the same: sent, lost before the author heard that it was taken, and made again.
    """
    if not sim.relay_loses:
        return set()
    shows = {
        name
        for name, id in sim.oracle.gone
        if not gives_back(device, name[0]) and id in device.visible(name).ids
    }
    others = [other for other in sim.members if other is not device]
    return shows | {
        name
        for name in device.record_names()
        if not gives_back(device, name[0]) and not any(has_all_of(other, device, name) for other in others)
    }


def _same_record(
    oracle: Oracle, one: DeviceNode, other: DeviceNode, name: RecordName, content: bytes, mine: dict[str, Any]
) -> Iterator[Violation]:
    same_hash = content == other.engine.content_hash(*name)
    theirs = shown(other, name)
    if same_hash and mine == theirs:
        return
    details = [
        f"{key}: {one.name} has {mine.get(key)!r}, {other.name} has {theirs.get(key)!r}"
        for key in sorted({*mine, *theirs})
        if mine.get(key) != theirs.get(key)
    ]
    if not same_hash and not details:
        details.append("other writes behind the same values")
    yield Violation(
        1, f"{name[0]} {name[1]} differs between {one.name} and {other.name}", tuple(details[:MAX_DETAILS]),
        record=name, **_who_lacks(oracle, one, other, name),
    )  # fmt: skip


def _who_lacks(oracle: Oracle, one: DeviceNode, other: DeviceNode, name: RecordName) -> _Lack:
    """The first write that one has and the other lacks. Who lacks it is named first."""
    mine, theirs = one.visible(name).writes, other.visible(name).writes
    known = oracle.promises.get(name, {})
    # Of a write that somebody removed, the removal is what one of them lacks: others are tried first.
    for write in sorted(
        mine ^ theirs, key=lambda write: ((name, write_id(write)) in oracle.removed, write.hlc)
    ):
        promise = known.get(write_id(write))
        if promise is not None:
            lacks, has = (other, one) if write in mine else (one, other)
            return _Lack(devices=(lacks.name, has.name), missing=promise)
    return _Lack(devices=(one.name, other.name), missing=None)


class _Lack(TypedDict):
    devices: tuple[str, ...]
    missing: Promise | None


def shown(device: DeviceNode, name: RecordName) -> dict[str, Any]:
    """What an app sees of a record, without what is each device's own."""
    if name[0].startswith("_"):
        return {}
    record = device.engine.get(*name, deleted=True)
    if record is None:
        return {"(record)": "not shown"}
    orphaned = {"(orphaned)": True} if record.orphaned else {}
    return {
        **record.values,
        "(deleted)": record.deleted,
        "(conflicts)": sorted(record.conflicts),
        "(provisional)": sorted(record.provisional),
        **orphaned,
    }


def _same_conflicts(devices: list[DeviceNode], left_over: dict[str, set[RecordName]]) -> Iterator[Violation]:
    first, *others = devices
    mine = {conflict.id: conflict for conflict in first.engine.conflicts(open_only=True)}
    for other in others:
        theirs = {conflict.id: conflict for conflict in other.engine.conflicts(open_only=True)}
        different = [
            id
            for id in sorted({*mine} ^ {*theirs})
            if (entry := mine.get(id) or theirs[id])
            and (entry.type, entry.record) not in left_over[other.name]
        ]
        if different:
            details = tuple(
                f"{id[:8]} {(mine.get(id) or theirs[id]).field} only on"
                f" {first.name if id in mine else other.name}"
                for id in different[:10]
            )
            entry = mine.get(different[0]) or theirs[different[0]]
            yield Violation(
                1, f"{first.name} and {other.name} have different open conflicts", details,
                record=(entry.type, entry.record), paths=(entry.path,), devices=(first.name, other.name),
            )  # fmt: skip


# 2


def nothing_lost(sim: Simulation) -> Iterator[Violation]:
    """No write that was acknowledged to the app is missing."""
    for device in sim.members:
        for name in sim.oracle.promises:
            lost = sim.oracle.missing(name, device.visible(name))
            if lost:
                sim.oracle.lost.update((write_id(promise.write), promise) for promise in lost)
                details = tuple(promise.told(sim.story_us) for promise in lost[:10])
                paths = tuple(dict.fromkeys(promise.write.path for promise in lost))
                yield Violation(
                    2, f"{device.name} lacks acknowledged writes of {name[0]} {name[1]}", details,
                    record=name, paths=paths, devices=(device.name,),
                    missing=min(lost, key=lambda promise: promise.at_us),
                )  # fmt: skip
    if sim.asks_for_a_newcomer:
        for name in missing_at_relay(sim):
            yield Violation(
                2, f"a device that came now would lack something of {name[0]} {name[1]}", record=name,
                devices=(sim.members[0].name,),
            )  # fmt: skip


# 3


def nothing_readable(sim: Simulation) -> Iterator[Violation]:
    """No plaintext, field name or key byte at the relay: not in frames, tables, files, logs or errors."""
    if sim.leaks:
        yield Violation(3, "readable bytes went over the network", tuple(sorted(sim.leaks)[:10]))
    stored = b"".join(sim.relay.storage.image().values())
    found = sorted({what for what, secret in secrets_of(sim) if secret in stored})
    if found:
        yield Violation(3, "readable bytes are in the relay's database", tuple(found[:10]))


def secrets_of(sim: Simulation) -> Iterator[tuple[str, bytes]]:
    """(what it is, its bytes) of everything that the relay must not see."""
    yield "text of a record", CANARY.encode()
    for schema in sim.scenario.all_schemas:
        for name in schema.fields:
            if len(name) >= MIN_NAME_CHARS:
                yield f"field name {name}", name.encode()
    for device in sim.members:
        replica = device.engine._replica
        yield f"signing and HPKE keys of {device.name}", replica.keys.to_bytes()
        keys = replica.space(device.space).keys
        yield "the space's id key", keys._id_key
        for epoch, key in keys.epochs.items():
            yield f"the space's key of epoch {epoch}", key


# 4


def one_holder(sim: Simulation) -> Iterator[Violation]:
    """Two devices never hold one record's checkout; tokens only grow. Also where they do not converge."""
    if sim.relay.leases.granted:
        sim.asked.add(4)
    for broken in dict.fromkeys(sim.relay.leases.broken):
        yield Violation(4, broken)


def held_as_believed(sim: Simulation) -> Iterator[Violation]:
    """Of what a device has checked out, it and the relay say the same; also after the relay lost it."""
    for device in sim.members:
        leases = device.engine._replica.space(device.space).leases
        if not leases.own:
            continue
        key = sim.relay.log_storage.find_space(device.space)
        stored = [] if key is None else sim.relay.log_storage.leases.all(key)
        at_relay = {each.record: decode_lease(each.payload) for each in stored}
        for record, own in leases.own.items():
            believed, told = leases.of(record), at_relay.get(record)
            if believed == told or (told is None and _given_back(believed)):
                continue
            yield Violation(
                4,
                f"{device.name} and the relay do not say the same of what it has checked out",
                (f"the device: {_lease_in_words(believed)}", f"the relay: {_lease_in_words(told)}"),
                record=(own.type, own.id),
            )


def _given_back(lease: Lease | None) -> bool:
    return lease is not None and lease.state is LeaseState.RETURNED


def _lease_in_words(lease: Lease | None) -> str:
    if lease is None:
        return "nothing"
    state = lease.state.name.lower()
    return f"device {lease.device.hex()[:8]} with token {lease.token}, {state} until {lease.expires_ms} ms"


# 10


def urgent_first(sim: Simulation) -> Iterator[Violation]:
    """Devices send in the order that they promise, see `urgency`. Also where they do not converge."""
    for device in sim.devices.values():
        if device.urgency.asked:
            sim.asked.add(10)
        for what, record in device.urgency.broken:
            yield Violation(10, f"{device.name} {what}", record=record, devices=(device.name,))


# 5


def replay_changes_nothing(sim: Simulation) -> Iterator[Violation]:
    """Frames of the run, once more: to the devices' engines and, as pushes, to the relay's."""
    chance = sim.world.streams["replay"]
    for device in sim.members:
        before = _digest(device)
        for rows, cursor in chance.sample(device.batches, min(len(device.batches), 8)):
            # Refusing them is as good as taking no notice.
            try:
                device.engine.receive(device.space, rows, max(cursor, device.sync.cursor))
            except CrdtSyncError:
                continue
        if _digest(device) != before:
            yield Violation(5, f"rows received again changed {device.name}")
    yield from _replayed_pushes(sim)


def _replayed_pushes(sim: Simulation) -> Iterator[Violation]:
    """As the devices stand: all of them are connected when a run has come to its end."""
    engine, now_ms = sim.relay.engine, sim.relay.clock.now_ms()
    for name, frames in sim.relay.taken.items():
        if not sim.devices[name].member:
            continue
        peer = sim.relay.peer_of(name)
        assert peer is not None
        effects = engine.process([Arrival(peer, frame) for frame in frames], now_ms)
        if any(isinstance(effect, Grown) for effect in effects):
            yield Violation(5, f"a push of {name}, sent again, made the log grow")


def _digest(device: DeviceNode) -> list[tuple[RecordName, bytes]]:
    return [(name, device.engine.content_hash(*name)) for name in device.record_names()]


# 6


def bounded(sim: Simulation) -> Iterator[Violation]:
    """Queues and the relay's log stay within their declared bounds."""
    limit = DEFAULT_LIMITS.window_bytes + FRAMES_IN_WINDOW * DEFAULT_LIMITS.max_frame_bytes
    in_flight = sim.network.tally.peak_in_flight_bytes
    if in_flight > limit:
        yield Violation(6, f"{in_flight} bytes were on their way on one connection; at most {limit} may be")
    waiting_limit = MAX_WAITING_PER_DEVICE * len(sim.devices)
    if sim.relay.peak_waiting > waiting_limit:
        yield Violation(
            6, f"{sim.relay.peak_waiting} frames waited for a commit; at most {waiting_limit} may"
        )
    space = sim.members[0].space
    key = sim.relay.log_storage.find_space(space)
    for record, length in sim.relay.log_storage.long_tails(key or SpaceKey(0), SETTLED_TAIL):
        yield Violation(6, f"record {record.hex()} has {length} updates that no snapshot covers")


# 7


def nothing_stuck(sim: Simulation) -> Iterator[Violation]:
    """Outboxes drained by sending, not by giving up. That they drained in time was seen before."""
    for device in sim.members:
        failed = [item for item in device.engine.outbox() if item.state == "failed"]
        if failed:
            details = tuple(f"{item.type} {item.id}: {item.error}" for item in failed[:10])
            yield Violation(7, f"{device.name} gave up sending work on {len(failed)} records", details)


# 8


def whole(sim: Simulation) -> Iterator[Violation]:
    """Whoever showed something of a transaction showed all of it, after every batch of every device."""
    parts = sim.oracle.groups.parts
    if sim.relay_loses:  # what it lost comes back record by record: it is whole at the end
        parts.clear()
        for device in sim.members:
            sim.oracle.groups.look(device)
    if parts:
        details = tuple(part.told(sim.story_us) for part in parts[:MAX_DETAILS])
        first = parts[0]
        yield Violation(
            8, f"{first.device} showed a part of what was written together", details,
            record=first.lacking[0], devices=(first.device,),
        )  # fmt: skip
