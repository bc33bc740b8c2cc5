"""Who has which writes, when a disk is lost or replaced in a run in which the relay loses something too.

Nothing acknowledged may be lost *while a device has it*. So of every such event it is asked what was
somewhere before it, in the relay's log or in the documents of a device, and is nowhere after it: that, and
nothing else, the oracle excuses. What only a device has that may not give it back, a reader, is nowhere.

A write is where its document shows it. That is less than all that may survive, since some is on its way, or
waits beside a document; what is excused and comes back nevertheless breaks no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.document import EMPTY_UPDATE, RecordDocument, merge_updates
from crdt_sync.records.update_format import parse_update
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine.giving_back import contains
from crdt_sync_client.store.connection import Database
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.node import Node
from crdt_sync_sim.oracle import RecordName, WriteId, write_id

if TYPE_CHECKING:
    from crdt_sync_sim.run import Simulation

Held: TypeAlias = set[tuple[RecordName, WriteId]]


class Holdings:
    """See the module. Tell it before and after each such event what it is about."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._copies: dict[str, Held] = {}
        """What the last copy of a node's storage holds."""

    def copied(self, node: Node) -> None:
        """A copy of the node's storage was made."""
        if self._sim.relay_loses:
            self._copies[node.name] = self._of(node)

    def replaced(self, node: Node) -> None:
        """The node is about to be put back to its last copy."""
        self._loses(node, lambda: self._copies.get(node.name, set()))

    def wiped(self, node: Node) -> None:
        """The node is about to lose everything."""
        self._loses(node, set)

    def let_go(self, device: DeviceNode, action: Callable[[], object]) -> None:
        """The device's owner lets it forget some of what it has, which `action` does."""
        if not self._sim.relay_loses or not device.ready:
            action()
            return
        before = self._of(device)
        action()
        self._excuse(before - self._of(device) - self._elsewhere(device))

    def _loses(self, node: Node, after: Callable[[], Held]) -> None:
        if self._sim.relay_loses:
            self._excuse(self._of(node) - after() - self._elsewhere(node))

    def _excuse(self, gone: Held) -> None:
        self._sim.oracle.nowhere(gone)

    def _elsewhere(self, node: Node) -> Held:
        others = [other for other in (self._sim.relay, *self._sim.members) if other is not node]
        return set[tuple[RecordName, WriteId]]().union(*map(self._of, others))

    def _of(self, node: Node) -> Held:
        found = self._of_device(node) if isinstance(node, DeviceNode) else self._of_relay()
        return set(found)

    def _of_device(self, device: DeviceNode) -> Iterator[tuple[RecordName, WriteId]]:
        """What it can give back; of a process that is down, what its disk has."""
        if not device.member:
            return
        for record_type, id, state in device.stored(_documents):
            if gives_back(device, record_type):
                yield from _shown((record_type, RecordId(id)), state)

    def _of_relay(self) -> Iterator[tuple[RecordName, WriteId]]:
        sim = self._sim
        first = sim.members[0]
        keys = first.engine._replica.space(first.space).keys
        names: dict[OpaqueId, RecordName] = {keys.opaque_id(*name): name for name in sim.oracle.promises}
        updates: dict[OpaqueId, list[bytes]] = {}
        for raw in sim.relay.envelopes(first.space):
            envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
            if envelope.header.record in names:
                opened = envelope.open(keys.envelope_key(envelope.header.epoch))
                updates.setdefault(envelope.header.record, []).append(Payload.decode(opened).update)
        for opaque, parts in updates.items():
            yield from _shown(names[opaque], merge_updates(parts))


def gives_back(device: DeviceNode, record_type: str) -> bool:
    """Whether a relay that lost something would be given records of that type back by it."""
    role = device.engine._replica.space(device.space).role_of(device.engine.device_id)
    if record_type == SCHEMA_TYPE:
        return role is Role.ADMIN
    return role is not None and role.may_write


def has_all_of(one: DeviceNode, other: DeviceNode, name: RecordName) -> bool:
    """Whether one has every item and every deletion that the other has in a record."""
    mine, theirs = (parse_update(_state(device, name)) for device in (one, other))
    return contains(mine, theirs)


def _state(device: DeviceNode, name: RecordName) -> bytes:
    replica = device.engine._replica
    space = replica.space(device.space)
    record = replica.records.find(space, space.keys.opaque_id(*name), replica.author)
    return EMPTY_UPDATE if record is None else record.doc.state()


def _documents(database: Database) -> list[tuple[str, str, bytes]]:
    return database.rows("SELECT type, id, state FROM records JOIN documents ON record = no")


def _shown(name: RecordName, state: bytes) -> Iterator[tuple[RecordName, WriteId]]:
    for writes in RecordDocument(state).writes().values():
        for write in writes:
            yield name, write_id(write)
