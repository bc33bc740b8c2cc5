"""Case folders: journalled before events run, replayed, minimised; and the picture in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from crdt_sync_sim.actor import Actor
from crdt_sync_sim.case import case_path, journalled, read_case, read_journal, with_devices, write_case
from crdt_sync_sim.causes import explain, failure_of
from crdt_sync_sim.minimise import minimise
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scenario, Scheduled
from crdt_sync_sim.timeline import clock, timeline
from tests.simulations import planted
from tests.simulations.shipped import named, small_swarm

Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def small() -> Scenario:
    return small_swarm()


def failing(scenario: Scenario) -> Outcome:
    return next(o for o in (simulate(scenario, seed, keep_trace=True) for seed in range(1, 8)) if o.failed)


# Cases


def test_every_event_is_in_the_journal_before_it_is_acted_out(
    small: Scenario, monkeypatch: Patch, tmp_path: Path
) -> None:
    act = Actor.act
    case = case_path(tmp_path, small, 1)
    seen: list[Scheduled] = []

    def checked(actor: Actor, event: Scheduled) -> None:
        seen.append(event)
        assert read_journal(case) == seen
        act(actor, event)

    monkeypatch.setattr(Actor, "act", checked)
    outcome = journalled(small, 1, tmp_path)
    assert outcome.verdict == "pass", outcome.error
    assert len(seen) == len(outcome.events)
    assert not case.exists(), "a run that passed leaves nothing"


def test_a_run_that_kills_its_process_leaves_a_case_that_can_be_replayed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from crdt_sync_client.engine import Engine\n"
        "from crdt_sync_sim.cli import simulate\n"
        "write = Engine.write\n"
        "def deadly(engine, *operations, **more):\n"
        "    return os._exit(9) if engine.name == 'boss' else write(engine, *operations, **more)\n"
        "Engine.write = deadly\n"
        "simulate(['run', 'same_field_apart', '--out', sys.argv[1]])"
    )
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, env=_environment())
    assert died.returncode == 9
    case = tmp_path / "same_field_apart-1"
    last = read_journal(case)[-1]
    assert (last.action, last.arguments["device"]) == ("edit", "boss")
    scenario, seed, events, digest = read_case(case)
    assert (seed, digest) == (1, "")
    assert simulate(scenario, seed, events).verdict == "pass", "without the planted bug it runs on"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ":".join(sys.path)}


def test_a_case_holds_everything_and_its_test_is_ready(
    small: Scenario, monkeypatch: Patch, tmp_path: Path
) -> None:
    # The edit of one device is never sent: a bug that a process of its own can have too.
    scenario = replace(named("same_field_apart"), settle_s=20.0)
    outcome = simulate(scenario, 1, keep_trace=True)
    assert outcome.verdict == "liveness", "twenty seconds are not enough after a backoff of minutes"
    case = write_case(outcome, tmp_path, explain(outcome))
    assert {path.name for path in case.iterdir()} == {
        "scenario.toml", "case.json", "journal.jsonl", "report.txt", "report.json", "trace.txt",
        "timeline.svg", "test_case.py",
    }  # fmt: skip
    assert tuple(read_journal(case)) == outcome.events
    assert f"again         crdt-sync simulate replay {case}" in (case / "report.txt").read_text()
    again, seed, events, digest = read_case(case)
    assert again.settle_s == 20.0
    assert simulate(again, seed, events).digest == digest == outcome.digest
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", str(case)],
        capture_output=True, text=True, check=False, env=_environment(), cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "not converged 20 s after everything healed" in ran.stdout


# Minimising


def test_minimising_leaves_out_events_devices_and_time_and_keeps_the_kind(
    small: Scenario, monkeypatch: Patch, tmp_path: Path
) -> None:
    planted.drop_the_outbox(monkeypatch, "tablet_1")
    before = failing(small)
    told: list[tuple[int, int]] = []
    found = minimise(before, seconds=600, progress=lambda runs, left: told.append((runs, left)))
    after = found.outcome
    assert found.finished
    assert failure_of(after) == failure_of(before)
    assert len(after.events) <= 3 < len(before.events)
    assert set(after.scenario.devices) < set(small.devices)
    assert after.scenario.duration_s < small.duration_s
    assert after.scenario.settle_s < small.settle_s
    assert told[-1] == (found.runs, len(after.events))
    assert found.did[0] == f"events: {len(before.events)} to {len(after.events)}"
    assert any(line.startswith("devices: 5 to") for line in found.did)
    scenario, seed, events, digest = read_case(write_case(after, tmp_path))
    assert simulate(scenario, seed, events).digest == digest, "the small case stands alone"


def test_minimising_stops_when_its_time_is_up(small: Scenario, monkeypatch: Patch) -> None:
    planted.drop_the_outbox(monkeypatch, "tablet_1")
    before = failing(small)
    found = minimise(before, seconds=0.0)
    assert (found.runs, found.finished) == (0, False)
    assert found.outcome is before
    assert minimise(before, seconds=600, max_runs=5).runs == 5


def test_an_expectation_that_fails_for_another_reason_is_not_the_same_failure() -> None:
    wrong = named("same_field_apart").text.replace('value = "on_hold"', 'value = "completed"')
    from crdt_sync_sim.scenario_file import read_scenario

    before = simulate(read_scenario(wrong, source="wrong.toml"), 1)
    assert before.verdict == "safety"
    after = minimise(before, seconds=600).outcome
    assert any("on_hold" in violation.message for violation in after.violations)
    assert any(event.action == "edit" and event.arguments["device"] == "boss" for event in after.events)


def test_a_scenario_without_a_device_gives_its_records_to_the_founder() -> None:
    scenario = named("shift_change")
    fewer = with_devices(scenario, ["office", "tablet"])
    assert list(fewer.devices) == ["office", "tablet"]
    assert all(spec.by == "office" for spec in fewer.records)


# The picture


def texts(svg: str) -> list[ET.Element]:
    return [element for element in ET.fromstring(svg).iter() if element.tag.endswith("}text")]


def words(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in texts(svg)]


@pytest.mark.parametrize(
    ("name", "seed"), [("same_field_apart", 1), ("shift_change", 1), ("swarm", 3), ("swarm", 5)]
)
def test_the_picture_shows_lanes_bands_and_marks_and_no_label_lies_on_another(name: str, seed: int) -> None:
    outcome = simulate(named(name), seed, keep_trace=True)
    svg = timeline(outcome)
    said = words(svg)
    assert said[0].startswith(outcome.scenario.title)
    assert said[0].endswith("PASS")
    for lane in ("relay", *outcome.scenario.devices):
        assert lane in said
    assert {"operation acknowledged", "everything heals", "pushed"} <= set(said)
    assert_no_overlaps(svg)


def assert_no_overlaps(svg: str) -> None:
    boxes = []
    for element in texts(svg):
        text = "".join(element.itertext())
        size = 9.5 if "font-size:17px" in element.get("style", "") else 6.3
        width, x, y = len(text) * size, float(element.get("x", "0")), float(element.get("y", "0"))
        x -= {"end": width, "middle": width / 2}.get(element.get("text-anchor", ""), 0)
        boxes.append((x, x + width, y, text))
    for number, (left, right, y, text) in enumerate(boxes):
        assert right < 1290, f"{text!r} leaves the picture"
        for other_left, other_right, other_y, other in boxes[:number]:
            apart = right <= other_left or other_right <= left or abs(y - other_y) >= 9
            assert apart, f"{text!r} lies on {other!r}"


def test_the_picture_of_a_failing_run_marks_the_first_bad_event(small: Scenario, monkeypatch: Patch) -> None:
    planted.drop_the_outbox(monkeypatch, "tablet_1")
    outcome = failing(small)
    svg = timeline(outcome, explain(outcome, seconds_to_spend=60))
    said = words(svg)
    assert said[0].endswith("FAILED: safety")
    assert any(text.startswith("first bad event: ") for text in said)
    assert any(text.startswith("it went wrong: ") for text in said)
    assert_no_overlaps(svg)


def test_bands_say_who_was_cut_off_and_who_was_down() -> None:
    svg = timeline(simulate(named("shift_change"), 1, keep_trace=True))
    said = words(svg)
    assert {"apart", "down", "cut off from the relay", "not running", "power cut"} <= set(said)
    assert re.search(r"<title>3600s offline device=&#x27;tablet&#x27;", svg)


def test_the_axis_has_the_unit_that_fits_its_steps() -> None:
    assert [clock(30, 5), clock(90, 30), clock(600, 60), clock(5_400, 1_800)] == [
        "30 s", "1:30 min", "10 min", "1:30 h",
    ]  # fmt: skip
    assert [clock(7_200, 7_200), clock(108_000, 21_600), clock(172_800, 86_400)] == ["2 h", "1 d 6 h", "2 d"]
