"""`crdt-sync store` and `logout`, on real files and a keychain in memory; nothing readable in any of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdt_sync.errors import WrongPassphrase
from crdt_sync_client import Device
from crdt_sync_client.cli import opening
from crdt_sync_client.cli.main import cli
from crdt_sync_client.store.connection import Database
from tests.client.alone import found_space
from tests.keychains import MemoryKeychain, in_use

TYPE = "work_order"
OLD, NEW = "correct horse", "battery staple"
SECRET_TITLE = "Swap the bucket teeth at dawn"


class Stopped(Exception):
    """The machine."""


@pytest.fixture(autouse=True)
def chain() -> Iterator[MemoryKeychain]:
    with in_use(MemoryKeychain()) as chain:
        yield chain


def run(*args: object, stdin: str = "", passphrase: str | None = None, **env: str | None) -> Result:
    variables: dict[str, str | None] = {
        "CRDT_SYNC_PASSPHRASE": passphrase,
        "CRDT_SYNC_NEW_PASSPHRASE": None,
        "CRDT_SYNC_STORE": None,
        **env,
    }
    return CliRunner().invoke(cli, [str(a) for a in args], prog_name="crdt-sync", input=stdin, env=variables)


def answer(*args: object, **options: Any) -> Any:
    """What a command says with --json, once it went well."""
    result = run(*args, "--json", **options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A device with unsent work, opened by the passphrase OLD."""
    path = tmp_path / "device.db"

    async def make() -> None:
        async with await Device.create(path, name="Tablet", passphrase=OLD) as device:
            await found_space(device)
            await device.create(TYPE, {"title": SECRET_TITLE})

    asyncio.run(make())
    return path


def nothing_readable(directory: Path, *results: Result) -> None:
    """No value, no passphrase and no table in any file or anything that was said."""
    wanted = [text.encode() for text in (SECRET_TITLE, OLD, NEW, "CREATE TABLE")]
    for file in directory.iterdir():
        content = file.read_bytes()
        assert not [text for text in wanted if text in content], file.name
    for result in results:
        assert not [text for text in wanted if text in result.output.encode()]


