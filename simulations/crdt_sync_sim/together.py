"""What was written together, and whether a device ever shows a part of it without the rest.

It is asked of a device after every batch that it took, and when it starts: of the groups that have something
in a record that changed. A write that somebody removed who had seen it says nothing: it may be there or not.
A device that has never caught up since it joined is not asked: what it shows until then is documented to be
incomplete.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crdt_sync_client.engine.waiting import FIRST

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode
    from crdt_sync_sim.oracle import RecordName, WriteId

KEPT: Final = 20
"""Of the parts that were seen; one is enough to know, and a run that shows one shows it again and again."""


@dataclass(frozen=True, slots=True)
class Together:
    """The writes of one transaction that was acknowledged, by record."""

    device: str
    at_us: int
    writes: dict[RecordName, frozenset[WriteId]]


@dataclass(frozen=True, slots=True)
class Part:
    """A device showed some of it, and lacked what stands in these records."""

    device: str
    at_us: int
    of: Together
    shown: tuple[RecordName, ...]
    lacking: tuple[RecordName, ...]

    def told(self, story_us: int) -> str:
        """For people. `story_us`: when the story began, which is where its times count from."""
        written_s, seen_s = (self.of.at_us - story_us) / 1e6, (self.at_us - story_us) / 1e6
        return (
            f"written on {self.of.device} at {written_s:.3f} s; at {seen_s:.3f} s {self.device} showed it in"
            f" {_named(self.shown)} and not in {_named(self.lacking)}"
        )


@dataclass(slots=True)
class Groups:
    """See the module."""

    parts: list[Part] = field(default_factory=list)
    count: int = 0
    _of: dict[RecordName, list[Together]] = field(default_factory=dict)

    def tied(self, device: str, records: Iterable[RecordName]) -> set[RecordName]:
        """These, and all that this device ever wrote together with them, and with those."""
        found, ahead = set(records), list(records)
        while ahead:
            for each in self._of.get(ahead.pop(), ()):
                new = set(each.writes) - found if each.device == device else set()
                found |= new
                ahead += sorted(new)
        return found

    def wrote(self, device: DeviceNode, writes: dict[RecordName, frozenset[WriteId]]) -> None:
        """One transaction added these writes."""
        writes = {name: ids for name, ids in writes.items() if ids}
        if len(writes) < 2:
            return
        self.count += 1
        group = Together(device.name, device.world.now_us, writes)
        for name in writes:
            self._of.setdefault(name, []).append(group)

    def reused(self, record: RecordName, id: WriteId) -> None:
        """Another write of the record has that name now: of what had it before, it says nothing any more."""
        for group in self._of.get(record, ()):
            group.writes[record] -= {id}

    def look(self, device: DeviceNode, records: Iterable[RecordName] | None = None) -> None:
        """See whether the device shows a part of something; `records` changed, or all may have."""
        if not self._of or not device.ready or len(self.parts) >= KEPT:
            return
        if device.engine._replica.space(device.space).catching_up == FIRST:
            return
        groups = {
            id(group): group
            for name in (self._of if records is None else records)
            for group in self._of.get(name, ())
        }
        visible: dict[RecordName, frozenset[WriteId]] = {}
        for group in groups.values():
            for name in group.writes:
                if name not in visible:
                    visible[name] = device.visible(name).ids
            self._judge(device, group, visible)

    def _judge(
        self, device: DeviceNode, group: Together, visible: dict[RecordName, frozenset[WriteId]]
    ) -> None:
        removed, gone = device.oracle.removed, device.oracle.gone
        shown = tuple(name for name, ids in group.writes.items() if ids & visible[name])
        lacking = tuple(
            name
            for name, ids in group.writes.items()
            if any(
                id not in visible[name] and (name, id) not in removed and (name, id) not in gone for id in ids
            )
            and not device.is_absent(name)
        )
        if shown and lacking:
            self.parts.append(Part(device.name, device.world.now_us, group, shown, lacking))


def _named(names: Iterable[RecordName]) -> str:
    return ", ".join(f"{kind} {id[:8]}" for kind, id in names)
