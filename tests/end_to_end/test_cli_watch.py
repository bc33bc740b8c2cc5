"""`crdt-sync sync --watch` as a process of its own, while its relay goes and others write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import RelayProcess, start_relay

Run = Callable[..., Any]


async def watching(
    store: Path, passphrase: str, *options: str, command: tuple[str, ...] = ("sync", "--watch")
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crdt_sync_client.cli", *command, "--store", str(store), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CRDT_SYNC_PASSPHRASE": passphrase},
    )


async def line_with(stream: asyncio.StreamReader | None, text: str) -> str:
    """The next line that has `text`; the lines before it are passed over."""
    assert stream is not None
    async with asyncio.timeout(30):
        while line := (await stream.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"the output ended without {text!r}")


async def ended(process: asyncio.subprocess.Process, signum: signal.Signals) -> int:
    process.send_signal(signum)
    return await asyncio.wait_for(process.wait(), timeout=15)


def founded(run: Run, store: Path, relay: RelayProcess, secret: dict[str, str]) -> None:
    """A store whose device made a space at the relay."""
    run("init", "--store", store, "--name", "Office", **secret)
    create = ("space", "create", "Pit 4", "--store", store, "--relay", relay.url)
    run(*create, "--schema", "work_order", "--token", relay.setup_token, **secret)


async def test_it_says_when_the_relay_goes_away(run: Run, passphrase: str, tmp_path: Path) -> None:
    relay = await asyncio.to_thread(start_relay, tmp_path / "relay")
    store, secret = tmp_path / "office.db", {"CRDT_SYNC_PASSPHRASE": passphrase}

    await asyncio.to_thread(founded, run, store, relay, secret)
    process = await watching(store, passphrase)
    try:
        await line_with(process.stderr, "Pit 4: in sync")
        assert await asyncio.to_thread(relay.stop) == 0, "a relay ends cleanly while devices are connected"
        assert relay.url in await line_with(process.stderr, "cannot be reached")
    finally:
        code = await ended(process, signal.SIGTERM)
    assert code == 0


async def test_changes_of_others_are_lines_of_json(
    pair: Any, run: Run, passphrase: str, tmp_path: Path
) -> None:
    record = await asyncio.to_thread(pair.create, "title=Watched")
    store = tmp_path / "watcher.db"

    def prepare() -> None:
        link = run("invite", "--store", pair.office, "--role", "reader", "--json").json["link"]
        run("init", "--store", store, "--name", "Watcher", CRDT_SYNC_PASSPHRASE=passphrase)
        run("join", link, "--store", store, CRDT_SYNC_PASSPHRASE=passphrase)
        run("sync", "--store", store, CRDT_SYNC_PASSPHRASE=passphrase)

    await asyncio.to_thread(prepare)
    process = await watching(store, passphrase, "--json")
    try:
        # Sent once the watcher is connected or before: either way it arrives as a change.
        await asyncio.to_thread(run, "set", "work_order", record, "status=assigned", "--store", pair.office)
        await asyncio.to_thread(run, "sync", "--store", pair.office)
        change = json.loads(await line_with(process.stdout, record))
        assert (change["id"], change["origin"], change["fields"]) == (record, "remote", ["status"])
        assert change["record"]["status"] == "assigned"
    finally:
        code = await ended(process, signal.SIGINT)
    assert code == 0


async def test_the_status_is_told_in_lines_until_the_time_is_over_or_somebody_stops_it(
    run: Run, passphrase: str, tmp_path: Path
) -> None:
    relay = await asyncio.to_thread(start_relay, tmp_path / "relay")
    store, secret = tmp_path / "office.db", {"CRDT_SYNC_PASSPHRASE": passphrase}

    def prepare() -> None:
        founded(run, store, relay, secret)
        run("create", "work_order", "title=Leak", "--store", store, **secret)
        refused = run("status", "--for", "1", "--store", store, code=2, **secret)
        assert "--for goes with --watch" in refused.err

    await asyncio.to_thread(prepare)
    process = await watching(store, passphrase, "--json", command=("status", "--watch"))
    states: list[Any] = []
    while not states or states[-1]["state"] != "idle":
        states.append(json.loads(await line_with(process.stdout, '"spaces"')))
    assert states[0]["pending"] == 1
    assert states[-1]["pending"] == 0
    assert states[-1]["spaces"][0]["bytes_sent"] > 0
    await asyncio.to_thread(relay.stop)
    away = json.loads(await line_with(process.stdout, '"backoff"'))
    assert away["retry_in_s"] is not None
    assert relay.url in away["spaces"][0]["problem"]
    assert await ended(process, signal.SIGINT) == 130
    process = await watching(store, passphrase, "--for", "0.5", command=("status", "--watch"))
    assert "Pit 4: " in await line_with(process.stdout, "B up, ")
    assert await asyncio.wait_for(process.wait(), timeout=15) == 0
