"""Scenario files: what is wrong in one is said with its line."""

from __future__ import annotations

import pytest

from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.scenario import FAULTS, NOT_SURVIVED
from crdt_sync_sim.scenario_file import ScenarioError, load_scenario, read_scenario
from crdt_sync_sim.toml_lines import parse

GOOD = """\
title = "Good"
schemas = ["work_order"]
duration_s = 60

[devices]
office = "admin"
tablet = "field"

[records.wo1]
values = {title = "Swap bucket"}

[[at]]
s = 10
do = "offline"
device = "tablet"
for_s = 5

[[at]]
s = 5
do = "edit"
device = "tablet"
record = "wo1"
set = {status = "assigned", "parts_used.A.qty" = 2}

[[expect.field]]
record = "wo1"
field = "status"
value = "assigned"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        read_scenario(text, source="s.toml")
    return [str(problem) for problem in caught.value.problems]


def test_a_good_file_is_read_with_its_events_in_order() -> None:
    scenario = read_scenario(GOOD, source="s.toml")
    assert [event.action for event in scenario.events] == ["edit", "offline"]
    assert [event.line for event in scenario.events] == [18, 12]
    assert scenario.founder == "office"
    assert scenario.expect.fields[0].has_value


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('tablet = "field"', 'tablet = "feild"', "s.toml:7: there is no role 'feild'"),
        ('office = "admin"', 'office = "office"', "s.toml:5: one device must be an admin"),
        (
            'do = "offline"',
            'do = "ofline"',
            "s.toml:14: there is no action 'ofline'; did you mean 'offline'?",
        ),
        ('device = "tablet"\nfor_s', 'device = "tabelt"\nfor_s', "s.toml:15: there is no device 'tabelt'"),
        ("for_s = 5", "for_s = -5", "s.toml:16: for_s cannot be negative"),
        ("for_s = 5", 'for_s = "5"', "s.toml:16: for_s is a number"),
        ("for_s = 5", "fors = 5", "s.toml:16: offline has no 'fors'; did you mean 'for_s'?"),
        ("s = 10", "s = 100", "s.toml:12: this is after the end of the story, 60 s"),
        ('record = "wo1"\nset', 'record = "wo2"\nset', "s.toml:22: there is no record 'wo2'"),
        ('status = "assigned", ', 'status = "asigned", ', "s.toml:23: status:"),
        ("parts_used.A.qty", "parts_usd.A.qty", "s.toml:23: parts_usd"),
        ('field = "status"', 'field = "stauts"', "s.toml:27: stauts"),
        ("duration_s = 60", "duration_s = 60\nspeed = 3", "s.toml:4: a scenario has no 'speed'"),
        ('schemas = ["work_order"]', 'schemas = ["work_ordre"]', "s.toml:2: there is no schema file"),
        ("duration_s = 60", "duration_s = ", "s.toml:3: Invalid value"),
        ("[records.wo1]", 'faults = ["losses"]', "s.toml:9: "),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert any(problem.startswith(expected) for problem in problems(GOOD.replace(old, new, 1)))


def test_everything_wrong_is_told_at_once() -> None:
    text = GOOD.replace('"field"\n\n', '"feild"\n\n').replace("for_s = 5", "for_s = true")
    assert len(problems(text)) >= 2


def test_what_does_not_exist_yet_has_its_place_and_says_so() -> None:
    text = GOOD + '\n[[at]]\ns = 1\ndo = "revoke"\ndevice = "office"\nof = "tablet"\n'
    assert problems(text) == [
        "s.toml:32: revoke cannot be simulated yet: this version of the product does not have it"
    ]


def test_all_faults_are_those_that_the_product_survives() -> None:
    scenario = read_scenario(GOOD.replace("duration_s = 60", 'faults = "all"'), source="s.toml")
    assert set(scenario.faults) == set(FAULTS) - NOT_SURVIVED


def test_lines_of_keys_in_tables_arrays_and_across_lines() -> None:
    text = 'a = [\n  "]",\n  # ]\n]\nb.c = """\n[x]\n"""\n[t]\nd = 1\n'
    text += '[[l]]\ne = 1\n[[l]]\n"f g" = {h = 1}\n[l.m]\nn = 1\n'
    _, lines = parse(text)
    assert lines.line("a") == 1
    assert lines.line("b", "c") == 5
    assert lines.line("t", "d") == 9
    assert lines.line("l", 0, "e") == 11
    assert lines.line("l", 1, "f g", "h") == 13
    assert lines.line("l", 1, "m", "n") == 15
    assert lines.line("nowhere") == 1


def test_every_scenario_that_ships_is_good() -> None:
    files = sorted(scenario_folder().glob("*.toml"))
    assert len(files) >= 12
    for path in files:
        assert load_scenario(path).title


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("", "an edit needs one of set, add, remove, count, clear"),
        ('add = {tags = "a"}\nremove = {tags = "b"}', "tags stands in two parts of one edit"),
        ('add = {title = "a"}', "title is not a set"),
        ("count = {cost = 1}", "cost is not a counter"),
        ('clear = ["tittle"]', "title"),
        ('clear = "title"', "clear is a list of fields"),
        ("add = {tags = 5}", "tags"),
    ],
)
def test_what_is_wrong_in_an_edit_is_said_with_its_line(edit: str, message: str) -> None:
    wrong = GOOD.replace('set = {status = "assigned", "parts_used.A.qty" = 2}', edit)
    with pytest.raises(ScenarioError) as caught:
        read_scenario(wrong, source="x")
    assert caught.value.problems[0].line in range(18, 25)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('point = "push_of_two"', "there is no rare point 'push_of_two'; did you mean 'push_of_one'?"),
        ('point = "push_of_one"\nshare = 2', "share is a share, from 0 to 1"),
        ("share = 0.5", "rare needs point"),
    ],
)
def test_what_is_wrong_with_a_rare_point_is_said(arguments: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(f'{GOOD}\n[[at]]\ndo = "rare"\n{arguments}\n'))
