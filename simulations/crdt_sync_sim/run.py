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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from crdt_sync.protocol.limits import PROTOCOL_VERSION
from crdt_sync.rare import decided_by
from crdt_sync_sim import keeping
from crdt_sync_sim.actor import Actor
from crdt_sync_sim.checks import (
    Invariant,
    Violation,
    check_all,
    invariants,
    nothing_readable,
    one_holder,
    urgent_first,
    whole,
)
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.difference import Difference, differences
from crdt_sync_sim.expecting import check_expectations
from crdt_sync_sim.figures import Figures, figures
from crdt_sync_sim.founding import FoundingError, begin_from, founded
from crdt_sync_sim.holdings import Holdings
from crdt_sync_sim.joins import Joins
from crdt_sync_sim.network import LinkProfile
from crdt_sync_sim.node import Node
from crdt_sync_sim.oracle import RecordName, Visible
from crdt_sync_sim.plan import everyone, plan
from crdt_sync_sim.poison import Poison
from crdt_sync_sim.rare_points import RarePoints
from crdt_sync_sim.relay_node import RelayNode
from crdt_sync_sim.remembering import Remembering, remembers
from crdt_sync_sim.scenario import Scenario, Scheduled, Verdict, relay_loses
from crdt_sync_sim.shutting_out import ShuttingOut
from crdt_sync_sim.site import Site
from crdt_sync_sim.world import Event, World, seconds

PROLOGUE_S: Final = 120
NEWCOMER_EVERY: Final = 8
"""In so many runs the relay is asked for everything once, though it lost nothing."""
QUIET_S: Final = 5.0
"""After convergence the world runs on this long, so that compaction and stragglers show what they do."""


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
    invariants: tuple[Invariant, ...] = ()
    differences: tuple[Difference, ...] = ()

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
        before: Callable[[Scheduled], object] = lambda event: None,
        world: World | None = None,
        remember: bool | None = None,
    ) -> None:
        super().__init__(scenario, world or World(seed, keep_trace=keep_trace))
        self._before = before
        self.seed = seed
        self.events = plan(scenario, seed) if events is None else tuple(events)
        self.rare = RarePoints(self.world)
        for name in everyone(scenario, self.events):
            if name not in self.devices:
                self.devices[name] = DeviceNode(
                    name, self.world, self.network, self.storage_for(name), self.oracle
                )
        self.joins = Joins(self)
        self.shutting_out = ShuttingOut(self)
        self.poison = Poison(self)
        self.actor = Actor(self)
        self.relay_loses = relay_loses(self.events)
        self.holdings = Holdings(self)
        self.asked: set[int] = set()
        """The rules that were asked, by number."""
        self.memory = Remembering() if (remembers(seed) if remember is None else remember) else None
        self.story_us = 0
        self.healed_us = 0
        self._backups: dict[str, int] = {}
        """When the last copy of a node's storage was made."""

    # The story

    def prologue(self) -> None:
        """Begin where the founding ended, and wait until all are connected."""
        begun = founded(self.scenario, self.seed)
        if self.memory is not None:
            self.memory.know(begun.signed)
        begin_from(self, begun)
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
            self.world.at(at_us, partial(self._act, event))
        self.world.run(self.story_us + seconds(self.scenario.duration_s))

    def _act(self, event: Scheduled) -> None:
        self._before(event)
        self.actor.act(event)

    def heal(self) -> None:
        """Everything works again. What a fault had planned for later finds nothing to do."""
        self.world.note("heal", "")
        self.healed_us = self.world.now_us
        self.network.mend_all()
        self.network.set_profile(self.calm)
        self.network.mischief = None
        self.rare.all_off()
        for node in self.nodes:
            node.resume()
            node.storage.set_capacity(None)
            if isinstance(node, DeviceNode):
                node.upgrade(PROTOCOL_VERSION)
            if not node.up and node.in_use:
                node.start()
        self.shutting_out.end()

    def settle(self) -> bool:
        """Whether all converge within the bound, and still have when the quiet time after it is over.

        What begins in the quiet time, such as looking at somebody's snapshot, may end; what goes on for ever
        meets the bound.
        """
        deadline_us = self.world.now_us + seconds(self.scenario.settle_s)
        while self.run_until_converged((deadline_us - self.world.now_us) / 1_000_000):
            self.world.run(self.world.now_us + seconds(QUIET_S))
            if self.converged():
                return True
        return False

    # Backups

    def backup_taken(self, node: Node) -> None:
        self._backups[node.name] = self.world.now_us
        self.holdings.copied(node)

    def before_restore(self, node: Node) -> None:
        """What only this disk had is excused: its owner put an old copy in its place."""
        if isinstance(node, RelayNode):
            self._log_is_gone(node)
        self.holdings.replaced(node)
        if isinstance(node, DeviceNode) and node.backup is not None:
            node.urgency.forget()
            self.oracle.restored(node.name, node.unsent(), self._backups[node.name])

    def before_wipe(self, node: Node) -> None:
        """Where the relay loses something too, what only this node had is nowhere."""
        if isinstance(node, RelayNode):
            self._log_is_gone(node)
        elif isinstance(node, DeviceNode):
            node.urgency.forget()
        self.holdings.wiped(node)

    def _log_is_gone(self, relay: RelayNode) -> None:
        """What it took before it may lack now, and something of what it sent may be nowhere."""
        relay.taken.clear()
        for device in self.devices.values():
            device.batches.clear()

    # The end

    @property
    def asks_for_a_newcomer(self) -> bool:
        """Whether to see if the relay has everything: where it lost something, and in some other runs."""
        return self.seed % NEWCOMER_EVERY == 0 or self.relay_loses

    def liveness(self) -> Violation:
        """Why they did not converge."""
        details, stuck = [], []
        for device in self.devices.values():
            if device.joining:
                stuck.append(device.name)
                details.append(f"{device.name} has not joined; {self.joins.problem(device) or 'no error'}")
            elif not device.member:
                continue
            elif not device.ready:
                stuck.append(device.name)
                details.append(f"{device.name} is not running")
            elif not self.is_synced(device):
                stuck.append(device.name)
                items = device.engine.outbox()
                problem = device.sync.problem
                state = ", ".join(sorted({item.state for item in items})) or "empty"
                details.append(
                    f"{device.name}: outbox {len(items)} ({state}); waits for {device.sync.waits_for};"
                    f" {problem or 'no error'}"
                )
        return Violation(
            7, f"not converged {self.scenario.settle_s:g} s after everything healed", tuple(details),
            devices=tuple(stuck),
        )  # fmt: skip

    def visible_everywhere(self, record: RecordName) -> Iterator[Visible]:
        """The record's visible writes on each device that runs."""
        return (device.visible(record) for device in self.members if device.ready)


