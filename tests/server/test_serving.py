"""How a relay starts, logs and stops, as its operator sees it; and the files that come with it."""

from __future__ import annotations

import asyncio
import configparser
import json
from pathlib import Path

from click.testing import CliRunner

from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Ack, Bye, Push
from crdt_sync_client.cli.main import cli
from tests.server.relay_kit import RelayProcess, TestSpace, create, raw_client, record

ROOT = Path(__file__).parents[2]


async def test_json_logs_tell_a_life_and_no_secret(tmp_path: Path) -> None:
    space = TestSpace(401)
    with RelayProcess(tmp_path / "data", "--log-format", "json", "--log-level", "debug") as relay:
        await create(relay.url, relay.setup_token or "", space)
        async with raw_client(relay.url) as client:
            await client.hello(space.founder)
            await client.caught_up()
        assert relay.stop() == 0
    lines = [json.loads(line) for line in relay.stderr.splitlines()]
    events = [line.get("event") for line in lines]
    assert events[0] == "listening"
    assert events[-2:] == ["draining", "stopped"]
    ended = [line for line in lines if line.get("event") == "ended"]
    assert ended[-1]["device"] == space.founder.author.device.hex()
    assert ended[-1]["synced"] is True
    assert all({"at", "level", "logger", "message"} <= line.keys() for line in lines)
    assert relay.setup_token is not None
    assert relay.setup_token not in relay.stderr


async def test_what_was_pushed_before_the_stop_is_acknowledged_and_everybody_is_told_to_come_back(
    tmp_path: Path,
) -> None:
    space = TestSpace(402)
    with RelayProcess(tmp_path / "data") as relay:
        await create(relay.url, relay.setup_token or "", space)
        async with raw_client(relay.url) as client:
            await client.hello(space.founder)
            await client.caught_up()
            for _ in range(20):
                await client.send(Push([space.founder.update(record(n)) for n in range(20)]))
            first = await client.expect(Ack)
            stopped = asyncio.create_task(asyncio.to_thread(relay.stop))
            last, frame = first.sequence, await client.receive()
            while not isinstance(frame, Bye):
                last = frame.sequence if isinstance(frame, Ack) else last
                frame = await client.receive()
            assert frame.code == CloseCode.GOING_AWAY
            assert (await client.closed())[0] == CloseCode.GOING_AWAY
            assert await stopped == 0
    with RelayProcess(tmp_path / "data") as relay:
        async with raw_client(relay.url) as client:
            assert (await client.hello(space.founder)).own_sequence == last, (
                "all that was stored was acknowledged"
            )
        assert relay.stop() == 0


class UnitParser(configparser.ConfigParser):
    """Leaves keys as they are written."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def test_the_settings_file_and_the_unit_that_ship_are_right() -> None:
    shown = CliRunner().invoke(
        cli, ["relay", "config", "--config", str(ROOT / "server" / "relay.toml"), "--json"]
    )
    assert shown.exit_code == 0, shown.output
    unit = UnitParser(strict=False, interpolation=None)
    unit.read(ROOT / "server" / "crdt-sync-relay.service")
    command = unit["Service"]["ExecStart"].split()
    assert command[1:4] == ["relay", "serve", "--config"]
    settings = {row["name"]: row["value"] for row in json.loads(shown.stdout)}
    assert settings["data"] == "/var/lib/" + unit["Service"]["StateDirectory"]
    drain_s = int(settings["drain"].removesuffix("s"))
    assert int(unit["Service"]["TimeoutStopSec"]) > 2 * drain_s


def test_the_container_file_sets_settings_that_there_are() -> None:
    from crdt_sync_server.settings import BY_NAME, ENV_PREFIX

    text = (ROOT / "server" / "Containerfile").read_text()
    names = [word.split("=")[0] for word in text.split() if word.startswith(ENV_PREFIX)]
    assert len(names) == 4
    assert all(name.removeprefix(ENV_PREFIX).lower() in BY_NAME for name in names)
