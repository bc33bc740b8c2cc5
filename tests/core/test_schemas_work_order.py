"""The shipped work order, the example of schemas/README.md, and real work orders."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path

import pytest

from crdt_sync.errors import TransitionError, ValidationError
from crdt_sync.roles import Role
from crdt_sync.rules.register import Register
from crdt_sync.schemas import RecordSchema, check_transition, load_schema

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "schemas"
REAL = ROOT.parent / "shared" / "data" / "excavators-cleaned.csv"

RULES = {
    "server_id": "once",
    "title": "register",
    "description": "register",
    "type": "register",
    "priority": "register",
    "site_id": "register",
    "asset_id": "register",
    "assigned_to": "server_wins",
    "cost": "register",
    "status": "register",
    "scheduled_start": "server_wins",
    "scheduled_end": "server_wins",
    "actual_start": "client_wins",
    "actual_end": "client_wins",
    "meter_reading": "client_wins",
    "measurements": "rows",
    "labor_records": "rows",
    "tasks": "rows",
    "parts_required": "rows",
    "parts_used": "rows",
    "root_cause": "manual",
    "completion_notes": "manual",
    "tags": "set",
}


@pytest.fixture(scope="module")
def work_order() -> RecordSchema:
    return load_schema((SCHEMAS / "work_order.yaml").read_text("utf-8"), source="work_order.yaml")


def test_a_work_order_merges_as_the_field_decided(work_order: RecordSchema) -> None:
    assert {name: spec.rule.name for name, spec in work_order.fields.items()} == RULES
    status = work_order.fields["status"].rule
    assert isinstance(status, Register)
    assert status.prefer == (Role.SUPERVISOR,)
    rows = {
        f"{name}.{sub}": inner.rule.name
        for name, spec in work_order.fields.items()
        for sub, inner in (spec.row or {}).items()
    }
    assert rows["tasks.title"] == "server_wins"
    assert rows["tasks.done"] == "client_wins"
    assert rows["parts_used.qty"] == "client_wins"
    for name in ("measurements", "labor_records"):
        assert {rule for sub, rule in rows.items() if sub.startswith(name)} == {"client_wins"}


def test_a_work_order_starts_as_a_draft_and_may_be_deleted_by_the_office(work_order: RecordSchema) -> None:
    assert work_order.with_defaults({"title": "Leak"}) == {"title": "Leak", "status": "draft"}
    assert work_order.required == ("title",)
    assert work_order.delete.roles == {Role.OFFICE, Role.SUPERVISOR, Role.ADMIN}


def test_a_work_order_goes_from_draft_to_closed_and_not_back(work_order: RecordSchema) -> None:
    status = work_order.fields["status"]
    way = ["draft", "assigned", "in_progress", "on_hold", "in_progress", "completed", "closed"]
    for current, new in pairwise(way):
        check_transition(status, "status", current, new)
    with pytest.raises(TransitionError) as caught:
        check_transition(status, "status", "draft", "completed")
    assert caught.value.hint == "from 'draft' it may become assigned, in_progress or cancelled"
    with pytest.raises(TransitionError):
        check_transition(status, "status", "closed", "draft")


def test_real_work_orders_are_taken_but_for_the_one_that_is_broken(work_order: RecordSchema) -> None:
    if not REAL.is_file():
        pytest.skip(f"the real work orders are not at {REAL}")
    columns = {
        "title": "OriginalShorttext",
        "asset_id": "Asset",
        "scheduled_start": "BscStartDate",
        "type": "PMType",
        "cost": "Cost",
    }
    refused: list[tuple[int, str]] = []
    with REAL.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                values = {
                    field: work_order.parse_cell(field, row[column]) for field, column in columns.items()
                }
            except ValidationError as exc:
                refused.append((reader.line_num, str(exc)))
                continue
            work_order.check_required(values)
            assert values["title"] == row["OriginalShorttext"].strip()
            assert values["type"] == row["PMType"]
            assert values["cost"] is None or values["cost"] == float(row["Cost"])
    # Its text has a comma that is not quoted ("won,t swing"), so every column after it is shifted by one.
    assert refused == [(3454, "cost: takes a number, got text ('PM01')")]


def test_the_example_of_the_readme_loads() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (SCHEMAS / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(examples) == 1
    schema = load_schema(examples[0], source="pump_check.yaml")
    assert schema.type == "pump_check"
    for text in ("pump=Feed pump 2", "due=2026-11-05", "tags=boiler", "parts.A17.qty=2"):
        schema.parse_assignment(text)
