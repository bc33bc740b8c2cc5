"""The folder that keeps a run: what is needed to see it again, and what there is to say about it.

    scenario.toml    the scenario's text
    case.json        seed, verdict, digest, and what this case changes of the scenario (when it was minimised)
    journal.jsonl    every event, written before it was acted out: the last is where a dead process stopped
    report.txt, report.json, timeline.svg, trace.txt
    test_case.py     the failing run as a test, ready to be copied

The journal, `scenario.toml` and `case.json` are there from the beginning of a run, so that a run which kills
its process or never ends leaves a case that can be replayed. The rest comes when the run has failed. A run
that passed leaves nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from crdt_sync_sim.causes import Explanation
from crdt_sync_sim.plan import plan
from crdt_sync_sim.report import event_json, to_json, to_text
from crdt_sync_sim.run import Outcome, simulate
from crdt_sync_sim.scenario import Scenario, Scheduled
from crdt_sync_sim.scenario_file import Problem, ScenarioError, read_scenario
from crdt_sync_sim.timeline import timeline

CASE_FORMAT: Final = 1
UNFINISHED: Final = "unfinished"
"""The verdict of a case whose run has not ended, or never did."""


def case_path(folder: Path, scenario: Scenario, seed: int) -> Path:
    """Where the case of that run is."""
    return folder / f"{Path(scenario.source).stem}-{seed}"


class Journal:
    """Writes each event down before it happens. Use as a context manager."""

    def __init__(self, case: Path) -> None:
        self._path = case / "journal.jsonl"
        self._file: IO[str]

    def __enter__(self) -> Journal:
        self._file = self._path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def before(self, event: Scheduled) -> None:
        """Flushed before it returns: whatever the event does to this process, it is on record."""
        self._file.write(json.dumps(event_json(event)) + "\n")
        self._file.flush()


def read_journal(case: Path) -> list[Scheduled]:
    """The events that were begun. A last line that was cut short is left out."""
    found = []
    for line in (case / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            found.append(_event(json.loads(line)))
        except ValueError:
            break
    return found


def journalled(
    scenario: Scenario, seed: int, folder: Path, *, keep_trace: bool = True, remember: bool | None = None
) -> Outcome:
    """Run it with its case in `folder`, which is gone afterwards if the run passed and the case was new."""
    case = case_path(folder, scenario, seed)
    new = not case.exists()
    events = plan(scenario, seed)
    case.mkdir(parents=True, exist_ok=True)
    _write_basis(case, scenario, seed, events, verdict=UNFINISHED, digest="")
    with Journal(case) as journal:
        outcome = simulate(
            scenario, seed, events, keep_trace=keep_trace, before=journal.before, remember=remember
        )
    if not outcome.failed:
        if new:
            shutil.rmtree(case)
        else:
            write_case(outcome, folder)
    return outcome


def forget_case(folder: Path, scenario: Scenario, seed: int) -> None:
    """Remove the case of that run, if there is one."""
    shutil.rmtree(case_path(folder, scenario, seed), ignore_errors=True)


def write_case(
    outcome: Outcome, folder: Path, explanation: Explanation | None = None, *, name: str = ""
) -> Path:
    """Put the case into a folder of its own under `folder`; gives its path. `name`: not the usual one."""
    case = folder / name if name else case_path(folder, outcome.scenario, outcome.seed)
    case.mkdir(parents=True, exist_ok=True)
    _write_basis(
        case, outcome.scenario, outcome.seed, outcome.events, verdict=outcome.verdict, digest=outcome.digest
    )
    if outcome.digest:
        # A run that ended has begun all its events; of one that did not, the journal says how far it came.
        with Journal(case) as journal:
            for event in outcome.events:
                journal.before(event)
    text = to_text(outcome, explanation, replay=replay_command(case))
    (case / "report.txt").write_text(text, encoding="utf-8")
    report = json.dumps(to_json(outcome, explanation), indent=1, ensure_ascii=False)
    (case / "report.json").write_text(report, encoding="utf-8")
    if outcome.trace:
        (case / "trace.txt").write_text("\n".join(map(str, outcome.trace)) + "\n", encoding="utf-8")
        (case / "timeline.svg").write_text(timeline(outcome, explanation), encoding="utf-8")
    test_name = "".join(char if char.isalnum() else "_" for char in case.name)
    (case / "test_case.py").write_text(_TEST.format(name=test_name), encoding="utf-8")
    return case


def replay_command(case: Path) -> str:
    """The one command that shows the failure again."""
    return f"crdt-sync simulate replay {case}"


def read_case(folder: Path) -> tuple[Scenario, int, tuple[Scheduled, ...], str]:
    """Scenario, seed, events and digest of a case folder; no digest where the run never ended.

    Raises ScenarioError.
    """
    try:
        body = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        text = (folder / "scenario.toml").read_text(encoding="utf-8")
        events = tuple(map(_event, body["events"]))
        seed, source, digest = int(body["seed"]), str(body["source"]), str(body["digest"])
        changes = dict(body.get("changes", {}))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ScenarioError([Problem(str(folder), 1, f"is not a case folder: {exc}")]) from None
    scenario = read_scenario(text, source=source, folder=Path(source).parent)
    return _changed(scenario, changes), seed, events, digest


def _write_basis(
    case: Path, scenario: Scenario, seed: int, events: tuple[Scheduled, ...], *, verdict: str, digest: str
) -> None:
    (case / "scenario.toml").write_text(scenario.text, encoding="utf-8")
    body = {
        "format": CASE_FORMAT,
        "source": scenario.source,
        "seed": seed,
        "verdict": verdict,
        "digest": digest,
        "changes": {
            "devices": list(scenario.devices),
            "storage": scenario.storage,
            "duration_s": scenario.duration_s,
            "settle_s": scenario.settle_s,
        },
        "events": [event_json(event) for event in events],
    }
    (case / "case.json").write_text(json.dumps(body, indent=1), encoding="utf-8")


def _changed(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    names = changes.get("devices", list(scenario.devices))
    scenario = with_devices(scenario, [name for name in scenario.devices if name in names])
    return replace(
        scenario,
        storage="disk" if changes.get("storage", scenario.storage) == "disk" else "memory",
        duration_s=float(changes.get("duration_s", scenario.duration_s)),
        settle_s=float(changes.get("settle_s", scenario.settle_s)),
    )


def with_devices(scenario: Scenario, names: list[str]) -> Scenario:
    """The same scenario with these devices alone: the founder, who makes what others made, is among them."""
    records = tuple(
        spec if spec.by in names else replace(spec, by=scenario.founder) for spec in scenario.records
    )
    return replace(scenario, devices={name: scenario.devices[name] for name in names}, records=records)


def _event(body: Mapping[str, Any]) -> Scheduled:
    return Scheduled(float(body["s"]), str(body["do"]), body["with"], int(body["line"]))


_TEST: Final = '''"""A failing run, kept as a test. Copy the folder beside it."""

from pathlib import Path

from crdt_sync_sim.case import read_case
from crdt_sync_sim.run import simulate


def test_{name}() -> None:
    scenario, seed, events, _ = read_case(Path(__file__).parent)
    outcome = simulate(scenario, seed, events)
    assert outcome.verdict == "pass", "\\n".join(map(str, outcome.violations)) or outcome.error
'''
