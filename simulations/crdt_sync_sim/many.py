"""Runs many seeds, in this process or in several, and survives runs that take their process with them."""

from __future__ import annotations

import gc
import multiprocessing
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final

from crdt_sync_sim.case import case_path, journalled, read_journal
from crdt_sync_sim.figures import Figures
from crdt_sync_sim.plan import plan
from crdt_sync_sim.remembering import remembers
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scenario
from crdt_sync_sim.scenario_file import load_scenario

_COLLECTED_AFTER: Final = 1_000_000
"""Objects made and not let go of again, instead of 700."""
_COLLECTED_EVERY: Final = 50
"""Runs: each leaves some hundred objects that know each other. All else is let go of at its end."""
AHEAD: Final = 4
"""Runs that each process has in line, so that none waits for the next seed."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run as another process can be told of it: compiled schemas do not travel."""

    source: str
    storage: str
    seed: int
    out: Path | None
    keep_trace: bool
    remember: bool | None = None
    """See `simulate`."""


def outcomes(
    scenario: Scenario,
    seeds: Sequence[int],
    *,
    jobs: int,
    out: Path | None,
    keep_trace: bool,
    remember: bool | None = None,
) -> Iterator[Outcome]:
    """The outcome of each seed, in their order. With `out`, failing runs leave their case there."""
    tasks = deque(Task(scenario.source, scenario.storage, seed, out, keep_trace, remember) for seed in seeds)
    if jobs == 1:
        yield from _one_by_one(scenario, tasks)
        return
    while tasks:
        # A run that kills its process breaks the pool: those that were in it are run again, each alone.
        broken = yield from _together(scenario, tasks, jobs)
        for task in broken:
            yield _alone(scenario, task)


def _one_by_one(scenario: Scenario, tasks: deque[Task]) -> Iterator[Outcome]:
    """Runs in this process, which does other things before and after."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECTED_AFTER)
    try:
        for number, task in enumerate(tasks, 1):
            yield _run(scenario, task)
            if number % _COLLECTED_EVERY == 0:
                gc.collect()
    finally:
        gc.set_threshold(*before)


def _together(scenario: Scenario, tasks: deque[Task], jobs: int) -> Generator[Outcome, None, list[Task]]:
    """Runs until all are done or the pool breaks; gives back what was begun and has no outcome."""
    pending: deque[tuple[Task, Future[Outcome]]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            while tasks or pending:
                while tasks and len(pending) < jobs * AHEAD:
                    pending.append((tasks[0], pool.submit(run_task, tasks[0])))
                    tasks.popleft()
                outcome = pending[0][1].result()
                pending.popleft()
                yield replace(outcome, scenario=scenario)
        except BrokenProcessPool:
            return [task for task, _ in pending]
    return []


def _alone(scenario: Scenario, task: Task) -> Outcome:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return replace(pool.submit(run_task, task).result(), scenario=scenario)
        except BrokenProcessPool:
            return _died(scenario, task)


def _died(scenario: Scenario, task: Task) -> Outcome:
    """The outcome of a run that ended its process."""
    error = "ProcessDied: the run took its process with it"
    if task.out is not None:
        begun = read_journal(case_path(task.out, scenario, task.seed))
        error += f"; the last event that was begun: {begun[-1] if begun else 'none'}"
    return Outcome(
        scenario=scenario,
        seed=task.seed,
        verdict="crash",
        digest="",
        figures=Figures(),
        events=plan(scenario, task.seed),
        error=error,
    )


_loaded: dict[tuple[str, str], Scenario] = {}
_ran = count(1)


def run_task(task: Task) -> Outcome:
    """In a worker, which loads each scenario once."""
    key = task.source, task.storage
    if key not in _loaded:
        _loaded[key] = with_storage(load_scenario(Path(task.source)), task.storage)
        collect_seldom()
    outcome = _run(_loaded[key], task)
    if next(_ran) % _COLLECTED_EVERY == 0:
        gc.collect()
    return replace(outcome, scenario=replace(outcome.scenario, schemas={}, versions=()))


def collect_seldom() -> None:
    """Let the garbage collector pass over all there is by now, and look for cycles hardly ever during a run.

    For a process that does nothing but run. Nearly all that a run makes lives to its end. Looking on the way
    finds nothing, empties the caches, and took a tenth to a sixth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER, 10, 10)


def _run(scenario: Scenario, task: Task) -> Outcome:
    keep_trace, remember = task.keep_trace, task.remember
    if task.out is None:
        return simulate(scenario, task.seed, keep_trace=keep_trace, remember=remember)
    return journalled(scenario, task.seed, task.out, keep_trace=keep_trace, remember=remember)


def digest_elsewhere(scenario: Scenario, seed: int) -> str:
    """The digest of the run in a fresh process, whose hashes are salted differently.

    What other runs of the seed remember, it works out each time, and the other way round.
    """
    remember = not remembers(seed)
    task = Task(scenario.source, scenario.storage, seed, None, keep_trace=False, remember=remember)
    return _alone(scenario, task).digest


def with_storage(scenario: Scenario, storage: str) -> Scenario:
    """The same scenario on `memory` or on `disk`."""
    return replace(scenario, storage="disk" if storage == "disk" else "memory")
