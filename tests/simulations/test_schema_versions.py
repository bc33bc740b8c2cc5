"""Versions of schemas in simulated stories: what the checks see when taking them up goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crdt_sync_client.engine import record_types
from crdt_sync_client.engine.record_types import RecordTypes, Remaking
from crdt_sync_sim.case import read_case, write_case
from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scenario
from crdt_sync_sim.scenario_file import ScenarioError, read_scenario

STORY = """\
title = "Only the office works on sheets from now on"
schemas = ["sheet.yaml", "sheet_entry.yaml"]
versions = ["sheet_2.yaml", "sheet_3.yaml"]
duration_s = 200

[devices]
office = "admin"
boss = "supervisor"
tablet = "field"

[records.pump]
type = "sheet"
values = {title = "Pump 4", owner_name = "Ada"}

[records.valve]
type = "sheet"
values = {title = "Valve 9", owner_name = "Cem"}

[[at]]
s = 5
do = "offline"
device = "tablet"
for_s = 100

[[at]]
s = 10
do = "edit"
device = "tablet"
record = "pump"
set = {owner_name = "Ben"}

[[at]]
s = 20
do = "schema"
device = "office"
type = "sheet"
version = 3

[[at]]
s = 110
do = "sync"
device = "tablet"

[[expect.field]]
record = "pump"
field = "person_in_charge"
value = "Ben"

[[expect.field]]
record = "valve"
field = "person_in_charge"
value = "Cem"
"""


def story(text: str = STORY) -> Scenario:
    return read_scenario(text, source="story.toml", folder=scenario_folder())


def told(outcome: Outcome) -> str:
    return "\n".join(map(str, outcome.violations)) + outcome.error


def test_work_done_before_a_role_lost_the_right_is_taken() -> None:
    outcome = simulate(story(), 1)
    assert outcome.verdict == "pass", told(outcome)


def test_rights_that_shrink_are_seen_to_lose_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if only the newest version counted in what comes from others."""
    monkeypatch.setattr(record_types, "granted", lambda values: None)
    outcome = simulate(story(), 1)
    assert any(violation.rule == 2 for violation in outcome.violations), told(outcome)


def test_records_that_are_not_made_anew_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(types: RecordTypes, db: Any, change: Any) -> None:
        types.keep(db, change.type, Remaking())

    monkeypatch.setattr(RecordTypes, "note", forgetful)
    outcome = simulate(story(), 1)
    assert {violation.rule for violation in outcome.violations} == {0, 1}, told(outcome)


def test_a_version_that_is_not_there_is_said_with_its_line() -> None:
    with pytest.raises(ScenarioError) as bad:
        story(STORY.replace("version = 3", "version = 4"))
    assert [(each.line, each.message) for each in bad.value.problems] == [
        (32, "there is no version 'sheet 4'; did you mean 'sheet 3'?")
    ]


def test_values_may_fit_any_version_that_is_there() -> None:
    story(STORY.replace('set = {owner_name = "Ben"}', 'set = {person_in_charge = "Ben"}'))
    with pytest.raises(ScenarioError, match="has no field 'nobody'"):
        story(STORY.replace('set = {owner_name = "Ben"}', 'set = {nobody = "Ben"}'))


def test_a_case_is_read_with_its_versions(tmp_path: Path) -> None:
    outcome = simulate(story(), 1)
    case = write_case(outcome, tmp_path)
    body = (case / "case.json").read_text().replace('"story.toml"', f'"{scenario_folder()}/story.toml"')
    (case / "case.json").write_text(body)
    scenario, seed, events, digest = read_case(case)
    assert [(each.type, each.version) for each in scenario.versions] == [("sheet", 2), ("sheet", 3)]
    assert simulate(scenario, seed, events).digest == digest
