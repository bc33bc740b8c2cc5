"""Runs every example of docs/merge-rules.md."""

from __future__ import annotations

import json
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from crdt_sync.hlc import hlc_from_ms
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.records.conflicts import Conflict
from crdt_sync.roles import Role
from crdt_sync.rules import RULE_NAMES
from crdt_sync.schemas.loader import load_schema
from tests.core.record_replicas import Replica, meet

DOCUMENT = Path(__file__).parents[2] / "docs" / "merge-rules.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
MORNING_MS = 1_700_000_000_000


def by_line(text: str) -> str:
    return f"line {DOCUMENT.read_text()[: DOCUMENT.read_text().index(text)].count(chr(10)) + 1}"


def do(replica: Replica, step: dict[str, Any]) -> None:
    hours, minutes = step["at"].split(":")
    replica.now_ms = MORNING_MS + (int(hours) * 60 + int(minutes)) * 60_000
    replica.clock.last = hlc_from_ms(replica.now_ms)  # nobody follows anybody: clocks may be wrong
    changes: list[tuple[str, Any]] = list(step.get("set", {}).items())
    changes += [(name, RemoveElement(element)) for name, element in step.get("take", {}).items()]
    changes += [(name, AddElement(element)) for name, element in step.get("add", {}).items()]
    changes += [(name, Increment(amount)) for name, amount in step.get("count", {}).items()]
    for change in changes:
        replica.set([change])
    if step.get("delete"):
        replica.delete()
    if step.get("restore"):
        replica.restore()


def describe(conflict: Conflict) -> str:
    return f"{conflict.kind} {'.'.join(conflict.path)}"


@pytest.mark.parametrize("text", EXAMPLES, ids=by_line)
def test_example(text: str) -> None:
    example = yaml.safe_load(text)
    schema = load_schema(
        json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": "Example",
                "x-type": "example",
                "x-version": 1,
                "x-delete": {"rule": example.get("delete", "edit_wins")},
                "type": "object",
                "properties": example["fields"],
            }
        ),
        source="example",
    )
    steps = example["apart"]
    for order in permutations(range(len(steps))):  # who is who in the order of author ids changes nothing
        office = Replica(4, schema, Role.ADMIN)
        office.now_ms = MORNING_MS
        office.create(example.get("start", {}))
        devices = {}
        for place, step in zip(order, steps, strict=True):
            device = Replica(place, schema, Role.parse(step["by"].split()[0]))
            device.take(office.updates)
            do(device, step)
            devices[step["by"]] = device
        meet(office, *devices.values())
        for step in example.get("then", []):
            if step["by"] not in devices:
                devices[step["by"]] = Replica(3, schema, Role.parse(step["by"]))
                meet(office, *devices.values())
            do(devices[step["by"]], step)
            meet(office, *devices.values())
        for device in (office, *devices.values()):
            seen = device.view()
            assert seen.deleted == example.get("deleted", False)
            if not seen.deleted:
                assert seen.values == example["shown"]
            assert [describe(conflict) for conflict in seen.conflicts] == example["conflicts"]
            assert [f"open {'.'.join(path)}" for path in seen.provisional] == [
                conflict for conflict in example["conflicts"] if conflict.startswith("open")
            ]


def test_every_rule_has_an_example() -> None:
    shown = " ".join(EXAMPLES)
    assert [name for name in RULE_NAMES if name not in shown] == []
    sections = re.findall(r"^## (\w+)$", DOCUMENT.read_text(), re.MULTILINE)
    assert sections == list(RULE_NAMES)
