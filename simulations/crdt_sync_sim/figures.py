"""What a run amounted to: counts for the report, asked of a world when it is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.plan import drawn_faults
from crdt_sync_sim.scenario import Fault

if TYPE_CHECKING:
    from crdt_sync_sim.run import Simulation


@dataclass(slots=True)
class Figures:
    """What a run amounted to."""

    virtual_s: float = 0.0
    real_s: float = 0.0
    steps: int = 0
    faults: tuple[Fault, ...] = ()
    delivered: dict[str, int] = field(default_factory=dict)
    rare: dict[str, int] = field(default_factory=dict)
    """How often each rare point of the product's code fired."""
    acknowledged: int = 0
    """Operations, such as one save of a form."""
    refused: int = 0
    failed: int = 0
    writes_acknowledged: int = 0
    """Writes of acknowledged operations: assignments of one value to one field."""
    writes_lost: int = 0
    """Acknowledged writes that a device lacks at the end, though nobody who had seen them removed them."""
    writes_recovered: int = 0
    """Writes that no relay had acknowledged when their device crashed, lost power or had its store replaced
    by a backup, and that at the end every device has, or an operation removed that had seen them."""
    writes_excused: int = 0
    """Writes that were only on a disk whose owner put an older copy in its place."""
    conflicts_opened: int = 0
    """Conflicts of both kinds that any device saw."""
    conflicts_settled: int = 0
    """Of those, the ones a rule decided."""
    conflicts_resolved: int = 0
    """Of those left for a person, the ones a person's write ended."""
    conflicts_standing: int = 0
    quarantined: int = 0
    converged_s: dict[str, float | None] = field(default_factory=dict)
    messages: int = 0
    bytes: int = 0
    connections: int = 0
    retransmitted: int = 0
    corrupted: int = 0
    replayed: int = 0
    peak_in_flight_bytes: int = 0
    peak_relay_frames: int = 0
    peak_outbox: dict[str, int] = field(default_factory=dict)
    """Per device: changes and envelopes that waited for an acknowledgement."""
    relay_commits: int = 0
    power_cuts: int = 0
    sectors_lost: int = 0


def figures(sim: Simulation, started_s: float) -> Figures:
    """What the run has amounted to by now. `started_s` is when it began, by `time.perf_counter`."""
    tally, devices, oracle = sim.network.tally, sim.devices.values(), sim.oracle
    opened, settled, resolved = _conflicts(sim)
    return Figures(
        virtual_s=sim.world.now_s,
        real_s=time.perf_counter() - started_s,
        steps=sim.world.steps,
        faults=drawn_faults(sim.scenario, sim.seed),
        delivered=dict(sorted(sim.actor.delivered.items())),
        rare=dict(sorted(sim.rare.fired.items())),
        acknowledged=sum(device.tally.acknowledged for device in devices),
        refused=sum(device.tally.refused for device in devices),
        failed=sum(device.tally.failed for device in devices),
        writes_acknowledged=oracle.count,
        writes_lost=len(oracle.lost),
        writes_recovered=oracle.recovered(sim.visible_everywhere),
        writes_excused=oracle.excused_count,
        conflicts_opened=opened,
        conflicts_settled=settled,
        conflicts_resolved=resolved,
        conflicts_standing=_standing(sim),
        quarantined=sum(device.tally.quarantined for device in devices),
        converged_s={device.name: _converged_s(sim, device) for device in sim.members},
        messages=tally.messages,
        bytes=tally.bytes,
        connections=tally.connections,
        retransmitted=tally.retransmitted,
        corrupted=tally.corrupted,
        replayed=tally.replayed + tally.duplicated + tally.reordered,
        peak_in_flight_bytes=tally.peak_in_flight_bytes,
        peak_relay_frames=sim.relay.peak_waiting,
        peak_outbox={device.name: device.tally.peak_outbox for device in devices},
        relay_commits=sim.relay.commits,
        power_cuts=sum(node.storage.tally.power_cuts for node in sim.nodes),
        sectors_lost=sum(node.storage.tally.sectors_lost for node in sim.nodes),
    )


def _conflicts(sim: Simulation) -> tuple[int, int, int]:
    """How many were seen, settled by a rule, resolved by people, by the trails of all devices."""
    seen, settled, resolved = set[str](), set[str](), set[str]()
    for device in sim.devices.values():
        for id, kind, state, by_someone in device.trail():
            seen.add(id)
            if kind == "auto":
                settled.add(id)
            elif state == "closed" and by_someone:
                resolved.add(id)
    return len(seen), len(settled), len(resolved)


def _standing(sim: Simulation) -> int:
    return sum(state == "open" for _, _, state, _ in sim.members[0].trail())


def _converged_s(sim: Simulation, device: DeviceNode) -> float | None:
    at_us = device.tally.converged_us
    return None if at_us is None else max(0, at_us - sim.healed_us) / 1e6
