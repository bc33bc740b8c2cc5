"""Checkouts in simulated stories: who has what, and planted bugs that are seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_sync.protocol.leases import Lease
from crdt_sync_client.engine.checkout_calls import CheckoutCalls
from crdt_sync_server import checkouts
from crdt_sync_server.checkouts import LeaseBook
from crdt_sync_sim import commands
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Fault, Scenario
from crdt_sync_sim.scenario_file import load_scenario

SEED = 5


@pytest.fixture(scope="module")
def lending() -> Scenario:
    """A few people who write and check out, with a relay that restarts."""
    small = load_scenario(commands.scenario_folder() / "small.toml")
    return replace(small, swarm=False, faults=("checkouts", "crashes", "relay_crashes"))


def four(outcome: Outcome) -> str:
    return next(each.state for each in outcome.invariants if each.number == 4)


def test_one_holder_is_asked_where_somebody_checks_out(lending: Scenario) -> None:
    outcome = simulate(lending, SEED)
    assert outcome.verdict == "pass"
    assert four(outcome) == "ok"
    assert four(simulate(replace(lending, faults=()), SEED)) == "not asked"


def test_a_relay_that_lends_to_two_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(book: LeaseBook, lease: Lease, now_ms: int) -> bool:
        return False

    monkeypatch.setattr(LeaseBook, "in_force", nobody)
    outcome = simulate(load_scenario(commands.scenario_folder() / "checkout_broken.toml"), 1)
    assert four(outcome) == "broken"
    assert any("second device" in violation.message for violation in outcome.violations)


def test_a_token_that_goes_back_is_seen(lending: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkouts, "next_token", lambda last, seen, now_ms: 1)
    outcome = simulate(lending, SEED)
    assert four(outcome) == "broken"
    assert any("came after token" in violation.message for violation in outcome.violations)


def test_a_device_that_does_not_ask_a_wiped_relay_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load_scenario(commands.scenario_folder() / "checkout_relay_wiped.toml")
    assert simulate(scenario, 1).verdict == "pass"
    monkeypatch.setattr(CheckoutCalls, "promised_checkouts", lambda engine, space: [])
    outcome = simulate(scenario, 1)
    assert four(outcome) == "broken"
    said = [violation.message for violation in outcome.violations]
    assert any("do not say the same" in each for each in said)
    assert any("0 records wait on office" in each for each in said)  # it could write to what the tablet had


@pytest.mark.parametrize("fault", ["relay_wipe", "relay_rollback"])
def test_checkouts_outlive_what_the_relay_loses(lending: Scenario, fault: Fault) -> None:
    outcome = simulate(replace(lending, faults=("checkouts", fault)), SEED)
    assert (outcome.verdict, four(outcome)) == ("pass", "ok")
