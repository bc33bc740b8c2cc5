"""Run benchmark workloads: `python benchmarks/run.py WORKLOAD [--json]`, or `all`.

Workloads: initial, delta, latency, throughput, fanout, size, each with a relay process of its own and devices
on loopback; receive and merge, which measure an engine and a document by themselves; simulator, which runs
scenarios in virtual time. Not in `all`: real, which needs a file of real work orders, and large, a device
with 100,000 records, which takes minutes. Each ends by itself. With `--json` each prints one line; without, a
table for people.
Figures and how they are read: docs/benchmarks.md.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.harness import machine

WORKLOADS = ("initial", "delta", "latency", "throughput", "fanout", "size", "receive", "merge", "simulator")
SIZES = {
    "initial": "records",
    "delta": "records",
    "latency": "edits",
    "throughput": "writes",
    "fanout": "edits",
    "size": "edits",
    "receive": "records",
    "merge": "edits",
    "simulator": "seeds",
    "real": "edits",
    "large": "records",
}
TIMEOUT_S = 600


async def measure(workload: str, size: int | None) -> dict[str, Any]:
    """The figures of one workload, by the keys of its JSON line."""
    run = importlib.import_module(f"benchmarks.workloads.{workload}").run
    arguments = {} if size is None else {SIZES[workload]: size}
    figures: dict[str, Any] = await asyncio.wait_for(run(**arguments), TIMEOUT_S)
    return figures


@click.command(epilog="Example: python benchmarks/run.py latency --json")
@click.argument("workload", type=click.Choice([*WORKLOADS, "real", "large", "all"]))
@click.option("--json", "as_json", is_flag=True, help="One JSON line per workload.")
@click.option(
    "--size", type=int, default=None, help="Records, edits, writes or seeds instead of the default."
)
def main(workload: str, as_json: bool, size: int | None) -> None:
    """Measure WORKLOAD, as docs/benchmarks.md says."""
    for name in WORKLOADS if workload == "all" else (workload,):
        figures = asyncio.run(measure(name, size))
        if as_json:
            click.echo(json.dumps({"workload": name, **figures, "machine": machine()}))
        else:
            click.echo(name)
            for key, value in figures.items():
                click.echo(f"  {key:24} {value:>12}")
    if not as_json:
        click.echo("machine")
        for key, value in machine().items():
            click.echo(f"  {key:24} {value}")


if __name__ == "__main__":
    main()
