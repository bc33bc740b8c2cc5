"""`crdt-sync outbox` as typed: trying again what was refused, giving up what is unsent, and priorities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.protocol.device_session import DeviceSession

Run = Any


def unsent(run: Run, store: Path, title: str) -> str:
    made = run("create", "work_order", f"title={title}", "--store", store, "--json")
    return str(made.json["id"])


def test_priorities_are_shown_and_the_urgent_stands_first(run: Run, pair: Any) -> None:
    usual = pair.create("title=Usual")
    urgent = run(
        *("create", "work_order", "title=Urgent", "--priority", "1", "--store", pair.office, "--json")
    ).json["id"]
    run("set", "work_order", usual, "status=assigned", "--priority", "3", "--store", pair.office)
    listed = {item["id"]: item for item in run("outbox", "ls", "--store", pair.office, "--json").json}
    assert (listed[urgent]["priority"], listed[urgent]["state"]) == (1, "pending")
    assert listed[usual]["priority"] == 3
    assert "1 to 10" in run(
        *("set", "work_order", usual, "status=assigned", "--priority", "11", "--store", pair.office), code=2
    ).err.replace("1<=x<=10", "1 to 10")


def test_what_is_unsent_is_given_up_into_a_file_and_not_without_a_word(
    run: Run, pair: Any, tmp_path: Path
) -> None:
    record, export = unsent(run, pair.office, "Wrong"), tmp_path / "given-up.jsonl"
    place = ("outbox", "discard", "work_order", record, "--store", pair.office)
    assert "--export FILE, or --lose" in run(*place, code=2).err
    assert "--export FILE, or --lose" in run(*place, "--export", export, "--lose", code=2).err
    export.write_text("mine")
    run(*place, "--export", export, code=4)
    assert export.read_text() == "mine", "a file that is there is not written over"
    assert run("get", "work_order", record, "--store", pair.office, "--json").json["title"] == "Wrong"
    export.unlink()
    assert "is given up" in run(*place, "--export", export).out
    assert [json.loads(line)["id"] for line in export.read_text().splitlines()] == [record]
    run("get", "work_order", record, "--store", pair.office, code=3)
    run(*place, "--lose", code=3)


def test_what_the_relay_refused_is_lined_up_again(
    run: Run, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = DeviceSession.push

    def tampered(self: DeviceSession, envelopes: list[bytes]) -> bytes:
        return push(self, [envelope[:-1] + bytes([envelope[-1] ^ 1]) for envelope in envelopes])

    run("sync", "--store", pair.office)
    record = unsent(run, pair.office, "Spoiled")
    retry = ("outbox", "retry", "work_order", record, "--store", pair.office)
    run(*retry, code=3)  # nothing was refused yet
    assert "and its id" in run("outbox", "retry", "work_order", "--store", pair.office, code=2).err
    monkeypatch.setattr(DeviceSession, "push", tampered)
    run("sync", "--timeout", "30", "--store", pair.office)
    monkeypatch.setattr(DeviceSession, "push", push)
    (item,) = run("outbox", "ls", "--store", pair.office, "--json").json
    assert (item["id"], item["state"], item["code"]) == (record, "waiting", "bad_signature")
    assert "1 record lined up" in run(*retry).out
    run("sync", "--store", pair.office)
    assert run("outbox", "ls", "--store", pair.office, "--json").json == []
