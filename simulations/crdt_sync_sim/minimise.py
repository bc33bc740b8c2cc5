"""Leaves out events of a failing run for as long as it still fails in the same way.

Delta debugging (Zeller and Hildebrandt, 2002): halves first, then quarters, down to single events. Events
have streams of their own, so leaving one out does not reshuffle the others. "The same way" is the same rule
broken, or the same kind of crash, whichever records and devices it hits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scheduled

Progress = Callable[[int, int], object]
"""Called with (runs made, events left)."""


def minimise(
    failing: Outcome, *, max_runs: int = 400, progress: Progress = lambda runs, left: None
) -> Outcome:
    """The outcome of the smallest list of events found that fails like `failing`."""
    runs = 0
    best = failing
    kind = failure_of(failing)

    def fails(events: Sequence[Scheduled]) -> bool:
        nonlocal runs, best
        runs += 1
        outcome = simulate(failing.scenario, failing.seed, events)
        if outcome.failed and failure_of(outcome) == kind:
            best = outcome
            progress(runs, len(events))
            return True
        return False

    events, parts = list(failing.events), 2
    while len(events) >= 2 and runs < max_runs:
        size = -(-len(events) // parts)
        for start in range(0, len(events), size):
            rest = events[:start] + events[start + size :]
            if runs < max_runs and fails(rest):
                events, parts = rest, max(parts - 1, 2)
                break
        else:
            if parts >= len(events):
                break
            parts = min(parts * 2, len(events))
    return best


def failure_of(outcome: Outcome) -> str:
    """What makes two failures the same: verdict, and rule or type of error."""
    if outcome.error:
        return f"{outcome.verdict}:{outcome.error.strip().splitlines()[-1].split(':')[0]}"
    rules = ",".join(str(rule) for rule in sorted({violation.rule for violation in outcome.violations})[:1])
    return f"{outcome.verdict}:{rules}"