def simulate(
    scenario: Scenario,
    seed: int,
    events: Sequence[Scheduled] | None = None,
    *,
    keep_trace: bool = False,
    before: Callable[[Scheduled], object] = lambda event: None,
    remember: bool | None = None,
) -> Outcome:
    """Run it. Never raises for what the product does; that is the outcome.

    `before` is called with each event of the story directly before it is acted out. `remember`: whether pure
    functions are worked out once for all devices (see `remembering`); None: as the seed has it.
    """
    sim = Simulation(scenario, seed, events, keep_trace=keep_trace, before=before, remember=remember)
    outcome = run_out(sim)
    sim.forget()
    return outcome


@contextmanager
def _quiet() -> Iterator[None]:
    """What devices and relays say to people is not for those who run simulations."""
    loggers = [logging.getLogger(name) for name in ("crdt_sync", "crdt_sync_server")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run_out(sim: Simulation) -> Outcome:
    """The whole of a run that has not begun. Its world is discarded afterwards."""
    started_s = time.perf_counter()
    violations: list[Violation] = []
    verdict: Verdict
    error = ""
    try:
        with _quiet(), decided_by(sim.rare.decide, sim.rare.shares), sim.memory or nullcontext():
            verdict, violations = _run(sim)
    except FoundingError as exc:
        verdict, error = "crash", f"{type(exc).__name__}: {exc}"
    except Exception:
        verdict, error = "crash", traceback.format_exc()
    outcome = Outcome(
        scenario=sim.scenario,
        seed=sim.seed,
        verdict=verdict,
        digest=sim.world.trace.digest,
        figures=_figures(sim, started_s),
        events=sim.events,
        violations=violations,
        error=error,
        trace=sim.world.trace.events,
        story_us=sim.story_us,
        invariants=invariants(sim.asked, violations),
        differences=_differences(sim, violations),
    )
    sim.discard()
    return outcome


def _run(sim: Simulation) -> tuple[Verdict, list[Violation]]:
    sim.prologue()
    sim.story()
    sim.heal()
    if not sim.settle():
        sim.asked |= {3, 7, 8} if sim.oracle.groups.count else {3, 7}
        violations = [
            sim.liveness(),
            *nothing_readable(sim),
            *whole(sim),
            *one_holder(sim),
            *urgent_first(sim),
        ]
        return _judge(sim, violations), violations
    if sim.poison and (unlike := _act_on_refusals(sim)):
        return _judge(sim, unlike), unlike
    parts = keeping.look(sim)
    if parts and not _everywhere(sim, parts):
        sim.asked |= {3, 7}
        violations = [sim.liveness(), *nothing_readable(sim)]
        return _judge(sim, violations), violations
    violations = [*check_all(sim), *keeping.check(sim, parts), *check_expectations(sim)]
    return _judge(sim, violations), violations


def _act_on_refusals(sim: Simulation) -> list[Violation]:
    """Look at what was refused, and let people act; what is wrong."""
    found = list(sim.poison.check())
    if not found:
        sim.poison.end()
        if not sim.settle():
            found = [sim.liveness()]
    return found


def _everywhere(sim: Simulation, parts: Sequence[keeping.Kept]) -> bool:
    """Have everything on every device, to compare them; whether it came in time."""
    sim.asked.add(9)
    took = {device.name: device.tally.converged_us for device in sim.members}
    keeping.widen(parts)
    settled = sim.settle()
    for device in sim.members:
        device.tally.converged_us = took[device.name]
    return settled


def _figures(sim: Simulation, started_s: float) -> Figures:
    try:
        return figures(sim, started_s)
    except Exception:
        # A run that crashed may leave an engine that cannot be asked any more.
        return Figures(virtual_s=sim.world.now_s, real_s=time.perf_counter() - started_s)


def _differences(sim: Simulation, violations: Sequence[Violation]) -> tuple[Difference, ...]:
    try:
        return differences(sim, violations) if violations else ()
    except Exception:
        # As above: the violations say what is wrong, also without the values.
        return ()


def _judge(sim: Simulation, violations: Sequence[Violation]) -> Verdict:
    if any(violation.rule != 7 for violation in violations):
        return "safety"
    if violations:
        return "liveness"
    wrote: Any = any(device.tally.acknowledged for device in sim.devices.values())
    return "pass" if wrote else "unknown"
