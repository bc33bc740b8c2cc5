"""The relay's settings: which source counts, and what an operator is told who wrote a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crdt_sync_client.cli.main import cli
from crdt_sync_server.settings import SETTINGS


def relay_config(*args: str | Path, code: int = 0, **env: str) -> Any:
    """`crdt-sync relay config`: its rows by name, or what it says on standard error."""
    command = ["relay", "config", *map(str, args), "--json"]
    result = CliRunner().invoke(cli, command, prog_name="crdt-sync", env=env)
    assert result.exit_code == code, result.output
    if code:
        return json.loads(result.stderr.splitlines()[-1])["error"]
    return {row["name"]: (row["value"], row["from"]) for row in json.loads(result.stdout)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "relay.toml"
    path.write_text('# ours\ndata = "/srv/relay"\nport = 9000\nspace_quota = "2GiB"\nhttp_api = false\n')
    return path


def test_a_flag_counts_before_the_environment_before_the_file_before_the_default(file: Path) -> None:
    flag_env_file = relay_config("--config", file, "--port", "9002", CRDT_SYNC_RELAY_PORT="9001")
    assert flag_env_file["port"] == ("9002", "flag")
    env_file = relay_config("--config", file, CRDT_SYNC_RELAY_PORT="9001")
    assert env_file["port"] == ("9001", "CRDT_SYNC_RELAY_PORT")
    from_file = relay_config(CRDT_SYNC_RELAY_CONFIG=str(file))
    assert from_file["port"] == ("9000", f"{file}:3")
    assert from_file["space_quota"] == ("2GiB", f"{file}:4")
    assert from_file["http_api"] == ("false", f"{file}:5")
    assert relay_config("--data", "x")["port"] == ("8787", "default")


def test_every_setting_is_shown_and_no_secret(file: Path) -> None:
    shown = relay_config("--config", file, CRDT_SYNC_RELAY_METRICS_TOKEN="do-not-show-this-one")
    assert list(shown) == [setting.name for setting in SETTINGS]
    assert shown["metrics_token"] == ("set, not shown", "CRDT_SYNC_RELAY_METRICS_TOKEN")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_what_is_shown_can_be_written_again(setting: Any, tmp_path: Path) -> None:
    shown, _ = relay_config("--data", tmp_path)[setting.name]
    if setting.default is None:
        return
    assert relay_config("--data", tmp_path, **{setting.env: shown})[setting.name] == (shown, setting.env)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('port = "8x"', "port: '8x' is not a whole number, from 0 to 65535"),
        ("port = 70000", "port: 70000 is not a whole number, from 0 to 65535"),
        ("port = true", "port: True is not a number or text"),
        ("port = 1.5", "port: a float is no value for it"),
        ('http_api = "yes"', "http_api: 'yes' is not true or false"),
        ('log_format = "xml"', "log_format: 'xml' is not one of 'text', 'json'"),
        ("space_quota = 1024", "from 4MiB to 1024TiB, or off"),
        ('window = "off"', "window: 'off' is not a size as in 512KiB, 4MiB or 2GiB, from 64KiB to 64MiB"),
        ('drain = "1w"', "a time span as in 30s, 10m or 1h"),
        ('metrics_token = "short"', "a token has at least 16 ASCII characters"),
        ("space_qota = 1", "space_qota is no setting of the relay; did you mean space_quota?"),
        ("[limits]", "limits is no setting of the relay"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_allowed(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(f'data = "d"\n\n{line}\n')
    error = relay_config("--config", path, code=4)
    assert error["code"] == "config"
    assert error["message"].startswith(f"{path}:3: ")
    assert said in error["message"]
    assert "crdt-sync relay config" in error["hint"]


def test_a_file_that_is_no_toml_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text('data = "d"\nport 8787\n')
    assert f"{path}:2:6: not TOML" in relay_config("--config", path, code=4)["message"]
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in relay_config("--config", path, code=4)["message"]
    assert "No such file" in relay_config("--config", tmp_path / "none", code=4)["message"]


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    error = relay_config("--data", tmp_path, code=2, CRDT_SYNC_RELAY_PORT="x")
    assert "CRDT_SYNC_RELAY_PORT: 'x' is not a whole number" in error["message"]
    error = relay_config("--data", tmp_path, code=4, CRDT_SYNC_RELAY_MAX_FRAMES="1MiB")
    assert "CRDT_SYNC_RELAY_MAX_FRAMES: no setting" in error["message"]
    assert "max_frame?" in error["message"]


def test_two_settings_that_do_not_fit_are_both_named(tmp_path: Path) -> None:
    error = relay_config("--data", tmp_path, "--max-frame", "1MiB", code=4)
    assert "max_envelope is 1MiB, which does not fit max_frame (1MiB)" in error["message"]


@pytest.mark.parametrize("command", ["serve", "config", "status", "backup", "top", "token"])
def test_a_missing_directory_is_asked_for(command: str) -> None:
    result = CliRunner().invoke(
        cli, ["relay", command, "--to", "x"] if command == "backup" else ["relay", command]
    )
    assert result.exit_code == 2
    assert "'--data' (or CRDT_SYNC_RELAY_DATA, or `data` in the file of --config)" in result.output


def test_an_address_that_is_not_here_is_told_as_that(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli, ["relay", "serve", "--data", str(tmp_path / "d"), "--host", "192.0.2.1"], prog_name="crdt-sync"
    )
    assert result.exit_code == 6
    assert "cannot listen on 192.0.2.1" in result.output
    assert "--host is an address of this machine" in result.output


def test_the_short_help_of_every_command_is_whole() -> None:
    result = CliRunner().invoke(cli, ["relay", "--help"], terminal_width=80)
    commands = result.output.split("Commands:")[1]
    assert "..." not in commands
