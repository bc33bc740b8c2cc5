"""One run: a scenario and a seed become a world, its story is acted out, it heals, and it is judged.

Prologue: the space is founded, everyone joins and gets the records of the scenario; no faults. Story: the
plan's events, for the scenario's duration. Then everything heals at once, and the devices must converge, with
empty outboxes, within the scenario's bound. Safety is checked at the end, liveness by that bound.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import new_record_id
from crdt_sync.rare import decided_by
from crdt_sync_client.engine.model import CreateOp
from crdt_sync_sim.actor import Actor
from crdt_sync_sim.checks import Violation, check_all
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.expecting import check_expectations
from crdt_sync_sim.founding import FoundingError, found
from crdt_sync_sim.network import LinkProfile, Mischief, Network
from crdt_sync_sim.node import Node
from crdt_sync_sim.oracle import Oracle, RecordName
from crdt_sync_sim.plan import drawn_faults, plan
from crdt_sync_sim.rare_points import RarePoints
from crdt_sync_sim.relay_node import NEW_DATABASE, RelayNode
from crdt_sync_sim.scenario import RELAY, Fault, Scenario, Scheduled, Verdict
from crdt_sync_sim.storage import DiskStorage, MemoryStorage, Storage
from crdt_sync_sim.work import CANARY
from crdt_sync_sim.world import Event, World, seconds

POLL_US: Final = seconds(0.2)
"""How often it is asked whether all have converged: the resolution of convergence times."""
PROLOGUE_S: Final = 120
QUIET_S: Final = 5.0
"""After convergence the world runs on this long, so that compaction and stragglers show what they do."""


class ScenarioCannotBegin(Exception):
    """The prologue failed: the product refused a record, or did not sync without any fault."""


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
    refused: int = 0
    failed: int = 0
    excused: int = 0
    conflicts_opened: int = 0
    conflicts_standing: int = 0
    conflicts_resolved: int = 0
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
    relay_commits: int = 0
    power_cuts: int = 0
    sectors_lost: int = 0


@dataclass(slots=True)
class Outcome:
    """How a run ended."""

    scenario: Scenario
    seed: int
    verdict: Verdict
    digest: str
    figures: Figures
    events: tuple[Scheduled, ...]
    violations: list[Violation] = field(default_factory=list)
    error: str = ""
    trace: list[Event] = field(default_factory=list)
    story_us: int = 0

    @property
    def failed(self) -> bool:
        return self.verdict != "pass"

    @property
    def kind(self) -> str:
        """What failed, comparable between runs."""
        if self.error:
            return f"crash:{self.error.strip().splitlines()[-1].split(':')[0]}"
        return self.violations[0].kind if self.violations else self.verdict


class Simulation:
    """The nodes of one run. Use `simulate`."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        events: Sequence[Scheduled] | None = None,
        *,
        keep_trace: bool = False,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.events = plan(scenario, seed) if events is None else tuple(events)
        self.world = World(seed, keep_trace=keep_trace)
        self.calm = LinkProfile(
            delay_us=round(scenario.delay_ms * 1000), jitter_us=round(scenario.jitter_ms * 1000)
        )
        self.network = Network(self.world, self.calm)
        self.network.tap = self._see
        self.oracle = Oracle()
        self.rare = RarePoints(self.world)
        self.relay = RelayNode(self.world, self.network, self._storage(RELAY))
        self.devices = {
            name: DeviceNode(name, self.world, self.network, self._storage(name), self.oracle)
            for name in scenario.devices
        }
        self.records: dict[str, RecordName] = {}
        self.actor = Actor(self)
        self.leaks: set[str] = set()
        self.story_us = 0
        self.healed_us = 0
        self._backups: dict[str, int] = {}
        """When the last copy of a node's storage was made."""

    def _storage(self, name: str) -> Storage:
        if self.scenario.storage == "memory":
            return MemoryStorage()
        chance = self.world.streams[f"storage/{name}"]
        return DiskStorage(chance, NEW_DATABASE if name == RELAY else ())

    @property
    def nodes(self) -> list[Node]:
        return [self.relay, *self.devices.values()]

    # What goes over the network

    def _see(self, sender: str, receiver: str, message: bytes) -> None:
        if CANARY.encode() in message:
            self.leaks.add(f"text of a record from {sender} to {receiver}")

    # The story

    def prologue(self) -> None:
        """Found, join, make the records, and wait until all have everything."""
        for node in self.nodes:
            node.start()
        scenario = self.scenario
        found(
            self.relay,
            [(self.devices[name], role) for name, role in scenario.devices.items()],
            self.devices[scenario.founder],
            list(scenario.schemas.values()),
        )
        for device in self.devices.values():
            device.sync.connect()
        self._until_converged(PROLOGUE_S, "the space did not reach every device")
        for record in scenario.records:
            record_type, id = self.name_record(record.name, record.type)
            results = self.devices[record.by].write([CreateOp(record_type, record.values, id)])
            if results is None or isinstance(results[0], CrdtSyncError):
                raise ScenarioCannotBegin(f"record {record.name}: {results and results[0]}")
        self._until_converged(PROLOGUE_S, "the records did not reach every device")
        profile = LinkProfile(
            delay_us=self.calm.delay_us, jitter_us=self.calm.jitter_us, loss=scenario.loss,
            bytes_per_s=round(scenario.kbit_per_s * 125),
        )  # fmt: skip
        self.network.set_profile(profile)

    def name_record(self, name: str, record_type: str) -> RecordName:
        """The id of a record that the scenario knows by a name; the same in every run."""
        if name not in self.records:
            entropy = self.world.streams.entropy(f"ids/{name}")
            self.records[name] = record_type, new_record_id(entropy)
        return self.records[name]

    def story(self) -> None:
        self.story_us = self.world.now_us
        self.world.note("story", "")
        for event in self.events:
            at_us = self.story_us + seconds(event.at_s)
            self.world.at(at_us, lambda event=event: self.actor.act(event))  # type: ignore[misc]
        self.world.run(self.story_us + seconds(self.scenario.duration_s))

    def heal(self) -> None:
        """Everything works again. What a fault had planned for later finds nothing to do."""
        self.world.note("heal", "")
        self.healed_us = self.world.now_us
        self.network.mend_all()
        self.network.set_profile(self.calm)
        self.network.mischief = Mischief()
        self.rare.all_off()
        for node in self.nodes:
            node.resume()
            node.storage.set_capacity(None)
            if not node.up:
                node.start()

    def settle(self) -> bool:
        """Whether all converge within the bound."""
        deadline_us = self.world.now_us + seconds(self.scenario.settle_s)
        while not self.converged():
            if self.world.now_us >= deadline_us:
                return False
            self.world.run(self.world.now_us + POLL_US)
        self.world.run(self.world.now_us + seconds(QUIET_S))
        return self.converged()

    def converged(self) -> bool:
        """All connected, all outboxes empty, everything received."""
        done, head = True, self._relay_head()
        for device in self.devices.values():
            if self._is_synced(device, head):
                if device.tally.converged_us is None:
                    device.tally.converged_us = self.world.now_us
            else:
                device.tally.converged_us = None
                done = False
        return done

    def _is_synced(self, device: DeviceNode, head: int) -> bool:
        if not device.ready or not device.sync.idle or device.sync.cursor < head:
            return False
        return device.engine.status_counts().pending == 0

    def _relay_head(self) -> int:
        """The end of the log. A device with a half-open connection believes that it has everything."""
        key = self.relay.log_storage.find_space(next(iter(self.devices.values())).space)
        return 0 if key is None else self.relay.log_storage.head(key)

    def _until_converged(self, bound_s: float, otherwise: str) -> None:
        deadline_us = self.world.now_us + seconds(bound_s)
        while not self.converged():
            if self.world.now_us >= deadline_us:
                raise ScenarioCannotBegin(otherwise)
            self.world.run(self.world.now_us + POLL_US)

    # Backups

    def backup_taken(self, node: Node) -> None:
        self._backups[node.name] = self.world.now_us

    def before_restore(self, node: Node) -> None:
        """What only this disk had is excused: its owner put an old copy in its place."""
        if isinstance(node, DeviceNode) and node.backup is not None:
            self.oracle.restored(node.name, node.unsent(), self._backups[node.name])

    # The end

    def liveness(self) -> Violation:
        """Why they did not converge."""
        details = []
        for device in self.devices.values():
            if not device.ready:
                details.append(f"{device.name} is not running")
            elif not self._is_synced(device, self._relay_head()):
                items = device.engine.outbox()
                problem = device.sync.problem
                state = ", ".join(sorted({item.state for item in items})) or "empty"
                details.append(f"{device.name}: outbox {len(items)} ({state}); {problem or 'no error'}")
        return Violation(
            7, f"not converged {self.scenario.settle_s:g} s after everything healed", tuple(details)
        )

    def figures(self, started_s: float) -> Figures:
        tally, devices = self.network.tally, self.devices.values()
        return Figures(
            virtual_s=self.world.now_s,
            real_s=time.perf_counter() - started_s,
            steps=self.world.steps,
            faults=drawn_faults(self.scenario, self.seed),
            delivered=dict(sorted(self.actor.delivered.items())),
            rare=dict(sorted(self.rare.fired.items())),
            acknowledged=sum(device.tally.acknowledged for device in devices),
            refused=sum(device.tally.refused for device in devices),
            failed=sum(device.tally.failed for device in devices),
            excused=len(self.oracle.excused),
            conflicts_opened=len(set().union(*(device.tally.conflicts_opened for device in devices))),
            conflicts_standing=self._standing(),
            conflicts_resolved=sum(device.tally.resolved for device in devices),
            quarantined=sum(device.tally.quarantined for device in devices),
            converged_s={device.name: self._converged_s(device) for device in devices},
            messages=tally.messages,
            bytes=tally.bytes,
            connections=tally.connections,
            retransmitted=tally.retransmitted,
            corrupted=tally.corrupted,
            replayed=tally.replayed + tally.duplicated + tally.reordered,
            peak_in_flight_bytes=tally.peak_in_flight_bytes,
            peak_relay_frames=self.relay.peak_waiting,
            relay_commits=self.relay.commits,
            power_cuts=sum(node.storage.tally.power_cuts for node in self.nodes),
            sectors_lost=sum(node.storage.tally.sectors_lost for node in self.nodes),
        )

    def _standing(self) -> int:
        first = next(iter(self.devices.values()))
        return len(first.engine.conflicts(open_only=True)) if first.ready else 0

    def _converged_s(self, device: DeviceNode) -> float | None:
        at_us = device.tally.converged_us
        return None if at_us is None else max(0, at_us - self.healed_us) / 1e6

    def discard(self) -> None:
        for node in self.nodes:
            node.storage.discard()


