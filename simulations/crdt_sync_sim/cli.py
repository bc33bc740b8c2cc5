"""`crdt-sync simulate`: run, replay, minimise and explore scenarios.

Exit codes: 0 everything passed, 2 a scenario that cannot be read, 10 a safety rule was broken, 11 devices did
not converge, 12 a crash or nondeterminism, 13 nothing was acknowledged, so nothing was shown. Of several runs
the first failing one decides. What the commands do is in `commands`, loaded when one runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import click

_DEFAULT_OUT: Final = "sim-cases"
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
_case_argument = click.argument(
    "case", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="CASE"
)


class SeedRange(click.ParamType[range]):
    """`A..B`, both included."""

    name = "A..B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> range:
        first, _, last = str(value).partition("..")
        try:
            found = range(int(first), int(last or first) + 1)
        except ValueError:
            found = range(0)
        if not found:
            self.fail(f"{value!r} is not a range of seeds such as 1..100", param, ctx)
        return found


def _commands() -> ModuleType:
    """The implementation, which needs apsw for the simulated disk."""
    try:
        import apsw  # noqa: F401  (only whether it is there)
    except ImportError:
        click.echo("error: the simulator needs the package apsw. pip install 'crdt-sync[simulate]'", err=True)
        sys.exit(1)
    from crdt_sync_sim import commands

    return commands


def _example(*lines: str) -> str:
    """An epilog that click does not wrap."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


@click.group(
    epilog="Exit codes: 0 passed, 2 bad scenario, 10 safety, 11 liveness, 12 crash or nondeterminism, "
    "13 unknown (nothing was acknowledged)."
)
def simulate() -> None:
    """Put devices and a relay through a scenario in virtual time, reproducibly."""


@simulate.command(epilog=_example("crdt-sync simulate run week_away --seeds 1..20 --jobs 2"))
@click.argument("scenario")
@click.option("--seed", type=int, help="The seed of the one run; the scenario's own by default.")
@click.option("--seeds", type=SeedRange(), help="Run every seed of a range.")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Processes to use.")
@click.option("--storage", type=click.Choice(["memory", "disk"]), help="Override the scenario's storage.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write a case folder for every failing run here."
)
@click.option(
    "--check-determinism", is_flag=True, help="Run each seed twice, in two processes; compare digests."
)
@click.option("--timeline", type=click.Path(path_type=Path), help="Write a picture of the (first) run here.")
@_json_option
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
    """Run SCENARIO, a file or the name of one that ships."""
    _commands().run(scenario, seed, seeds, jobs, storage, as_json, out, check_determinism, timeline)


@simulate.command(epilog=_example("crdt-sync simulate replay sim-cases/swarm-37"))
@_case_argument
@_json_option
def replay(case: Path, as_json: bool) -> None:
    """Run the events of a CASE folder again and say whether it ends as it did."""
    _commands().replay(case, as_json)


@simulate.command(epilog=_example("crdt-sync simulate minimise sim-cases/swarm-37"))
@_case_argument
@click.option("--runs", type=click.IntRange(1), default=400, help="Runs to spend at most.")
@_json_option
def minimise(case: Path, runs: int, as_json: bool) -> None:
    """Leave out events of a CASE for as long as it fails in the same way; the result replaces its events."""
    _commands().minimise(case, runs, as_json)


@simulate.command(epilog=_example("crdt-sync simulate explore --minutes 10"))
@click.option("--minutes", type=click.FloatRange(min=0.01), default=1.0, help="How long to go on.")
@click.option("--scenario", "name", default="swarm", help="The scenario to draw from.")
@click.option("--from", "first", type=int, default=1, help="The first seed.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(_DEFAULT_OUT), help="Where failing cases go."
)
@click.option(
    "--minimise-runs",
    type=click.IntRange(0),
    default=100,
    help="Runs to spend at most on minimising each new kind of failure, beyond the minutes; 0: do not.",
)
@_json_option
def explore(minutes: float, name: str, first: int, out: Path, minimise_runs: int, as_json: bool) -> None:
    """Try seed after seed; keep each new kind of failure as a minimised case."""
    _commands().explore(minutes, name, first, out, minimise_runs, as_json)


@simulate.command(epilog=_example("crdt-sync simulate ls --json"))
@_json_option
def ls(as_json: bool) -> None:
    """List the scenarios that ship."""
    _commands().ls(as_json)
