"""Runs of the real product: named scenarios pass, seeds reproduce, and every check bites on a planted bug."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crdt_sync_client.engine import Engine
from crdt_sync_sim import cli, commands
from crdt_sync_sim.case import read_case, write_case
from crdt_sync_sim.minimise import minimise
from crdt_sync_sim.run import QUIET_S, Outcome, Simulation, simulate
from crdt_sync_sim.scenario import Scenario, Scheduled, Workload
from crdt_sync_sim.scenario_file import load_scenario
from crdt_sync_sim.storage import Connection, DiskStorage
from tests.simulations.planted import forget_some_merges
from tests.simulations.shipped import named

SCENARIOS = sorted(commands.scenario_folder().glob("*.toml"))
MonkeyPatch = pytest.MonkeyPatch


def shown(outcome: Outcome) -> str:
    return "\n".join(map(str, outcome.violations)) + outcome.error


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_named_scenario_passes(path: Path) -> None:
    outcome = simulate(load_scenario(path), 1)
    assert outcome.verdict == "pass", shown(outcome)
    assert outcome.figures.acknowledged > 0


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "found").glob("*.toml")), ids=lambda path: path.stem
)
def test_what_the_simulator_found_stays_fixed(path: Path) -> None:
    outcome = simulate(load_scenario(path), load_scenario(path).seed)
    assert outcome.verdict == "pass", shown(outcome)


@pytest.fixture(scope="module")
def small() -> Scenario:
    """A short swarm: enough to meet every check, little enough to run often."""
    swarm = load_scenario(commands.scenario_folder() / "swarm.toml")
    return replace(swarm, duration_s=60.0, workload=Workload(40), faults=("partitions",), swarm=False)


def test_a_run_says_nothing_to_the_log_and_leaves_it_as_it_was(
    small: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    levels = [logging.getLogger(name).level for name in ("crdt_sync", "crdt_sync_server")]
    wipe = Scheduled(30, "wipe", {"node": "relay"})
    assert (
        simulate(small.with_events((wipe,)), 1).verdict == "pass"
    )  # each device warns that it has lost something
    assert caplog.text == ""
    assert [logging.getLogger(name).level for name in ("crdt_sync", "crdt_sync_server")] == levels


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_the_same_seed_gives_the_same_digest_in_another_process(storage: str) -> None:
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from crdt_sync_sim.run import simulate; from crdt_sync_sim.scenario_file import load_scenario\n"
        "scenario = replace(load_scenario(Path(sys.argv[1])), storage=sys.argv[2], duration_s=120.0)\n"
        "print(simulate(scenario, 5).digest)"
    )
    path = commands.scenario_folder() / "swarm.toml"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program, str(path), storage],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(digests) == 1


def test_another_seed_gives_another_run(small: Scenario) -> None:
    assert simulate(small, 1).digest != simulate(small, 2).digest


# Planted bugs, one per check


def planted(small: Scenario, rule: int, *, seeds: range = range(1, 6)) -> Outcome:
    for seed in seeds:
        outcome = simulate(small, seed)
        assert not outcome.error, outcome.error
        if any(violation.rule == rule for violation in outcome.violations):
            return outcome
    raise AssertionError(f"check {rule} did not see the planted bug")


def test_1_a_device_that_leaves_out_a_merge_is_seen(small: Scenario, monkeypatch: MonkeyPatch) -> None:
    forget_some_merges(monkeypatch)
    planted(small, 1)


def test_2_a_write_acknowledged_without_being_sent_is_seen(small: Scenario, monkeypatch: MonkeyPatch) -> None:
    next_push = Engine.next_push
    dropped: list[int] = []

    def forgetful(engine: Engine, space: Any, **limits: int) -> list[bytes]:
        db = engine._replica.db
        if not dropped and db.value("SELECT count(*) FROM outbox") and engine.name != "office":
            dropped.append(1)
            with engine._replica.transaction(durable=True):
                db.execute("DELETE FROM outbox")
        return next_push(engine, space, **limits)

    monkeypatch.setattr(Engine, "next_push", forgetful)
    planted(small, 2)


def test_3_text_in_the_clear_is_seen(small: Scenario, monkeypatch: MonkeyPatch) -> None:
    from crdt_sync.crypto import space_keys

    monkeypatch.setattr(space_keys.SealingKey, "encrypt", lambda self, nonce, plain, aad: plain + bytes(16))
    monkeypatch.setattr(space_keys.SealingKey, "decrypt", lambda self, nonce, cipher, aad: cipher[:-16])
    # Long payloads are compressed, short ones are not: one of them is enough.
    outcome = planted(small, 3)
    assert "readable bytes" in shown(outcome)


def test_5_a_push_that_is_taken_twice_is_seen(small: Scenario, monkeypatch: MonkeyPatch) -> None:
    from crdt_sync.protocol.frames import Row, RowKind
    from crdt_sync_server.effects import LiveRow
    from crdt_sync_server.spaces import Space

    append_update = Space.append_update

    def twice(space: Space, envelope: Any, now_ms: int) -> int:
        before, end = space.head, append_update(space, envelope, now_ms)
        if space.head == before:  # it was there already
            space._grown.append(LiveRow(Row(before, RowKind.UPDATE, envelope.raw), envelope.header.author))
        return end

    monkeypatch.setattr(Space, "append_update", twice)
    planted(small, 5)


def test_6_a_log_that_is_never_compacted_is_seen(small: Scenario, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "make_snapshots", lambda *_: [])
    monkeypatch.setattr("crdt_sync_sim.checks.SETTLED_TAIL", 4)
    planted(small, 6)


def test_7_a_device_that_never_sends_is_seen(small: Scenario, monkeypatch: MonkeyPatch) -> None:
    next_push = Engine.next_push
    started: list[int] = []

    def silent(engine: Engine, space: Any, **limits: int) -> list[bytes]:
        if engine.name.startswith("tablet"):
            return []
        started.append(1)
        return next_push(engine, space, **limits)

    monkeypatch.setattr(Engine, "next_push", silent)
    outcome = planted(replace(small, settle_s=30.0), 7)
    assert outcome.verdict == "liveness"


def test_nothing_acknowledged_is_unknown_and_a_bug_is_a_crash(
    small: Scenario, monkeypatch: MonkeyPatch
) -> None:
    assert simulate(replace(small, workload=None, faults=()), 1).verdict == "unknown"

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Engine, "write", broken)
    outcome = simulate(small, 1)
    assert outcome.verdict == "crash"
    assert "ZeroDivisionError: planted" in outcome.error


def test_a_power_cut_loses_what_a_relay_acknowledged_without_syncing(
    small: Scenario, monkeypatch: MonkeyPatch
) -> None:
    """The relay's durability is really tested: take it away and acknowledged writes are gone."""
    connect: Callable[[DiskStorage], Connection] = DiskStorage.connect

    def careless(storage: DiskStorage) -> Connection:
        connection = connect(storage)
        if storage._before_wal:
            connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr(DiskStorage, "connect", careless)
    scenario = replace(small, storage="disk", faults=("relay_power_cuts",), workload=Workload(120))
    outcomes = [simulate(scenario, seed) for seed in range(1, 7)]
    assert any(outcome.failed for outcome in outcomes)