def test_the_passphrase_is_changed_from_files_the_environment_or_a_prompt(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = answer("store", "passphrase", "--store", store, passphrase=OLD, CRDT_SYNC_NEW_PASSPHRASE=NEW)
    assert said == {"store": str(store), "opened_by": "passphrase"}
    old, new = (run("status", "--store", store, passphrase=text) for text in (OLD, NEW))
    assert (old.exit_code, new.exit_code) == (5, 0)
    wrong = run("store", "passphrase", "--store", store, passphrase=OLD, CRDT_SYNC_NEW_PASSPHRASE="other")
    assert wrong.exit_code == 5
    nothing_readable(tmp_path, old, wrong)
    files = tmp_path / "now.txt", tmp_path / "next.txt"
    for file, text in zip(files, (NEW, OLD), strict=True):
        file.write_text(text, encoding="utf-8")
    options = ("--passphrase-file", files[0], "--new-passphrase-file", files[1])
    assert run("store", "passphrase", "--store", store, *options).exit_code == 0
    monkeypatch.setattr(opening, "at_a_terminal", lambda: True)
    typed = run("store", "passphrase", "--store", store, stdin=f"{OLD}\n{NEW}\n{NEW}\n")
    assert typed.exit_code == 0, typed.output
    assert NEW not in typed.output
    assert run("status", "--store", store, passphrase=NEW).exit_code == 0


def test_without_a_new_passphrase_nothing_changes(store: Path) -> None:
    refused = run("store", "passphrase", "--store", store, passphrase=OLD)
    assert refused.exit_code == 2
    assert "--new-passphrase-file" in refused.stderr
    assert run("status", "--store", store, passphrase=OLD).exit_code == 0


def test_a_store_goes_over_to_the_keychain_and_back(store: Path, chain: MemoryKeychain) -> None:
    to_keychain = ("store", "passphrase", "--store", store, "--to-keychain")
    assert answer(*to_keychain, passphrase=OLD)["opened_by"] == "keychain"
    assert len(chain.entries) == 1
    assert run("status", "--store", store).exit_code == 0
    assert run("status", "--store", store, passphrase=OLD).exit_code == 5
    back = answer("store", "passphrase", "--store", store, CRDT_SYNC_NEW_PASSPHRASE=NEW)
    assert back["opened_by"] == "passphrase"
    assert chain.entries == {}
    assert run("status", "--store", store, passphrase=NEW).exit_code == 0


def test_one_key_in_the_keychain_takes_the_place_of_another(store: Path, chain: MemoryKeychain) -> None:
    to_keychain = ("store", "passphrase", "--store", store, "--to-keychain")
    assert run(*to_keychain, passphrase=OLD).exit_code == 0
    ((entry, before),) = chain.entries.items()
    assert answer(*to_keychain)["opened_by"] == "keychain"
    ((same_entry, after),) = chain.entries.items()
    assert same_entry == entry
    assert after != before
    assert run("status", "--store", store).exit_code == 0
    chain.entries[entry] = before
    assert run("status", "--store", store).exit_code == 5


@pytest.mark.parametrize("point", range(5))
def test_an_exchange_of_keys_that_stops_anywhere_leaves_a_store_that_opens(
    store: Path, chain: MemoryKeychain, point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the new key is kept, the file encrypted, the new key put in place, the other dropped; never."""
    to_keychain = ("store", "passphrase", "--store", store, "--to-keychain")
    assert run(*to_keychain, passphrase=OLD).exit_code == 0
    ((entry, before),) = chain.entries.items()
    steps = {"left": point}

    def stopping(step: Any) -> Any:
        def stepped(*args: Any) -> Any:
            if steps["left"] == 0:
                raise Stopped
            steps["left"] -= 1
            return step(*args)

        return stepped

    with monkeypatch.context() as patch:
        patch.setattr(chain, "set_password", stopping(chain.set_password))
        patch.setattr(chain, "delete_password", stopping(chain.delete_password))
        patch.setattr(Database, "change_key", stopping(Database.change_key))
        assert (run(*to_keychain).exit_code == 0) is (point == 4)
    assert run("status", "--store", store).exit_code == 0
    assert run(*to_keychain).exit_code == 0
    ((same_entry, after),) = chain.entries.items()
    assert (same_entry, after != before) == (entry, True)
    assert run("status", "--store", store).exit_code == 0


def test_an_exchange_that_is_refused_leaves_the_key_that_was(
    store: Path, chain: MemoryKeychain, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_keychain = ("store", "passphrase", "--store", store, "--to-keychain")
    assert run(*to_keychain, passphrase=OLD).exit_code == 0
    before = dict(chain.entries)

    def refuses(*_: object) -> None:
        raise WrongPassphrase("no")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "change_key", refuses)
        assert run(*to_keychain).exit_code == 5
    assert chain.entries == before
    assert run("status", "--store", store).exit_code == 0


def test_a_change_that_was_broken_off_is_opened_by_the_passphrase(store: Path, chain: MemoryKeychain) -> None:
    salt = store.read_bytes()[:16]
    chain.entries["crdt-sync", salt.hex()] = bytes(32).hex()  # the key was kept, the file not encrypted yet
    lost = run("status", "--store", store)
    assert lost.exit_code == 5
    assert "--passphrase-file" in lost.stderr
    assert run("status", "--store", store, passphrase=OLD).exit_code == 0
    again = run("store", "passphrase", "--store", store, "--to-keychain", passphrase=OLD)
    assert again.exit_code == 0, again.stderr
    assert run("status", "--store", store).exit_code == 0


def test_a_keychain_that_refuses_leaves_the_passphrase(store: Path, chain: MemoryKeychain) -> None:
    chain.full = True
    refused = run("store", "passphrase", "--store", store, "--to-keychain", passphrase=OLD)
    assert refused.exit_code == 5
    assert run("status", "--store", store, passphrase=OLD).exit_code == 0


def test_info_says_what_takes_the_room_and_vacuum_gives_it_back(store: Path, tmp_path: Path) -> None:
    async def write_much() -> None:
        async with await Device.open(store, passphrase=OLD) as device:
            await device.import_rows(TYPE, ({"title": f"{SECRET_TITLE} {n}"} for n in range(1000)))

            def drop() -> None:  # as whatever takes rows out of the store
                db = device._thread.store.db
                with db.transaction(durable=True):
                    db.execute("DELETE FROM outbox WHERE no > (SELECT min(no) + 1 FROM outbox)")

            await device._thread.run(drop)

    asyncio.run(write_much())
    before = answer("store", "info", "--store", store, passphrase=OLD)
    parts = {part["name"]: part for part in before["parts"]}
    assert parts["work_order records"]["rows"] == 1001
    assert parts["work_order records"]["bytes"] > 1000 * 100
    assert before["free_bytes"] > 100_000
    people = run("store", "info", "--store", store, passphrase=OLD)
    assert "work_order records" in people.stdout
    assert "store vacuum" in people.stdout
    freed = answer("store", "vacuum", "--store", store, passphrase=OLD)["freed_bytes"]
    after = answer("store", "info", "--store", store, passphrase=OLD)
    assert freed > 100_000
    assert after["file_bytes"] == before["file_bytes"] - freed
    assert after["free_bytes"] < 10_000
    assert after["parts"] == before["parts"]
    nothing_readable(tmp_path, people)


def test_logout_refuses_unsent_work_then_exports_it_and_wipes(store: Path, tmp_path: Path) -> None:
    asked = run("logout", "--store", store, passphrase=OLD)
    assert asked.exit_code == 2
    assert "--yes" in asked.stderr
    refused = run("logout", "--store", store, "--yes", "--json", passphrase=OLD)
    assert refused.exit_code == 4
    assert json.loads(refused.stderr.splitlines()[-1])["error"]["code"] == "unsynced"
    assert "--export" in refused.stderr
    nothing_readable(tmp_path, asked, refused)
    file = tmp_path / "unsent.jsonl"
    done = run("logout", "--store", store, "--yes", "--export", file, passphrase=OLD)
    assert done.exit_code == 0, done.stderr
    assert "can be read by whoever has it" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["unsent.jsonl"]
    assert SECRET_TITLE in file.read_text(encoding="utf-8")
    assert run("status", "--store", store, passphrase=OLD).exit_code == 5


def test_an_export_at_logout_of_which_nothing_was_needed_says_so(tmp_path: Path) -> None:
    empty, file = tmp_path / "empty.db", tmp_path / "unsent.jsonl"
    assert run("init", "--store", empty, "--name", "Tablet", passphrase=OLD).exit_code == 0
    done = run("logout", "--store", empty, "--yes", "--export", file, passphrase=OLD)
    assert done.exit_code == 0, done.stderr
    assert f"A relay had everything: {file} is empty." in done.stdout
    assert file.read_bytes() == b""


def test_logout_forgets_the_keychains_key(store: Path, chain: MemoryKeychain, tmp_path: Path) -> None:
    assert run("store", "passphrase", "--store", store, "--to-keychain", passphrase=OLD).exit_code == 0
    said = answer("logout", "--store", store, "--yes", "--force")
    assert said["exported_to"] is None
    assert said["unsynced_records"] == 2, "the record and its type"
    assert chain.entries == {}
    assert list(tmp_path.iterdir()) == []


def test_logout_asks_at_a_terminal(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "at_a_terminal", lambda: True)
    said_no = run("logout", "--store", store, "--force", passphrase=OLD, stdin="n\n")
    assert said_no.exit_code == 130
    assert store.exists()
    assert run("logout", "--store", store, "--force", passphrase=OLD, stdin="y\n").exit_code == 0
    assert not store.exists()
