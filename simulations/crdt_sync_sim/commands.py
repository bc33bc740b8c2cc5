"""What the `simulate` commands do. Loaded when one of them runs, so that `crdt-sync --help` stays fast."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from crdt_sync_sim.minimise import minimise as minimise_outcome
from crdt_sync_sim.report import read_case, to_json, to_text, write_case
from crdt_sync_sim.run import Outcome
from crdt_sync_sim.run import simulate as run_once
from crdt_sync_sim.scenario import EXIT_CODES, Scenario
from crdt_sync_sim.scenario_file import ScenarioError, load_scenario

_DEFAULT_OUT: Final = "sim-cases"
_EVENTS_SHOWN: Final = 20


def scenario_folder() -> Path:
    """Where the named scenarios are: in a checkout beside the package, in a wheel inside it."""
    package = Path(__file__).resolve().parent
    inside = package / "scenarios"
    return inside if inside.is_dir() else package.parent / "scenarios"


def _load(name: str) -> Scenario:
    path = Path(name)
    if not path.exists() and "/" not in name:
        path = scenario_folder() / f"{name.removesuffix('.toml')}.toml"
    try:
        return load_scenario(path)
    except ScenarioError as exc:
        click.echo(str(exc), err=True)
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
) -> None:
    """Run a scenario, a file or the name of one that ships."""
    loaded = _load(scenario)
    if storage:
        loaded = _with_storage(loaded, storage)
    chosen = seeds or range(seed if seed is not None else loaded.seed, (seed or loaded.seed) + 1)
    if seed is not None:
        chosen = range(seed, seed + 1)
    keep = out is not None or timeline is not None
    code, verdicts, started_s = 0, Counter[str](), time.perf_counter()
    for number, outcome in enumerate(_outcomes(loaded, chosen, jobs, keep), 1):
        if check_determinism and _digest_elsewhere(loaded, outcome.seed) != outcome.digest:
            outcome.verdict, outcome.error = "crash", "nondeterminism: the same seed gave another digest"
        verdicts[outcome.verdict] += 1
        _show(outcome, as_json, several=len(chosen) > 1, out=out)
        if timeline is not None and number == 1:
            from crdt_sync_sim.timeline import timeline as draw

            timeline.write_text(draw(outcome), encoding="utf-8")
        code = code or EXIT_CODES[outcome.verdict]
        if len(chosen) > 1 and not as_json and sys.stderr.isatty():
            click.echo(f"\r{number}/{len(chosen)}", nl=False, err=True)
    if len(chosen) > 1 and not as_json:
        spent_s = time.perf_counter() - started_s
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        click.echo(f"{len(chosen)} runs in {spent_s:.1f} s ({len(chosen) / spent_s:.1f}/s): {counts}")
    sys.exit(code)


def _with_storage(scenario: Scenario, storage: str) -> Scenario:
    return replace(scenario, storage="disk" if storage == "disk" else "memory")


def _show(outcome: Outcome, as_json: bool, *, several: bool, out: Path | None) -> None:
    replay = ""
    if outcome.failed and out is not None:
        replay = f"crdt-sync simulate replay {write_case(outcome, out)}"
    elif outcome.failed:
        replay = (
            f"crdt-sync simulate run {outcome.scenario.source} --seed {outcome.seed} --out {_DEFAULT_OUT}"
        )
    if as_json:
        click.echo(json.dumps(to_json(outcome)))
    elif outcome.failed or not several:
        click.echo(to_text(outcome, replay=replay), nl=False)


def _outcomes(scenario: Scenario, seeds: Iterable[int], jobs: int, keep: bool) -> Iterator[Outcome]:
    if jobs == 1:
        yield from (run_once(scenario, seed, keep_trace=keep) for seed in seeds)
        return
    named = [(scenario.source, scenario.storage, seed, keep) for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for outcome in pool.imap(_named_task, named, chunksize=4):
            yield replace(outcome, scenario=scenario)


_loaded: dict[tuple[str, str], Scenario] = {}


def _named_task(task: tuple[str, str, int, bool]) -> Outcome:
    """In a worker. Compiled schemas do not travel between processes: each loads its own, once."""
    source, storage, seed, keep = task
    if (source, storage) not in _loaded:
        _loaded[source, storage] = _with_storage(load_scenario(Path(source)), storage)
    outcome = run_once(_loaded[source, storage], seed, keep_trace=keep)
    return replace(outcome, scenario=replace(outcome.scenario, schemas={}))


def _digest_elsewhere(scenario: Scenario, seed: int) -> str:
    """The digest of the run in a fresh process, whose hashes are salted differently."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_digest, (scenario.source, scenario.storage, seed))


