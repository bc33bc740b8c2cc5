"""What the scenario itself expects at the end, asked of every device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crdt_sync_sim.checks import Violation
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.scenario import FieldExpectation, Scheduled

if TYPE_CHECKING:
    from crdt_sync_sim.run import Simulation


def check_expectations(sim: Simulation) -> Iterator[Violation]:
    """Violations of rule 0; of 7 where time was what was expected."""
    expect = sim.scenario.expect
    devices = sim.members
    for device in devices:
        for field in expect.fields:
            yield from _field(sim, device, field)
        for name in expect.orphaned:
            record = device.engine.get(*sim.records[name])
            if record is None or not record.orphaned:
                what = f"{name} is not an orphan on {device.name}"
                yield Violation(0, what, record=sim.records[name], devices=(device.name,))
        for name in (*expect.deleted, *expect.present):
            record = device.engine.get(*sim.records[name])
            if (record is None) != (name in expect.deleted):
                state = "is there" if record is not None else "is not there"
                yield Violation(
                    0, f"{name} {state} on {device.name}", record=sim.records[name], devices=(device.name,)
                )
    if expect.converged_within_s is not None:
        for device in devices:
            took_us = max(0, (device.tally.converged_us or 0) - sim.healed_us)
            if took_us > expect.converged_within_s * 1e6:
                yield Violation(
                    7, f"{device.name} took {took_us / 1e6:.1f} s, not {expect.converged_within_s:g} s"
                )
    if expect.open_conflicts is not None:
        for device in devices:
            standing = len(device.engine.conflicts(open_only=True))
            if standing != expect.open_conflicts:
                yield Violation(0, f"{standing} open conflicts on {device.name}, not {expect.open_conflicts}")
    if expect.records is not None:
        for device in devices:
            count = sum(len(device.engine.query(name)) for name in device.engine.schemas())
            if count != expect.records:
                yield Violation(0, f"{count} records on {device.name}, not {expect.records}")
    yield from sim.actor.mismatches
    yield from _totals(sim)


def check_now(sim: Simulation, device: DeviceNode, event: Scheduled) -> Iterator[Violation]:
    """What a `check` event finds different from what it says."""
    where = f"{sim.scenario.source}:{event.line}: at {event.at_s:g} s"
    if not device.ready:
        yield Violation(0, f"{where} {device.name} is not running, or not in the space")
        return
    if "problem" in event.arguments:
        problem = device.sync.problem
        code = "none" if problem is None else problem.code
        if code != event.arguments["problem"]:
            yield Violation(0, f"{where} what keeps {device.name} from syncing is {code}: {problem}")
    if "record" in event.arguments:
        name = event.arguments["record"]
        known = sim.records.get(name)
        record = known and device.engine.get(*known)
        for field, expected in event.arguments.get("shows", {}).items():
            value = _at(record.values, field) if record else None
            if not _equal(value, expected):
                yield Violation(0, f"{where} {name}.{field} on {device.name} is {value!r}, not {expected!r}")
        if event.arguments.get("absent", False):
            if known is None or not device.is_absent(known):
                yield Violation(0, f"{where} {name} is not absent on {device.name}")
        elif record is None:
            yield Violation(0, f"{where} {name} is not on {device.name}")
        elif record.orphaned != event.arguments.get("orphaned", record.orphaned):
            what = "is an orphan" if record.orphaned else "is no orphan"
            yield Violation(0, f"{where} {name} {what} on {device.name}")
    counts = device.engine.status_counts()
    for what, words, count in (("pending", "wait", counts.pending), ("failed", "have failed", counts.failed)):
        if count != event.arguments.get(what, count):
            yield Violation(
                0, f"{where} {count} records {words} on {device.name}, not {event.arguments[what]}"
            )


def _totals(sim: Simulation) -> Iterator[Violation]:
    expect = sim.scenario.expect
    sent = sim.network.tally.bytes
    if expect.bytes_up_to is not None and sent > expect.bytes_up_to:
        yield Violation(0, f"{sent} bytes went over the network, not {expect.bytes_up_to} at most")
    acknowledged = sum(device.tally.acknowledged for device in sim.devices.values())
    if expect.acknowledged_at_least is not None and acknowledged < expect.acknowledged_at_least:
        yield Violation(
            0, f"{acknowledged} writes were acknowledged, not {expect.acknowledged_at_least} at least"
        )
    refused = sim.actor.refusals
    if len(refused) != (expect.refused or 0):
        details = tuple(
            f"{sim.scenario.source}:{event.line}: {event.action}: {error}" for event, error in refused
        )
        yield Violation(0, f"{len(refused)} events were refused, not {expect.refused or 0}", details)


def _field(sim: Simulation, device: DeviceNode, field: FieldExpectation) -> Iterator[Violation]:
    name = sim.records[field.record]
    where = f"{sim.scenario.source}:{field.line}: {field.record}.{field.field} on {device.name}"
    record = device.engine.get(*name, deleted=True)

    def violation(message: str) -> Violation:
        path = tuple(field.field.split("."))
        return Violation(0, message, record=name, paths=(path,), devices=(device.name,))

    if record is None:
        yield violation(f"{where}: there is no such record")
        return
    if field.has_value:
        value = _at(record.values, field.field)
        if not _equal(value, field.value):
            yield violation(f"{where} is {value!r}, not {field.value!r}")
    if field.conflict is not None or field.alternatives is not None:
        for message in _conflict(device, field, where, name[0], name[1]):
            yield violation(message)


def _conflict(
    device: DeviceNode, field: FieldExpectation, where: str, record_type: str, id: str
) -> Iterator[str]:
    path = tuple(field.field.split("."))
    found = [
        entry
        for entry in device.engine.conflicts(open_only=False, type=record_type, record=id)
        if entry.path == path and entry.state != "closed"
    ]
    states = {entry.state for entry in found}
    if field.conflict == "none" and found:
        yield f"{where} has a conflict ({', '.join(sorted(states))})"
    elif field.conflict not in (None, "none") and field.conflict not in states:
        yield f"{where} has no {field.conflict} conflict"
    if field.alternatives is not None:
        shown = [alternative.value for entry in found for alternative in entry.alternatives]
        if sorted(map(repr, shown)) != sorted(map(repr, field.alternatives)):
            yield f"{where} offers {shown!r}, not {list(field.alternatives)!r}"


def _at(values: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(value, list) and isinstance(expected, list):
        return sorted(map(repr, value)) == sorted(map(repr, expected))
    return bool(value == expected)
