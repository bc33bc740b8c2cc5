"""What people and programs get to read about a run, and the folder that keeps a failing one.

A case folder holds everything to see the failure again: the scenario's text, the events of the run, the
report, the trace, the timeline, and a test that is ready to be copied into a test suite.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from crdt_sync_sim.run import Outcome
from crdt_sync_sim.scenario import Scenario, Scheduled
from crdt_sync_sim.scenario_file import Problem, ScenarioError, read_scenario
from crdt_sync_sim.timeline import timeline

CASE_FORMAT: Final = 1


def to_json(outcome: Outcome) -> dict[str, Any]:
    """The whole report as JSON values."""
    return {
        "scenario": outcome.scenario.title,
        "source": outcome.scenario.source,
        "seed": outcome.seed,
        "verdict": outcome.verdict,
        "digest": outcome.digest,
        "figures": asdict(outcome.figures),
        "violations": [
            {"rule": violation.rule, "message": violation.message, "details": list(violation.details)}
            for violation in outcome.violations
        ],
        "error": outcome.error,
        "events": len(outcome.events),
    }


def to_text(outcome: Outcome, *, replay: str = "") -> str:
    """The report for people."""
    return "\n".join(_lines(outcome, replay)) + "\n"


def _lines(outcome: Outcome, replay: str) -> Iterator[str]:
    figures = outcome.figures
    yield f"{outcome.scenario.title}, seed {outcome.seed}: {outcome.verdict.upper()}"
    yield f"  time          {figures.virtual_s:,.0f} s simulated in {figures.real_s:.2f} s"
    given = ", ".join(f"{count} × {name}" for name, count in figures.delivered.items())
    yield f"  faults        {given or 'none'}"
    yield (
        f"  writes        {figures.acknowledged} acknowledged, {figures.refused} refused by rule,"
        f" {figures.failed} failed, {_lost(outcome)} lost"
        + (f", {figures.excused} gone with a restored disk" if figures.excused else "")
    )
    yield (
        f"  conflicts     {figures.conflicts_opened} seen, {figures.conflicts_resolved} resolved,"
        f" {figures.conflicts_standing} open"
    )
    times = [took for took in figures.converged_s.values() if took is not None]
    if times and len(times) == len(figures.converged_s):
        slowest = max(figures.converged_s, key=lambda name: figures.converged_s[name] or 0)
        yield f"  converged     {max(times):.1f} s after healing, {slowest} last"
    yield (
        f"  network       {figures.messages} messages, {figures.bytes:,} bytes, {figures.connections}"
        f" connections, {figures.retransmitted} retransmissions, {figures.corrupted} corrupted,"
        f" {figures.replayed} replayed"
    )
    yield (
        f"  peaks         {figures.peak_in_flight_bytes:,} bytes in flight,"
        f" {figures.peak_relay_frames} frames waiting"
    )
    if figures.power_cuts:
        yield (
            f"  disks         {figures.power_cuts} power cuts, {figures.sectors_lost:,} unsynced sectors lost"
        )
    yield f"  digest        {outcome.digest}"
    for violation in outcome.violations:
        yield f"  {violation}"
    if outcome.error:
        yield from (f"  {line}" for line in outcome.error.strip().splitlines())
    if replay:
        yield f"  again:        {replay}"


def _lost(outcome: Outcome) -> int:
    return len({detail for v in outcome.violations if v.rule == 2 for detail in v.details})


def write_case(outcome: Outcome, folder: Path, minimised: tuple[Scheduled, ...] | None = None) -> Path:
    """Put the case into a folder of its own under `folder`, and give its path."""
    case = folder / f"{Path(outcome.scenario.source).stem}-{outcome.seed}"
    case.mkdir(parents=True, exist_ok=True)
    (case / "scenario.toml").write_text(outcome.scenario.text, encoding="utf-8")
    body = {
        "format": CASE_FORMAT,
        "source": outcome.scenario.source,
        "seed": outcome.seed,
        "verdict": outcome.verdict,
        "digest": outcome.digest,
        "events": [_event_json(event) for event in minimised or outcome.events],
    }
    (case / "case.json").write_text(json.dumps(body, indent=1), encoding="utf-8")
    (case / "report.txt").write_text(to_text(outcome), encoding="utf-8")
    (case / "report.json").write_text(json.dumps(to_json(outcome), indent=1), encoding="utf-8")
    if outcome.trace:
        (case / "trace.txt").write_text("\n".join(map(str, outcome.trace)) + "\n", encoding="utf-8")
        (case / "timeline.svg").write_text(timeline(outcome), encoding="utf-8")
    (case / "test_case.py").write_text(_TEST.format(name=case.name.replace("-", "_")), encoding="utf-8")
    return case


def read_case(folder: Path) -> tuple[Scenario, int, tuple[Scheduled, ...], str]:
    """Scenario, seed, events and digest of a case folder. Raises ScenarioError."""
    try:
        body = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        text = (folder / "scenario.toml").read_text(encoding="utf-8")
        events = tuple(
            Scheduled(float(event["s"]), str(event["do"]), event["with"], int(event["line"]))
            for event in body["events"]
        )
        seed, source, digest = int(body["seed"]), str(body["source"]), str(body["digest"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ScenarioError([Problem(str(folder), 1, f"is not a case folder: {exc}")]) from None
    return read_scenario(text, source=source, folder=Path(source).parent), seed, events, digest


def _event_json(event: Scheduled) -> dict[str, Any]:
    return {"s": event.at_s, "do": event.action, "with": dict(event.arguments), "line": event.line}


_TEST: Final = '''"""A failing run, kept as a test. Copy the folder beside it."""

from pathlib import Path

from crdt_sync_sim.report import read_case
from crdt_sync_sim.run import simulate


def test_{name}() -> None:
    scenario, seed, events, _ = read_case(Path(__file__).parent)
    outcome = simulate(scenario, seed, events)
    assert outcome.verdict == "pass", "\\n".join(map(str, outcome.violations)) or outcome.error
'''
