"""The operator's commands as they are typed, and a relay with something in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from crdt_sync.protocol.frames import Ack, Push
from crdt_sync_client.cli.main import cli
from tests.server.relay_kit import RelayProcess, TestSpace, create, raw_client, record


def relay_command(*args: str | Path, code: int = 0) -> Any:
    """`crdt-sync relay … --json`: its answer, or its error."""
    result = CliRunner().invoke(cli, ["relay", *map(str, args), "--json"], prog_name="crdt-sync")
    assert result.exit_code == code, result.output
    if not result.stdout:
        return json.loads(result.stderr.splitlines()[-1])["error"]
    return json.loads(result.stdout.splitlines()[-1])


def plain(*args: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["relay", *map(str, args)], prog_name="crdt-sync")
    assert result.exit_code == code, result.output
    return result.output


def without_powers(*args: str | Path, code: int) -> Any:
    """The error of `crdt-sync relay … --json` run by somebody for whom a file's mode counts, as root too."""
    command = [str(Path(sys.executable).with_name("crdt-sync")), "relay", *map(str, args), "--json"]
    if os.geteuid() == 0:
        powers = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stderr.splitlines()[-1])["error"]


async def fill(relay: RelayProcess, space: TestSpace, updates: int = 20) -> None:
    await create(relay.url, relay.setup_token or "", space)
    async with raw_client(relay.url) as client:
        await client.hello(space.founder)
        await client.send(Push([space.founder.update(record(n % 3)) for n in range(updates)]))
        assert (await client.expect(Ack)).sequence == updates
