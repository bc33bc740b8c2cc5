"""One run: a scenario and a seed become a world, its story is acted out, it heals, and it is judged.

Prologue: the space was founded, everyone is in it and has the records of the scenario (see `founding`), and
everyone connects; no faults. Story: the plan's events, for the scenario's duration. Then everything heals at
once, and the devices must converge, with empty outboxes, within the scenario's bound. Safety is checked at
the end, liveness by that bound.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from crdt_sync.rare import decided_by
from crdt_sync_sim.actor import Actor
from crdt_sync_sim.checks import Violation, check_all
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.expecting import check_expectations
from crdt_sync_sim.founding import FoundingError, begin_from, founded
from crdt_sync_sim.network import LinkProfile, Mischief
from crdt_sync_sim.node import Node
from crdt_sync_sim.plan import drawn_faults, plan
from crdt_sync_sim.rare_points import RarePoints
from crdt_sync_sim.scenario import Fault, Scenario, Scheduled, Verdict
from crdt_sync_sim.site import Site
from crdt_sync_sim.world import Event, World, seconds

PROLOGUE_S: Final = 120
QUIET_S: Final = 5.0
"""After convergence the world runs on this long, so that compaction and stragglers show what they do."""


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


class Simulation(Site):
    """A site and the story of one run. Use `simulate`."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        events: Sequence[Scheduled] | None = None,
        *,
        keep_trace: bool = False,
    ) -> None:
        super().__init__(scenario, World(seed, keep_trace=keep_trace))
        self.seed = seed
        self.events = plan(scenario, seed) if events is None else tuple(events)
        self.rare = RarePoints(self.world)
        self.actor = Actor(self)
        self.story_us = 0
        self.healed_us = 0
        self._backups: dict[str, int] = {}
        """When the last copy of a node's storage was made."""

    # The story

    def prologue(self) -> None:
        """Begin where the founding ended, and wait until all are connected."""
        begin_from(self, founded(self.scenario, self.seed))
        if not self.run_until_converged(PROLOGUE_S):
            raise FoundingError("not every device can connect to the relay")
        scenario = self.scenario
        profile = LinkProfile(
            delay_us=self.calm.delay_us, jitter_us=self.calm.jitter_us, loss=scenario.loss,
            bytes_per_s=round(scenario.kbit_per_s * 125),
        )  # fmt: skip
        self.network.set_profile(profile)

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
        if not self.run_until_converged(self.scenario.settle_s):
            return False
        self.world.run(self.world.now_us + seconds(QUIET_S))
        return self.converged()

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
            elif not self.is_synced(device):
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
    except FoundingError as exc:
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
