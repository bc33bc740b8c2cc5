"""What systemd and a container would run is run here: it starts, is healthy, drains, and ends."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from crdt_sync.protocol.frames import Ack, Push
from crdt_sync_server.settings import BY_NAME, ENV_PREFIX
from tests.server.deployment_kit import (
    HERE,
    INSTALLED,
    SERVER,
    UNIT,
    Container,
    Served,
    free_port,
    relay_toml,
    unit,
)
from tests.server.relay_kit import TestSpace, create, raw_client, record


async def used_and_ended(relay: Served, number: signal.Signals, timeout_s: float) -> list[str]:
    """Work with it, stop it in the middle of that, and see everybody told. The events of its log."""
    space = TestSpace(901)
    await create(relay.url, relay.token, space)
    async with raw_client(relay.url) as client:
        await client.hello(space.founder)
        await client.caught_up()
        await client.send(Push([space.founder.update(record(1))]))
        assert (await client.expect(Ack)).sequence == 1
        ended = asyncio.create_task(asyncio.to_thread(relay.end, number, timeout_s))
        assert await client.closed() == (1001, "going_away: the relay is shutting down")
        code, log = await ended
    assert code == 0
    return [line["event"] for line in log if "event" in line]


async def test_the_units_command_starts_a_relay_and_its_signal_drains_it(tmp_path: Path) -> None:
    said = unit()
    (source,) = said["LoadCredential"]
    name, path = source.split(":")
    assert path == "/etc/crdt-sync/relay.toml"
    (state,) = said["StateDirectory"]
    assert f'data = "/var/lib/{state}"' in (SERVER / "relay.toml").read_text()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    relay_toml(credentials / name, tmp_path / "data", 0)
    (line,) = said["ExecStart"]
    assert line.startswith(f"{INSTALLED}/")
    command = shlex.split(line.replace(INSTALLED, HERE).replace("${CREDENTIALS_DIRECTORY}", str(credentials)))
    (number,), (stop_s,) = said["KillSignal"], said["TimeoutStopSec"]
    assert int(stop_s) > int(BY_NAME["drain"].default) * 2, "systemd waits for the drain"
    with Served(command, {}) as relay:
        events = await used_and_ended(relay, signal.Signals[number], int(stop_s))
    assert events[0] == "listening"
    assert events[-2:] == ["ended", "stopped"]
    assert "draining" in events


async def test_a_wrong_setting_ends_with_a_code_after_which_systemd_does_not_try_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "relay.toml").write_text('data = "data"\nspace_qouta = "2GiB"\n')
    command = [f"{HERE}/crdt-sync", "relay", "serve", "--config", str(tmp_path / "relay.toml")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.returncode in map(int, unit()["RestartPreventExitStatus"][0].split())
    assert "relay.toml:2: space_qouta is no setting of the relay; did you mean space_quota?" in done.stderr


async def test_the_containers_command_starts_a_relay_that_is_healthy_until_it_drains(tmp_path: Path) -> None:
    container, port = Container.read(), free_port()
    assert container.words["EXPOSE"] == ["8787"] == [str(BY_NAME["port"].default)]
    (volume,) = container.words["VOLUME"]
    assert container.env[f"{ENV_PREFIX}DATA"] == volume
    assert container.env.pop("PATH").startswith(f"{INSTALLED}:"), "for `podman exec relay crdt-sync …`"
    assert set(container.env) <= {setting.env for setting in BY_NAME.values()}
    env = {**container.env, f"{ENV_PREFIX}DATA": str(tmp_path / "data"), f"{ENV_PREFIX}PORT": str(port)}
    check = [part.replace(INSTALLED, HERE).replace("8787", str(port)) for part in container.healthcheck]

    async def healthy() -> bool:
        done = await asyncio.to_thread(subprocess.run, check, capture_output=True)
        return done.returncode == 0

    assert not await healthy()
    command = [part.replace(INSTALLED, HERE) for part in container.entrypoint + container.cmd]
    (number,) = container.words["STOPSIGNAL"]
    with Served(command, env) as relay:
        assert relay.url == f"ws://0.0.0.0:{port}"
        relay.url = f"ws://127.0.0.1:{port}"
        assert await healthy()
        status = [f"{HERE}/crdt-sync", "relay", "status"]
        shown = await asyncio.to_thread(
            subprocess.run, status, env=env, capture_output=True, text=True, check=True
        )
        assert "running" in shown.stdout, "as `podman exec relay crdt-sync relay status` would"
        events = await used_and_ended(relay, signal.Signals[number], 10)
    assert events[-1] == "stopped"
    assert not await healthy()


def test_what_the_container_copies_and_installs_is_there() -> None:
    container = Container.read()
    text = (SERVER / "Containerfile").read_text()
    root = SERVER.parent
    assert "/src/constraints.txt /src" in text
    assert (root / "constraints.txt").is_file()
    built, used = (re.match(r"\S+", line) for line in container.words["FROM"])
    assert built is not None
    assert used is not None
    assert built[0] == used[0], "the Python that it is built with is the one that runs it"
    ignored = (root / ".dockerignore").read_text().split("\n")
    assert {".git", ".venv"} <= set(ignored)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_is_content_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(INSTALLED, HERE))
    for command in (["verify"], ["security", "--offline=true", "--threshold=15"]):
        done = subprocess.run(
            ["systemd-analyze", *command, str(copy)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-200:] + done.stderr
        assert UNIT.name not in done.stderr, done.stderr
