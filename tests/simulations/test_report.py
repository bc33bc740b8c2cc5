"""What an engineer gets to read: figures that count what they say, and why a failing run failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crdt_sync_client.engine import Engine
from crdt_sync_sim.causes import Explanation, explain
from crdt_sync_sim.checks import INVARIANTS
from crdt_sync_sim.report import duration, to_json, to_text
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scenario
from crdt_sync_sim.scenario_file import read_scenario
from tests.simulations import planted
from tests.simulations.shipped import named, small_swarm

Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def small() -> Scenario:
    return small_swarm()


def failing(scenario: Scenario) -> tuple[Outcome, Explanation]:
    for seed in range(1, 8):
        outcome = simulate(scenario, seed, keep_trace=True)
        if outcome.failed:
            explanation = explain(outcome, seconds_to_spend=60)
            assert explanation is not None, "the same seed gave another run"
            return outcome, explanation
    raise AssertionError("the planted bug did no harm")


def test_a_lost_write_is_followed_from_its_acknowledgement_to_where_it_was_dropped(
    small: Scenario, monkeypatch: Patch
) -> None:
    planted.drop_the_outbox(monkeypatch, "tablet_1")
    outcome, explanation = failing(small)
    assert explanation.bad is not None
    assert explanation.bad.node == "tablet_1"
    assert explanation.bad.what.startswith(("took it out of its outbox unsent", "has it in no outbox"))
    first = explanation.causes[0]
    assert first.node == "tablet_1"
    assert "was told that it is saved" in first.what
    assert first.at_s <= explanation.bad.at_s
    assert outcome.figures.writes_lost > 0


def test_a_write_that_one_device_never_took_is_followed_over_the_relay(
    small: Scenario, monkeypatch: Patch
) -> None:
    planted.forget_some_merges(monkeypatch)
    _, explanation = failing(small)
    told = [cause.what for cause in explanation.causes]
    assert any("pushed in envelope" in what for what in told)
    assert any("acknowledged it to" in what for what in told)
    assert any("of the log in envelope" in what for what in told)
    assert explanation.bad is not None
    assert "of the log and does not show it" in explanation.bad.what


def test_the_first_bad_event_ends_the_shortest_story_that_fails_though_all_heals(
    small: Scenario, monkeypatch: Patch
) -> None:
    planted.drop_the_outbox(monkeypatch, "tablet_1")
    outcome, explanation = failing(small)
    event = explanation.event
    assert event is not None
    assert event.arguments["device"] == "tablet_1"
    at = outcome.events.index(event)
    for count, verdict in ((at, "pass"), (at + 1, "safety")):
        beginning = replace(small, duration_s=outcome.events[count - 1].at_s + 0.001)
        assert simulate(beginning, outcome.seed, outcome.events[:count]).verdict in (verdict, "unknown")


def test_devices_with_the_same_writes_that_show_them_differently(small: Scenario, monkeypatch: Patch) -> None:
    """The moment they part is found, though no write is missing anywhere."""
    get = Engine.get

    def blurred(engine: Engine, *args: Any, **options: Any) -> object:
        record = get(engine, *args, **options)
        if record is not None and engine.name == "auditor" and "priority" in record.values:
            record.values["priority"] = "forgotten"
        return record

    monkeypatch.setattr(Engine, "get", blurred)
    outcome, explanation = failing(small)
    assert outcome.violations[0].rule == 1
    assert explanation.bad is not None
    assert "have the same writes and show them differently" in explanation.bad.what


def test_a_stuck_device_says_what_it_did_last(small: Scenario, monkeypatch: Patch) -> None:
    planted.never_send(monkeypatch, "tablet_1")
    outcome, explanation = failing(replace(small, settle_s=30.0))
    assert outcome.verdict == "liveness"
    assert explanation.bad is not None
    assert explanation.bad.node == "tablet_1"
    assert "did this last, and since then: outbox" in explanation.bad.what
    assert "waits for" in explanation.bad.what
    assert {cause.node for cause in explanation.causes} == {"tablet_1"}


def test_a_crash_says_what_happened_just_before(small: Scenario, monkeypatch: Patch) -> None:

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Engine, "conflicts", broken)
    outcome, explanation = failing(small)
    assert outcome.verdict == "crash"
    assert explanation.bad is not None
    assert explanation.bad.what == "ZeroDivisionError: planted"
    assert explanation.causes


def test_the_difference_has_every_device_and_only_fields_that_matter(
    small: Scenario, monkeypatch: Patch
) -> None:
    planted.drop_the_outbox(monkeypatch, "tablet_1")
    outcome, explanation = failing(small)
    body = to_json(outcome, explanation)
    assert json.loads(json.dumps(body)) == body
    table = body["differences"][0]["fields"]
    for cells in table.values():
        assert set(cells) == set(small.devices)
        assert len({json.dumps(cell, sort_keys=True) for cell in cells.values()}) > 1
    assert any(cell["writes"] for cells in table.values() for cell in cells.values())
    text = to_text(outcome, explanation, replay="crdt-sync simulate replay here")
    assert "field by field:" in text
    assert "first bad event:" in text
    assert text.rstrip().endswith("again         crdt-sync simulate replay here")


def test_all_invariants_are_named_with_how_they_fared(small: Scenario, monkeypatch: Patch) -> None:
    states = dict.fromkeys(INVARIANTS, "ok") | dict.fromkeys((4, 9, 10, 11), "not asked")
    passed = simulate(small, 1)
    assert {each.number: each.state for each in passed.invariants} == states
    assert "4  not asked  one holder of a checkout: nobody checked anything out" in to_text(passed)
    planted.never_send(monkeypatch, "tablet_1")
    stuck = next(
        o for o in (simulate(replace(small, settle_s=30.0), seed) for seed in range(1, 8)) if o.failed
    )
    fared = {each.number: each.state for each in stuck.invariants}
    assert fared == dict.fromkeys(INVARIANTS, "not asked") | {3: "ok", 7: "broken", 8: "ok"}


_RECOVERED = """
duration_s = 120
storage = "disk"
[devices]
office = "admin"
tablet = "field"
[records.wo]
values = {title = "Pump"}
[[at]]
s = 1
do = "offline"
device = "tablet"
for_s = 60
[[at]]
s = 10
do = "edit"
device = "tablet"
record = "wo"
set = {priority = "high", status = "assigned"}
[[at]]
s = 20
do = "power_cut"
node = "tablet"
for_s = 5
[[at]]
s = 90
do = "edit"
device = "tablet"
record = "wo"
set = {description = "sent at once"}
[[at]]
s = 100
do = "crash"
node = "tablet"
for_s = 5
"""


def test_recovered_counts_writes_that_were_unsent_when_power_went_and_are_everywhere_now() -> None:
    outcome = simulate(read_scenario(_RECOVERED, source="recovered.toml"), 1)
    assert outcome.verdict == "pass", outcome.violations
    # Two of the power cut. What was sent before the crash was never at risk.
    assert outcome.figures.writes_recovered == 2
    assert outcome.figures.writes_lost == 0


def test_recovered_counts_writes_of_a_store_put_back_and_not_those_that_went_with_the_disk() -> None:
    text = _RECOVERED.replace('storage = "disk"', "").replace(
        's = 20\ndo = "power_cut"\nnode = "tablet"\nfor_s = 5',
        's = 20\ndo = "backup"\nnode = "tablet"\n'
        '[[at]]\ns = 25\ndo = "edit"\ndevice = "tablet"\nrecord = "wo"\nset = {type = "here alone"}\n'
        '[[at]]\ns = 30\ndo = "restore_backup"\nnode = "tablet"',
    )
    figures = simulate(read_scenario(text, source="restored.toml"), 1).figures
    assert figures.writes_recovered == 2
    assert figures.writes_excused == 1


def test_conflicts_are_counted_as_settled_by_rule_resolved_by_people_or_open() -> None:
    apart = simulate(named("same_field_apart"), 1).figures
    assert (apart.conflicts_opened, apart.conflicts_settled) == (4, 3)
    assert (apart.conflicts_resolved, apart.conflicts_standing) == (0, 1)
    text = named("same_field_apart").text
    resolving = (
        '\n[[at]]\ns = 700\ndo = "resolve"\ndevice = "office"\nrecord = "wo1"\nfield = "root_cause"\n'
        'value = "both"\n[expect]\nopen_conflicts = 0\n'
    )
    text = text[: text.index("[expect]")].replace("duration_s = 300", "duration_s = 800") + resolving
    resolved = simulate(read_scenario(text, source="resolved.toml"), 1)
    assert resolved.verdict == "pass", resolved.violations
    assert resolved.figures.conflicts_resolved == 1
    assert resolved.figures.conflicts_standing == 0


def test_the_report_has_times_per_device_and_peaks_per_queue(small: Scenario) -> None:
    outcome = simulate(small, 1)
    assert set(outcome.figures.converged_s) == set(small.devices) == set(outcome.figures.peak_outbox)
    assert max(outcome.figures.peak_outbox.values()) > 0
    text = to_text(outcome)
    assert all(f"{name} " in text for name in small.devices)
    assert "frames waiting at the relay, outbox of" in text


def test_spans_are_told_in_sensible_units() -> None:
    assert [duration(span) for span in (0.25, 90, 605, 79_205, 604_800)] == [
        "0.25 s", "90 s", "10 min 5 s", "22 h", "7 d",
    ]  # fmt: skip


def test_a_run_that_is_another_one_when_repeated_is_not_explained(small: Scenario) -> None:
    outcome = simulate(small, 1)
    outcome.verdict, outcome.digest = "safety", "of another run"
    assert explain(outcome) is None


def test_reports_of_passing_runs_explain_nothing(tmp_path: Path, small: Scenario) -> None:
    body = to_json(simulate(small, 1))
    assert body["first_bad"] is None
    assert body["differences"] == []
    assert body["error"] == ""
