"""What the `simulate` commands do. Loaded when one of them runs, so that `crdt-sync --help` stays fast."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from crdt_sync_sim.case import forget_case, journalled, read_case, replay_command, write_case
from crdt_sync_sim.causes import Explanation, explain
from crdt_sync_sim.complaints import complain
from crdt_sync_sim.many import digest_elsewhere, outcomes, with_storage
from crdt_sync_sim.minimise import Minimised
from crdt_sync_sim.minimise import minimise as minimise_outcome
from crdt_sync_sim.report import to_json, to_text
from crdt_sync_sim.run import Outcome
from crdt_sync_sim.run import simulate as run_once
from crdt_sync_sim.scenario import EXIT_CODES, Scenario, Scheduled
from crdt_sync_sim.scenario_file import ScenarioError, load_scenario
from crdt_sync_sim.timeline import timeline as draw
from crdt_sync_sim.watching import Watching

_DEFAULT_OUT: Final = "sim-cases"
_EVENTS_SHOWN: Final = 20
_KINDS_EXPLAINED: Final = 3
"""Of many runs, the first of each of so many kinds of failure is explained; `replay` explains any other."""


def scenario_folder() -> Path:
    """Where the named scenarios are: in a checkout beside the package, in a wheel inside it."""
    package = Path(__file__).resolve().parent
    inside = package / "scenarios"
    return inside if inside.is_dir() else package.parent / "scenarios"


def _load(name: str, *, as_json: bool) -> Scenario:
    path = Path(name)
    if not path.exists() and "/" not in name:
        path = scenario_folder() / f"{name.removesuffix('.toml')}.toml"
    try:
        return load_scenario(path)
    except ScenarioError as exc:
        _bad_scenario(exc, as_json=as_json)


def _load_case(case: Path, *, as_json: bool) -> tuple[Scenario, int, tuple[Scheduled, ...], str]:
    try:
        return read_case(case)
    except ScenarioError as exc:
        _bad_scenario(exc, as_json=as_json)


def _bad_scenario(error: ScenarioError, *, as_json: bool) -> NoReturn:
    problems = [{"source": p.source, "line": p.line, "message": p.message} for p in error.problems]
    complain("bad_scenario", str(error), problems=problems, as_json=as_json)
    sys.exit(EXIT_CODES["bad_scenario"])


def run(
    scenario: str,
    seed: int | None,
    seeds: range | None,
    jobs: int,
    storage: str | None,
    as_json: bool,
    out: Path | None,
    check_determinism: bool,
    timeline: Path | None,
    no_memo: bool,
) -> None:
    """Run a scenario, a file or the name of one that ships."""
    loaded = _load(scenario, as_json=as_json)
    if storage:
        loaded = with_storage(loaded, storage)
    first = loaded.seed if seed is None else seed
    chosen = seeds or range(first, first + 1)
    keep_trace = out is not None or timeline is not None
    tally = _Tally(several=len(chosen) > 1, as_json=as_json, out=out)
    with Watching("runs", len(chosen), enabled=len(chosen) > 1) as watching:
        made = outcomes(
            loaded, chosen, jobs=jobs, out=out, keep_trace=keep_trace, remember=False if no_memo else None
        )
        for outcome in made:
            if check_determinism and digest_elsewhere(loaded, outcome.seed) != outcome.digest:
                outcome.verdict, outcome.error = "crash", "Nondeterminism: the same seed gave another digest"
            explanation = tally.take(outcome, watching)
            if timeline is not None and tally.runs == 1:
                timeline.write_text(draw(outcome, explanation), encoding="utf-8")
            watching.update(tally.runs, tally.note)
    if len(chosen) > 1:
        tally.conclude()
    sys.exit(tally.code)


class _Tally:
    """What came of many runs, told one by one and in the end."""

    def __init__(self, *, several: bool, as_json: bool, out: Path | None) -> None:
        self.runs = 0
        self.code = 0
        self._several = several
        self._as_json = as_json
        self._out = out
        self._verdicts = Counter[str]()
        self._kinds = Counter[str]()
        self._failed_seeds: list[int] = []
        self._started_s = time.perf_counter()

    @property
    def note(self) -> str:
        failed = len(self._failed_seeds)
        return f"({failed} failed)" if failed else ""

    def take(self, outcome: Outcome, watching: Watching) -> Explanation | None:
        """Count an outcome and tell of it. Gives the explanation, where one was made."""
        self.runs += 1
        self._verdicts[outcome.verdict] += 1
        self.code = self.code or EXIT_CODES[outcome.verdict]
        explanation = None
        if outcome.failed:
            self._failed_seeds.append(outcome.seed)
            self._kinds[outcome.kind] += 1
            if self._kinds[outcome.kind] == 1 and len(self._kinds) <= _KINDS_EXPLAINED:
                explanation = explain(outcome)
        case, replay = "", ""
        if outcome.failed:
            source, seed = outcome.scenario.source, outcome.seed
            replay = f"crdt-sync simulate run {source} --seed {seed} --out {_DEFAULT_OUT}"
            if self._out is not None:
                folder = write_case(outcome, self._out, explanation)
                case, replay = str(folder), replay_command(folder)
        if self._as_json:
            where = {"case": case or None, "replay": replay} if outcome.failed else {}
            watching.say(json.dumps({**to_json(outcome, explanation), **where}))
        elif outcome.failed or not self._several:
            watching.say(to_text(outcome, explanation, replay=replay, case=case).rstrip("\n"))
        return explanation

    def conclude(self) -> None:
        """One line for all of them."""
        spent_s = time.perf_counter() - self._started_s
        if self._as_json:
            summary = {
                "runs": self.runs,
                "real_s": round(spent_s, 3),
                "verdicts": dict(sorted(self._verdicts.items())),
                "kinds": dict(self._kinds),
                "failed_seeds": self._failed_seeds,
                "exit_code": self.code,
            }
            click.echo(json.dumps({"summary": summary}))
            return
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(self._verdicts.items()))
        click.echo(f"{self.runs} runs in {spent_s:.1f} s ({self.runs / spent_s:.1f}/s): {counts}")
        if self._failed_seeds:
            shown = ", ".join(map(str, self._failed_seeds[:_EVENTS_SHOWN]))
            click.echo(f"failed seeds: {shown}{', …' if len(self._failed_seeds) > _EVENTS_SHOWN else ''}")


def replay(case: Path, as_json: bool) -> None:
    """Run the events of a case folder again and say whether it ends as it did."""
    scenario, seed, events, digest = _load_case(case, as_json=as_json)
    outcome = run_once(scenario, seed, events, keep_trace=True)
    explanation = explain(outcome)
    if not digest:
        compared = "the run that left this case never ended"
    elif outcome.digest == digest:
        compared = "the same run"
    else:
        compared = "not the same run: the code or the case changed"
    if as_json:
        same = outcome.digest == digest if digest else None
        click.echo(json.dumps({**to_json(outcome, explanation), "same": same, "case": str(case)}))
    else:
        click.echo(to_text(outcome, explanation), nl=False)
        click.echo(f"  compared      {compared}")
    sys.exit(EXIT_CODES[outcome.verdict])


def minimise(case: Path, seconds: float, runs: int | None, as_json: bool) -> None:
    """Make a case smaller for as long as it fails in the same way."""
    scenario, seed, events, _ = _load_case(case, as_json=as_json)
    failing = run_once(scenario, seed, events)
    if not failing.failed:
        click.echo("this case passes now; there is nothing to minimise", err=as_json)
        if as_json:
            click.echo(json.dumps(to_json(failing)))
        return
    small, explanation, folder = _minimised(failing, seconds, runs, case.parent, name=case.name)
    if as_json:
        told = {"case": str(folder), "minimised": _minimised_json(small)}
        click.echo(json.dumps({**to_json(small.outcome, explanation), **told}))
    else:
        click.echo(to_text(small.outcome, explanation, replay=replay_command(folder)), nl=False)
        click.echo(_minimised_text(small))


def _minimised(
    failing: Outcome, seconds: float, runs: int | None, out: Path, *, name: str = "", quiet: bool = False
) -> tuple[Minimised, Explanation | None, Path]:
    """The smallest failing form that was found, and the case folder it is in now."""
    began_s = time.monotonic()
    with Watching("minimising, seconds", round(seconds), enabled=not quiet) as watching:

        def tell(made: int, left: int) -> None:
            watching.update(round(time.monotonic() - began_s), f"({made} runs, {left} events left)")

        small = minimise_outcome(failing, seconds=seconds, max_runs=runs, progress=tell)
    best = small.outcome
    small.outcome = run_once(best.scenario, best.seed, best.events, keep_trace=True)
    explanation = explain(small.outcome)
    return small, explanation, write_case(small.outcome, out, explanation, name=name)


def _minimised_json(small: Minimised) -> dict[str, Any]:
    return {"runs": small.runs, "finished": small.finished, "did": small.did}


def _minimised_text(small: Minimised) -> str:
    end = "nothing more can be left out" if small.finished else "time or runs were used up"
    lines = [
        f"  minimised     in {small.runs} runs, {end}",
        *(f"    {line}" for line in small.did),
        "  events",
    ]
    events = small.outcome.events
    lines += [f"    {event}" for event in events[:_EVENTS_SHOWN]]
    if len(events) > _EVENTS_SHOWN:
        lines.append(f"    and {len(events) - _EVENTS_SHOWN} more")
    return "\n".join(lines)


def explore(minutes: float, name: str, first: int, out: Path, minimise_s: float, as_json: bool) -> None:
    """Try seed after seed; keep each new kind of failure, as small as `minimise_s` seconds make it."""
    loaded = _load(name, as_json=as_json)
    began_s = time.monotonic()
    kinds = Counter[str]()
    seed, code = first, 0
    with Watching("exploring, seconds", round(minutes * 60)) as watching:
        while time.monotonic() - began_s < minutes * 60:
            outcome = journalled(loaded, seed, out, keep_trace=False)
            if outcome.failed:
                forget_case(out, loaded, seed)
                kinds[outcome.kind] += 1
                code = code or EXIT_CODES[outcome.verdict]
                if kinds[outcome.kind] == 1:
                    watching.say(_kept(outcome, minimise_s, out, as_json=as_json))
            seed += 1
            spent_s = round(time.monotonic() - began_s)
            watching.update(spent_s, f"({seed - first} runs, {kinds.total()} failed)")
    if as_json:
        click.echo(json.dumps({"runs": seed - first, "failures": dict(kinds)}))
    else:
        click.echo(f"{seed - first} runs; {len(kinds)} kinds of failure in {kinds.total()} runs")
    sys.exit(code)


def _kept(failing: Outcome, minimise_s: float, out: Path, *, as_json: bool) -> str:
    """Keep a case of it, minimised unless there is no time for that, and say so."""
    runs = None if minimise_s else 0
    small, explanation, folder = _minimised(failing, minimise_s, runs, out, quiet=True)
    if as_json:
        told = {
            "kind": failing.kind,
            "minimised_from": len(failing.events),
            "minimised": _minimised_json(small),
            "case": str(folder),
        }
        return json.dumps({**to_json(small.outcome, explanation), **told})
    text = to_text(small.outcome, explanation, replay=replay_command(folder))
    return f"{text}{_minimised_text(small)}"


def ls(as_json: bool) -> None:
    """List the scenarios that ship."""
    found: dict[str, str] = {}
    for path in sorted(scenario_folder().glob("*.toml")):
        try:
            found[path.stem] = load_scenario(path).title
        except ScenarioError as exc:
            found[path.stem] = str(exc.problems[0])
    if as_json:
        click.echo(json.dumps([{"name": name, "title": title} for name, title in found.items()]))
        return
    for name, title in found.items():
        click.echo(f"{name:<28} {title}")
