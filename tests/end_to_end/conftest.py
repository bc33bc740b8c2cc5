"""A real relay process, and `crdt-sync` as it is typed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crdt_sync_client import Device
from crdt_sync_client.cli.main import cli
from tests.end_to_end.office import Enter, let_in, office_at
from tests.end_to_end.relay_process import RestartableRelay
from tests.keychains import MemoryKeychain, in_use

PASSPHRASE = "correct horse battery"


@dataclass(frozen=True)
class RelayProcess:
    """A running `crdt-sync relay serve`."""

    process: subprocess.Popen[str]
    url: str
    setup_token: str
    data: Path

    def stop(self) -> int:
        """End it as an operator would; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=15)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def start_relay(data: Path, *, port: int = 0) -> RelayProcess:
    command = [sys.executable, "-m", "crdt_sync_client.cli", "relay", "serve"]
    command += ["--data", str(data), "--port", str(port), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the relay ended with code {process.wait(timeout=15)}"
    listening = json.loads(line)
    return RelayProcess(process, listening["url"], listening.get("setup_token") or "", data)


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """One relay for the tests that only use it; those that stop or break one start their own."""
    running = start_relay(tmp_path_factory.mktemp("relay") / "data")
    yield running
    assert running.stop() == 0


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        body = json.loads(self.err.splitlines()[-1])["error"]
        assert isinstance(body, dict)
        return body


def crdt_sync(*args: str | Path, code: int = 0, stdin: str | None = None, **env: str | None) -> Answer:
    """Run a command in this process; the exit code is checked, so a test says what it expects."""
    variables = {"CRDT_SYNC_PASSPHRASE": None, "CRDT_SYNC_STORE": None, "CRDT_SYNC_TOKEN": None, **env}
    result = CliRunner().invoke(
        cli, [str(arg) for arg in args], prog_name="crdt-sync", input=stdin, env=variables
    )
    answer = Answer(result.exit_code, result.stdout, result.stderr)
    assert answer.code == code, f"crdt-sync {args}: {answer}"
    return answer


@dataclass(frozen=True)
class Pair:
    """An office (admin) and a tablet (field) in one space with work orders."""

    office: Path
    tablet: Path
    folder: Path

    def sync(self) -> None:
        """Both, until both have everything."""
        for store in (self.office, self.tablet, self.office):
            crdt_sync("sync", "--store", store)

    def create(self, *assignments: str) -> str:
        """A work order both have; returns its id."""
        answer = crdt_sync("create", "work_order", *assignments, "--store", self.office, "--json")
        self.sync()
        return str(answer.json["id"])

    def get(self, store: Path, record: str) -> dict[str, Any]:
        body = crdt_sync("get", "work_order", record, "--store", store, "--json").json
        assert isinstance(body, dict)
        return body


def make_pair(folder: Path, relay: RelayProcess) -> Pair:
    office, tablet = folder / "office.db", folder / "tablet.db"
    crdt_sync("init", "--store", office, "--name", "Office")
    crdt_sync(
        *("space", "create", "Pit 4", "--store", office, "--relay", relay.url, "--schema", "work_order"),
        CRDT_SYNC_TOKEN=relay.setup_token,
    )
    crdt_sync("init", "--store", tablet, "--name", "Tablet 7")
    link = crdt_sync("invite", "--store", office, "--role", "field", "--json").json["link"]
    crdt_sync("join", "-", "--store", tablet, stdin=f"{link}\n")
    pair = Pair(office, tablet, folder)
    pair.sync()
    return pair


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, relay: RelayProcess, keychain: MemoryKeychain) -> Pair:
    """Shared: each test makes records of its own in it."""
    return make_pair(tmp_path_factory.mktemp("pair"), relay)


@pytest.fixture(scope="session")
def run() -> Callable[..., Answer]:
    """`crdt-sync` as typed: `run("ls", "work_order", "--store", path, code=0)`."""
    return crdt_sync


@pytest.fixture(scope="session")
def passphrase() -> str:
    """For the stores that a process of its own opens."""
    return PASSPHRASE


@pytest.fixture(scope="session", autouse=True)
def keychain() -> Iterator[MemoryKeychain]:
    """Tests never touch the keychain of the machine they run on.

    A key out of it opens a store at once, where deriving one from a passphrase takes a quarter of a second,
    as it should.
    """
    with in_use(MemoryKeychain()) as chosen:
        yield chosen


# Devices of a test's own


@pytest.fixture
def own_relay(tmp_path: Path) -> Iterator[RestartableRelay]:
    """A relay of the test's own, to break."""
    running = RestartableRelay(tmp_path / "relay")
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def office(tmp_path: Path, own_relay: RestartableRelay, stack: AsyncExitStack) -> Device:
    """The admin of a space with work orders."""
    return await stack.enter_async_context(office_at(tmp_path, own_relay))


@pytest.fixture
def enter(tmp_path: Path, office: Device, stack: AsyncExitStack) -> Enter:
    async def enter(name: str) -> Device:
        return await stack.enter_async_context(let_in(tmp_path, office, name))

    return enter
