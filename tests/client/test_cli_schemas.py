"""`crdt-sync schema`: listing, showing and comparing record types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdt_sync_client.cli.main import cli
from crdt_sync_client.shipped import shipped_types

PUMP = """\
x-type: pump
x-version: {version}
x-delete: {{rule: manual, roles: [admin]}}
x-parent: {{type: site, field: site_id, on_delete: cascade}}
title: Pump
description: A pump.
properties:
  site_id: {{type: string}}
  # The office plans.
  due: {{type: string, format: date, x-merge: server_wins}}
  {field}
"""


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["schema", *map(str, args)], prog_name="crdt-sync")


def answer(*args: object) -> Any:
    result = run(*args, "--json")
    assert result.exit_code in (0, 10), result.output
    return json.loads(result.stdout)


@pytest.fixture
def files(tmp_path: Path) -> Any:
    def write(name: str, version: int, field: str) -> Path:
        path = tmp_path / name
        path.write_text(PUMP.format(version=version, field=field), encoding="utf-8")
        return path

    return write


def test_ls_without_a_store_lists_what_ships() -> None:
    types = answer("ls")
    assert [each["type"] for each in types] == shipped_types()
    order = next(each for each in types if each["type"] == "daily_work_record")
    assert order == {
        "type": "daily_work_record",
        "version": 1,
        "title": "Daily work record",
        "description": "What a rig crew did on one day, from draft to approval.",
        "made_for": "rig crews",
        "field_count": 14,
    }
    text = run("ls").stdout
    for name in shipped_types():
        assert name in text


def test_show_tells_rule_and_reason_of_each_field(files: Any) -> None:
    path = files("pump.yaml", 1, "ticket: {type: string, x-merge: {rule: once, correct: [office, admin]}}")
    body = answer("show", path)
    assert body["write"] == {"roles": ["field", "office", "supervisor", "admin"]}
    assert body["delete"] == {"rule": "manual", "roles": ["admin"]}
    assert body["parent"] == {"type": "site", "field": "site_id", "on_delete": "cascade"}
    due, ticket = body["fields"]["due"], body["fields"]["ticket"]
    assert (due["rule"], due["why"], due["schema"]) == (
        "server_wins",
        "The office plans.",
        {"type": "string", "format": "date"},
    )
    assert (ticket["options"], ticket["why"]) == (
        {"correct": ["office", "admin"]},
        "the first is kept, and a person decides between two",
    )
    text = run("show", path).stdout.splitlines()
    assert text[:6] == [
        "Pump (pump, version 1)",
        "A pump.",
        "Written by: field, office, supervisor, admin",
        "Deleted by: admin; against an edit made apart: manual",
        "Belongs to: site, named in site_id; when that is deleted: cascade",
        "",
    ]
    assert any("once (correct: office, admin)" in line for line in text)


def test_show_reaches_into_rows() -> None:
    text = run("show", "work_assignment").stdout
    assert "input_values.KEY.value" in text
    assert answer("show", "work_assignment")["fields"]["input_values"]["row"]["unit"]["rule"] == "client_wins"


def test_diff_of_what_is_safe_ends_with_0(files: Any) -> None:
    old, new = files("1.yaml", 1, "a: {type: string}"), files("2.yaml", 2, "a: {type: string}\n  b: {}")
    result = run("diff", old, new)
    assert result.exit_code == 0
    assert result.stdout == (
        "safe    b: older devices keep it and pass it on without using it\nThe change is not unsafe.\n"
    )
    assert answer("diff", old, new) == {
        "type": "pump",
        "verdict": "safe",
        "changes": [
            {
                "kind": "added",
                "path": "b",
                "safety": "safe",
                "why": "older devices keep it and pass it on without using it",
            }
        ],
    }


def test_diff_of_what_is_unsafe_ends_with_10_and_says_it_first(files: Any) -> None:
    old = files("1.yaml", 1, "amount: {type: number}")
    new = files("2.yaml", 2, "b: {}\n  amount_eur: {type: number}")
    result = run("diff", old, new)
    assert result.exit_code == 10
    lines = result.stdout.splitlines()
    assert lines[0].startswith("unsafe  amount_eur: looks like amount under a new name")
    assert lines[-1] == "1 of 2 changes is unsafe."
    assert answer("diff", old, new)["verdict"] == "unsafe"


def test_diff_of_a_schema_with_itself_says_that_nothing_changes() -> None:
    result = run("diff", "work_order", "work_order")
    assert (result.exit_code, result.stdout) == (0, "Nothing changes.\n")


def test_a_file_that_is_no_schema_is_named_with_its_line(files: Any) -> None:
    good, bad = files("1.yaml", 1, "a: {}"), files("2.yaml", 2, "a: {type: strin}")
    result = run("diff", good, bad)
    assert result.exit_code == 4
    assert f"{bad}:11:13: unknown type 'strin'; did you mean 'string'?" in result.stderr
    assert run("show", "work_ordr").exit_code == 3
