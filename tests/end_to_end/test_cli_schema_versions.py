"""`crdt-sync schema add`: a version of a record type on its way to a tablet with unsent work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

PUMP = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Pump
x-type: pump
x-version: 1
x-delete: {roles: [office, admin]}
type: object
required: [name]
properties:
  name: {type: string}
  tech: {type: string}
"""
CHECK = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Check
x-type: check
x-version: 1
x-parent: {type: pump, field: pump_id, on_delete: cascade}
type: object
properties:
  pump_id: {type: string}
  note: {type: string}
"""


@pytest.fixture
def site(tmp_path: Path, relay: Any, run: Run) -> tuple[Path, Path]:
    """An office and a tablet with pumps and their checks."""
    for name, text in (("pump", PUMP), ("check", CHECK)):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    office, tablet = tmp_path / "office.db", tmp_path / "tablet.db"
    run("init", "--store", office, "--name", "Office")
    run(
        *("space", "create", "Site", "--store", office, "--relay", relay.url),
        *("--schema", tmp_path / "pump.yaml"),
        CRDT_SYNC_TOKEN=relay.setup_token,
    )
    run("schema", "add", tmp_path / "check.yaml", "--store", office)
    run("sync", "--store", office)
    run("init", "--store", tablet, "--name", "Tablet 7")
    run("join", run("invite", "--store", office, "--role", "field").out.strip(), "--store", tablet)
    run("sync", "--store", tablet)
    return office, tablet


def test_a_version_reaches_a_tablet_with_unsent_work(
    site: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    office, tablet = site
    id = run("create", "pump", "name=P1", "tech=Ada", "--store", tablet, "--json").json["id"]
    second = tmp_path / "pump2.yaml"
    second.write_text(
        PUMP.replace("x-version: 1", "x-version: 2").replace(
            "tech: {type: string}", "technician: {type: string, x-aliases: [tech]}"
        ),
        encoding="utf-8",
    )
    said = run("schema", "add", second, "--store", office)
    assert "The space carries pump, version 2." in said.out
    assert run("schema", "add", second, "--store", office, "--json").json == {
        "type": "pump", "version": 2, "changed": False
    }  # fmt: skip
    for store in (office, tablet, office):
        run("sync", "--store", store)
    for store in (office, tablet):
        assert run("get", "pump", id, "--store", store, "--json").json["technician"] == "Ada"
        assert [each["version"] for each in run("schema", "ls", "--store", store, "--json").json] == [1, 2]


def test_a_version_that_is_not_newer_or_not_safe_is_refused(
    site: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    office, tablet = site
    file = tmp_path / "pump2.yaml"
    file.write_text(PUMP.replace("tech", "technician"), encoding="utf-8")
    error = run("schema", "add", file, "--store", office, "--json", code=10).error
    assert (error["code"], error["hint"]) == ("schema_refused", "give it x-version: 2")
    file.write_text(file.read_text().replace("x-version: 1", "x-version: 2"), encoding="utf-8")
    error = run("schema", "add", file, "--store", office, "--json", code=10).error
    assert len(error["unsafe"]) >= 1
    assert "--force" in error["hint"]
    assert run("schema", "add", file, "--store", office, "--force", "--json").json["changed"] is True
    assert run("schema", "add", file, "--store", tablet, "--json", code=7).error["code"] == "permission"


def test_children_go_with_their_parent_and_those_made_apart_are_marked(
    site: tuple[Path, Path], run: Run
) -> None:
    office, tablet = site
    pump = run("create", "pump", "name=P1", "--store", office, "--json").json["id"]
    first = run("create", "check", f"pump_id={pump}", "--store", office, "--json").json["id"]
    run("sync", "--store", office)
    run("sync", "--store", tablet)
    apart = run("create", "check", f"pump_id={pump}", "note=leaks", "--store", tablet, "--json").json["id"]
    assert f"pump {pump} is deleted, with 1 check." in run("rm", "pump", pump, "--store", office).out
    for store in (office, tablet, office):
        run("sync", "--store", store)
    for store in (office, tablet):
        run("get", "check", first, "--store", store, code=3)
        assert run("get", "check", apart, "--store", store, "--json").json["_sync"]["orphaned"] is True
        shown = run("get", "check", apart, "--store", store).out
        assert "orphaned: the pump named in pump_id is deleted, or not on this device" in " ".join(
            shown.split()
        )
    body = run("restore", "pump", pump, "--store", tablet, "--json").json
    assert body["below"] == [{"type": "check", "id": first}]
    assert run("get", "check", apart, "--store", tablet, "--json").json["_sync"]["orphaned"] is False
    assert run("rm", "pump", pump, "--store", tablet, "--json", code=7).error["code"] == "permission"


def test_nothing_is_aside_where_everyone_keeps_to_the_rules(site: tuple[Path, Path], run: Run) -> None:
    _, tablet = site
    assert run("queue", "aside", "--store", tablet, "--json").json == []
    assert "Nothing was put aside." in run("queue", "aside", "--store", tablet).out
    (space,) = run("status", "--store", tablet, "--json").json["spaces"]
    assert (space["quarantined"], space["remaking"], space["unreadable"]) == (0, 0, {})
