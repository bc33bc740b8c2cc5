"""What a run made is let go of when it is over; hardly anything is left to the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.many import outcomes
from crdt_sync_sim.run import simulate
from crdt_sync_sim.scenario_file import load_scenario

SMALL = load_scenario(scenario_folder() / "small.toml")
MOST_LEFT = 1_500
"""Objects: of engines of relays that died, and of errors with their tracebacks. A run that is
not taken apart at its end leaves 4,000 and more."""


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("seed", [3, 14, 24])
def test_a_run_leaves_hardly_anything_to_the_collector(seed: int) -> None:
    simulate(SMALL, seed)  # its founding is kept
    gc.collect()
    assert simulate(SMALL, seed).verdict == "pass"
    assert gc.collect() < MOST_LEFT


def test_runs_in_this_process_leave_its_collector_as_it_was() -> None:
    before = gc.get_threshold()
    runs = outcomes(SMALL, [1, 2], jobs=1, out=None, keep_trace=False)
    assert next(runs).verdict == "pass"
    assert gc.get_threshold() != before
    assert next(runs).verdict == "pass"
    assert next(runs, None) is None
    assert gc.get_threshold() == before
