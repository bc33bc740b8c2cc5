"""`crdt-sync conflicts`, `explain` and `history` as they are typed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def apart(pair: Any, run: Run) -> Callable[..., str]:
    """A work order of both in which each writes its own without seeing the other's; returns its id."""

    def apart(office: list[str], tablet: list[str]) -> str:
        record = pair.create("title=Swap")
        run("set", "work_order", record, *office, "--store", pair.office)
        run("set", "work_order", record, *tablet, "--store", pair.tablet)
        pair.sync()
        return str(record)

    return apart


def listed(run: Run, store: Path, record: str, *options: str) -> dict[str, Any]:
    """The conflicts of a record by field."""
    found = run("conflicts", "ls", "--record", record, *options, "--store", store, "--json").json
    return {conflict["field"]: conflict for conflict in found}


def test_all_conflicts_of_a_record_are_decided_in_one_command(pair: Any, run: Run, apart: Any) -> None:
    record = apart(
        ["root_cause=a", "completion_notes=b", "description=c"],
        ["root_cause=x", "completion_notes=y", "description=z"],
    )
    resolve = ("conflicts", "resolve", "--record", "work_order", record, "--store", pair.office)
    bad = run(*resolve, "--keep", "mine", "--set", "title=theirs", "--json", code=3).error
    assert "completion_notes, description, root_cause" in bad["hint"]
    for wrong in (("--set", "root_cause=yours"), ("--set", "root_cause=9"), ("--value", "own"), ()):
        run(*resolve, *wrong, code=2)
    run(*resolve, "--set", "root_cause=mine", "--value", "root_cause=x", code=2)
    run(*resolve, "--keep", "mine", "--field", "root_cause", code=2)
    settled = run(
        *resolve, "--keep", "theirs", "--set", "root_cause=mine", "--value", "description=own", "--json"
    ).json
    assert {each["field"]: each["resolution"] for each in settled} == {
        "root_cause": "a",
        "completion_notes": "y",
        "description": "own",
    }
    pair.sync()
    shown = pair.get(pair.tablet, record)
    assert (shown["root_cause"], shown["completion_notes"], shown["description"]) == ("a", "y", "own")
    run(*resolve, "--keep", "mine", code=3)


def test_a_lost_version_is_restored_also_after_more_was_written(pair: Any, run: Run, apart: Any) -> None:
    record = apart(["description=from the office"], ["description=from the tablet"])
    conflict = listed(run, pair.office, record, "--state", "auto")["description"]
    shown = next(each for each in conflict["alternatives"] if each["chosen"])
    lost = next(each for each in conflict["alternatives"] if not each["chosen"])
    run("set", "work_order", record, "description=more", "--store", pair.office)
    pair.sync()
    restore = ("conflicts", "restore", conflict["id"], "--store", pair.tablet, "--version")
    answer = run(*restore, str(lost["version"]))
    assert answer.out == f"description of work_order {record} is now: {lost['value']}\n"
    assert "this is a new write" in answer.err
    assert "so already" in run(*restore, str(lost["version"])).out
    pair.sync()
    assert pair.get(pair.office, record)["description"] == lost["value"]
    run(*restore, "3", code=2)
    again = run(*restore, str(shown["version"]), "--json").json
    assert (again["restored_version"], again["new_write"]) == (shown["version"], True)


def test_a_preference_is_remembered_shown_and_used(pair: Any, run: Run, apart: Any) -> None:
    prefer = ("conflicts", "prefer")
    run(*prefer, "set", "work_order", "root_cause", "--keep", "field", "--store", pair.office)
    (known,) = run(*prefer, "ls", "--store", pair.office, "--json").json
    assert (known["field"], known["keep"]) == ("root_cause", "field")
    record = apart(["root_cause=a"], ["root_cause=x"])
    conflict = listed(run, pair.office, record)["root_cause"]
    suggested = conflict["suggestion"]
    assert conflict["alternatives"][suggested["version"] - 1]["value"] == "x"
    assert suggested["why"] == "your preference for root_cause of work_order is field"
    assert "suggested" in run("conflicts", "ls", "--store", pair.office).out
    text = run("conflicts", "show", conflict["id"], "--store", pair.office).out
    assert f"Suggested: version {suggested['version']}" in text
    run("conflicts", "resolve", conflict["id"], "--suggested", "--store", pair.office)
    pair.sync()
    assert pair.get(pair.tablet, record)["root_cause"] == "x"
    bad = run(
        *prefer, "set", "work_order", "root_cause", "--keep", "boss", "--store", pair.office, "--json", code=4
    ).error
    assert "mine, theirs, field, office, supervisor or admin" in bad["hint"]
    assert run(*prefer, "clear", "work_order", "--store", pair.office, "--json").json == {"cleared": 1}
    assert "No preferences" in run(*prefer, "ls", "--store", pair.office).out


