"""The nodes of one world: the relay, the devices, what they share, and whether they have converged.

`Simulation` is a site with a story; `founding` makes one of its own to found the space in.
"""

from __future__ import annotations

from typing import Final

from crdt_sync.ids import new_record_id
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.memory_storage import MemoryStorage
from crdt_sync_sim.network import LinkProfile, Network
from crdt_sync_sim.node import Node
from crdt_sync_sim.oracle import Oracle, RecordName
from crdt_sync_sim.relay_node import NEW_DATABASE, RelayNode
from crdt_sync_sim.scenario import RELAY, Scenario
from crdt_sync_sim.storage import DiskStorage, Storage
from crdt_sync_sim.work import CANARY
from crdt_sync_sim.world import World, seconds

_CANARY: Final = CANARY.encode()
POLL_US: Final = seconds(0.2)
"""How often it is asked whether all have converged: the resolution of convergence times."""


class Site:
    """See the module. Nothing runs yet."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        self.scenario = scenario
        self.world = world
        self.calm = LinkProfile(
            delay_us=round(scenario.delay_ms * 1000), jitter_us=round(scenario.jitter_ms * 1000)
        )
        self.network = Network(world, self.calm)
        self.network.tap = self._see
        self.leaks: set[str] = set()
        """Where text of a record went over the network in the clear."""
        self.oracle = Oracle()
        self.relay = RelayNode(world, self.network, self.storage_for(RELAY))
        self.devices = {
            name: DeviceNode(name, world, self.network, self.storage_for(name), self.oracle)
            for name in scenario.devices
        }
        self.records: dict[str, RecordName] = {}
        self._synced: dict[str, tuple[object, ...]] = {}
        """Per device, as what it was seen to have sent and received everything."""

    def storage_for(self, name: str) -> Storage:
        """A new and empty one."""
        if self.scenario.storage == "memory":
            return MemoryStorage()
        chance = self.world.streams[f"storage/{name}"]
        return DiskStorage(chance, NEW_DATABASE if name == RELAY else ())

    def _see(self, sender: str, receiver: str, message: bytes) -> None:
        if _CANARY in message:
            self.leaks.add(f"text of a record from {sender} to {receiver}")

    @property
    def nodes(self) -> list[Node]:
        return [self.relay, *self.devices.values()]

    @property
    def members(self) -> list[DeviceNode]:
        """The devices that are in the space now: not those that have not joined yet, or lost their store."""
        return [device for device in self.devices.values() if device.member]

    def name_record(self, name: str, record_type: str) -> RecordName:
        """The id of a record that the scenario knows by a name; the same whenever it is asked."""
        if name not in self.records:
            entropy = self.world.streams.entropy(f"ids/{name}")
            self.records[name] = record_type, new_record_id(entropy)
        return self.records[name]

    def converged(self) -> bool:
        """All who want to be in the space are in it and connected, with nothing to send or receive."""
        done = not any(device.joining for device in self.devices.values())
        for device in self.members:
            if self.is_synced(device):
                if device.tally.converged_us is None:
                    device.tally.converged_us = self.world.now_us
            else:
                device.tally.converged_us = None
                done = False
        return done

    def is_synced(self, device: DeviceNode) -> bool:
        """Whether it is connected, has received everything and sent everything.

        What memory knows is asked first. The databases are asked once for each state that the device and the
        relay are in: as long as neither did anything, their answer stands.
        """
        if not device.ready or not device.sync.idle:
            return False
        state = device.sync, device.changes, self.relay.life, self.relay.commits
        if self._synced.get(device.name) == state:
            return True
        if device.engine.upkeep_due:
            return False
        # A device with a half-open connection believes that it has everything.
        if device.sync.cursor < self._relay_head() or device.has_to_send:
            return False
        if self._has_to_give_back(device):
            return False
        self._synced[device.name] = state
        return True

    def _has_to_give_back(self, device: DeviceNode) -> bool:
        """Whether the relay lacks something that this device has, other than where work was refused."""
        if not device.engine.gives_back(device.space):
            return False
        replica = device.engine._replica
        space = replica.space(device.space)
        aside = {space.keys.opaque_id(*name) for name in device.unsent()}
        if space.giving.of_all:
            return not space.giving.unfinished or not space.giving.unfinished <= aside
        return bool(space.giving.on_its_way or space.giving.unfinished - aside)

    def _relay_head(self) -> int:
        """The end of the log."""
        space = self.relay.engine.space(self.members[0].space, self.relay.clock.now_ms())
        return 0 if space is None else space.head

    def run_until_converged(self, bound_s: float) -> bool:
        """Let the world go on until all have converged, or for so long; False when they have not.

        It is asked every `POLL_US`, but not again before anything has happened.
        """
        world = self.world
        began_us, deadline_us = world.now_us, world.now_us + seconds(bound_s)
        while not self.converged():
            if world.now_us >= deadline_us:
                return False
            next_us = world.next_us
            eventful_us = deadline_us if next_us is None else max(next_us, world.now_us + 1)
            polls = -(-(eventful_us - began_us) // POLL_US)
            world.run(min(began_us + polls * POLL_US, deadline_us))
        return True

    def forget(self) -> None:
        """Let go of everything, and nothing can be asked any more. So nothing is left to the collector."""
        self.world.forget()
        self.network.vanish()
        if self.relay.life:
            self.relay.gone()
        for device in self.devices.values():
            device.sync.gone()
        for holder in (*self.nodes, self.network, self):
            vars(holder).clear()

    def discard(self) -> None:
        for node in self.nodes:
            node.storage.discard()