# Cases and the command


def test_a_failing_run_is_kept_replayed_and_minimised(
    small: Scenario, monkeypatch: MonkeyPatch, tmp_path: Path
) -> None:
    forget_some_merges(monkeypatch)
    failing = next(o for o in (simulate(small, seed, keep_trace=True) for seed in range(1, 9)) if o.failed)
    case = write_case(failing, tmp_path)
    picture = (case / "timeline.svg").read_text()
    assert picture.startswith("<svg")
    assert "partition" in picture
    scenario, seed, events, digest = read_case(case)
    scenario = replace(scenario, duration_s=60.0, workload=Workload(40))
    assert simulate(scenario, seed, events).digest == digest == failing.digest
    smallest = minimise(failing, max_runs=40).outcome
    assert smallest.failed
    assert len(smallest.events) < len(failing.events)


def test_explore_minimises_each_new_kind_of_failure(
    small: Scenario, monkeypatch: MonkeyPatch, tmp_path: Path
) -> None:
    forget_some_merges(monkeypatch)
    monkeypatch.setattr(commands, "_load", lambda name, as_json: small)
    result = CliRunner().invoke(
        cli.simulate,
        ["explore", "--minutes", "0.01", "--minimise", "3", "--out", str(tmp_path), "--json"],
    )
    assert result.exit_code == 10
    first = json.loads(result.output.splitlines()[0])
    assert first["events"] < first["minimised_from"]
    _, _, events, digest = read_case(Path(first["case"]))
    assert len(events) == first["events"]
    kinds = len(json.loads(result.output.splitlines()[-1])["failures"])
    assert len(list(tmp_path.iterdir())) == kinds, "one case of each kind"
    assert digest == first["digest"]


