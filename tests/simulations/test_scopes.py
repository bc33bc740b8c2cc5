"""Devices that keep a part: the rule bites, and what the simulator found there stays fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from crdt_sync_client.engine import absent, cleaning, scoping
from crdt_sync_sim.keeping import holds
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scenario
from crdt_sync_sim.scenario_file import ScenarioError, read_scenario
from tests.simulations.shipped import named

Patch = pytest.MonkeyPatch

DRAWN = """
title = "Parts"
schemas = ["work_order"]
faults = ["scopes", "partitions"]
duration_s = 300
[devices]
office = "admin"
tablet = "field"
boss = "supervisor"
[workload]
operations = 120
fields = [3, 7]
"""
SEEDS = range(1, 11)


@pytest.fixture(scope="module")
def drawn() -> Scenario:
    return read_scenario(DRAWN, source="drawn.toml")


def rules(outcome: Outcome) -> set[int]:
    return {violation.rule for violation in outcome.violations}


def test_people_change_what_their_devices_keep_and_the_rule_is_asked(drawn: Scenario) -> None:
    outcome = simulate(drawn, 3)
    assert outcome.verdict == "pass", outcome.violations
    assert {each.number: each.state for each in outcome.invariants}[9] == "ok"
    assert any(event.action == "rescope" for event in outcome.events)


def test_an_update_that_is_passed_over_though_it_matters_is_found(
    drawn: Scenario, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(scoping, "may_matter", lambda *_: False)
    assert 0 in rules(simulate(named("only_open_orders"), 1))
    assert any(9 in rules(simulate(drawn, seed)) for seed in SEEDS)


def test_a_record_that_leaves_with_unsent_work_is_found(drawn: Scenario, monkeypatch: Patch) -> None:
    leave = absent.leave

    def with_its_work(replica: Any, space: Any, records: Any, *why: Any, **how: Any) -> int:
        records = list(records)
        for no, _ in records:
            replica.db.execute("DELETE FROM outbox WHERE record = ?", (no,))
        return leave(replica, space, records, *why, **how)

    monkeypatch.setattr(scoping, "is_held", lambda *_: False)
    monkeypatch.setattr(absent, "leave", with_its_work)
    assert {0, 2} & rules(simulate(named("only_open_orders"), 1))
    assert any({2, 7} & rules(simulate(drawn, seed)) for seed in SEEDS)


def test_records_that_stay_though_they_match_no_more_are_found(drawn: Scenario, monkeypatch: Patch) -> None:
    monkeypatch.setattr(scoping, "sift", lambda *_, **__: None)
    assert any(9 in rules(simulate(drawn, seed)) for seed in SEEDS)


def test_a_cleanup_of_what_is_not_closed_is_found(monkeypatch: Patch) -> None:
    def everything(replica: Any, space: Any, own: Mapping[str, int], after: Any) -> tuple[list[Any], None]:
        rows = replica.db.rows(cleaning._HERE, (space.no,))
        return scoping.depart(replica, space, [(no, opaque) for no, opaque in rows], "closed"), None

    cleaned = DRAWN + '\n[[at]]\ns = 290\ndo = "clean_up"\ndevice = "tablet"\n'
    monkeypatch.setattr(cleaning, "clean_up", everything)
    assert 9 in rules(simulate(read_scenario(cleaned, source="cleaned.toml"), 1))


def test_conditions_are_read_as_the_product_reads_them() -> None:
    from crdt_sync_client.engine.filters import field, nothing

    values = {"status": "draft", "tags": ["urgent"], "title": "Pump"}
    assert holds((field("status") == "draft") & field("tags").contains("urgent"), values)
    assert holds(field("cost").is_null() & ~nothing, values)
    assert holds(field("title").starts_with("Pu") | nothing, values)
    assert not holds(field("status").one_of("closed"), values)


def test_a_condition_that_does_not_fit_is_said_with_its_line() -> None:
    wrong = DRAWN + (
        '\n[[at]]\ns = 1\ndo = "scope"\ndevice = "tablet"\ntype = "work_order"\nwhere = {color = "red"}\n'
    )
    with pytest.raises(ScenarioError, match="color"):
        read_scenario(wrong, source="wrong.toml")
