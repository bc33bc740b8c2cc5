"""What holds for every command: an example, --json, documented codes, a fast start, honest errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from crdt_sync import errors
from crdt_sync_client.cli import failures
from crdt_sync_client.cli.main import cli
from crdt_sync_client.cli.reference import commands, reference

ROOT = Path(__file__).resolve().parents[2]

COMMANDS = [(context.command_path, context, command) for context, command in commands()]
LEAVES = [entry for entry in COMMANDS if not isinstance(entry[2], click.Group)]

CONTRACT = """
relay serve|init|space create|invite|join|create|set|get|ls|rm|import|sync|status|outbox ls|outbox retry
outbox discard|conflicts ls|conflicts show|conflicts resolve|schema check
"""


def run(*args: str, **env: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    result = CliRunner().invoke(cli, list(args), prog_name="crdt-sync", env={"CRDT_SYNC_STORE": None, **env})
    return result.exit_code, result.stdout, result.stderr


def test_the_commands_of_the_contract_are_all_there() -> None:
    wanted = {f"crdt-sync {name}" for line in CONTRACT.split("\n") for name in line.split("|") if name}
    assert wanted <= {path for path, _, _ in LEAVES}


@pytest.mark.parametrize(("path", "context", "command"), LEAVES, ids=[entry[0] for entry in LEAVES])
def test_every_command_has_an_example_and_json(
    path: str, context: click.Context, command: click.Command
) -> None:
    text = command.get_help(context)
    assert "Example" in text
    assert f"{path} " in text.split("Example", 1)[1], "the example shows this command"
    assert "--json" in text


def test_the_lists_of_commands_tell_all_of_each_in_80_columns() -> None:
    cut = []
    for path, context, group in COMMANDS:
        if isinstance(group, click.Group):
            context.terminal_width = 80
            listed = group.get_help(context).split("\nCommands:")[1]
            cut += [f"{path}: {line.strip()}" for line in listed.splitlines() if line.endswith("...")]
            context.terminal_width = None
    assert cut == []


def test_the_help_of_the_root_names_every_exit_code() -> None:
    code, text, _ = run("--help")
    assert code == 0
    for number, meaning in failures.EXIT_CODES:
        assert f"{number:<3}  {meaning}" in text


def test_docs_cli_md_is_what_the_commands_say() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m crdt_sync_client.cli.reference > docs/cli.md"


def test_every_error_of_the_product_has_a_documented_exit_code() -> None:
    def families(family: type[errors.CrdtSyncError]) -> set[type[errors.CrdtSyncError]]:
        return {family}.union(*(families(sub) for sub in family.__subclasses__()))

    documented = {code for code, _ in failures.EXIT_CODES} - {failures.UNEXPECTED}
    for family in families(errors.CrdtSyncError) - {errors.CrdtSyncError}:
        error = family.__new__(family)
        assert failures.exit_code_of(error) in documented, family


def test_help_starts_without_the_engine() -> None:
    heavy = [
        "pycrdt",
        "sqlcipher3",
        "cryptography",
        "keyring",
        "asyncio",
        "rich",
        "starlette",
        "jsonschema_rs",
    ]
    program = f"""
import sys
from crdt_sync_client.cli.main import cli
try:
    cli.main(["--help"], prog_name="crdt-sync")
except SystemExit:
    pass
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "args",
    [
        ("bogus",),
        ("get", "work_order"),
        ("get", "work_order", "x"),
        ("invite", "--store", "x.db", "--role", "king"),
        ("invite", "--store", "x.db", "--role", "field", "--expires", "soon"),
        ("invite", "--store", "x.db", "--role", "field", "--expires", "0d"),
        ("conflicts", "resolve", "abcd1234", "--store", "x.db"),
        ("conflicts", "resolve", "abcd1234", "--store", "x.db", "--keep", "mine", "--value", "x"),
        ("import", "work_order", "no-such.csv", "--store", "x.db", "--map", "title=T"),
        ("schema", "check"),
    ],
)
def test_wrong_usage_exits_2_and_says_how(args: tuple[str, ...]) -> None:
    code, out, err = run(*args)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert "--help" in err or "--keep" in err


def test_an_error_with_json_ends_with_an_object(tmp_path: Path) -> None:
    code, out, err = run("ls", "work_order", "--store", str(tmp_path / "none.db"), "--json")
    assert (code, out) == (failures.STORE, "")
    first, last = err.splitlines()
    assert first.startswith("error: there is no store")
    assert json.loads(last)["error"]["code"] == "store_missing"


def test_no_command_takes_a_passphrase_as_an_argument() -> None:
    for path, _, command in LEAVES:
        for parameter in command.params:
            assert not (set(parameter.opts) & {"--passphrase", "--password", "--key-hex"}), path


def test_an_unexpected_failure_is_one_line_and_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from crdt_sync_client.cli import schemas

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(schemas.schema_check, "callback", broken)
    code, _, err = run("schema", "check", "work_order")
    assert code == failures.UNEXPECTED
    assert err == "error: unexpected RuntimeError: boom. Set CRDT_SYNC_DEBUG=1 to see where it happened\n"
    _, _, err = run("schema", "check", "work_order", CRDT_SYNC_DEBUG="1")
    assert "Traceback" in err


def test_the_installed_script_runs() -> None:
    script = Path(sys.executable).parent / "crdt-sync"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("crdt-sync ")
