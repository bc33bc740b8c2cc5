"""Where a passphrase comes from: a file, the environment, the keychain, a hidden prompt."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import keyring.backends.fail
import pytest
from click.testing import CliRunner, Result

from crdt_sync_client.cli import opening
from crdt_sync_client.cli.main import cli
from tests.keychains import MemoryKeychain, in_use


@pytest.fixture
def keychain() -> Iterator[MemoryKeychain]:
    with in_use(MemoryKeychain()) as chosen:
        yield chosen


@pytest.fixture
def no_keychain() -> Iterator[None]:
    nothing = keyring.backends.fail.Keyring()
    with in_use(nothing):
        yield


def run(*args: str | Path, stdin: str = "", **env: str | None) -> Result:
    variables: dict[str, str | None] = {"CRDT_SYNC_PASSPHRASE": None, "CRDT_SYNC_STORE": None, **env}
    return CliRunner().invoke(cli, [str(a) for a in args], prog_name="crdt-sync", input=stdin, env=variables)


def test_the_keychain_holds_a_random_key(tmp_path: Path, keychain: MemoryKeychain) -> None:
    store = tmp_path / "device.db"
    assert run("init", "--store", store, "--name", "Tablet").exit_code == 0
    ((key,),) = [(value,) for value in keychain.entries.values()]
    assert len(bytes.fromhex(key)) == 32
    assert run("status", "--store", store).exit_code == 0
    keychain.entries.clear()
    lost = run("status", "--store", store)
    assert lost.exit_code == 5
    assert "passphrase" in lost.stderr


def test_a_keychain_that_refuses_leaves_no_store_behind(tmp_path: Path, keychain: MemoryKeychain) -> None:
    keychain.full = True
    result = run("init", "--store", tmp_path / "device.db", "--name", "Tablet", "--json")
    assert result.exit_code == 5
    assert "--passphrase-file" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_hidden_prompt_asks_twice_for_a_new_store(
    tmp_path: Path, no_keychain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "at_a_terminal", lambda: True)
    store = tmp_path / "device.db"
    made = run("init", "--store", store, "--name", "Tablet", stdin="typed\ntyped\n")
    assert made.exit_code == 0, made.output
    assert "typed" not in made.output
    assert run("status", "--store", store, stdin="typed\n").exit_code == 0
    wrong = run("status", "--store", store, stdin="other\n")
    assert wrong.exit_code == 5
    assert "other" not in wrong.output
    given_up = run("status", "--store", store, stdin="")
    assert given_up.exit_code == 130


def test_without_a_terminal_and_a_keychain_nothing_is_made(tmp_path: Path, no_keychain: None) -> None:
    result = run("init", "--store", tmp_path / "device.db", "--name", "Tablet")
    assert result.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_the_file_comes_before_the_environment(tmp_path: Path, no_keychain: None) -> None:
    store, file = tmp_path / "device.db", tmp_path / "pass.txt"
    file.write_text("from the file\r\n", encoding="utf-8")
    init = ("init", "--store", store, "--name", "Tablet", "--passphrase-file", file)
    assert run(*init, CRDT_SYNC_PASSPHRASE="from the environment").exit_code == 0
    assert run("status", "--store", store, CRDT_SYNC_PASSPHRASE="from the file").exit_code == 0
    assert run("status", "--store", store, CRDT_SYNC_PASSPHRASE="from the environment").exit_code == 5
    assert run("status", "--store", store, CRDT_SYNC_PASSPHRASE="").exit_code == 2


def test_a_store_is_readable_by_its_owner_only(tmp_path: Path, no_keychain: None) -> None:
    store = tmp_path / "device.db"
    assert run("init", "--store", store, "--name", "Tablet", CRDT_SYNC_PASSPHRASE="secret").exit_code == 0
    assert stat.S_IMODE(store.stat().st_mode) & 0o077 == 0
