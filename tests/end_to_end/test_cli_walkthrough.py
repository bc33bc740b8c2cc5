"""`crdt-sync` from the first command to the last, with a real relay process and real encrypted stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_edits_made_apart_come_together(pair: Any, run: Run) -> None:
    record = pair.create("title=Swap bucket", "asset_id=A", "status=assigned", "cost=12.5", "tags=hydraulics")
    run("set", "work_order", record, "status=in_progress", "scheduled_start=2026-03-05", "tags+=warranty",
        "--store", pair.office)  # fmt: skip
    run("set", "work_order", record, "parts_used.A.qty=2", "meter_reading=18242", "tags+=leak",
        "--store", pair.tablet)  # fmt: skip
    assert pair.get(pair.tablet, record)["_sync"]["state"] == "pending"
    pair.sync()
    office, tablet = pair.get(pair.office, record), pair.get(pair.tablet, record)
    assert office == tablet
    assert office["id"] == record
    assert office["type"] == "work_order"
    assert office["status"] == "in_progress"
    assert office["parts_used"] == {"A": {"qty": 2}}
    assert sorted(office["tags"]) == ["hydraulics", "leak", "warranty"]
    assert (office["cost"], office["meter_reading"]) == (12.5, 18242)
    assert office["_sync"]["state"] == "synced"
    assert office["_sync"]["conflicts"] == []


def test_a_manual_field_waits_for_a_person(pair: Any, run: Run) -> None:
    record = pair.create("title=Track tension")
    run("set", "work_order", record, "root_cause=Pin worn", "--store", pair.office)
    run("set", "work_order", record, "root_cause=Idler leaks", "--store", pair.tablet)
    pair.sync()
    shown = pair.get(pair.office, record)["_sync"]
    assert (shown["state"], shown["provisional"]) == ("conflict", ["root_cause"])
    (conflict,) = shown["conflicts"]
    assert conflict in {
        entry["id"] for entry in run("conflicts", "ls", "--store", pair.tablet, "--json").json
    }

    body = run("conflicts", "show", conflict[:10], "--store", pair.office, "--json").json
    versions = {version["device"]: version for version in body["alternatives"]}
    assert versions["Office"]["value"] == "Pin worn"
    assert versions["Tablet 7"]["value"] == "Idler leaks"
    assert versions["Office"]["mine"]
    assert not versions["Tablet 7"]["mine"]
    assert sum(version["chosen"] for version in versions.values()) == 1
    table = run("conflicts", "show", conflict, "--store", pair.office).out
    for text in ("Pin worn", "Idler leaks", "Office (this device)", "Tablet 7", "provisional"):
        assert text in table

    resolve = ("conflicts", "resolve", conflict, "--field", "root_cause", "--store", pair.office)
    run(*resolve, "--keep", "theirs", "--json")
    pair.sync()
    for store in (pair.office, pair.tablet):
        after = pair.get(store, record)
        assert after["root_cause"] == "Idler leaks"
        assert after["_sync"] == {**shown, "state": "synced", "conflicts": [], "provisional": []}
    assert run(*resolve, "--keep", "mine", "--json", code=9).error["code"] == "conflict_closed"


def test_a_conflict_can_be_decided_with_a_value_of_its_own(pair: Any, run: Run) -> None:
    record = pair.create("title=Hose")
    run("set", "work_order", record, "completion_notes=Seal", "--store", pair.office)
    run("set", "work_order", record, "completion_notes=Hose", "--store", pair.tablet)
    pair.sync()
    (conflict,) = pair.get(pair.tablet, record)["_sync"]["conflicts"]
    run("conflicts", "resolve", conflict, "--value", "Seal and hose", "--store", pair.tablet)
    pair.sync()
    assert pair.get(pair.office, record)["completion_notes"] == "Seal and hose"


def test_versions_are_numbered_oldest_first(pair: Any, run: Run) -> None:
    # Both ways round, so that in one of them the order of writing is not the order of the devices' ids.
    for first, second in ((pair.office, pair.tablet), (pair.tablet, pair.office)):
        record = pair.create("title=Numbered")
        run("set", "work_order", record, "root_cause=first", "--store", first)
        run("set", "work_order", record, "root_cause=second", "--store", second)
        pair.sync()
        (conflict,) = pair.get(pair.office, record)["_sync"]["conflicts"]
        shown = run("conflicts", "show", conflict, "--store", pair.office, "--json").json
        assert [version["value"] for version in shown["alternatives"]] == ["first", "second"]
        resolve = ("conflicts", "resolve", conflict, "--store", pair.office, "--keep-version")
        run(*resolve, "3", code=2)
        run(*resolve, "1")
        assert pair.get(pair.office, record)["root_cause"] == "first"


def test_ls_filters_by_typed_values_and_counts_nothing_twice(pair: Any, run: Run) -> None:
    first = pair.create("title=Where one", "asset_id=WHERE", "cost=5")
    second = pair.create("title=Where two", "asset_id=WHERE", "cost=7")
    ls = ("ls", "work_order", "--store", pair.tablet, "--json", "--where", "asset_id=WHERE")
    assert {record["id"] for record in run(*ls).json} == {first, second}
    assert [record["id"] for record in run(*ls, "--where", "cost=5").json] == [first]
    assert len(run(*ls, "--limit", "1").json) == 1
    assert run(*ls, "--where", "cost=99").json == []
    assert [r["cost"] for r in run(*ls, "--order-by", "-cost").json] == [7, 5]
    assert [r["id"] for r in run(*ls, "--where", "cost>5").json] == [second]
    assert run(*ls, "--count").json == {"count": 2}
    page = run(*ls, "--order", "-cost", "--limit", "1", "--page", "first").json
    rest = run(*ls, "--order", "-cost", "--limit", "1", "--page", page["next"]).json
    assert [r["id"] for r in page["records"] + rest["records"]] == [second, first]
    assert rest["next"] is None
    assert run(*ls, "--state", "failed").json == []
    assert "did you mean 'assigned'" in run(*ls[:-1], "status=asigned", code=4).error["message"]
    table = run("ls", "work_order", "--store", pair.tablet, "--where", "asset_id=WHERE").out
    assert first in table
    assert "Where two" in table


def test_rm_and_restore_reach_the_other_device(pair: Any, run: Run) -> None:
    record = pair.create("title=Duplicate")
    run("rm", "work_order", record, "--store", pair.office)
    pair.sync()
    missing = run("get", "work_order", record, "--store", pair.tablet, "--json", code=3)
    assert missing.error["code"] in ("not_found", "deleted")
    run("restore", "work_order", record, "--store", pair.office)
    pair.sync()
    assert pair.get(pair.tablet, record)["title"] == "Duplicate"


def test_status_and_queue_say_what_waits(pair: Any, run: Run) -> None:
    pair.sync()
    synced = run("status", "--store", pair.tablet, "--json").json
    assert {"state", "pending", "failed", "conflicts", "last_synced_at"} <= synced.keys()
    assert (synced["pending"], synced["failed"]) == (0, 0)
    assert synced["last_synced_at"].endswith("Z")
    assert run("outbox", "ls", "--store", pair.tablet, "--json").json == []
    record = run("create", "work_order", "title=Waits", "--store", pair.tablet, "--json").json["id"]
    assert run("status", "--store", pair.tablet, "--json").json["pending"] == 1
    (item,) = run("outbox", "ls", "--store", pair.tablet, "--json").json
    assert (item["id"], item["type"], item["state"]) == (record, "work_order", "pending")
    assert "1 record to send" in run("status", "--store", pair.tablet).err
    pair.sync()
    assert pair.get(pair.office, record)["title"] == "Waits"


def test_import_takes_the_good_rows_and_lists_the_others(pair: Any, run: Run, tmp_path: Path) -> None:
    csv = tmp_path / "orders.csv"
    csv.write_text(
        "No,Text,Cost,Start\n1,Broken grease line,12.5,2004-07-01\n2,No cost,NA,2004-07-02\n"
        "3,Bad cost,twelve,2004-07-03\n4,,1,2004-07-04\n",
        encoding="utf-8",
    )
    command = ("import", "work_order", csv, "--store", pair.office, "--json", "--key", "No")
    maps = ("--map", "title=Text", "cost=Cost", "scheduled_start=Start", "asset_id=Text")
    report = run(*command, *maps, code=8).json
    assert report["imported"] == 2
    assert [(row["line"], row["field"]) for row in report["failed"]] == [(4, "cost"), (5, "title")]
    again = run(*command, *maps, code=8).json
    assert again["imported"] == 2
    found = run("ls", "work_order", "--store", pair.office, "--json", "--where", "asset_id=No cost").json
    assert len(found) == 1, "a second import with --key updates"
    assert found[0].get("cost") is None
    assert "Bad cost" not in run(*command[:-3], *maps, "--key", "No", code=8).err


def test_import_with_missing_columns_changes_nothing(pair: Any, run: Run, tmp_path: Path) -> None:
    csv = tmp_path / "orders.csv"
    csv.write_text("Text,Cost\nBroken,1\n", encoding="utf-8")
    before = len(run("ls", "work_order", "--store", pair.office, "--json").json)
    missing = run("import", "work_order", csv, "--store", pair.office, "--map", "title=Txt", "--json", code=4)
    assert missing.error["code"] == "import_file"
    for word in ("Txt", "Text", "Cost"):
        assert word in missing.err
    assert len(run("ls", "work_order", "--store", pair.office, "--json").json) == before


def test_spaces_and_members_are_listed(pair: Any, run: Run) -> None:
    (space,) = run("space", "ls", "--store", pair.tablet, "--json").json
    assert (space["name"], space["role"]) == ("Pit 4", "field")
    members = run("space", "members", "--store", pair.office, "--json").json
    # The pair is shared: other tests may have let further devices in.
    assert {("Office", "admin"), ("Tablet 7", "field")} <= {(m["name"], m["role"]) for m in members}
    types = run("schema", "ls", "--store", pair.tablet, "--json").json
    assert "work_order" in {schema["type"] for schema in types}
