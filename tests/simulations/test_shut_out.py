"""Devices that the relay's operator shuts out for a while lose nothing, and nothing of them is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_sync_client import endings
from crdt_sync_server.revocations import Revocations
from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Fault, Scenario, Scheduled, Workload
from crdt_sync_sim.scenario_file import load_scenario
from crdt_sync_sim.shutting_out import ShuttingOut


def scenario(*faults: Fault) -> Scenario:
    swarm = load_scenario(scenario_folder() / "swarm.toml")
    return replace(swarm, duration_s=120.0, workload=Workload(80), faults=faults, swarm=False)


def two_shut_out() -> Outcome:
    events = tuple(
        Scheduled(at_s, "shut_out", {"device": name, "for_s": 50.0})
        for at_s, name in ((10.0, "tablet_1"), (20.0, "office"))
    )
    return simulate(scenario().with_events(events), 1, keep_trace=True)


def test_who_is_shut_out_and_let_in_again_ends_with_what_all_have() -> None:
    outcome = two_shut_out()
    assert outcome.verdict == "pass", outcome.violations
    refused = [each for each in outcome.trace if each.kind == "bye" and "revoked" in each.detail]
    assert len(refused) >= 2


@pytest.mark.parametrize("faults", [("relay_crashes", "crashes"), ("relay_rollback",), ("disk_full",)])
def test_whatever_else_happens_nothing_is_lost(faults: tuple[Fault, ...]) -> None:
    for seed in (1, 2):
        outcome = simulate(scenario("shut_out", *faults), seed)
        assert outcome.verdict == "pass", (seed, outcome.violations, outcome.error)


def test_a_relay_that_takes_work_of_a_device_that_is_shut_out_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Revocations, "check", lambda *_: None)
    outcome = two_shut_out()
    assert outcome.failed
    assert "took work of a device" in outcome.error


def test_a_device_that_never_asks_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "SHUT_OUT_S", float(10**7))
    monkeypatch.setattr(ShuttingOut, "_owners_sync", lambda self: None)
    outcome = two_shut_out()
    assert outcome.verdict == "liveness"
    assert "has shut this device out" in str(outcome.violations[0])
