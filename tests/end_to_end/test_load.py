"""The load generator, with loads small enough for a test: every device ends current, the relay is watched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "load" / "run.py"


@pytest.mark.parametrize(
    ("workload", "size", "expected"),
    [
        ("idle", 20, {"devices": 20}),
        ("storm", 60, {"devices": 60, "spaces": 2, "edits": 300, "deliveries": 50 * 49 * 5 + 10 * 9 * 5}),
        ("storm_one_space", 12, {"devices": 12, "spaces": 1, "edits": 60, "deliveries": 12 * 11 * 5}),
        ("ingest", 400, {"connections": 8, "envelopes": 400}),
    ],
)
def test_a_load_ends_with_every_device_current(workload: str, size: int, expected: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), workload, "--size", str(size), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["workload"] == workload
    assert said.items() >= expected.items()
    assert said["relay_peak_mb"] > 10
