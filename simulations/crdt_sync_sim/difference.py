"""Field by field, what each device shows and which writes stand behind it, where a check found something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.hlc import hlc_to_ms
from crdt_sync.records.writes import DELETED, Write
from crdt_sync_sim.checks import Violation, how_telling
from crdt_sync_sim.world import START_UNIX_MS

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode
    from crdt_sync_sim.oracle import RecordName
    from crdt_sync_sim.run import Simulation

MAX_RECORDS: Final = 5
"""Records compared in a report: the first ones tell what is wrong."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One field on one device: the value an app reads, and the visible writes behind it, for people."""

    value: Any
    writes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One record. `fields` has, by dotted path and device, what that device shows; only what matters."""

    type: str
    id: str
    name: str
    """As the scenario calls it; its id where it has no name."""
    fields: Mapping[str, Mapping[str, Cell]]


def differences(sim: Simulation, violations: Sequence[Violation]) -> tuple[Difference, ...]:
    """A table for each record that a violation is about; where none names a record, for all that differ."""
    asked: dict[RecordName, set[str]] = {}
    for violation in sorted(violations, key=how_telling):
        if violation.record is not None:
            paths = asked.setdefault(violation.record, set())
            paths.update(".".join(path) for path in violation.paths)
    devices = [device for device in sim.devices.values() if device.ready]
    if not asked:
        asked = {name: set() for name in sorted({n for device in devices for n in device.record_names()})}
    found: list[Difference] = []
    names = {id: name for name, (_, id) in sim.records.items()}
    people = {device.engine.device_id: device.name for device in devices}
    for record, paths in asked.items():
        fields = _table(devices, record, paths, people, sim.story_us)
        if fields:
            found.append(Difference(record[0], record[1], names.get(record[1], record[1]), fields))
        if len(found) == MAX_RECORDS:
            break
    return tuple(found)


def _table(
    devices: Sequence[DeviceNode],
    record: RecordName,
    paths: set[str],
    people: Mapping[Any, str],
    story_us: int,
) -> dict[str, dict[str, Cell]]:
    columns = {device.name: _column(device, record, people, story_us) for device in devices}
    rows = sorted({path for column in columns.values() for path in column})
    return {
        path: {name: column.get(path, _NOTHING) for name, column in columns.items()}
        for path in rows
        if any(path == wanted or path.startswith(f"{wanted}.") for wanted in paths)
        or len({repr(column.get(path, _NOTHING)) for column in columns.values()}) > 1
    }


_NOTHING: Final = Cell(None, ())


def _column(
    device: DeviceNode, record: RecordName, people: Mapping[Any, str], story_us: int
) -> dict[str, Cell]:
    found = None if record[0].startswith("_") else device.engine.get(*record, deleted=True)
    values: dict[str, Any] = dict(_leaves(found.values)) if found is not None else {}
    if found is not None:
        values["(deleted)"] = found.deleted
        values["(conflicts)"] = sorted(id[:8] for id in found.conflicts)
    writes: dict[str, list[str]] = {}
    for write in sorted(device.visible(record).writes, key=lambda write: (write.hlc, write.author)):
        writes.setdefault(".".join(write.path), []).append(_told(write, people, story_us))
    return {
        path: Cell(values.get(path), tuple(writes.get(path, ())))
        for path in dict.fromkeys([*values, *writes])
    }


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _told(write: Write, people: Mapping[Any, str], story_us: int) -> str:
    by = people.get(write.author.device, write.author.device.hex()[:8])
    at_s = (hlc_to_ms(write.hlc) - START_UNIX_MS) / 1000 - story_us / 1e6
    value = "removed" if write.path[-1] == DELETED else repr(write.value)
    return f"{value} by {by} ({write.role.name.lower()}) at {at_s:.3f} s by its clock"
