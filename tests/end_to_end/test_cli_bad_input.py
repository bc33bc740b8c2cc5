"""Wrong input at the command line: what, why and what to do; the documented code; and nothing changes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdt_sync_client import Device, keychain
from crdt_sync_client.store.connection import SALT_BYTES

Run = Callable[..., Any]

UNUSED_PORT = 9
"""The discard service: nobody listens there on a test machine."""


def names_the_next_step(answer: Any) -> bool:
    """Every error of ours has all three: what, why, hint."""
    return bool(answer.error["message"]) and bool(answer.error["hint"])


@pytest.mark.parametrize(
    ("assignment", "code", "field"),
    [
        ("cost=many", "validation", "cost"),
        ("status=done", "validation", "status"),
        ("scheduled_start=tomorrow", "validation", "scheduled_start"),
        ("parts_used.A.qty=-1", "validation", "parts_used.A.qty"),
        ("statsu=assigned", "validation", "statsu"),
        ("title=null", "validation", "title"),
    ],
)
def test_a_wrong_value_names_its_field(pair: Any, run: Run, assignment: str, code: str, field: str) -> None:
    record = pair.create("title=Untouched", "cost=1")
    before = pair.get(pair.office, record)
    answer = run("set", "work_order", record, assignment, "--store", pair.office, "--json", code=4)
    assert (answer.error["code"], answer.error["field"]) == (code, field)
    assert names_the_next_step(answer)
    assert "?." not in answer.err
    assert pair.get(pair.office, record) == before


def test_an_illegal_transition_says_what_may_follow(pair: Any, run: Run) -> None:
    record = pair.create("title=Transitions", "status=assigned")
    answer = run("set", "work_order", record, "status=closed", "--store", pair.office, "--json", code=4)
    assert answer.error["code"] == "transition"
    for word in ("assigned", "closed", "in_progress"):
        assert word in answer.err
    assert pair.get(pair.office, record)["status"] == "assigned"


def test_a_missing_record_type_or_conflict_is_code_3(pair: Any, run: Run) -> None:
    nobody = "00000000-0000-4000-8000-000000000000"
    assert (
        run("get", "work_order", nobody, "--store", pair.office, "--json", code=3).error["code"]
        == "not_found"
    )
    assert run("set", "work_order", nobody, "cost=1", "--store", pair.office, "--json", code=3).error["hint"]
    assert "work_order" in run("ls", "work_ordr", "--store", pair.office, code=3).err
    run("conflicts", "show", "ffff0000", "--store", pair.office, code=3)
    run("invite", "--space", "Nowhere", "--role", "field", "--store", pair.office, code=3)


def test_a_role_that_may_not_is_code_7(pair: Any, run: Run) -> None:
    record = pair.create("title=Office only")
    answer = run("rm", "work_order", record, "--store", pair.tablet, "--json", code=7)
    assert names_the_next_step(answer)
    run("invite", "--role", "field", "--store", pair.tablet, code=7)
    assert pair.get(pair.tablet, record)["title"] == "Office only"


def test_a_schema_with_mistakes_names_file_and_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(
        "title: Broken\nx-type: broken\nx-version: 1\ntype: object\nproperties:\n"
        "  a: {type: string, x-merge: client_win}\n  b: {type: strng}\n",
        encoding="utf-8",
    )
    answer = run("schema", "check", file, "--json", code=4)
    lines = {problem["line"] for problem in answer.error["problems"]}
    assert {6, 7} <= lines
    assert "client_wins" in answer.err, "names the nearest rule"
    assert f"{file}:6:" in answer.err
    run("schema", "check", tmp_path / "none.yaml", code=3)


def test_a_good_schema_prints_its_fields(run: Run) -> None:
    body = run("schema", "check", "work_order", "--json").json
    assert body["ok"]
    assert body["fields"]["root_cause"]["rule"] == "manual"
    assert "parts_used" in run("schema", "check", "work_order").out


def test_wrong_passphrase_and_things_that_are_no_store(pair: Any, run: Run, tmp_path: Path) -> None:
    status = ("status", "--json", "--store")
    store = tmp_path / "locked.db"
    run("init", "--store", store, "--name", "Locked", CRDT_SYNC_PASSPHRASE="right horse")
    wrong = run(*status, store, code=5, CRDT_SYNC_PASSPHRASE="wrong horse")
    assert wrong.error["code"] == "wrong_passphrase"
    assert "horse" not in wrong.err
    text = tmp_path / "notes.txt"
    text.write_text("not a store\n" * 500, encoding="utf-8")
    refused = run(*status, text, code=5, CRDT_SYNC_PASSPHRASE="any")
    assert refused.error["code"] in ("not_a_store", "wrong_passphrase")
    assert text.read_text(encoding="utf-8") == "not a store\n" * 500
    assert run(*status, tmp_path / "gone.db", code=5).error["code"] == "store_missing"
    exists = run("init", "--store", pair.office, "--name", "Again", "--json", code=5)
    assert exists.error["code"] == "store_exists"
    assert run(*status, pair.office).json["pending"] >= 0, "and it is what it was"


def test_without_any_passphrase_it_says_where_one_can_come_from(
    run: Run, passphrase: str, tmp_path: Path
) -> None:
    store = tmp_path / "locked.db"
    run("init", "--store", store, "--name", "Locked", CRDT_SYNC_PASSPHRASE=passphrase)
    answer = run("status", "--store", store, "--json", code=5, stdin="")
    assert answer.error["code"] == "no_key"
    assert "--passphrase-file" in answer.err
    assert "CRDT_SYNC_PASSPHRASE" in answer.err


def test_a_passphrase_file_is_read_and_checked(pair: Any, run: Run, passphrase: str, tmp_path: Path) -> None:
    file = tmp_path / "pass.txt"
    file.write_text(passphrase + "\n", encoding="utf-8")
    store = tmp_path / "locked.db"
    run("init", "--store", store, "--name", "Locked", "--passphrase-file", file)
    command = ("status", "--store", store, "--passphrase-file", file)
    run(*command, CRDT_SYNC_PASSPHRASE="wrong, and not looked at")
    file.write_text("one\ntwo\n", encoding="utf-8")
    run(*command, code=2)
    file.write_text("", encoding="utf-8")
    run(*command, code=2)


def test_two_processes_cannot_open_one_store(run: Run, passphrase: str, tmp_path: Path) -> None:
    program = """
