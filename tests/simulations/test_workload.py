"""The drawn workload: how much one save touches, and that the small scenario is what it says."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from crdt_sync_sim import commands
from crdt_sync_sim.run import Simulation, simulate
from crdt_sync_sim.scenario import Scenario
from crdt_sync_sim.scenario_file import ScenarioError, load_scenario, read_scenario


@pytest.fixture(scope="module")
def small() -> Scenario:
    return load_scenario(commands.scenario_folder() / "small.toml")


def writes_of(scenario: Scenario, seed: int) -> int:
    """How many assignments of a field were acknowledged."""
    sim = Simulation(scenario, seed)
    try:
        sim.prologue()
        sim.story()
        return sim.oracle.count
    finally:
        sim.discard()


def test_the_small_scenario_makes_about_200_writes(small: Scenario) -> None:
    assert 170 <= statistics.median(writes_of(small, seed) for seed in range(1, 16)) <= 240


def test_a_save_touches_as_many_fields_as_asked(small: Scenario) -> None:
    assert small.workload is not None
    calm = replace(small, swarm=False, faults=(), events=())
    few = replace(calm, workload=replace(small.workload, fields=(1, 1), mix={"create": 1}))
    many = replace(calm, workload=replace(small.workload, fields=(8, 8), mix={"create": 1}))
    # A new order also gets its status, by default.
    assert writes_of(few, 1) == (1 + 1) * small.workload.operations
    assert writes_of(many, 1) == (8 + 1) * small.workload.operations


@pytest.mark.parametrize("given", ["8", "[8]", "[0, 3]", "[9, 3]", '["a", "b"]', "[true, 3]"])
def test_a_wrong_span_is_told_with_its_line(given: str) -> None:
    text = f'title = "x"\nschemas = ["work_order"]\n[devices]\na = "admin"\n[workload]\nfields = {given}\n'
    with pytest.raises(ScenarioError) as raised:
        read_scenario(text, source="x.toml")
    [problem] = raised.value.problems
    assert problem.line == 6
    assert "[from, to]" in problem.message


def test_drawn_work_is_refused_for_want_of_permission_only(small: Scenario) -> None:
    outcomes = [simulate(replace(small, faults=()), seed, keep_trace=True) for seed in range(1, 9)]
    refused = [
        event.detail for outcome in outcomes for event in outcome.trace if event.kind == "write_refused"
    ]
    assert refused
    assert not [detail for detail in refused if not detail.endswith("permission")]
