"""Why a run failed: the first event after which it could no longer end well, and what led there.

Everything here is found by running the same seed again; a run that does not come out the same is not
explained.

- *The first bad event* of the plan is the one that ends a beginning of the story which fails in the same way
  although everything heals directly after it, while the beginning without that event ends well. Bisection
  finds it.
- *The causes* of a lost write, or of one that two devices do not share, are its way: written, acknowledged,
  carried by which envelopes, shown where, and the moment after which it was gone (see `write_trace`). Of two
  devices that show the same writes differently, it is the moment they began to. Of a device that is stuck, it
  is what it did last and what it waits for. Of a crash, what happened just before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from crdt_sync_sim.checks import Violation, how_telling, shown
from crdt_sync_sim.run import Outcome, Simulation, run_out, simulate
from crdt_sync_sim.scenario import Scheduled
from crdt_sync_sim.world import Event
from crdt_sync_sim.write_trace import Cause, WatchedWorld, WriteTrace

LAST_EVENTS: Final = 8
"""Of a device that is stuck, or before a crash."""
MAX_CAUSES: Final = 30
HEAL_AFTER_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened, in seconds since the story began."""

    at_s: float
    node: str
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:10.3f} s  {self.node:<12} {self.what}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a run failed, as far as it was found.

    `event` is the first bad event of the plan, None when there is none, or no time to find it. `bad` is where
    it went wrong, None where that cannot be seen, and `causes` is what led there, in order.
    """

    event: Scheduled | None
    bad: Moment | None
    causes: tuple[Moment, ...]


def explain(outcome: Outcome, *, seconds_to_spend: float = 15.0) -> Explanation | None:
    """The explanation of a failed run; None when it passed, or when the same seed gave another run now."""
    if not outcome.failed or outcome.verdict == "unknown" or not outcome.digest:
        # Without a digest the run never ended: it took its process with it, and would take this one.
        return None
    deadline_s = time.monotonic() + seconds_to_spend
    traced = _traced(outcome)
    if traced is None:
        return None
    bad, causes = traced
    found = tuple(_moment(cause, outcome) for cause in causes[-MAX_CAUSES:])
    event = first_bad_event(outcome, deadline_s=deadline_s)
    return Explanation(event, None if bad is None else _moment(bad, outcome), found)


def _moment(cause: Cause, outcome: Outcome) -> Moment:
    return Moment(round((cause.at_us - outcome.story_us) / 1e6, 6), cause.node, cause.what)


# The first bad event


def first_bad_event(outcome: Outcome, *, deadline_s: float) -> Scheduled | None:
    """The event whose beginning fails like the whole, though all heals at once after it. None if unclear."""
    events, kind = outcome.events, failure_of(outcome)

    def fails(count: int) -> bool:
        at_s = events[count - 1].at_s if count else 0.0
        beginning = replace(outcome.scenario, duration_s=at_s + HEAL_AFTER_S)
        return failure_of(simulate(beginning, outcome.seed, events[:count])) == kind

    if not events or not fails(len(events)) or fails(0):
        return None
    good, bad = 0, len(events)
    while bad - good > 1:
        if time.monotonic() > deadline_s:
            return None
        middle = (good + bad) // 2
        if fails(middle):
            bad = middle
        else:
            good = middle
    return events[bad - 1]


def failure_of(outcome: Outcome) -> str:
    """What makes two failures the same: the verdict, and the rule, or the error and where it was raised.

    Of what a scenario expects, the whole message: leaving out an edit makes other values wrong, for other
    reasons.
    """
    if outcome.error:
        lines = outcome.error.strip().splitlines()
        places = [line.split(", in ")[-1] for line in lines if line.startswith("  File ")]
        return f"{outcome.verdict}:{lines[-1].split(':')[0]}:{places[-1] if places else ''}"
    if not outcome.violations:
        return outcome.verdict
    first = min(outcome.violations, key=lambda violation: violation.rule or 99)
    return f"{outcome.verdict}:{first.rule}:{first.message if first.rule == 0 else ''}"


# Causes


def _traced(outcome: Outcome) -> tuple[Cause | None, Sequence[Cause]] | None:
    """Where it went wrong and what led there, from a watched run; None when that run was another one."""
    world = WatchedWorld(outcome.seed)
    sim = Simulation(outcome.scenario, outcome.seed, outcome.events, world=world)
    answer: Callable[[Outcome], tuple[Cause | None, Sequence[Cause]]]
    violation = min(outcome.violations, key=how_telling, default=None)
    if violation is not None and violation.missing is not None:
        follow = WriteTrace(sim, violation.missing)

        def answer(_: Outcome) -> tuple[Cause | None, Sequence[Cause]]:
            return follow.bad, follow.causes
    elif violation is not None and violation.rule == 1 and violation.record is not None:
        parting = _Parting(sim, violation)

        def answer(_: Outcome) -> tuple[Cause | None, Sequence[Cause]]:
            return parting.since, parting.causes
    elif violation is not None and violation.rule == 7 and violation.devices:

        def answer(again: Outcome) -> tuple[Cause | None, Sequence[Cause]]:
            return _stuck(again, violation)
    elif outcome.error:
        answer = _crashed
    elif violation is not None and violation.record is not None:

        def answer(again: Outcome) -> tuple[Cause | None, Sequence[Cause]]:
            return _history(again, violation)
    else:

        def answer(_: Outcome) -> tuple[Cause | None, Sequence[Cause]]:
            return None, ()

    again = run_out(sim)
    return answer(again) if again.digest == outcome.digest else None


class _Parting:
    """The moment after which two devices that have the same writes of a record show it differently."""

    def __init__(self, sim: Simulation, violation: Violation) -> None:
        assert violation.record is not None
        self._sim, self._record = sim, violation.record
        self._one, self._other = (sim.devices[name] for name in violation.devices[:2])
        self._looked_at: object = None
        self._events = 0
        self.since: Cause | None = None
        self.causes: list[Cause] = []
        assert isinstance(sim.world, WatchedWorld)
        sim.world.look = self._look

    def _look(self) -> None:
        one, other = self._one, self._other
        events = self._sim.world.trace.events
        new, self._events = events[self._events :], len(events)
        state = one.life, one.changes, other.life, other.changes
        if state == self._looked_at or not (one.ready and other.ready):
            return
        self._looked_at = state
        apart = one.visible(self._record).writes == other.visible(self._record).writes and self._differ()
        if not apart:
            self.since = None
        elif self.since is None:
            what = f"{one.name} and {other.name} have the same writes and show them differently from here on"
            noted = [event for event in new if event.node in (one.name, other.name)]
            self.causes = [Cause(event.at_us, event.node, f"{event.kind} {event.detail}") for event in noted]
            self.since = Cause(self._sim.world.now_us, noted[-1].node if noted else one.name, what)
            self.causes.append(self.since)

    def _differ(self) -> bool:
        one, other = (shown(device, self._record) for device in (self._one, self._other))
        return one != other


def _stuck(again: Outcome, violation: Violation) -> tuple[Cause | None, Sequence[Cause]]:
    """What the first stuck device did last, and what it waits for."""
    name = violation.devices[0]
    own = [event for event in again.trace if event.node == name]
    causes = [
        Cause(event.at_us, name, f"{event.kind} {event.detail}".strip()) for event in own[-LAST_EVENTS:]
    ]
    waits = next((line for line in violation.details if line.startswith(name)), violation.message)
    last = own[-1].at_us if own else 0
    return Cause(last, name, f"did this last, and since then: {waits.removeprefix(f'{name}: ')}"), causes


def _crashed(again: Outcome) -> tuple[Cause | None, Sequence[Cause]]:
    """What happened just before."""
    last = again.trace[-LAST_EVENTS:]
    causes = [Cause(event.at_us, event.node, f"{event.kind} {event.detail}".strip()) for event in last]
    at_us = last[-1].at_us if last else 0
    return Cause(at_us, last[-1].node if last else "", again.error.strip().splitlines()[-1]), causes


def _history(again: Outcome, violation: Violation) -> tuple[Cause | None, Sequence[Cause]]:
    """What people did to the record."""
    assert violation.record is not None
    id = violation.record[1]
    told: list[Event] = [event for event in again.trace if event.kind == "write" and id in event.detail]
    return None, [Cause(event.at_us, event.node, event.detail) for event in told]
