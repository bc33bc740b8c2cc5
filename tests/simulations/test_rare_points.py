"""Rare points: off in a run that does not switch them on, all of them reached, and a run passes with each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_sync.rare import POINTS, Point, rare
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.shipped import find_schema
from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scenario, Scheduled, Workload
from crdt_sync_sim.scenario_file import load_scenario


@pytest.fixture(scope="module")
def bumpy() -> Scenario:
    """A minute of work in which two devices fall behind and come back, and a schema gets a new version."""
    swarm = load_scenario(scenario_folder() / "swarm.toml")
    events = (
        Scheduled(5, "offline", {"device": "tablet_1", "for_s": 40}),
        Scheduled(10, "crash", {"node": "tablet_1", "for_s": 1}),
        Scheduled(15, "crash", {"node": "tablet_2", "for_s": 20}),
        Scheduled(25, "crash", {"node": "relay", "for_s": 1}),
        Scheduled(30, "schema", {"device": "office", "type": "work_order", "version": 2}),
        *(Scheduled(at_s, "pause", {"node": "relay", "for_s": 2}) for at_s in (35, 40, 46, 50, 55)),
    )
    text = find_schema("work_order").text.replace("x-version: 1", "x-version: 2")
    versions = (load_schema(text, source="work_order 2"),)
    calm = replace(swarm, duration_s=60.0, workload=Workload(200), faults=(), swarm=False, versions=versions)
    return calm.with_events(events)


def shown(outcome: Outcome) -> str:
    return "\n".join(map(str, outcome.violations)) + outcome.error


def test_none_fires_unless_a_run_switches_it_on(bumpy: Scenario) -> None:
    assert simulate(bumpy, 1).figures.rare == {}


_REACHED_WITH: dict[Point, tuple[Point, ...]] = {
    # Own rows pass in silence only while more of the same device waits for a commit.
    "own_rows_told": ("push_of_one", "push_without_pause", "commit_of_one_frame"),
}


_REACHED_AFTER: dict[Point, Scheduled] = {"look_of_one": Scheduled(48, "wipe", {"node": "relay"})}


@pytest.mark.parametrize("point", sorted(POINTS))
def test_a_run_passes_when_a_point_always_fires(bumpy: Scenario, point: Point) -> None:
    points: list[Point] = [point, *_REACHED_WITH.get(point, ())]
    more = [_REACHED_AFTER[point]] if point in _REACHED_AFTER else []
    rare_ones = (Scheduled(0, "rare", {"point": one}) for one in points)
    on = bumpy.with_events((*bumpy.events, *more, *rare_ones))
    outcome = simulate(on, 1)
    assert outcome.verdict == "pass", shown(outcome)
    assert outcome.figures.rare[point] > 0
    assert not rare(point)


def test_what_fires_is_in_the_digest_and_the_same_again(bumpy: Scenario) -> None:
    once, always = (
        bumpy.with_events((Scheduled(0, "rare", {"point": "record_evicted", "share": share}), *bumpy.events))
        for share in (0.3, 1.0)
    )
    first = simulate(once, 1)
    assert first.digest == simulate(once, 1).digest
    assert first.digest != simulate(always, 1).digest != simulate(bumpy, 1).digest


def test_swarms_draw_points(bumpy: Scenario) -> None:
    drawn = [simulate(replace(bumpy, faults=("rare_points",)), seed).figures.rare for seed in range(1, 7)]
    assert any(len(fired) > 1 for fired in drawn)
    assert len({tuple(fired) for fired in drawn}) > 3