def test_what_is_checked_in_the_middle_of_a_story_bites(tmp_path: Path) -> None:
    path = tmp_path / "look.toml"
    path.write_text(_LOOK)
    assert simulate(load_scenario(path), 1).verdict == "pass"
    for right, wrong in (("= {}, site", "= {B = {}}, site"), ("pending = 1", "pending = 0")):
        path.write_text(_LOOK.replace(right, wrong))
        outcome = simulate(load_scenario(path), 1)
        assert outcome.verdict == "safety"
        assert "look.toml:25: at 40 s" in shown(outcome)


_LOOK = """
[devices]
office = "admin"
tablet = "field"
[records.wo1]
values = {title = "Pump", tags = ["old"], parts_used = {A = {qty = 1}}}
[[at]]
s = 5
do = "offline"
device = "tablet"
for_s = 60
[[at]]
s = 20
do = "edit"
device = "tablet"
record = "wo1"
add = {tags = "new"}
clear = ["parts_used.A", "description"]
[[at]]
s = 21
do = "edit"
device = "tablet"
record = "wo1"
set = {site_id = "north"}
[[at]]
s = 40
do = "check"
device = "tablet"
record = "wo1"
shows = {tags = ["old", "new"], parts_used = {}, site_id = "north"}
pending = 1
"""


def test_the_command_tells_by_its_exit_code() -> None:
    runner = CliRunner()
    good = runner.invoke(cli.simulate, ["run", "delete_against_edit"])
    assert good.exit_code == 0
    assert "PASS" in good.output
    several = runner.invoke(cli.simulate, ["run", "delete_against_edit", "--seeds", "1..3", "--json"])
    assert several.output.count('"verdict": "pass"') == 3
    shared = runner.invoke(cli.simulate, ["run", "delete_against_edit", "--seeds", "1..2", "--jobs", "2"])
    assert "2 runs" in shared.output
    assert shared.exit_code == 0
    listed = runner.invoke(cli.simulate, ["ls"])
    assert "reconnect_storm" in listed.output


def test_a_bad_scenario_is_exit_2_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[devices]\noffice = "boss"\n')
    result = CliRunner().invoke(cli.simulate, ["run", str(path)])
    assert result.exit_code == 2
    assert f"{path}:2: there is no role 'boss'" in result.output


def test_a_world_lets_go_of_its_databases(small: Scenario) -> None:
    simulation = Simulation(replace(small, storage="disk"), 1)
    simulation.prologue()
    simulation.discard()
    storage = simulation.relay.storage
    assert isinstance(storage, DiskStorage)
    assert storage.disk._vfs is None


@pytest.mark.parametrize(("busy_s", "verdict"), [(1, "pass"), (10_000, "liveness")])
def test_what_begins_in_the_quiet_time_may_end_and_not_go_on_for_ever(
    monkeypatch: pytest.MonkeyPatch, busy_s: int, verdict: str
) -> None:
    converged, first_us = Simulation.converged, [0]

    def busy_again(self: Simulation) -> bool:
        if not self.healed_us or not converged(self):
            return converged(self)
        first_us[0] = first_us[0] or self.world.now_us
        since_s = (self.world.now_us - first_us[0]) / 1_000_000
        return not QUIET_S <= since_s < QUIET_S + busy_s

    monkeypatch.setattr(Simulation, "converged", busy_again)
    assert simulate(named("offline_edit"), 1).verdict == verdict
