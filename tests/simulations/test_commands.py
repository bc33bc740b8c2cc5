"""The command `crdt-sync simulate`, as people and programs meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdt_sync_client.cli.main import cli as root
from crdt_sync_sim import cli, commands
from crdt_sync_sim.scenario import Workload
from crdt_sync_sim.scenario_file import load_scenario
from tests.simulations import planted

Patch = pytest.MonkeyPatch


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.simulate, list(arguments))


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def small(monkeypatch: Patch) -> None:
    """Whatever scenario is named, it is a short one in which partitions happen."""
    load = load_scenario

    def shorter(path: Path) -> Any:
        found = load(path)
        return replace(found, duration_s=60.0, workload=Workload(40), faults=("partitions",), swarm=False)

    monkeypatch.setattr(commands, "load_scenario", shorter)


def test_one_run_as_json_is_one_line_with_stable_keys() -> None:
    result = run("run", "same_field_apart", "--json")
    assert result.exit_code == 0
    (report,) = lines(result)
    assert set(report) == {
        "scenario", "source", "seed", "verdict", "digest", "figures", "invariants", "violations", "first_bad",
        "differences", "error", "events",
    }  # fmt: skip


def test_several_runs_as_json_are_a_line_each_and_a_summary() -> None:
    result = run("run", "same_field_apart", "--seeds", "1..3", "--json")
    *reports, summary = lines(result)
    assert [report["seed"] for report in reports] == [1, 2, 3]
    assert summary["summary"]["verdicts"] == {"pass": 3}
    assert summary["summary"]["exit_code"] == 0
    assert summary["summary"]["failed_seeds"] == []


def test_the_seed_of_a_single_run_is_the_option_or_the_scenarios_own(tmp_path: Path) -> None:
    path = tmp_path / "seven.toml"
    path.write_text('seed = 7\n[devices]\noffice = "admin"\n[workload]\noperations = 1\n')
    assert [report["seed"] for report in lines(run("run", str(path), "--json"))] == [7]
    assert [report["seed"] for report in lines(run("run", str(path), "--seed", "3", "--json"))] == [3]
    assert [report["seed"] for report in lines(run("run", str(path), "--seed", "0", "--json"))] == [0]


def test_a_failing_run_names_one_command_to_see_it_again(
    small: None, monkeypatch: Patch, tmp_path: Path
) -> None:
    planted.drop_the_outbox(monkeypatch, "tablet_1")
    result = run("run", "swarm", "--seeds", "1..3", "--out", str(tmp_path), "--json")
    assert result.exit_code == 10
    *reports, summary = lines(result)
    report = next(report for report in reports if report["verdict"] == "safety")
    assert report["replay"] == f"crdt-sync simulate replay {report['case']}"
    assert report["first_bad"]["moment"]["node"] == "tablet_1"
    assert report["seed"] in summary["summary"]["failed_seeds"]
    again = run("replay", report["case"], "--json")
    assert again.exit_code == 10
    assert lines(again)[0]["same"] is True
    small_case = run("minimise", report["case"], "--json")
    (minimised,) = lines(small_case)
    assert minimised["case"] == report["case"]
    assert minimised["events"] < report["events"]
    assert minimised["minimised"]["did"][0].startswith("events: ")
    text = run("minimise", report["case"])
    assert "minimised     in" in text.stdout
    assert "first bad event" in text.stdout


def test_bad_scenarios_and_cases_end_with_2_and_an_error_object(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[devices]\noffice = "boss"\n')
    result = run("run", str(path), "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    *told, last = result.stderr.splitlines()
    assert told[0].startswith("error: ")
    assert f"{path}:2: there is no role 'boss'" in told[-1]
    error = json.loads(last)["error"]
    assert error["code"] == "bad_scenario"
    assert [problem["line"] for problem in error["problems"]] == [1, 2]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("replay", str(empty)).exit_code == 2
    assert json.loads(run("minimise", str(empty), "--json").stderr.splitlines()[-1])["error"]["problems"]


def test_without_apsw_every_command_says_what_to_install(monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "apsw", None)
    for command in (["run", "swarm"], ["ls"], ["explore"]):
        result = CliRunner().invoke(root, ["simulate", *command, "--json"])
        assert result.exit_code == 1
        text, body = result.stderr.splitlines()
        assert text == "error: the simulator needs the package apsw. pip install apsw"
        assert json.loads(body)["error"]["code"] == "not_installed"


def test_seed_and_seeds_exclude_each_other() -> None:
    result = CliRunner().invoke(
        root, ["simulate", "run", "swarm", "--seed", "1", "--seeds", "1..2", "--json"]
    )
    assert result.exit_code == 2
    assert json.loads(result.stderr.splitlines()[-1])["error"]["code"] == "usage"


def test_the_short_help_fits_80_columns() -> None:
    for arguments in (["--help"], ["simulate", "--help"]):
        result = CliRunner().invoke(root, arguments, terminal_width=80)
        listed = result.output[result.output.index("Commands:") :]
        assert "..." not in listed.split("\n\n")[0]


def test_progress_is_for_people_on_standard_error_only(tmp_path: Path) -> None:
    """In a pipe there is none, and standard output is the answer alone."""
    result = run("run", "same_field_apart", "--seeds", "1..2")
    assert result.stderr == ""
    assert result.stdout.startswith("2 runs in ")


_DEADLY = """
import os, sys
from crdt_sync_sim.actor import Actor
act = Actor.act
def deadly(actor, event):
    if actor._sim.seed == 2 and event.action == "edit":
        os._exit(9)
    act(actor, event)
Actor.act = deadly
"""


def test_a_run_that_kills_its_process_does_not_end_the_others(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_DEADLY)
    command = [
        sys.executable, "-m", "crdt_sync_client.cli", "simulate", "run", "same_field_apart",
        "--seeds", "1..4", "--jobs", "2", "--json", "--out", str(tmp_path / "cases"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ":".join([str(tmp_path), *sys.path])}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 12, result.stderr
    *reports, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert {report["seed"]: report["verdict"] for report in reports} == {
        1: "pass", 2: "crash", 3: "pass", 4: "pass",
    }  # fmt: skip
    died = next(report for report in reports if report["verdict"] == "crash")
    assert "the run took its process with it; the last event that was begun: 30s edit" in died["error"]
    assert summary["summary"]["failed_seeds"] == [2]
    assert (tmp_path / "cases" / "same_field_apart-2" / "journal.jsonl").exists()
