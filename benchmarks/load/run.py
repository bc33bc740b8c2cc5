"""Put a relay under load: `python benchmarks/load/run.py [WORKLOAD] [--json] [--plot FILE]`.

    idle              2,000 connected devices in spaces of 50, and nothing happens
    storm             1,000 devices in 20 spaces come back in one moment, each with 5 edits
    storm_one_space   the same with 300 devices of one space: each receives what all others wrote
    ingest            8 devices push 40,000 envelopes as fast as they are acknowledged

The relay is a process of its own, the load another; this one watches the relay's memory and CPU, four times a
second, and draws both over time (`--plot`, needs matplotlib: `pip install '.[plots]'`). Loopback only; each
workload ends by itself, after ten minutes at the latest. What a device of the load does: `members.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import psutil

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.harness import Relay, bench_folder, machine, running_relay

SIZES: Final = {"idle": 2_000, "storm": 1_000, "storm_one_space": 300, "ingest": 40_000}
TIMEOUT_S: Final = 600
EVERY_S: Final = 0.25


@dataclass(slots=True)
class Watch:
    """What a process used over time. `phases` are the load's own words for what it was doing."""

    pid: int
    started: float = field(default_factory=time.monotonic)
    seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    cpu_percent: list[float] = field(default_factory=list)
    phases: list[tuple[float, str]] = field(default_factory=list)

    async def run(self) -> None:
        process = psutil.Process(self.pid)
        process.cpu_percent()
        while True:
            self.seconds.append(time.monotonic() - self.started)
            self.memory_mb.append(process.memory_info().rss / 2**20)
            self.cpu_percent.append(process.cpu_percent())
            await asyncio.sleep(EVERY_S)

    def phase(self, name: str) -> None:
        self.phases.append((time.monotonic() - self.started, name))

    def figures(self) -> dict[str, Any]:
        """Memory in MiB, CPU in percent of a core; of the last phase, and the peak of all."""
        since, until = self.phases[-2][0], self.phases[-1][0]
        inside = [number for number, at in enumerate(self.seconds) if since <= at <= until]
        last = {
            "relay_mb": round(max((self.memory_mb[number] for number in inside), default=0.0), 1),
            "relay_cpu_percent": round(
                sum(self.cpu_percent[number] for number in inside) / max(len(inside), 1), 1
            ),
        }
        return {**last, "relay_peak_mb": round(max(self.memory_mb, default=0.0), 1)}


async def measure(workload: str, size: int) -> tuple[dict[str, Any], Watch]:
    """The figures of one workload, and what the relay used meanwhile."""
    async with bench_folder() as folder, running_relay(folder) as relay:
        watch = Watch(relay.process.pid)
        watching = asyncio.ensure_future(watch.run())
        try:
            figures = await asyncio.wait_for(_load(workload, size, relay, watch), TIMEOUT_S)
        finally:
            watching.cancel()
    return figures | watch.figures(), watch


async def _load(workload: str, size: int, relay: Relay, watch: Watch) -> dict[str, Any]:
    fleet = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("fleet.py")), workload, relay.url, str(size)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert fleet.stdin is not None
    assert fleet.stdout is not None
    try:
        fleet.stdin.write(f"{relay.token}\n".encode())
        await fleet.stdin.drain()
        async for line in fleet.stdout:
            said = json.loads(line)
            if "phase" in said:
                watch.phase(said["phase"])
                click.echo(f"  {said['phase']}", err=True)
            else:
                figures: dict[str, Any] = said["figures"]
                return figures
        raise RuntimeError(f"the load ended with exit code {await fleet.wait()}")
    finally:
        if fleet.returncode is None:
            fleet.kill()
            await fleet.wait()


def draw(watches: dict[str, Watch], path: Path) -> None:
    """Memory and CPU of the relay over time, one row of axes for each workload."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(
        len(watches), 1, figsize=(9, 2.6 * len(watches)), layout="constrained", squeeze=False
    )
    for (name, watch), (axes,) in zip(watches.items(), rows, strict=True):
        axes.plot(watch.seconds, watch.memory_mb, color="tab:blue")
        axes.set(title=name, xlabel="seconds", ylim=(0, None))
        axes.set_ylabel("memory, MiB", color="tab:blue")
        for line, (at, phase) in enumerate(watch.phases[:-1]):
            axes.axvline(at, color="0.8", linewidth=1)
            place = {"xytext": (3, -3 - 9 * line), "textcoords": "offset points"}
            axes.annotate(phase, (at, axes.get_ylim()[1]), va="top", fontsize=7, color="0.4", **place)
        cpu = axes.twinx()
        cpu.plot(watch.seconds, watch.cpu_percent, color="tab:orange", linewidth=0.8)
        cpu.set_ylabel("CPU, % of a core", color="tab:orange")
        cpu.set_ylim(0, None)
    mpl.rcParams["svg.hashsalt"] = "crdt-sync"
    figure.savefig(path, format="svg", metadata={"Date": None})


@click.command(epilog="Example: python benchmarks/load/run.py storm --plot storm.svg")
@click.argument("workload", type=click.Choice([*SIZES, "all"]), default="all")
@click.option("--size", type=click.IntRange(8, 20_000), help="Devices, or envelopes, instead of the default.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw memory and CPU over time, as SVG.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per workload.")
def main(workload: str, size: int | None, plot: Path | None, as_json: bool) -> None:
    """Put a relay on loopback under load and say how it fares."""
    watches: dict[str, Watch] = {}
    for name in SIZES if workload == "all" else (workload,):
        if not as_json:
            click.echo(name)
        figures, watches[name] = asyncio.run(measure(name, size or SIZES[name]))
        if as_json:
            click.echo(json.dumps({"workload": name, **figures, "machine": machine()}))
        else:
            for key, value in figures.items():
                click.echo(f"  {key:24} {value:>12}")
    if plot is not None:
        draw(watches, plot)


if __name__ == "__main__":
    main()
