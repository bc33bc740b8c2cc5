"""The oracle: what people were told is saved, so that at the end nothing of it may be missing.

A write is known by its device and clock time. (Not by its author: a store put back from a copy may have to
make what it had not sent again, as a later life of the device and with its old time; see `older_copy`.) Of
every acknowledged operation the oracle keeps which writes it added and which visible ones it removed (it had
seen them). At the end each added write must be visible on every device, or have been removed by an operation
that had seen it. Nothing else excuses a write's absence: no crash, power cut, partition or loss of the relay.

A device's disk may legitimately lose what was on it in two cases, and the oracle is told: a store restored
from a backup forgets what had not reached the relay since, and a relay that was wiped or rolled back
forgets what no surviving device has. The first is counted as `excused`; the second excuses nothing while a
device is alive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crdt_sync.hlc import Hlc
from crdt_sync.ids import DeviceId, RecordId
from crdt_sync.records.writes import Write

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode

RecordName = tuple[str, RecordId]
WriteId = tuple[DeviceId, Hlc]


def write_id(write: Write) -> WriteId:
    return write.author.device, write.hlc


@dataclass(frozen=True, slots=True)
class Promise:
    """One acknowledged write: where, by whom, when."""

    record: RecordName
    write: Write
    device: str
    at_us: int

    def __str__(self) -> str:
        return f"{'.'.join(self.write.path)} written on {self.device} at {self.at_us / 1e6:.3f} s"


@dataclass(slots=True)
class Oracle:
    """See the module."""

    promises: dict[RecordName, dict[WriteId, Promise]] = field(default_factory=dict)
    removed: dict[WriteId, str] = field(default_factory=dict)
    """Removed by an operation that had seen it; the device that did."""
    excused: set[WriteId] = field(default_factory=set)

    def begin_from(self, other: Oracle) -> None:
        """Know what another oracle was told, and go on by itself."""
        self.promises = {record: dict(kept) for record, kept in other.promises.items()}
        self.removed = dict(other.removed)

    def wrote(
        self, device: DeviceNode, record: RecordName, before: frozenset[Write], after: frozenset[Write]
    ) -> None:
        """A device acknowledged an operation on a record that looked like this before and after."""
        for write in after - before:
            # Also what an operation added that was durable in a crash, before anyone was told.
            kept = self.promises.setdefault(record, {})
            kept.setdefault(write_id(write), Promise(record, write, device.name, device.world.now_us))
        for write in before - after:
            self.removed.setdefault(write_id(write), device.name)

    def restored(self, device: str, records: Iterable[RecordName], since_us: int) -> None:
        """A device's disk was replaced by a copy of then; `records` had work that no relay had taken."""
        for record in records:
            for id, promise in self.promises.get(record, {}).items():
                if promise.device == device and promise.at_us >= since_us:
                    self.excused.add(id)

    @property
    def count(self) -> int:
        return sum(len(kept) for kept in self.promises.values())

    def missing(self, record: RecordName, visible: frozenset[Write]) -> list[Promise]:
        """Promises about a record that a device with these visible writes does not keep."""
        have = {write_id(write) for write in visible}
        return [
            promise
            for id, promise in self.promises.get(record, {}).items()
            if id not in have and id not in self.removed and id not in self.excused
        ]
