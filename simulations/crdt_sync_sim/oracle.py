"""The oracle: what people were told is saved, so that at the end nothing of it may be missing.

A write is known by its device and clock time. (Not by its author: a store put back from a copy may have to
make what it had not sent again, as a later life of the device and with its old time; see `older_copy`.) Of
every acknowledged operation the oracle keeps which writes it added and which visible ones it removed (it had
seen them). At the end each added write must be visible on every device, or have been removed by an operation
that had seen it. Nothing else excuses a write's absence: no crash, power cut, partition or loss of the relay.

A device's disk may legitimately lose what was on it in three cases, and the oracle is told: a store restored
from a backup forgets what had not reached the relay since, a store that was wiped forgets what had not
reached the relay at all, and where the relay is wiped or rolled back in the same run, what neither it nor any
device has that could give it back (see `holdings`). All of it is counted as excused.

Some writes had a narrow escape: no relay had acknowledged them when their device crashed, lost power or got
an old copy of its store. Those of them that every device has at the end, or that an operation removed which
had seen them, are `recovered`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from crdt_sync.hlc import Hlc
from crdt_sync.ids import DeviceId, RecordId
from crdt_sync.records.writes import DocWrites, Write
from crdt_sync_sim.together import Groups

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode

RecordName = tuple[str, RecordId]
WriteId = tuple[DeviceId, Hlc]


def write_id(write: Write) -> WriteId:
    return write.author.device, write.hlc


class Visible:
    """The visible writes of one record, as its document gave them."""

    def __init__(self, given: DocWrites) -> None:
        self.given = given

    @cached_property
    def writes(self) -> frozenset[Write]:
        return frozenset(chain.from_iterable(self.given.values()))

    @cached_property
    def ids(self) -> frozenset[WriteId]:
        return frozenset([write_id(write) for some in self.given.values() for write in some])


@dataclass(frozen=True, slots=True)
class Promise:
    """One acknowledged write: where, by whom, when."""

    record: RecordName
    write: Write
    device: str
    at_us: int
    clock_ms: int
    """What the device's own clock showed."""

    def told(self, story_us: int) -> str:
        """For people. `story_us`: when the story began, which is where its times count from."""
        at_s = (self.at_us - story_us) / 1e6
        return f"{'.'.join(self.write.path)} written on {self.device} at {at_s:.3f} s"


@dataclass(slots=True)
class Oracle:
    """See the module."""

    promises: dict[RecordName, dict[WriteId, Promise]] = field(default_factory=dict)
    removed: dict[tuple[RecordName, WriteId], str] = field(default_factory=dict)
    """Removed by an operation that had seen it; the device that did. By record, because the deletions of a
    parent and its children have one time."""
    excused: set[WriteId] = field(default_factory=set)
    gone: set[tuple[RecordName, WriteId]] = field(default_factory=set)
    """What was lost with the last disk that had it, see `holdings`."""
    at_risk: set[WriteId] = field(default_factory=set)
    """Not acknowledged by any relay when their device crashed, lost power or got an old copy of its store."""
    lost: dict[WriteId, Promise] = field(default_factory=dict)
    """Missing at the end on at least one device."""
    groups: Groups = field(default_factory=Groups)
    """What was written together."""

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
            promise = Promise(record, write, device.name, device.world.now_us, device.clock.now_ms())
            known = kept.setdefault(write_id(write), promise)
            if known.write.author != write.author and write_id(write) in self.excused:
                # Gone with a replaced disk: the clock of the store that was put back gives its times again.
                self.groups.reused(record, write_id(write))
        for write in before - after:
            self.removed.setdefault((record, write_id(write)), device.name)

    def restored(self, device: str, records: Iterable[RecordName], since_us: int) -> None:
        """A device's disk was replaced by a copy of then; `records` had work that no relay had taken."""
        for record in records:
            for id, promise in self.promises.get(record, {}).items():
                if promise.device == device and promise.at_us >= since_us:
                    self.excused.add(id)

    def wiped(self, unsent: Iterable[WriteId]) -> None:
        """A device's store is gone for good; these writes no relay had acknowledged."""
        self.excused.update(unsent)

    def nowhere(self, writes: Iterable[tuple[RecordName, WriteId]]) -> None:
        """Neither a relay nor a device has these any more."""
        self.gone.update(each for each in writes if each[1] in self.promises.get(each[0], {}))

    def died(self, device: str, unsent: Iterable[tuple[RecordName, int]]) -> None:
        """A device stopped without warning. `unsent`: records with unsent work, since when by its clock."""
        for record, since_ms in unsent:
            for id, promise in self.promises.get(record, {}).items():
                if promise.device == device and promise.clock_ms >= since_ms:
                    self.at_risk.add(id)

    def recovered(self, visible: Callable[[RecordName], Iterable[Visible]]) -> int:
        """How many writes were at risk and are kept; `visible` gives every device's writes of a record."""
        count = 0
        for record, promises in self.promises.items():
            risked = [id for id in promises if id in self.at_risk]
            if risked:
                everywhere = [writes.ids for writes in visible(record)]
                count += sum(
                    (record, id) in self.removed or all(id in have for have in everywhere) for id in risked
                )
        return count

    @property
    def excused_count(self) -> int:
        """How many writes may be missing."""
        return len(self.excused | {id for _, id in self.gone})

    @property
    def count(self) -> int:
        return sum(len(kept) for kept in self.promises.values())

    def missing(self, record: RecordName, visible: Visible) -> list[Promise]:
        """Promises about a record that a device with these visible writes does not keep."""
        have = visible.ids
        return [
            promise
            for id, promise in self.promises.get(record, {}).items()
            if id not in have
            and (record, id) not in self.removed
            and (record, id) not in self.gone
            and id not in self.excused
        ]
