"""Scenarios that ship with the simulator, for tests."""

from __future__ import annotations

from dataclasses import replace

from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.scenario import Scenario, Workload
from crdt_sync_sim.scenario_file import load_scenario


def named(name: str) -> Scenario:
    return load_scenario(scenario_folder() / f"{name}.toml")


def small_swarm() -> Scenario:
    """A minute of a few devices that are now and then apart."""
    return replace(
        named("swarm"), duration_s=60.0, workload=Workload(40), faults=("partitions",), swarm=False
    )
