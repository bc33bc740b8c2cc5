"""One device in two spaces: every command takes `--space`, and says so where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, relay: Any, run: Run) -> Path:
    """The store of a device that is admin of the spaces North and South."""
    path = tmp_path_factory.mktemp("spaces") / "both.db"
    run("init", "--store", path, "--name", "Office")
    for name in ("North", "South"):
        create = ("space", "create", name, "--store", path, "--relay", relay.url, "--schema", "work_order")
        run(*create, CRDT_SYNC_TOKEN=relay.setup_token)
    return path


def test_records_are_made_and_changed_in_the_space_that_is_named(store: Path, run: Run) -> None:
    south = ("--store", store, "--space", "South")
    record = run("create", "work_order", "title=Southern", *south, "--json").json["id"]
    run("set", "work_order", record, "cost=3", *south)
    assert run("get", "work_order", record, *south, "--json").json["cost"] == 3
    assert [r["id"] for r in run("ls", "work_order", *south, "--json").json] == [record]
    assert run("ls", "work_order", "--store", store, "--space", "North", "--json").json == []
    run("get", "work_order", record, "--store", store, "--space", "North", code=3)
    run("rm", "work_order", record, *south)
    assert "is back" in run("restore", "work_order", record, *south).out
    assert "was not deleted" in run("restore", "work_order", record, *south).out
    assert [s["type"] for s in run("schema", "ls", *south, "--json").json] == ["work_order"]


def test_a_conflict_is_decided_in_its_own_space(store: Path, tmp_path: Path, relay: Any, run: Run) -> None:
    other, south = tmp_path / "other.db", ("--store", store, "--space", "South")
    run("init", "--store", other, "--name", "Other")
    run("join", run("invite", *south, "--role", "office").out.strip(), "--store", other)
    record = run("create", "work_order", "title=Both", *south, "--json").json["id"]
    run("sync", "--store", store)
    run("sync", "--store", other)
    run("set", "work_order", record, "root_cause=One", *south)
    run("set", "work_order", record, "root_cause=Two", "--store", other)
    run("sync", "--store", other)
    run("sync", "--store", store)
    (conflict,) = run("conflicts", "ls", "--store", store, "--json").json
    run("conflicts", "resolve", conflict["id"], "--value", "Three", "--store", store)
    assert run("get", "work_order", record, *south, "--json").json["root_cause"] == "Three"


def test_rows_are_imported_into_the_space_that_is_named(store: Path, tmp_path: Path, run: Run) -> None:
    csv = tmp_path / "two.csv"
    csv.write_text("Text,Cost\nGrease,1\n", encoding="utf-8")
    command = ("import", "work_order", csv, "--map", "title=Text", "--space", "North", "--store", store)
    assert run(*command).out == "1 of 1 rows of two.csv are in.\n"
    listed = run("ls", "work_order", "--store", store, "--space", "North", "--json").json
    assert [r["title"] for r in listed] == ["Grease"]


def test_without_the_name_it_says_which_there_are(store: Path, run: Run) -> None:
    for command in (("create", "work_order", "title=x"), ("ls", "work_order"), ("invite", "--role", "field")):
        answer = run(*command, "--store", store, "--json", code=3)
        assert answer.error["code"] == "unknown_space"
        assert "North, South" in answer.error["hint"]


def test_two_spaces_of_one_name_are_not_made(store: Path, relay: Any, run: Run) -> None:
    again = ("space", "create", "North", "--store", store, "--relay", relay.url, "--json")
    answer = run(*again, CRDT_SYNC_TOKEN=relay.setup_token, code=4)
    assert "called North already" in answer.error["message"]
    assert len(run("space", "ls", "--store", store, "--json").json) == 2


def test_a_device_without_a_name_is_not_made(tmp_path: Path, run: Run) -> None:
    answer = run("init", "--store", tmp_path / "n.db", "--name", " ", "--json", code=4)
    assert answer.error["message"] == "device name: is empty"
    assert list(tmp_path.iterdir()) == []


def test_a_space_is_switched_off_and_on_and_left(store: Path, tmp_path: Path, relay: Any, run: Run) -> None:
    other = ("--store", tmp_path / "other.db")
    run("init", *other, "--name", "Other")
    for name in ("North", "South"):
        run("join", run("invite", "--store", store, "--space", name, "--role", "office").out.strip(), *other)
    run("sync", *other)
    assert "is off" in run("space", "off", "North", *other).out
    run("create", "work_order", "title=Waits", *other, "--space", "North")
    run("sync", *other)
    spaces = {space["name"]: space for space in run("status", *other, "--json").json["spaces"]}
    assert (spaces["North"]["state"], spaces["North"]["pending"]) == ("off", 1)
    assert "off" in run("status", *other).out
    assert "no relay has" in run("space", "leave", "North", *other, "--yes", code=4).err
    assert "Give --yes" in run("space", "leave", "North", *other, code=2).err
    unsent = tmp_path / "unsent.jsonl"
    left = run("space", "leave", "North", *other, "--yes", "--export", unsent, "--json").json
    assert (left["name"], left["unsynced_records"]) == ("North", 1)
    assert "Waits" in unsent.read_text()
    assert [space["name"] for space in run("space", "ls", *other, "--json").json] == ["South"]
    run("space", "off", "South", *other)
    run("space", "on", "South", *other)
    run("sync", *other)
