"""`simulator`: how many runs of `small` (in memory, on the simulated disk) and of `swarm` one core makes.

No relay process and no real device: everything happens in this process, in virtual time. Process time, the
median over seeds, after a few seeds that found the spaces and compile the statements; those are counted in no
figure, and cost about a second per scenario.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from crdt_sync_sim.founding import VARIANTS
from crdt_sync_sim.many import outcomes
from crdt_sync_sim.scenario_file import load_scenario

Storage = Literal["memory", "disk"]
MEASURED: Final[Sequence[tuple[str, Storage, float]]] = (
    ("small", "memory", 1.0), ("small", "disk", 1.0), ("swarm", "memory", 0.25),
)  # fmt: skip
"""Scenario, storage, and the share of the seeds that it is run with."""
SCENARIOS = Path(__file__).resolve().parents[2] / "simulations" / "scenarios"


async def run(seeds: int = 60) -> dict[str, Any]:
    """Figures per scenario and storage: `..._ms` of process time per run, `..._runs_per_s`, and `seeds`."""
    figures: dict[str, Any] = {}
    for name, storage, share in MEASURED:
        median_ms = _median_ms(name, storage, max(round(seeds * share), 1))
        figures[f"{name}_{storage}_ms"] = round(median_ms, 1)
        figures[f"{name}_{storage}_runs_per_s"] = round(1_000 / median_ms, 1)
    return {**figures, "seeds": seeds}


def _median_ms(name: str, storage: Storage, seeds: int) -> float:
    scenario = replace(load_scenario(SCENARIOS / f"{name}.toml"), storage=storage)
    drawn = range(1, VARIANTS + seeds + 1)
    spent_ms = []
    started_s = time.process_time()
    for outcome in outcomes(scenario, drawn, jobs=1, out=None, keep_trace=False):
        if outcome.failed:
            raise RuntimeError(f"seed {outcome.seed} of {name} ended as {outcome.verdict}")
        now_s = time.process_time()
        spent_ms.append((now_s - started_s) * 1_000)
        started_s = now_s
    return statistics.median(spent_ms[VARIANTS:])
