"""The oracle: what people were told is saved, so that at the end nothing of it may be missing.

A write is known by its author and clock time. Of every acknowledged operation the oracle keeps which writes
it added and which visible ones it removed (it had seen them). At the end each added write must be visible
on every device, or have been removed by an operation that had seen it. Nothing else excuses a write's
absence: no crash, power cut, partition or loss of the relay.

A device's disk may legitimately lose what was on it in two cases, and the oracle is told: a store restored
from a backup forgets what had not reached the relay since, and a relay that was wiped or rolled back
forgets what no surviving device has. The first is counted as `excused`; the second excuses nothing while a
device is alive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author, RecordId
from crdt_sync.records.writes import Write
from crdt_sync_client.engine.model import CreateOp, DeleteOp, Operation, RestoreOp, UpdateOp

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode

RecordName = tuple[str, RecordId]
WriteId = tuple[Author, Hlc]


def write_id(write: Write) -> WriteId:
    return write.author, write.hlc


@dataclass(frozen=True, slots=True)
class Promise:
    """One acknowledged write: where, by whom, when."""

    record: RecordName
    write: Write
    device: str
    at_us: int


@dataclass(slots=True)
class Oracle:
    """See the module."""

    promises: dict[WriteId, Promise] = field(default_factory=dict)
    removed: dict[WriteId, str] = field(default_factory=dict)
    """Removed by an operation that had seen it; the device that did."""
    excused: set[WriteId] = field(default_factory=set)
    conflict_records: dict[str, RecordName] = field(default_factory=dict)

    def named(self, operation: Operation) -> RecordName | None:
        """The record an operation is about, None when it will only be known afterwards."""
        match operation:
            case UpdateOp() | DeleteOp() | RestoreOp():
                return operation.type, operation.id
            case CreateOp() if operation.id is not None:
                return operation.type, operation.id
            case _:
                return None

    def wrote(
        self, device: DeviceNode, record: RecordName, before: frozenset[Write], after: frozenset[Write]
    ) -> None:
        """A device acknowledged an operation on a record that looked like this before and after."""
        for write in after - before:
            # Also what an operation added that was durable in a crash, before anyone was told.
            self.promises.setdefault(
                write_id(write), Promise(record, write, device.name, device.world.now_us)
            )
        for write in before - after:
            self.removed.setdefault(write_id(write), device.name)

    def device_started(self, device: DeviceNode) -> None:
        """A device is back: of its own promises, those its disk lost are found at the end, not here."""

    def restored(self, device: DeviceNode, unsent: set[WriteId]) -> None:
        """A device's disk was replaced by an old copy; `unsent` is what only that disk had."""
        self.excused |= unsent

    def missing(self, record: RecordName, visible: frozenset[Write]) -> list[Promise]:
        """Promises about a record that a device with these visible writes does not keep."""
        have = {write_id(write) for write in visible}
        return [
            promise
            for id, promise in self.promises.items()
            if promise.record == record
            and id not in have
            and id not in self.removed
            and id not in self.excused
        ]