def simulate(
    scenario: Scenario,
    seed: int,
    events: Sequence[Scheduled] | None = None,
    *,
    keep_trace: bool = False,
) -> Outcome:
    """Run it. Never raises for what the product does; that is the outcome."""
    started_s = time.perf_counter()
    logging.getLogger("crdt_sync_server").setLevel(logging.CRITICAL)
    logging.getLogger("crdt_sync").setLevel(logging.CRITICAL)
    sim = Simulation(scenario, seed, events, keep_trace=keep_trace)
    violations: list[Violation] = []
    verdict: Verdict
    error = ""
    try:
        with decided_by(sim.rare.decide):
            verdict, violations = _run(sim)
    except (ScenarioCannotBegin, FoundingError) as exc:
        verdict, error = "crash", f"{type(exc).__name__}: {exc}"
    except Exception:
        verdict, error = "crash", traceback.format_exc()
    figures = _figures(sim, started_s)
    outcome = Outcome(
        scenario=scenario,
        seed=seed,
        verdict=verdict,
        digest=sim.world.trace.digest,
        figures=figures,
        events=sim.events,
        violations=violations,
        error=error,
        trace=sim.world.trace.events,
        story_us=sim.story_us,
    )
    sim.discard()
    return outcome


def _run(sim: Simulation) -> tuple[Verdict, list[Violation]]:
    sim.prologue()
    sim.story()
    sim.heal()
    if not sim.settle():
        return "liveness", [sim.liveness()]
    violations = [*check_all(sim), *check_expectations(sim)]
    return _judge(sim, violations), violations


def _figures(sim: Simulation, started_s: float) -> Figures:
    try:
        return sim.figures(started_s)
    except Exception:
        # A run that crashed may leave an engine that cannot be asked any more.
        return Figures(virtual_s=sim.world.now_s, real_s=time.perf_counter() - started_s)


def _judge(sim: Simulation, violations: Sequence[Violation]) -> Verdict:
    if any(violation.rule != 7 for violation in violations):
        return "safety"
    if violations:
        return "liveness"
    wrote: Any = any(device.tally.acknowledged for device in sim.devices.values())
    return "pass" if wrote else "unknown"
