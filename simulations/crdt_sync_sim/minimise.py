"""Makes a failing run small for as long as it still fails in the same way, within seconds.

In turn: whole devices are left out with their events, then all events of one kind, then events by delta
debugging (Zeller and Hildebrandt, 2002: halves first, then quarters, down to single events), then time:
everything happens sooner and lasts shorter, and the bound for settling shrinks. Then events once more.
Events have streams of their own, so leaving one out does not reshuffle the others. "The same way" is the
same rule broken, or the same error from the same place, whichever records and devices it hits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from crdt_sync_sim.case import with_devices
from crdt_sync_sim.causes import failure_of
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scenario, Scheduled

Progress = Callable[[int, int], object]
"""Called with (runs made, events left)."""
MIN_DURATION_S: Final = 1.0
"""Shorter stories cannot be written down in a scenario."""
MIN_SETTLE_S: Final = 10.0
_SHORTER: Final = (0.1, 0.5)


@dataclass(slots=True)
class Minimised:
    """The smallest failing run that was found. `did` says, for people, what became smaller."""

    outcome: Outcome
    runs: int = 0
    finished: bool = True
    """Whether nothing more could be left out; False when time or runs were used up first."""
    did: list[str] = field(default_factory=list)


class _SpentError(Exception):
    """No time, or no runs, are left."""


def minimise(
    failing: Outcome,
    *,
    seconds: float = 20.0,
    max_runs: int | None = None,
    progress: Progress = lambda runs, left: None,
) -> Minimised:
    """The smallest run found that fails like `failing`, in about that many seconds, or that many runs."""
    shrinking = _Shrinking(failing, time.monotonic() + seconds, max_runs, progress)
    finished = True
    try:
        shrinking.leave_out_devices()
        shrinking.leave_out_kinds()
        shrinking.leave_out_events()
        shrinking.leave_out_devices()
        shrinking.shorten()
        shrinking.leave_out_events()
    except _SpentError:
        finished = False
    return Minimised(shrinking.best, shrinking.runs, finished, list(_told(failing, shrinking.best)))


class _Shrinking:
    def __init__(self, failing: Outcome, deadline_s: float, max_runs: int | None, progress: Progress) -> None:
        self.best = failing
        self.runs = 0
        self._kind = failure_of(failing)
        self._deadline_s = deadline_s
        self._max_runs = max_runs
        self._progress = progress

    def _fails(self, scenario: Scenario, events: Sequence[Scheduled]) -> bool:
        if time.monotonic() > self._deadline_s or (
            self._max_runs is not None and self.runs >= self._max_runs
        ):
            raise _SpentError
        self.runs += 1
        outcome = simulate(scenario, self.best.seed, events)
        same = outcome.failed and failure_of(outcome) == self._kind
        if same:
            self.best = outcome
        self._progress(self.runs, len(self.best.events))
        return same

    def leave_out_kinds(self) -> None:
        """All events of one action at once; then those of one action on one device."""
        for group in (_action, _action_and_device):
            for kind in dict.fromkeys(map(group, self.best.events)):
                rest = [event for event in self.best.events if group(event) != kind]
                if len(rest) < len(self.best.events):
                    self._fails(self.best.scenario, rest)

    def leave_out_events(self) -> None:
        """Halves, quarters and so on; single events until none of them can be left out."""
        size = max(len(self.best.events) // 2, 1)
        while True:
            start, before = 0, len(self.best.events)
            while start < len(self.best.events):
                events = list(self.best.events)
                if not self._fails(self.best.scenario, events[:start] + events[start + size :]):
                    start += size
            if size > 1:
                size //= 2
            elif len(self.best.events) in (0, before):
                return

    def leave_out_devices(self) -> None:
        for name in list(self.best.scenario.devices):
            scenario = self.best.scenario
            rest = [other for other in scenario.devices if other != name]
            if name != scenario.founder:
                self._fails(with_devices(scenario, rest), list(_without(name, self.best.events)))

    def shorten(self) -> None:
        """Everything sooner and shorter, then each `for_s`, the end of the story, and the time to settle."""
        for share in _SHORTER:
            while self._fails_at(share):
                pass
        for number, event in enumerate(self.best.events):
            for share in _SHORTER:
                for_s = event.arguments.get("for_s")
                if for_s:
                    shorter = replace(event, arguments={**event.arguments, "for_s": round(for_s * share, 6)})
                    events = [*self.best.events]
                    events[number] = shorter
                    if self._fails(self.best.scenario, events):
                        event = shorter
        last_s = max((event.at_s for event in self.best.events), default=0.0)
        scenario = self.best.scenario
        for duration_s in (last_s + MIN_DURATION_S, (last_s + scenario.duration_s) / 2):
            if duration_s < scenario.duration_s and self._fails(
                replace(scenario, duration_s=round(duration_s, 6)), self.best.events
            ):
                break
        while self.best.verdict == "safety" and self.best.scenario.settle_s / 2 >= MIN_SETTLE_S:
            # Of a run that does not converge, the bound is what it fails by.
            scenario = self.best.scenario
            if not self._fails(replace(scenario, settle_s=scenario.settle_s / 2), self.best.events):
                break

    def _fails_at(self, share: float) -> bool:
        scenario = self.best.scenario
        duration_s = round(scenario.duration_s * share, 6)
        events = [_sooner(event, share) for event in self.best.events]
        return duration_s >= MIN_DURATION_S and self._fails(replace(scenario, duration_s=duration_s), events)


def _action(event: Scheduled) -> str:
    return event.action


def _action_and_device(event: Scheduled) -> str:
    return f"{event.action} {event.arguments.get('device', event.arguments.get('node'))}"


def _sooner(event: Scheduled, share: float) -> Scheduled:
    arguments = dict(event.arguments)
    if arguments.get("for_s"):
        arguments["for_s"] = round(arguments["for_s"] * share, 6)
    return replace(event, at_s=round(event.at_s * share, 6), arguments=arguments)


def _without(name: str, events: Sequence[Scheduled]) -> Iterator[Scheduled]:
    """The events that do not need that device; partitions without it."""
    for event in events:
        if name in (event.arguments.get(key) for key in ("device", "node", "from", "to", "of")):
            continue
        yield replace(event, arguments=_groups_without(name, event.arguments))


def _groups_without(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    if "groups" not in arguments:
        return arguments
    groups = [[member for member in group if member != name] for group in arguments["groups"]]
    return {**arguments, "groups": [group for group in groups if group]}


def _told(before: Outcome, after: Outcome) -> Iterator[str]:
    """What became smaller."""
    old, new = before.scenario, after.scenario
    yield f"events: {len(before.events)} to {len(after.events)}"
    work = [sum(event.action == "work" for event in outcome.events) for outcome in (before, after)]
    if work[0]:
        yield f"operations of the workload: {work[0]} to {work[1]}"
    left_out = [name for name in old.devices if name not in new.devices]
    if left_out:
        yield f"devices: {len(old.devices)} to {len(new.devices)}, without {', '.join(left_out)}"
    for what, was, now in (
        ("story", old.duration_s, new.duration_s),
        ("time to settle", old.settle_s, new.settle_s),
    ):
        if now < was:
            yield f"{what}: {was:g} s to {now:g} s"
