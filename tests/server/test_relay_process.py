"""A real relay process: what a device and an operator see of it, also when it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import sqlite3
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Appended,
    Bye,
    CompactDecline,
    CompactRequest,
    Create,
    Deliver,
    Got,
    Push,
    PushSnapshot,
    RowKind,
    SnapshotResult,
    with_checksum,
)
from crdt_sync.protocol.limits import MAX_FRAME_BYTES, PATH, WINDOW_BYTES
from tests.server.relay_kit import (
    RelayProcess,
    TestDevice,
    TestSpace,
    create,
    raw_client,
    record,
)


async def test_what_one_pushes_another_receives(relay: RelayProcess) -> None:
    space = TestSpace(1)
    writer, reader = space.founder, space.member()
    await create(relay.url, relay.setup_token or "", space)
    async with raw_client(relay.url) as a, raw_client(relay.url) as b:
        await a.hello(writer)
        await b.hello(reader)
        rows = [row for frame in await b.caught_up() for row in frame.rows]
        assert [row.sequence for row in rows] == [1, 2, 3]
        envelope = writer.update(record(1))
        await a.send(Push([envelope]))
        ack = await a.expect(Ack)
        assert (ack.sequence, ack.head) == (1, 4)
        delivered = await b.expect(Deliver)
        assert [(row.sequence, row.payload) for row in delivered.rows] == [(4, envelope)]
        assert (delivered.cursor, delivered.caught_up) == (4, True)


async def test_a_device_that_is_up_to_date_is_told_so(relay: RelayProcess) -> None:
    space = TestSpace(2)
    await create(relay.url, relay.setup_token or "", space)
    async with raw_client(relay.url) as client:
        await client.hello(space.founder, cursor=1)
        assert await client.expect(Deliver) == Deliver(1, [], 1, True)


async def test_delivery_waits_for_the_device_at_the_window(relay: RelayProcess) -> None:
    space = TestSpace(3)
    device, reader = space.founder, space.member()
    await create(relay.url, relay.setup_token or "", space)
    payload = bytes(200_000)
    async with raw_client(relay.url) as a, raw_client(relay.url) as b:
        await a.hello(device)
        count = 2 * WINDOW_BYTES // len(payload)
        for number in range(count):
            await a.send(Push([device.update(record(number), payload)]))
        while (await a.expect(Ack)).sequence < count:
            pass
        await b.hello(reader)
        got, cursor = 0, 0
        while got < WINDOW_BYTES:
            frame = await b.expect(Deliver)
            got, cursor = got + sum(len(row.payload) for row in frame.rows), frame.cursor
        assert not frame.caught_up
        assert got < WINDOW_BYTES + 2 * 256 * 1024 + 2 * len(payload)
        pong = await b.socket.ping()
        await pong  # the connection is alive, and yet nothing more comes
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(b.socket.recv(), 0.2)
        await b.send(Got(cursor))
        while not (await b.expect(Deliver)).caught_up:
            pass


async def test_an_idle_record_is_compacted_by_a_device_and_served_so(relay: RelayProcess) -> None:
    space = TestSpace(4)
    writer, fresh = space.founder, space.member()
    await create(relay.url, relay.setup_token or "", space)
    async with raw_client(relay.url) as client:
        await client.hello(writer)
        updates = [writer.update(record(1)) for _ in range(6)]
        short = [writer.update(record(2)) for _ in range(3)]
        await client.send(Push(updates + short))
        request = await client.expect(CompactRequest)
        assert request.records == [record(1)]
        await client.send(CompactDecline(request.records))
        assert await client.expect(CompactRequest) == request
        snapshot = writer.snapshot(record(1), updates)
        await client.send(PushSnapshot(snapshot))
        assert (await client.expect(SnapshotResult)).code == "stored"
    async with raw_client(relay.url) as client:
        await client.hello(fresh)
        rows = [row for frame in await client.caught_up() for row in frame.rows]
        assert [row.payload for row in rows if row.kind is not RowKind.MEMBERSHIP] == [snapshot, *short]


async def test_a_very_long_tail_is_compacted_at_once(relay: RelayProcess) -> None:
    space = TestSpace(5)
    writer = space.founder
    await create(relay.url, relay.setup_token or "", space)
    async with raw_client(relay.url) as client:
        await client.hello(writer)
        await client.caught_up()
        await client.send(Push([writer.update(record(1)) for _ in range(64)]))
        request = await asyncio.wait_for(client.expect(CompactRequest), 1.5)
        assert request.records == [record(1)]


# Bad input


async def closed_with(relay: RelayProcess, *messages: bytes | str) -> tuple[int, str]:
    async with raw_client(relay.url) as client:
        for message in messages:
            await client.socket.send(message)
        bye = await client.expect(Bye)
        code, reason = await client.closed()
        assert code == bye.code
        assert reason.startswith(bye.error)
        return code, bye.error


async def test_what_is_no_frame_closes_with_code_and_reason(relay: RelayProcess) -> None:
    assert await closed_with(relay, b"") == (CloseCode.DAMAGED, "damaged_frame")
    assert await closed_with(relay, with_checksum(b"\x93\x01")) == (CloseCode.MALFORMED, "malformed_frame")
    assert await closed_with(relay, "text") == (CloseCode.MALFORMED, "malformed_frame")
    assert await closed_with(relay, with_checksum(b"\x92\x06\x01")) == (
        CloseCode.MALFORMED,
        "protocol_violation",
    )


async def test_a_message_above_the_limit_is_not_even_read(relay: RelayProcess) -> None:
    async with raw_client(relay.url) as client:
        with contextlib.suppress(ConnectionClosed):
            await client.socket.send(bytes(MAX_FRAME_BYTES + 1))
        assert (await client.closed())[0] == CloseCode.TOO_BIG


async def test_the_subprotocol_has_to_be_offered(relay: RelayProcess) -> None:
    async with connect(relay.url + PATH, proxy=None) as websocket:
        await websocket.recv()
        await websocket.wait_closed()
        assert websocket.close_code == CloseCode.VERSION


async def test_a_frame_from_another_connection_is_of_no_use(relay: RelayProcess) -> None:
    """A hello that somebody recorded and plays again."""
    space = TestSpace(6)
    await create(relay.url, relay.setup_token or "", space)
    async with raw_client(relay.url) as first:
        hello = space.founder.hello(first.challenge.nonce, first.challenge.relay_id)
        await first.send(hello)
        await first.caught_up()
        async with raw_client(relay.url) as second:
            await second.send(hello)
            assert (await second.expect(Bye)).error == "bad_signature"


async def test_health(relay: RelayProcess) -> None:
    def get() -> object:
        with urllib.request.urlopen(relay.url.replace("ws://", "http://") + "/healthz") as answer:
            return json.load(answer)

    health = await asyncio.to_thread(get)
    assert isinstance(health, dict)
    assert health["status"] == "ok"


# Starting, stopping, dying


async def test_after_kill_9_everything_acknowledged_is_there(tmp_path: Path) -> None:
    data, space = tmp_path / "relay", TestSpace(1)
    acknowledged, token, chance = 0, "", random.Random(1)
    writer, reader = space.founder, space.member()
    pushed: list[bytes] = []
    for life in range(10):
        with RelayProcess(data) as relay:
            if life == 0:
                token = relay.setup_token or ""
                await create(relay.url, token, space)
            assert (relay.setup_token is None) == (life > 0)
            async with raw_client(relay.url) as client:
                welcome = await client.hello(writer)
                assert welcome.own_sequence >= acknowledged
                await client.send(Push(pushed[welcome.own_sequence :] or [_next(writer, pushed)]))
                dying = asyncio.get_running_loop().call_later(chance.uniform(0.0, 0.15), relay.kill)
                try:
                    while True:
                        batch = [_next(writer, pushed) for _ in range(chance.randrange(1, 8))]
                        await client.send(Push(batch))
                        acknowledged = max(acknowledged, (await client.expect(Ack)).sequence)
                except ConnectionClosed:
                    dying.cancel()
    assert acknowledged > 10
    with RelayProcess(data) as relay:
        async with raw_client(relay.url) as client:
            welcome = await client.hello(reader)
            rows = [row for frame in await client.caught_up() for row in frame.rows]
            updates = [row.payload for row in rows if row.kind is RowKind.UPDATE]
            assert len(updates) >= acknowledged
            assert updates == pushed[: len(updates)]
            assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
        assert relay.stop() == 0
    with sqlite3.connect(data / "relay.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def _next(writer: TestDevice, pushed: list[bytes]) -> bytes:
    pushed.append(writer.update(record(len(pushed) % 7)))
    return pushed[-1]


async def test_sigterm_says_goodbye_and_ends_cleanly(tmp_path: Path) -> None:
    space = TestSpace(1)
    with RelayProcess(tmp_path / "relay") as relay:
        await create(relay.url, relay.setup_token or "", space)
        async with raw_client(relay.url) as client:
            await client.hello(space.founder)
            await client.caught_up()
            await client.send(Push([space.founder.update(record(1))]))
            await client.expect(Ack)
            code = asyncio.create_task(asyncio.to_thread(relay.stop))
            assert (await client.expect(Bye)).code == CloseCode.GOING_AWAY
            assert (await client.closed())[0] == CloseCode.GOING_AWAY
            assert await code == 0
        assert relay.stderr == ""
    assert not (tmp_path / "relay" / "relay.sqlite3-wal").exists()


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crdt_sync_server", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--data", tmp_path / "relay", "--port", str(port))
    assert result.returncode == 6
    assert f"port {port} on 127.0.0.1 is taken" in result.stderr
    assert "--port" in result.stderr


def test_a_directory_that_another_relay_serves(tmp_path: Path) -> None:
    with RelayProcess(tmp_path / "relay"):
        result = run("serve", "--data", tmp_path / "relay", "--port", "0")
    assert result.returncode == 5
    assert "in use by another process" in result.stderr


def _other_files(path: Path) -> None:
    path.mkdir()
    (path / "letter.txt").write_text("dear")


def _a_file(path: Path) -> None:
    path.write_text("I am a file")


def _no_database(path: Path) -> None:
    path.mkdir()
    (path / "relay.sqlite3").write_text("This is not a database, but it is long enough to be one. " * 20)


def _foreign_database(path: Path) -> None:
    path.mkdir()
    with sqlite3.connect(path / "relay.sqlite3") as database:
        database.execute("CREATE TABLE songs (title TEXT)")
    database.close()


def _newer_relay(path: Path) -> None:
    with RelayProcess(path) as relay:
        relay.stop()
    with sqlite3.connect(path / "relay.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_other_files, "has other files in it"),
        (_a_file, "cannot be used as a directory"),
        (_no_database, "is not a relay's database"),
        (_foreign_database, "is a database of another program"),
        (_newer_relay, "newer relay"),
    ],
)
def test_a_directory_that_cannot_be_served(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    data = tmp_path / "data"
    make(data)
    before = _content(data)
    result = run("serve", "--data", data, "--port", "0")
    assert result.returncode == 5
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert _content(data) == before


def _content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: file.read_bytes() for file in files}


async def test_the_setup_token_is_shown_once_and_can_be_replaced_while_running(tmp_path: Path) -> None:
    data = tmp_path / "relay"
    with RelayProcess(data) as relay:
        old = relay.setup_token or ""
        await create(relay.url, old, TestSpace(1))
        await create(relay.url, old, TestSpace(2))
        new = json.loads(run("token", "--data", data, "--json").stdout)["setup_token"]
        async with raw_client(relay.url) as client:
            await client.send(Create(1, TestSpace(3).entries[0], old, "test"))
            bye = await client.expect(Bye)
            assert (bye.code, bye.error) == (CloseCode.UNAUTHENTICATED, "wrong_token")
        await create(relay.url, new, TestSpace(3))
        relay.stop()
    everything = b"".join(_content(data).values())
    assert old.encode() not in everything
    assert new.encode() not in everything
    assert run("token", "--data", tmp_path / "elsewhere").returncode == 5


async def test_files_are_the_operators_alone_and_logs_hold_no_secret(tmp_path: Path) -> None:
    data, space = tmp_path / "relay", TestSpace(1)
    with RelayProcess(data) as relay:
        await create(relay.url, relay.setup_token or "", space)
        async with raw_client(relay.url) as client:
            await client.hello(space.founder)
            await client.send(Push([space.founder.update(record(1), b"the pump is broken")]))
            await client.expect(Ack)
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(data)}
        await closed_with(relay, b"secret=1")
        url = relay.url.replace("ws://", "http://") + "/healthz?token=secret"
        await asyncio.to_thread(lambda: urllib.request.urlopen(url).close())
        relay.stop()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert relay.stderr == ""
    everything = b"".join(_content(data).values())
    for secret in (b"the pump", b"Pit 4", b"Office", space.keys.to_bytes()[-32:]):
        assert secret not in everything


async def test_appending_again_after_a_restart_is_answered_again(tmp_path: Path) -> None:
    data, space = tmp_path / "relay", TestSpace(1)
    device = space.member()
    for life in range(2):
        with RelayProcess(data) as relay:
            if life == 0:
                await create(relay.url, relay.setup_token or "", space)
            async with raw_client(relay.url) as client:
                await client.hello(device if life else space.founder)
                await client.send(Append(space.entries[-1]))
                assert (await client.expect(Appended)).members_head == space.log.head
            relay.stop()
