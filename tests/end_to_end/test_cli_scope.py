"""`crdt-sync scope`, `fetch`, `settings` and `store cleanup`, as they are typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Pair, RelayProcess, make_pair
from tests.keychains import MemoryKeychain

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, relay: RelayProcess, keychain: MemoryKeychain) -> Pair:
    return make_pair(tmp_path_factory.mktemp("scope"), relay)


@pytest.fixture
def tablet(own: Pair, run: Run) -> Iterator[Path]:
    yield own.tablet
    run("scope", "set", "work_order", "--all", "--store", own.tablet)
    own.sync()


def test_a_tablet_keeps_only_what_it_is_told_to(own: Pair, run: Run, tablet: Path) -> None:
    store = ("--store", tablet)
    assert "All records are kept" in run("scope", "ls", *store).out
    kept, gone = own.create("title=Open"), own.create("title=Done", "status=closed")
    answer = run("scope", "set", "work_order", "status!=closed", *store, "--json").json
    assert answer == {"left": 1, "wanted": 0, "leaving": 0}
    assert run("scope", "ls", *store, "--json").json["absent"] == 1
    assert "status!=closed" in run("scope", "ls", *store).out
    assert run("get", "work_order", kept, *store, "--json").json["title"] == "Open"
    refused = run("set", "work_order", gone, "title=New", *store, "--json", code=3)
    assert refused.error["code"] == "absent"
    assert refused.error["hint"].endswith(f"`crdt-sync fetch work_order {gone}`")
    assert run("fetch", "work_order", gone, *store, "--json").json["title"] == "Done"
    assert "is kept here" in run("scope", "pick", "work_order", gone, *store).out
    assert run("scope", "ls", *store, "--json").json["picks"] == [{"type": "work_order", "id": gone}]
    assert run("scope", "unpick", "work_order", gone, *store, "--json").json["left"] == 1
    run("scope", "set", "work_order", "--none", *store)
    assert run("ls", "work_order", *store, "--json").json == []


def test_what_cannot_be_changes_nothing(own: Pair, run: Run, tablet: Path) -> None:
    store = ("--store", tablet)
    run("scope", "set", "work_order", *store, code=2)
    run("scope", "set", "work_order", "status=x", "--all", *store, code=2)
    run("scope", "set", "work_order", "statsu=closed", *store, code=4)
    run("settings", "set", "sync_every_s", *store, code=2)
    run("settings", "set", "sync_every_s=soon", *store, code=2)
    run("settings", "set", "critical_priority=2", "sync_every_s=-1", *store, code=4)
    assert run("settings", "ls", *store, "--json").json["critical_priority"] == 1
    assert run("scope", "ls", *store, "--json").json["conditions"] == {}


def test_settings_are_kept_and_taken_back(run: Run, tablet: Path) -> None:
    store = ("--store", tablet)
    answer = run("settings", "set", "keep_days.work_order=30", "metered_initial=false", *store, "--json").json
    assert (answer["keep_days.work_order"], answer["metered_initial"]) == (30, False)
    assert "metered_initial" in run("settings", "ls", *store).out
    run("settings", "set", "keep_days.work_order=default", "metered_initial=default", *store)
    answer = run("settings", "ls", *store, "--json").json
    assert "keep_days.work_order" not in answer
    assert answer["metered_initial"] is True


def test_cleanup_and_a_cleared_cache(own: Pair, run: Run, tablet: Path) -> None:
    store = ("--store", tablet)
    id = own.create("title=Young", "status=closed")
    assert run("store", "cleanup", *store, "--dry-run", "--json").json == {"records": [], "left": 0}
    assert "0 records left this device" in run("store", "cleanup", *store).out
    assert run("store", "clear-cache", *store, "--json").json["left"] >= 1
    run("get", "work_order", id, *store, code=3)
    own.sync()
    assert run("get", "work_order", id, *store, "--json").json["title"] == "Young"
