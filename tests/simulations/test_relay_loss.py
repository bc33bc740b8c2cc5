"""A relay that lost data: the product does not recover from that yet, and a report says so in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.report import to_json, to_text
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scheduled, Workload
from crdt_sync_sim.scenario_file import load_scenario


def run(*actions: str) -> Outcome:
    swarm = load_scenario(scenario_folder() / "swarm.toml")
    calm = replace(swarm, duration_s=60.0, settle_s=60.0, workload=Workload(60), faults=(), swarm=False)
    events = [Scheduled(10.0 * n, action, {"node": "relay"}) for n, action in enumerate(actions, 1)]
    return simulate(calm.with_events(tuple(events)), 1)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (("wipe",), "not survived  the relay loses its storage: it does not know the space any more"),
        (
            ("backup", "restore_backup"),
            "not survived  the relay is put back from a backup: what it acknowledged",
        ),
    ],
)
def test_a_report_says_which_fault_is_beyond_the_product(actions: Any, words: str) -> None:
    outcome = run(*actions)
    assert outcome.verdict in ("safety", "liveness")
    assert words in to_text(outcome)
    assert to_json(outcome)["not_survived"]


def test_other_reports_do_not() -> None:
    outcome = run("crash")
    assert outcome.verdict == "pass"
    assert "not survived" not in to_text(outcome)
    assert to_json(outcome)["not_survived"] == []
