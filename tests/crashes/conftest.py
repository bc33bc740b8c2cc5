"""One relay process for all tests here, and work orders to import."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from tests.end_to_end.relay_process import RestartableRelay

FOLDER: Final = Path(
    os.environ.get("CRDT_SYNC_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)
FILE: Final = FOLDER / "excavators-cleaned.csv"
JOB: Final = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Job
x-type: job
x-version: 1
type: object
required: [title]
properties:
  number: {type: string}
  title: {type: string}
  asset: {type: string}
  notes: {type: string}
  visits: {type: number, x-merge: counter}
  tags: {type: array, items: {type: string}, uniqueItems: true, x-merge: set}
"""


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableRelay]:
    running = RestartableRelay(tmp_path_factory.mktemp("relay") / "data")
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def job() -> RecordSchema:
    return load_schema(JOB, source="job.yaml")


@pytest.fixture(scope="session")
def orders() -> list[dict[str, Any]]:
    """Two hundred real maintenance work orders; made up ones where the file is not there."""
    if not FILE.is_file():
        return [
            {"number": f"R{n}", "title": f"Replace hose {n} – größer", "asset": f"A{n % 5}"}
            for n in range(200)
        ]
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["OriginalShorttext"]][:200]
    return [
        {"number": f"R{n}", "title": row["OriginalShorttext"], "asset": row["Asset"]}
        for n, row in enumerate(rows)
    ]