import asyncio, os, sys
from crdt_sync_client import Device
async def hold():
    async with await Device.open(sys.argv[1], passphrase=os.environ["CRDT_SYNC_PASSPHRASE"]):
        print("open", flush=True)
        sys.stdin.readline()
asyncio.run(hold())
"""
    store = tmp_path / "shared.db"
    run("init", "--store", store, "--name", "Shared", CRDT_SYNC_PASSPHRASE=passphrase)
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CRDT_SYNC_PASSPHRASE": passphrase},
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "open\n"
        answer = run("status", "--store", store, "--json", code=5, CRDT_SYNC_PASSPHRASE=passphrase)
        assert answer.error["code"] == "store_in_use"
        assert names_the_next_step(answer)
    finally:
        holder.communicate("\n", timeout=15)
    run("status", "--store", store, CRDT_SYNC_PASSPHRASE=passphrase)


def test_used_garbled_and_foreign_invites(pair: Any, run: Run, tmp_path: Path) -> None:
    link = run("invite", "--store", pair.office, "--role", "reader", "--json").json["link"]
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    for store in (first, second):
        run("init", "--store", store, "--name", store.stem)
    garbled = run("join", link[:-3] + "AAA", "--store", first, "--json", code=4)
    assert garbled.error["code"] == "invite_garbled"
    assert run("join", "https://example.org/", "--store", first, code=4).err.startswith("error:")
    run("join", link, "--store", first)
    used = run("join", link, "--store", second, "--json", code=4)
    assert used.error["code"] == "invite_used"
    secret = link.rpartition("#")[2]
    assert secret not in used.err
    assert run("status", "--store", second, "--json").json["spaces"] == []
    run("sync", "--store", first)
    denied = run("create", "work_order", "title=No", "--store", first, code=7)
    assert "reader" in denied.err


async def test_an_expired_invite_says_so(run: Run, relay: Any, tmp_path: Path) -> None:
    joiner = tmp_path / "late.db"

    def prepare() -> None:
        run("init", "--store", tmp_path / "office.db", "--name", "Office")
        create = ("space", "create", "Gone", "--store", tmp_path / "office.db", "--relay", relay.url)
        run(*create, "--token", relay.setup_token)
        run("init", "--store", joiner, "--name", "Late")

    await asyncio.to_thread(prepare)
    salt = (tmp_path / "office.db").read_bytes()[:SALT_BYTES]
    async with await Device.open(tmp_path / "office.db", key=keychain.load_key(salt)) as office:
        link = await office.invite(expires_s=0.001)  # no span of the command line is as short
    answer = await asyncio.to_thread(run, "join", link, "--store", joiner, "--json", code=4)
    assert answer.error["code"] == "invite_expired"
    assert names_the_next_step(answer)
    status = await asyncio.to_thread(run, "status", "--store", joiner, "--json")
    assert status.json["spaces"] == []


def test_an_unreachable_relay_is_code_6_and_loses_nothing(pair: Any, run: Run, tmp_path: Path) -> None:
    store = tmp_path / "new.db"
    run("init", "--store", store, "--name", "New")
    address = f"ws://127.0.0.1:{UNUSED_PORT}"
    create = ("space", "create", "X", "--store", store, "--json", "--relay")
    answer = run(*create, address, "--token", "t", code=6)
    assert answer.error["code"] == "relay_unreachable"
    assert str(UNUSED_PORT) in answer.err
    run(*create, "http://127.0.0.1", "--token", "t", code=2)


def test_a_wrong_setup_token_is_refused(run: Run, relay: Any, tmp_path: Path) -> None:
    store = tmp_path / "new.db"
    run("init", "--store", store, "--name", "New")
    create = ("space", "create", "X", "--store", store, "--relay", relay.url, "--json")
    answer = run(*create, "--token", "not-the-token", code=6)
    assert answer.error["code"] == "relay_refused"
    assert "not-the-token" not in answer.err
    assert "token" in run(*create, code=2).err


def test_a_port_that_is_taken_is_code_6(relay: Any, tmp_path: Path) -> None:
    port = relay.url.rpartition(":")[2].strip("/")
    command = [sys.executable, "-m", "crdt_sync_client.cli", "relay", "serve", "--json"]
    done = subprocess.run(
        [*command, "--data", str(tmp_path / "other"), "--port", port],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 6
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "port_taken"


def test_no_file_of_a_device_or_its_relay_holds_a_secret_or_a_value(
    run: Run, relay: Any, passphrase: str, tmp_path: Path
) -> None:
    secret = {"CRDT_SYNC_PASSPHRASE": passphrase}
    office, tablet = tmp_path / "office.db", tmp_path / "tablet.db"
    run("init", "--store", office, "--name", "Office of Secrets", **secret)
    create = ("space", "create", "Hidden pit", "--store", office, "--relay", relay.url)
    run(*create, "--schema", "work_order", "--token", relay.setup_token, **secret)
    run("create", "work_order", "title=Not for everyone", "--store", office, **secret)
    link = run("invite", "--role", "field", "--store", office, **secret).out.strip()
    run("init", "--store", tablet, "--name", "Tablet", **secret)
    run("join", "-", "--store", tablet, stdin=link, **secret)
    for store in (office, tablet):
        run("sync", "--store", store, **secret)
    hidden = (passphrase, link.partition("#")[2], "Office of Secrets", "Hidden pit", "Not for everyone")
    files = [path for folder in (tmp_path, relay.data) for path in folder.rglob("*") if path.is_file()]
    assert {office, tablet} < set(files)
    for path in files:
        contents = path.read_bytes()
        assert [text for text in (*hidden, relay.setup_token) if text.encode() in contents] == [], path
    # The space's id has to be known to the relay: the search does find what is there.
    space = bytes.fromhex(run("space", "ls", "--store", office, "--json", **secret).json[0]["id"])
    assert any(space in path.read_bytes() for path in relay.data.rglob("*") if path.is_file())