def test_a_closed_conflict_says_by_whom_and_how_it_can_be_changed(pair: Any, run: Run, apart: Any) -> None:
    record = apart(["root_cause=a"], ["root_cause=x"])
    id = listed(run, pair.office, record)["root_cause"]["id"]
    run("conflicts", "resolve", id, "--keep", "theirs", "--remember", "--store", pair.tablet)
    run("conflicts", "prefer", "clear", "work_order", "--store", pair.tablet)
    pair.sync()
    error = run("conflicts", "resolve", id, "--keep", "mine", "--store", pair.office, "--json", code=9).error
    assert "was closed by Tablet 7 at" in error["message"]
    assert f"conflicts restore {id[:8]} --version N" in error["hint"]
    shown = run("conflicts", "show", id, "--store", pair.office).out
    assert "Resolved by Tablet 7: a (version 1)" in shown


def test_conflicts_are_counted_and_found(pair: Any, run: Run, apart: Any) -> None:
    record = apart(["root_cause=a", "description=c"], ["root_cause=x", "description=z"])
    count = ("conflicts", "count", "--store", pair.office, "--record", record)
    assert run(*count).out == "1\n"
    assert run(*count, "--all", "--json").json == {"count": 2}
    assert run(*count, "--by", "state", "--all", "--json").json["counts"] == {"auto": 1, "open": 1}
    assert run(*count, "--by", "device", "--json").json["counts"] == {"Office": 1, "Tablet 7": 1}
    assert set(listed(run, pair.office, record, "--device", "Tablet 7", "--all")) == {
        "root_cause",
        "description",
    }
    assert listed(run, pair.office, record, "--type", "asset") == {}
    unknown = run("conflicts", "ls", "--device", "Nobody", "--store", pair.office, "--json", code=4).error
    assert "Office, Tablet 7" in unknown["hint"]


