"""A relay that lost data: devices give it back, and the checks see where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.membership.carrying import Carried
from crdt_sync_client.engine import forks, giving_back
from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.oracle import Oracle
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import NOT_SURVIVED, Scheduled, Workload
from crdt_sync_sim.scenario_file import load_scenario


def run(*actions: str, seed: int = 1) -> Outcome:
    swarm = load_scenario(scenario_folder() / "swarm.toml")
    calm = replace(swarm, duration_s=60.0, settle_s=600.0, workload=Workload(60), faults=(), swarm=False)
    events = [Scheduled(10.0 * n, action, {"node": "relay"}) for n, action in enumerate(actions, 1)]
    return simulate(calm.with_events(tuple(events)), seed)


@pytest.mark.parametrize("actions", [("wipe",), ("backup", "restore_backup"), ("backup", "wipe", "wipe")])
def test_what_a_relay_lost_comes_back(actions: tuple[str, ...]) -> None:
    assert run(*actions).verdict == "pass"
    assert not NOT_SURVIVED


@pytest.mark.parametrize(
    ("name", "seed"),
    [("relay_restored", 2), ("relay_wiped", 2), ("members_forked", 2), ("relay_wiped_while_both_wrote", 83)],
)
def test_the_named_stories_end_well(name: str, seed: int) -> None:
    assert simulate(load_scenario(scenario_folder() / f"{name}.toml"), seed).verdict == "pass"


def test_a_device_that_gives_nothing_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_back, "_lacks", lambda *_: False)
    outcome = run("backup", "restore_backup")
    assert outcome.verdict == "safety"
    assert any("a device that came now would lack something" in str(each) for each in outcome.violations)


def test_a_device_that_takes_a_restored_relay_for_the_old_one_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trusting(replica: object, space: object, relay: object, cursor: int) -> bool:
        return False

    monkeypatch.setattr(giving_back, "greeted", trusting)
    outcome = run("backup", "restore_backup")
    assert outcome.verdict == "safety"
    assert 1 in {violation.rule for violation in outcome.violations}, "devices differ for good"


def test_a_device_that_forgets_what_it_was_promised_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chain goes on where the relay does not: that relay takes nothing more from it."""
    monkeypatch.setattr(giving_back, "acknowledged", lambda *_: ChainHead(0, bytes(32)))
    outcome = run("backup", "restore_backup")
    assert outcome.verdict == "safety"
    assert 1 in {violation.rule for violation in outcome.violations}, "devices differ for good"


def test_a_device_that_leaves_out_what_others_lost_of_the_members_log_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes the relay's branch and forgets its own: who was let in on that stays out."""
    monkeypatch.setattr(forks, "carry_over", lambda *_, **__: Carried([], []))
    outcome = simulate(load_scenario(scenario_folder() / "members_forked.toml"), 1)
    assert outcome.verdict == "liveness"
    assert "the relay has lost the entry that let this device in" in str(outcome.violations[0])


# What is lost with a device as well


def lost_twice(*, relay_first: bool, seed: int = 3) -> Outcome:
    """A tablet and the relay lose what they have, one after the other; others may have it still."""
    swarm = load_scenario(scenario_folder() / "swarm.toml")
    calm = replace(swarm, duration_s=80.0, settle_s=600.0, workload=Workload(60), faults=(), swarm=False)
    wipes = [Scheduled(30.0 + 10 * relay_first, "wipe", {"node": "tablet_1"})]
    wipes.append(Scheduled(40.0 - 10 * relay_first, "wipe", {"node": "relay"}))
    away = [
        Scheduled(5.0, "offline", {"device": name, "for_s": 60.0})
        for name in swarm.devices
        if name != "tablet_1"
    ]
    return simulate(calm.with_events((*away, *wipes, Scheduled(50.0, "join", {"device": "tablet_1"}))), seed)


def test_what_neither_the_relay_nor_a_device_has_is_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = lost_twice(relay_first=False)
    assert outcome.verdict == "pass", outcome.violations
    assert outcome.figures.writes_excused > 0
    monkeypatch.setattr(Oracle, "nowhere", lambda oracle, writes: None)
    assert lost_twice(relay_first=False).verdict == "safety"


def test_what_a_device_had_is_not_excused_though_it_lost_its_store_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It had given all of it back by then; had it not, that would be found."""
    outcome = lost_twice(relay_first=True)
    assert outcome.verdict == "pass", outcome.violations
    assert outcome.figures.writes_excused == 0
    monkeypatch.setattr(giving_back, "_lacks", lambda *_: False)
    outcome = lost_twice(relay_first=True)
    assert outcome.figures.writes_excused > 0
    assert any("would lack something" in str(each) for each in outcome.violations)