def _digest(source: str, storage: str, seed: int) -> str:
    return run_once(_with_storage(load_scenario(Path(source)), storage), seed).digest


def replay(case: Path, as_json: bool) -> None:
    """Run the events of a case folder again and say whether it ends as it did."""
    try:
        scenario, seed, events, digest = read_case(case)
    except ScenarioError as exc:
        click.echo(str(exc), err=True)
        sys.exit(EXIT_CODES["bad_scenario"])
    outcome = run_once(scenario, seed, events, keep_trace=True)
    _show(outcome, as_json, several=False, out=None)
    if not as_json:
        same = (
            "the same run" if outcome.digest == digest else "not the same run: the code or the case changed"
        )
        click.echo(f"  compared      {same}")
    sys.exit(EXIT_CODES[outcome.verdict])


def minimise(case: Path, runs: int, as_json: bool) -> None:
    """Leave out events of a case for as long as it fails in the same way."""
    try:
        scenario, seed, events, _ = read_case(case)
    except ScenarioError as exc:
        click.echo(str(exc), err=True)
        sys.exit(EXIT_CODES["bad_scenario"])
    failing = run_once(scenario, seed, events)
    if not failing.failed:
        click.echo("this case passes now; there is nothing to minimise", err=as_json)
        if as_json:
            click.echo(json.dumps(to_json(failing)))
        return

    def tell(made: int, left: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{made} runs, {left} events left ", nl=False, err=True)

    best = minimise_outcome(failing, max_runs=runs, progress=tell)
    if sys.stderr.isatty():
        click.echo("", err=True)
    shown = run_once(scenario, seed, best.events, keep_trace=True)
    folder = write_case(shown, case.parent)
    if as_json:
        click.echo(json.dumps({**to_json(shown), "case": str(folder)}))
        return
    click.echo(to_text(shown, replay=f"crdt-sync simulate replay {folder}"), nl=False)
    for event in shown.events:
        click.echo(f"  {event}")


def explore(minutes: float, name: str, first: int, out: Path, minimise_runs: int, as_json: bool) -> None:
    """Try seed after seed; keep each new kind of failure, with as few events as `minimise_runs` find."""
    loaded = _load(name)
    deadline_s = time.monotonic() + minutes * 60
    kinds: dict[str, int] = {}
    seed, code = first, 0
    while time.monotonic() < deadline_s:
        outcome = run_once(loaded, seed)
        if outcome.failed and outcome.kind not in kinds:
            kept, folder = _kept(outcome, minimise_runs, out)
            if as_json:
                found = {"kind": outcome.kind, "minimised_from": len(outcome.events), "case": str(folder)}
                click.echo(json.dumps({**to_json(kept), **found}))
            else:
                click.echo(to_text(kept, replay=f"crdt-sync simulate replay {folder}"), nl=False)
                click.echo(f"  minimised     {len(outcome.events)} events to {len(kept.events)}")
                for event in kept.events[:_EVENTS_SHOWN]:
                    click.echo(f"    {event}")
            code = code or EXIT_CODES[outcome.verdict]
        if outcome.failed:
            kinds[outcome.kind] = kinds.get(outcome.kind, 0) + 1
        seed += 1
        if sys.stderr.isatty():
            click.echo(f"\r{seed - first} runs, {sum(kinds.values())} failures", nl=False, err=True)
    if as_json:
        click.echo(json.dumps({"runs": seed - first, "failures": kinds}))
    else:
        click.echo(f"{seed - first} runs; {len(kinds)} kinds of failure in {sum(kinds.values())} runs")
    sys.exit(code)


def _kept(failing: Outcome, max_runs: int, out: Path) -> tuple[Outcome, Path]:
    """The smallest failing form that was found, and the case folder it is in now."""
    best = minimise_outcome(failing, max_runs=max_runs) if max_runs else failing
    kept = run_once(failing.scenario, failing.seed, best.events, keep_trace=True)
    return kept, write_case(kept, out)


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
