"""Devices that are not there all the time: wiped ones, newcomers, and apps of another version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import InviteUsed
from crdt_sync_client.engine import Engine
from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scheduled, Workload
from crdt_sync_sim.scenario_file import ScenarioError, read_scenario
from crdt_sync_sim.timeline import timeline
from tests.simulations.shipped import named

HEAD = """
duration_s = 100
[devices]
office = "admin"
tablet = "field"
[records.wo1]
values = {title = "Pump"}
"""


def shown(outcome: Outcome) -> str:
    return "\n".join(map(str, outcome.violations)) + outcome.error


def problems(events: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        read_scenario(HEAD + events, source="s.toml")
    return [str(problem) for problem in caught.value.problems]


def event(at_s: float, action: str, **arguments: Any) -> str:
    lines = "".join(f"{name} = {value!r}\n" for name, value in arguments.items())
    return f'[[at]]\ns = {at_s}\ndo = "{action}"\n{lines}'


# What a file may say


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (event(1, "join", device="tablet"), "tablet is in the space already; only who was wiped joins again"),
        (event(1, "join", device="other"), "join needs role: other has not had one before"),
        (event(1, "join", device="other", role="feild"), "there is no role 'feild'; did you mean 'field'?"),
        (event(1, "join", device="relay", role="field"), "device is the name of a device"),
        (event(1, "wipe", node="office"), "office is the only admin: nobody could invite it again"),
        (
            event(9, "join", device="other", role="field") + event(5, "sync", device="other"),
            "there is no device 'other'",
        ),
        (event(1, "version", device="tablet"), "version needs speaks"),
    ],
)
def test_what_is_wrong_about_who_is_there_is_said(events: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(events)), problems(events)


def test_who_joined_can_be_spoken_of_and_wiped_and_joins_again() -> None:
    scenario = read_scenario(
        HEAD
        + event(5, "join", device="other", role="supervisor")
        + event(20, "edit", device="other", record="wo1")
        + 'set = {priority = "high"}\n'
        + event(40, "wipe", node="other")
        + event(50, "join", device="other")
        + event(70, "check", device="other", record="wo1")
        + 'shows = {priority = "high"}\n',
        source="s.toml",
    )
    assert list(scenario.devices) == ["office", "tablet"]
    outcome = simulate(scenario, 1)
    assert outcome.verdict == "pass", shown(outcome)
    assert list(outcome.figures.converged_s) == ["office", "tablet", "other"]


# What a wipe excuses


def test_a_wipe_excuses_what_only_the_wiped_device_had(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = simulate(named("wiped_tablet"), 1)
    assert outcome.verdict == "pass", shown(outcome)
    assert outcome.figures.writes_excused == 2  # a priority and a tag, never sent

    def nothing(device: DeviceNode) -> Iterator[Any]:
        return iter(())

    monkeypatch.setattr(DeviceNode, "unsent_writes", nothing)
    outcome = simulate(named("wiped_tablet"), 1)
    assert {violation.rule for violation in outcome.violations} == {2}


def test_who_does_not_join_again_is_not_waited_for() -> None:
    scenario = named("wiped_tablet")
    without = tuple(one for one in scenario.events if one.action in ("edit", "wipe") and one.at_s < 500)
    outcome = simulate(replace(scenario, expect=type(scenario.expect)()), 1, without)
    assert outcome.verdict == "pass", shown(outcome)
    assert list(outcome.figures.converged_s) == ["office", "boss"]


# Planted bugs


def test_a_newcomer_that_leaves_something_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Engine.receive

    def forgetful(engine: Engine, space: Any, rows: Any, cursor: int, **more: Any) -> Any:
        return receive(engine, space, rows[:-1] if engine.name == "tablet" else rows, cursor, **more)

    monkeypatch.setattr(Engine, "receive", forgetful)
    outcome = simulate(named("first_launch"), 1)
    assert 1 in {violation.rule for violation in outcome.violations}


def test_who_never_gets_in_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    join_from_log = Engine.join_from_log

    def refusing(engine: Engine, *given: Any) -> Any:
        if engine.name == "tablet":
            raise InviteUsed("planted")
        return join_from_log(engine, *given)

    monkeypatch.setattr(Engine, "join_from_log", refusing)
    outcome = simulate(replace(named("first_launch"), settle_s=60.0), 1)
    assert outcome.verdict == "liveness", shown(outcome)
    assert "tablet has not joined; planted" in shown(outcome)


# Versions


@pytest.mark.parametrize("speaks", [0, 2])
def test_another_version_is_told_and_loses_nothing(speaks: int, tmp_path: Path) -> None:
    text = (scenario_folder() / "version_behind.toml").read_text()
    outcome = simulate(read_scenario(text.replace("speaks = 0", f"speaks = {speaks}"), source="s.toml"), 1)
    assert outcome.verdict == "pass", shown(outcome)


def test_a_check_of_what_keeps_a_device_from_syncing_bites() -> None:
    text = (scenario_folder() / "version_behind.toml").read_text()
    outcome = simulate(read_scenario(text.replace('problem = "version"', 'problem = "none"'), source="s"), 1)
    assert "what keeps tablet from syncing is version: the relay speaks protocol version 1" in shown(outcome)


# Shown


def test_the_picture_has_a_lane_for_who_joins() -> None:
    picture = timeline(simulate(named("newcomer_on_a_bad_network"), 1, keep_trace=True))
    assert ">volunteer<" in picture
    assert "joined the space" in picture


# Drawn


@pytest.mark.parametrize("fault", ["wipes", "joins", "version_skew"])
def test_swarms_pass_with_each(fault: Any) -> None:
    swarm = named("swarm")
    scenario = replace(
        swarm, duration_s=120.0, workload=Workload(60), swarm=False, faults=(fault, "partitions")
    )
    for seed in range(1, 4):
        outcome = simulate(scenario, seed)
        assert outcome.verdict == "pass", shown(outcome)


def test_a_run_with_newcomers_is_the_same_again() -> None:
    scenario = replace(
        named("swarm"), duration_s=60.0, workload=Workload(40), swarm=False, faults=("joins", "wipes")
    )
    assert simulate(scenario, 3).digest == simulate(scenario, 3).digest
    assert any(isinstance(one, Scheduled) and one.action == "join" for one in simulate(scenario, 3).events)
