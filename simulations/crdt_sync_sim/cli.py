"""`crdt-sync simulate`: run, replay, minimise and explore scenarios.

Exit codes: 0 everything passed, 2 a scenario that cannot be read, 10 a safety rule was broken, 11 devices did
not converge, 12 a crash or nondeterminism, 13 nothing was acknowledged, so nothing was shown. Of several runs
the first failing one decides. What the commands do is in `commands`, loaded when one runs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final

import click

from crdt_sync_client.cli import failures
from crdt_sync_client.cli.command import Command, Group
from crdt_sync_client.cli.failures import UsageProblem
from crdt_sync_sim.complaints import complain

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


def _commands(*, as_json: bool) -> ModuleType:
    """The implementation, which needs apsw for the simulated disk."""
    if find_spec("apsw") is None:
        message, hint = "the simulator needs the package apsw", "pip install apsw"
        complain("not_installed", message, hint=hint, as_json=as_json)
        sys.exit(failures.UNEXPECTED)
    from crdt_sync_sim import commands

    return commands


@click.group(
    cls=Group,
    short_help="Try devices and a relay in virtual time.",
    epilog="Exit codes: 0 passed, 2 bad scenario, 10 safety, 11 liveness, 12 crash or nondeterminism, "
    "13 unknown (nothing was acknowledged).",
)
def simulate() -> None:
    """Put devices and a relay through a scenario in virtual time, reproducibly."""


@simulate.command(cls=Command, examples=("crdt-sync simulate run week_away --seeds 1..20 --jobs 2",))
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
@click.option("--no-memo", is_flag=True, help="Work pure functions out for each device again.")
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
    no_memo: bool,
    timeline: Path | None,
) -> None:
    """Run SCENARIO, a file or the name of one that ships."""
    if seed is not None and seeds is not None:
        raise UsageProblem("--seed and --seeds exclude each other", hint="give one of them")
    _commands(as_json=as_json).run(
        scenario, seed, seeds, jobs, storage, as_json, out, check_determinism, timeline, no_memo
    )


@simulate.command(
    cls=Command,
    short_help="Run a CASE again and say whether it ends as it did.",
    examples=("crdt-sync simulate replay sim-cases/swarm-37",),
)
@_case_argument
@_json_option
def replay(case: Path, as_json: bool) -> None:
    """Run the events of a CASE folder again and say whether it ends as it did."""
    _commands(as_json=as_json).replay(case, as_json)


@simulate.command(cls=Command, examples=("crdt-sync simulate minimise sim-cases/swarm-37",))
@_case_argument
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=20.0,
    show_default=True,
    help="Time to spend at most.",
)
@click.option("--runs", type=click.IntRange(1), help="Runs to spend at most.")
@_json_option
def minimise(case: Path, seconds: float, runs: int | None, as_json: bool) -> None:
    """Make a CASE small for as long as it fails in the same way.

    Leaves out events, then devices, then time. The result takes the place of the case.
    """
    _commands(as_json=as_json).minimise(case, seconds, runs, as_json)


@simulate.command(
    cls=Command,
    short_help="Try seed after seed; keep each new kind of failure.",
    examples=("crdt-sync simulate explore --minutes 10",),
)
@click.option("--minutes", type=click.FloatRange(min=0.01), default=1.0, help="How long to go on.")
@click.option("--scenario", "name", default="swarm", help="The scenario to draw from.")
@click.option("--from", "first", type=int, default=1, help="The first seed.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(_DEFAULT_OUT), help="Where failing cases go."
)
@click.option(
    "--minimise",
    "minimise_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Time to spend on making each new kind of failure small; 0: leave it as it is.",
)
@_json_option
def explore(minutes: float, name: str, first: int, out: Path, minimise_s: float, as_json: bool) -> None:
    """Try seed after seed; keep each new kind of failure as a minimised case."""
    _commands(as_json=as_json).explore(minutes, name, first, out, minimise_s, as_json)


@simulate.command(cls=Command, examples=("crdt-sync simulate ls --json",))
@_json_option
def ls(as_json: bool) -> None:
    """List the scenarios that ship."""
    _commands(as_json=as_json).ls(as_json)