def test_the_trail_is_exported_as_json_lines_and_as_a_table(
    pair: Any, run: Run, apart: Any, tmp_path: Path
) -> None:
    record = apart(["root_cause==1+1", "description=c"], ["root_cause=x\ny", "description=z"])
    id = listed(run, pair.office, record)["root_cause"]["id"]
    run("conflicts", "resolve", id, "--keep", "mine", "--store", pair.office)
    export = ("conflicts", "export", "--store", pair.office)
    lines = [json.loads(line) for line in run(*export).out.splitlines()]
    mine = {entry["conflictingFields"][0]: entry for entry in lines if entry["entityId"] == record}
    cause, description = mine["root_cause"], mine["description"]
    assert cause["conflictId"] == id
    assert (cause["entityType"], cause["resolutionStrategy"], cause["state"]) == (
        "work_order",
        "manual",
        "closed",
    )
    assert (cause["deviceName"], cause["resolvedBy"]) == ("Office", "Office")
    assert cause["resolution"] == {"root_cause": "server-wins"}
    assert cause["resolvedValue"] == "=1+1"
    assert cause["detectedAt"] <= cause["resolvedAt"]
    assert [each["deviceName"] for each in cause["versions"]] == ["Office", "Tablet 7"]
    assert (description["state"], description["resolvedBy"]) == ("auto", None)
    assert description["resolution"] in (
        {"description": "client-wins"},
        {"description": "server-wins"},
    )
    file = tmp_path / "trail.csv"
    told = run(*export, "--format", "csv", "--out", file, "--json").json
    assert told == {"conflicts": len(lines), "file": str(file)}
    raw = file.read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(raw, newline="")))
    assert list(rows[0]) == list(cause), "the same names in the same order"
    row = next(row for row in rows if row["conflictId"] == id)
    assert row["resolvedValue"] == "'=1+1", "a spreadsheet must not run it"
    assert json.loads(row["versions"]) == cause["versions"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert run(*export, "--since", "2999-01-01").out == ""
    assert len(run(*export, "--since", "1d").out.splitlines()) == len(lines)
    run(*export, "--since", "yesterday", code=2)
    run(*export, "--out", tmp_path / "none" / "x.csv", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["trail.csv"], "nothing half written stays"


def test_a_field_is_explained_to_people_and_to_programs(pair: Any, run: Run, apart: Any) -> None:
    record = apart(["root_cause=a", "actual_start=2026-01-01T08:00:00Z"],
                   ["root_cause=x", "actual_start=2026-01-01T07:00:00Z"])  # fmt: skip
    explain = ("explain", "work_order", record, "--store", pair.office)
    (cause,) = run(*explain, "root_cause", "--json").json["fields"]
    assert cause["reason"].startswith("a person decides; until then the latest is shown: later")
    assert {each["device"]: each["part"] for each in cause["writes"]} == {
        "Office": "lost",
        "Tablet 7": "shown",
    }
    assert cause["conflict"] == listed(run, pair.office, record)["root_cause"]["id"]
    text = run(*explain, "actual_start").out
    assert "actual_start: 2026-01-01T07:00:00Z\nclient_wins: field before admin\n" in text
    assert "Tablet 7" in text
    assert "Office (this device)" in text
    everything = run(*explain, "--json").json
    assert {"title", "root_cause", "actual_start"} <= {each["field"] for each in everything["fields"]}
    assert (everything["deleted"], everything["orphaned"]) == (False, False)
    assert "Nobody has written asset_id yet." in run(*explain, "asset_id").out
    assert "did you mean" in run(*explain, "root_caus", code=4).err
    run("explain", "work_order", "no-such-id", "--store", pair.office, code=3)
    run("rm", "work_order", record, "--store", pair.office)
    gone = run(*explain, "$deleted").out
    assert "deletion of the record: in effect" in gone
    assert "the deletion had seen every edit" in gone


def test_a_type_without_a_history_says_how_to_get_one(pair: Any, run: Run) -> None:
    record = pair.create("title=Swap")
    error = run("history", "work_order", record, "--store", pair.office, "--json", code=4).error
    assert "keep no history" in error["message"]
    assert "x-history: 50" in error["hint"]


DIARY = """\
title: Diary
x-type: diary
x-version: 1
x-history: 3
x-delete: {rule: manual}
properties:
  text: {type: string}
"""


def test_the_history_of_a_record_and_a_disputed_deletion(
    run: Run, relay: Any, tmp_path: Path, keychain: Any
) -> None:
    from tests.end_to_end.conftest import Pair

    (tmp_path / "diary.yaml").write_text(DIARY, encoding="utf-8")
    office, tablet = tmp_path / "o.db", tmp_path / "t.db"
    run("init", "--store", office, "--name", "Office")
    run(
        *("space", "create", "Pit", "--store", office, "--relay", relay.url),
        *("--schema", tmp_path / "diary.yaml"),
        CRDT_SYNC_TOKEN=relay.setup_token,
    )
    run("init", "--store", tablet, "--name", "Tablet")
    link = run("invite", "--store", office, "--role", "field", "--json").json["link"]
    run("join", "-", "--store", tablet, stdin=f"{link}\n")
    pair = Pair(office, tablet, tmp_path)
    record = run("create", "diary", "text=one", "--store", office, "--json").json["id"]
    pair.sync()
    run("rm", "diary", record, "--store", office)
    run("set", "diary", record, "text=two", "--store", tablet)
    pair.sync()
    conflict = listed(run, office, record)["$deleted"]
    shown = run("conflicts", "show", conflict["id"], "--store", office).out
    assert "--keep deleted|record" in shown
    assert "deleted" in shown
    wrong = ("conflicts", "resolve", conflict["id"], "--store", office)
    assert "keep 'deleted' or 'record'" in run(*wrong, "--value", "x", "--json", code=4).error["hint"]
    kept = run(*wrong, "--keep", "record")
    assert kept.out == f"$deleted of diary {record} is now: kept\n"
    pair.sync()
    assert listed(run, tablet, record, "--all")["$deleted"]["resolution"] == "record"
    deletion = next(each for each in conflict["alternatives"] if each["deletes"])
    restored = run(
        "conflicts", "restore", conflict["id"], "--version", str(deletion["version"]), "--store", tablet
    )
    assert restored.out == f"diary {record} is now: deleted\n"
    pair.sync()
    run("get", "diary", record, "--store", office, code=3)
    entries = run("history", "diary", record, "--store", office, "--json").json
    assert [entry["deleted"] for entry in entries] == [True, None, False]
    assert entries[2]["fields"][0] == {
        "field": "text",
        "before": "one",
        "after": "two",
        "device": "Tablet",
        "device_id": entries[2]["fields"][0]["device_id"],
    }
    assert "brought back" in run("history", "diary", record, "--store", office).out
