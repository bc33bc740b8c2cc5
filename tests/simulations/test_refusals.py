"""The urgent goes first; what a relay refuses for good waits alone and is seen. Each check finds its bug."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from crdt_sync.errors import InvalidWork
from crdt_sync_client import refusals
from crdt_sync_client.engine import reading, refusing, sealing
from crdt_sync_client.engine.outbox_order import OutboxOrder
from crdt_sync_client.engine.refused import Refused
from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.plan import plan
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Expectations, Fault, Scenario, Scheduled, Workload
from crdt_sync_sim.scenario_file import load_scenario

Patch = pytest.MonkeyPatch


@cache
def named(name: str) -> Scenario:
    return load_scenario(scenario_folder() / f"{name}.toml")


def scenario(*faults: Fault) -> Scenario:
    return replace(named("swarm"), duration_s=120.0, workload=Workload(60), faults=faults, swarm=False)


def rules(outcome: Outcome) -> set[int | None]:
    return {violation.rule for violation in outcome.violations}


def asked(outcome: Outcome) -> set[int]:
    return {each.number for each in outcome.invariants if each.state == "ok"}


@pytest.mark.parametrize("name", ["urgent_first", "refused_for_good"])
def test_the_named_ones_end_well(name: str) -> None:
    outcome = simulate(named(name), 1)
    assert outcome.verdict == "pass", outcome.violations


@pytest.mark.parametrize(
    "more", [(), ("crashes", "loss"), ("cleared_caches", "rare_points"), ("relay_crashes", "partitions")]
)
def test_whatever_else_happens_both_rules_hold(more: tuple[Fault, ...]) -> None:
    found: set[int] = set()
    for seed in (1, 2):
        outcome = simulate(scenario("priorities", "refusals", *more), seed)
        assert outcome.verdict == "pass", (seed, outcome.violations, outcome.error)
        found |= asked(outcome)
    assert found >= {10, 11}


def test_the_same_seed_draws_the_same() -> None:
    wanted = scenario("priorities", "refusals")
    events = plan(wanted, 3)
    assert events == plan(wanted, 3)
    assert {event.arguments["priority"] for event in events if event.action == "work"} == set(range(1, 11))
    assert simulate(wanted, 3).digest == simulate(wanted, 3).digest


def one_of_two_refused() -> Scenario:
    """The tablet sends work on two orders together, and the relay refuses that on the first to the end."""
    tablet = {"device": "tablet"}
    return replace(named("refused_for_good"), expect=Expectations()).with_events(
        (
            Scheduled(1.0, "refuse", {**tablet, "record": "wo1"}),
            Scheduled(5.0, "offline", {**tablet, "for_s": 60.0}),
            *(
                Scheduled(at_s, "edit", {**tablet, "record": record, "set": {"completion_notes": "Done"}})
                for at_s, record in ((10.0, "wo1"), (20.0, "wo2"))
            ),
        )
    )


def aside_with_what_waits() -> Scenario:
    """Of an order that waits, more is written later, urgently and together with one that was refused."""
    tablet = {"device": "tablet"}

    def edit(at_s: float, record: str, **more: Any) -> Scheduled:
        arguments = {**tablet, "record": record, "set": {"completion_notes": f"At {at_s} s"}, **more}
        return Scheduled(at_s, "edit", arguments)

    together = {"records": ["wo1", "wo2"], "set": {"completion_notes": "Both"}, "priority": 2}
    return replace(named("refused_for_good"), expect=Expectations()).with_events(
        (
            Scheduled(1.0, "refuse", {**tablet, "record": "wo1"}),
            edit(5.0, "wo1"),
            Scheduled(20.0, "offline", {**tablet, "for_s": 60.0}),
            Scheduled(20.0, "rare", {**tablet, "point": "push_of_one"}),
            *(edit(at_s, "wo3", priority=9) for at_s in (25.0, 26.0)),  # on their way; what follows waits
            edit(30.0, "wo2", priority=7),
            edit(31.0, "wo3", priority=6),
            Scheduled(32.0, "together", {**tablet, **together}),
        )
    )


def test_what_is_set_aside_when_it_is_written_makes_nothing_more_urgent() -> None:
    outcome = simulate(aside_with_what_waits(), 1)
    assert outcome.verdict == "pass", outcome.violations
    assert 10 in asked(outcome)


# Planted bugs ---------------------------------------------------------------------------------------


def test_a_device_that_sends_the_oldest_first_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(OutboxOrder, "_level", lambda self, replica, rows: {})
    assert rules(simulate(named("urgent_first"), 1)) == {10}


def test_a_device_that_lets_a_record_overtake_itself_is_found(monkeypatch: Patch) -> None:
    """Each update gets its own place: an urgent one does not take along what waits before it."""

    def level(self: OutboxOrder, replica: Any, rows: Any) -> dict[int, int]:
        self._unusual.clear()
        return {row.record: row.priority for row in rows}

    monkeypatch.setattr(OutboxOrder, "_level", level)
    outcome = simulate(named("urgent_first"), 1)
    assert 10 in rules(outcome)
    assert any("before one that was made earlier" in each.message for each in outcome.violations)


def test_a_device_that_keeps_everything_back_with_what_was_refused_is_found(monkeypatch: Patch) -> None:
    assert simulate(one_of_two_refused(), 1).verdict == "pass"
    monkeypatch.setattr(refusing, "_records_at", lambda replica, *given: set(replica.unsent))
    (violation,) = simulate(one_of_two_refused(), 1).violations
    assert (violation.rule, violation.devices) == (11, ("tablet",))
    assert "which nobody refused" in violation.message


def test_a_device_that_does_not_count_what_has_failed_is_found(monkeypatch: Patch) -> None:
    count = reading.status_counts
    monkeypatch.setattr(reading, "status_counts", lambda *given: replace(count(*given), failed=0))
    assert 11 in rules(simulate(scenario("refusals"), 1))


def test_a_device_that_never_gives_up_trying_is_found(monkeypatch: Patch) -> None:
    again = refusals.Treatment(InvalidWork, same_bytes=10**6)
    monkeypatch.setattr(refusals, "TREATMENTS", dict.fromkeys(refusals.TREATMENTS, again))
    outcome = simulate(replace(scenario("refusals"), settle_s=200.0), 1)
    assert outcome.verdict == "liveness"


def test_a_device_that_forgets_what_was_refused_is_found(monkeypatch: Patch) -> None:
    aside = refusing.set_aside

    def forget(replica: Any, space: Any, *given: Any, **more: Any) -> Any:
        named = aside(replica, space, *given, **more)
        for no, one in list(replica.refused.items()):
            assert isinstance(one, Refused)
            for table in ("sealed", "outbox"):
                replica.db.execute(f"DELETE FROM {table} WHERE record = ?", (no,))
            replica.count_unsent(no)
        return named

    monkeypatch.setattr(refusing, "set_aside", forget)
    assert simulate(scenario("refusals"), 1).verdict == "safety"


def test_a_device_that_seals_the_least_urgent_first_is_found(monkeypatch: Patch) -> None:
    choose = sealing._Choice.choose
    monkeypatch.setattr(sealing._Choice, "choose", lambda self, rows: choose(self, iter([*rows][::-1])))
    found = [simulate(scenario("priorities", "partitions"), seed) for seed in (1, 2)]
    assert any(10 in rules(outcome) or outcome.failed for outcome in found)
