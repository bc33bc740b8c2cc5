"""Every command in the operator's guide is run against a real relay; its file, paths and metrics are true."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner

from crdt_sync_client.cli.main import cli
from crdt_sync_server.metrics import Metrics
from crdt_sync_server.settings import BY_NAME
from tests.server.http_kit import http_url
from tests.server.operator_kit import fill
from tests.server.relay_kit import RelayProcess, TestSpace, create
from tests.server.test_operations_guide import GUIDE

TEXT = GUIDE.read_text()
BLOCKS = [line.strip() for line in TEXT.splitlines() if line.startswith("    crdt-sync relay ")]
DATA, BACKUP = "/var/lib/crdt-sync", "/backup/crdt-sync-2026-11-21"
DEVICE = "9b1f0c3e5a7d4826b0c1d2e3f4a59687"
NAMED = sorted(set(re.findall(r"`(crdt-sync relay [a-z-]+)", TEXT)))


class Operator:
    """Who follows the guide on a machine with other paths, where another device was lost."""

    def __init__(self, folder: Path, device: str) -> None:
        self.data = folder / "data"
        self._places = {DATA: str(self.data), BACKUP: str(folder / "backup"), DEVICE: device}

    def args(self, line: str) -> list[str]:
        for written, here in self._places.items():
            line = line.replace(written, here)
        program, *args = shlex.split(line)
        assert program == "crdt-sync"
        return args

    async def run(self, line: str, *more: str) -> Any:
        """The answer in JSON."""
        command = [*self.args(line), *more, "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, cli, command, prog_name="crdt-sync")
        assert result.exit_code == 0, f"{line}\n{result.output}"
        return json.loads(result.stdout.splitlines()[-1])


def line_with(words: str) -> str:
    (found,) = [line for line in BLOCKS if words in line]
    return found


async def test_every_command_does_what_it_is_there_for(tmp_path: Path) -> None:
    space, run = TestSpace(401), []
    operator = Operator(tmp_path, space.founder.author.device.hex())

    async def do(words: str, *more: str) -> Any:
        run.append(line_with(words))
        return await operator.run(run[-1], *more)

    serve = operator.args(line_with("relay serve"))
    run.append(line_with("relay serve"))
    assert serve[:2] == ["relay", "serve"]
    assert serve[2:] == ["--data", str(operator.data)]
    with RelayProcess(operator.data) as relay:
        await fill(relay, space)
        assert (await do("relay backup"))["rows"] == 21
        assert (await do("relay check"))["findings"] == []
        assert (await do("--reason"))["revoked"]
        assert not (await do("--undo"))["revoked"]
        for command in NAMED:
            if command.split()[-1] in ("status", "spaces", "devices", "checkouts", "token"):
                await operator.run(command, "--data", str(operator.data))
        top = await operator.run("crdt-sync relay top", "--data", str(operator.data), "--count", "1")
        assert top["per_second"]["rows"] == 0
        assert relay.stop() == 0
    assert (await do("relay restore"))["rows"] == 21
    assert (await do("relay take-back"))["until_ms"] > 0
    assert set(run) == set(BLOCKS), "a command of the guide that nobody has tried"


def test_every_command_that_the_guide_names_exists() -> None:
    for command in NAMED:
        result = CliRunner().invoke(cli, [*command.split()[1:], "--help"], prog_name="crdt-sync")
        assert result.exit_code == 0, command
    assert len(NAMED) >= 7


def test_the_settings_file_of_the_guide_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"A file:\n\n((?:    .+\n)+)", TEXT)
    text = "\n".join(line.strip() for line in block.splitlines())
    assert set(tomllib.loads(text)) <= set(BY_NAME)
    (tmp_path / "relay.toml").write_text(text)
    result = CliRunner().invoke(cli, ["relay", "config", "--config", str(tmp_path / "relay.toml")])
    assert result.exit_code == 0, result.output


async def test_the_paths_and_metrics_of_the_guide_are_those_of_a_relay(relay: RelayProcess) -> None:
    space = TestSpace(402)
    await create(relay.url, relay.setup_token or "", space)
    async with httpx.AsyncClient(base_url=http_url(relay.url), trust_env=False) as client:
        documented = set((await client.get("/openapi.json")).json()["paths"])
    (api,) = re.findall(r"\| path \| \|\n\|---\|---\|\n((?:\|.+\n)+)", TEXT)
    told: set[str] = set()
    for row in api.splitlines():
        start = ""
        for path in re.findall(r"(/[a-z0-9/{}-]+|…/[a-z0-9/{}-]+)", row.split("|")[1]):
            start = start or "/v1/spaces/{space}"
            told.add(path.replace("…", start))
    assert told <= documented | {"/openapi.json"}, told - documented
    assert documented - told == {"/openapi.json"}, "a path that the guide does not tell"
    metrics = {family.name.removeprefix("crdt_sync_relay_") for family in Metrics().registry.collect()}
    (table,) = re.findall(r"\| metric, after `crdt_sync_relay_` \| \|\n\|---\|---\|\n((?:\|.+\n)+)", TEXT)
    for row in table.splitlines():
        for name in re.findall(r"`([a-z_]+)(?:\{.*?\})?`", row.split("|")[1]):
            assert name.removesuffix("_total") in metrics, name
