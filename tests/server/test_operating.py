"""The operator's commands against a real relay: while it runs, while it works, and when it is stopped."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
import sys
from pathlib import Path

import httpx
import pytest

from crdt_sync.protocol.frames import Ack, Push
from crdt_sync_server.operating import handing_over
from crdt_sync_server.operating.channel import FILE
from tests.server.http_kit import http_url
from tests.server.operator_kit import fill, plain, relay_command, without_powers
from tests.server.relay_kit import RelayProcess, TestSpace, raw_client, record


async def test_the_same_questions_have_answers_while_it_runs_and_when_it_is_stopped(tmp_path: Path) -> None:
    data, space = tmp_path / "data", TestSpace(301)
    space.member()
    with RelayProcess(data) as relay:
        await fill(relay, space)
        async with raw_client(relay.url) as client:
            await client.hello(space.founder)
            await client.caught_up()
            status = await asyncio.to_thread(relay_command, "status", "--data", data)
            assert (status["running"], status["connections"], status["spaces"]) == (True, 1, 1)
            assert status["counters"]["log_rows"] >= 23
            (one,) = await asyncio.to_thread(relay_command, "spaces", "--data", data)
            assert (one["space"], one["head"], one["members"], one["connections"]) == (
                space.id.hex(),
                23,
                2,
                1,
            )
            found = await asyncio.to_thread(
                relay_command, "devices", "--data", data, "--space", space.id.hex()
            )
            here = {device["device"]: device for device in found}[space.founder.author.device.hex()]
            assert (here["connected"], here["cursor"], here["lag"], here["role"]) == (True, 23, 0, "admin")
            top = await asyncio.to_thread(relay_command, "top", "--data", data, "--count", "1")
            assert top["per_second"]["rows"] == 0
            assert "connections" in await asyncio.to_thread(plain, "top", "--data", data, "--count", "1")
            check = await asyncio.to_thread(relay_command, "check", "--data", data)
            assert check == {"spaces": 1, "rows": 23, "findings": []}
        assert stat.S_IMODE((data / FILE).stat().st_mode) == 0o600
        assert relay.stop() == 0
    assert not (data / FILE).exists()
    assert relay_command("status", "--data", data)["running"] is False
    assert relay_command("spaces", "--data", data)[0]["head"] == 23
    (never,) = [one for one in relay_command("devices", "--data", data) if one["role"] == "field"]
    assert (never["last_seen_ms"], never["lag"]) == (None, 23)
    assert relay_command("check", "--data", data)["rows"] == 23
    assert "nothing is damaged" in plain("check", "--data", data)
    assert "no relay runs" in relay_command("top", "--data", data, code=5)["message"]
    assert space.id.hex() in plain("spaces", "--data", data)
    assert "field" in plain("devices", "--data", data)
    assert "stopped" in plain("status", "--data", data)


async def test_a_killed_relay_leaves_nothing_that_misleads(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with RelayProcess(data) as relay:
        relay.kill()
    assert (data / FILE).exists()
    assert relay_command("status", "--data", data)["running"] is False
    with RelayProcess(data) as again:
        assert relay_command("status", "--data", data)["running"] is True
        assert again.stop() == 0


def test_what_cannot_be_asked_is_told(tmp_path: Path) -> None:
    assert "is not a relay's data directory" in relay_command("status", "--data", tmp_path, code=5)["message"]
    with RelayProcess(tmp_path / "data") as relay:
        for space in ("zz", "00" * 16):
            error = relay_command("devices", "--data", tmp_path / "data", "--space", space, code=3)
            assert error["code"] == "unknown_space"
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        error = relay_command("backup", "--data", tmp_path / "data", "--to", tmp_path / "full", code=5)
        assert "is not empty" in error["message"]
        assert relay.stop() == 0


async def test_a_backup_under_load_is_whole_and_a_relay_starts_on_it(tmp_path: Path) -> None:
    data, copy, space = tmp_path / "data", tmp_path / "copy", TestSpace(302)
    with RelayProcess(data) as relay:
        await fill(relay, space, 600)
        stop = asyncio.Event()

        async def push_on() -> int:
            pushed = 600
            async with raw_client(relay.url) as client:
                await client.hello(space.founder)
                while not stop.is_set():
                    await client.send(Push([space.founder.update(record(9), b"x" * 500) for _ in range(5)]))
                    pushed = (await client.expect(Ack)).sequence
            return pushed

        pushing = asyncio.create_task(push_on())
        made = await asyncio.to_thread(relay_command, "backup", "--data", data, "--to", copy)
        again = await asyncio.to_thread(relay_command, "backup", "--data", data, "--to", tmp_path / "copy2")
        stop.set()
        pushed = await pushing
        assert 601 <= made["rows"] <= again["rows"] <= pushed + 1
        assert relay.stop() == 0
    assert {path.name for path in copy.iterdir()} == {"relay.sqlite3", "setup-token.sha256"}
    assert stat.S_IMODE((copy / "relay.sqlite3").stat().st_mode) == 0o600
    with RelayProcess(copy) as restored:
        async with raw_client(restored.url) as client:
            welcome = await client.hello(space.founder)
            assert welcome.head == made["rows"]
        assert restored.setup_token is None, "the token of the original is still the one"
        assert restored.stop() == 0


@pytest.mark.parametrize("same_disk", [True, False])
async def test_a_backup_goes_where_the_operator_may_write_and_the_relay_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_disk: bool
) -> None:
    """As under systemd, where a relay sees another /tmp and may write in its own directory only."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    monkeypatch.setattr(handing_over, "_identity", lambda _: (0, 0))
    if not same_disk:

        def refuse(*_: object) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "rename", refuse)
    with RelayProcess(data) as relay:
        await fill(relay, TestSpace(307))
        made = await asyncio.to_thread(relay_command, "backup", "--data", data, "--to", copy)
        assert (made["to"], made["rows"]) == (str(copy), 21)
        assert not list(data.glob("handing-over-*"))
        error = await asyncio.to_thread(
            relay_command, "backup", "--data", data, "--to", data / FILE / "x", code=5
        )
        assert "cannot be written" in error["message"]
        assert relay.stop() == 0
    assert {path.name for path in copy.iterdir()} == {"relay.sqlite3", "setup-token.sha256"}
    assert stat.S_IMODE((copy / "relay.sqlite3").stat().st_mode) == 0o600
    assert relay_command("check", "--data", copy)["rows"] == 21


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_for_a_relay_belongs_to_the_relays_user(tmp_path: Path, filled: Path) -> None:
    data, copy, relays_user = tmp_path / "data", tmp_path / "copy", 65_534
    shutil.copytree(filled, data)
    plain("backup", "--data", data, "--to", copy)
    os.chown(data, relays_user, relays_user)
    relay_command("restore", copy, "--data", data)
    relay_command("token", "--data", data)
    relay_command("take-back", "--data", data)
    made = {path.name: path.stat().st_uid for path in data.iterdir()}
    assert len(made) == 4
    assert set(made.values()) == {relays_user}, made


@pytest.mark.skipif(sys.platform != "linux", reason="takes root's powers away with Linux' setpriv")
def test_who_may_not_is_told_who_may(tmp_path: Path, filled: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(filled, data)
    data.chmod(0)
    for command in ("status", "check", "token", "serve"):
        error = without_powers(command, "--data", data, code=5)
        assert "permission denied" in error["message"]
        assert error["hint"] == "do it as the relay's user, or as root"
    assert "permission denied" in without_powers("restore", data, "--data", filled, code=5)["message"]
    assert "Permission denied" in without_powers("backup", "--data", filled, "--to", data, code=5)["message"]
    data.chmod(0o700)


def test_a_backup_of_a_stopped_relay_and_of_a_damaged_one(tmp_path: Path) -> None:
    data, space = tmp_path / "data", TestSpace(303)
    with RelayProcess(data) as relay:
        asyncio.run(fill(relay, space))
        relay.stop()
    assert "opened and checked" in plain("backup", "--data", data, "--to", tmp_path / "copy")
    with sqlite3.connect(data / "relay.sqlite3") as database:
        database.execute("UPDATE log SET payload = zeroblob(length(payload)) WHERE kind = 1 AND sequence = 7")
    database.close()
    error = relay_command("backup", "--data", data, "--to", tmp_path / "bad", code=5)
    assert "the copy is not good" in error["message"]
    assert list((tmp_path / "bad").iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE log SET payload = zeroblob(length(payload)) WHERE kind = 1 AND sequence = 7", "malformed"),
        (
            "UPDATE log SET payload = CAST(substr(payload, 1, length(payload) - 2) || x'0000' AS BLOB)"
            " WHERE sequence = 7",
            "signature",
        ),
        (
            "UPDATE log SET payload = (SELECT payload FROM log WHERE sequence = 3) WHERE sequence = 7",
            "stands behind",
        ),
        ("UPDATE log SET payload = zeroblob(200) WHERE kind = 3 AND position & 0xff = 2", "membership"),
        ("UPDATE authors SET sequence = 5", "ends before its rows do"),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, filled: Path, damage: str, said: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(filled, data)
    with sqlite3.connect(data / "relay.sqlite3") as database:
        assert database.execute(damage).rowcount >= 1
    database.close()
    findings = relay_command("check", "--data", data, code=5)["findings"]
    assert any(said in finding["problem"] for finding in findings), findings
    assert said in plain("check", "--data", data, code=5)


def test_what_is_no_database_any_more_is_told_with_what_helps(tmp_path: Path, filled: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(filled, data)
    plain("backup", "--data", data, "--to", tmp_path / "copy")
    database = data / "relay.sqlite3"
    good = database.read_bytes()
    for content, said in (
        (b"", "its content is lost"),
        (b"x" * 100 + good[100:], "its beginning is damaged"),
    ):
        database.write_bytes(content)
        for command in ("status", "check", "serve"):
            error = relay_command(command, "--data", data, code=5)
            assert said in error["message"]
            assert "crdt-sync relay restore" in error["hint"]
    relay_command("restore", tmp_path / "copy", "--data", data)
    assert relay_command("check", "--data", data)["findings"] == []


def test_looking_at_a_stopped_relay_changes_nothing_that_devices_see(filled: Path) -> None:
    seen = {relay_command("status", "--data", filled)["relay_id"] for _ in range(2)}
    assert len(seen) == 1


async def test_a_relay_on_a_damaged_database_says_so_to_its_operator(tmp_path: Path, filled: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(filled, data)
    path = data / "relay.sqlite3"
    pages = bytearray(path.read_bytes())
    page = pages.index(TestSpace(304).entries[0][:40]) // 2048 * 2048
    pages[page : page + 2048] = bytes(2048)
    path.write_bytes(pages)
    with RelayProcess(data) as relay:
        error = await asyncio.to_thread(relay_command, "devices", "--data", data, code=5)
        assert error["hint"] == "the database is damaged; for its operator: `crdt-sync relay check`"
        findings = await asyncio.to_thread(relay_command, "check", "--data", data, code=5)
        assert findings["findings"]
        assert relay.stop() == 0
        assert "(DatabaseError: the database is damaged)" in relay.stderr


async def test_a_relay_that_cannot_write_says_so_and_goes_on_when_it_can(tmp_path: Path) -> None:
    """A limit on the size of its files in the place of a full disk."""
    resource, space = pytest.importorskip("resource"), TestSpace(308)
    limit = getattr(resource, "prlimit", None) or pytest.skip("only Linux sets limits from outside")
    with RelayProcess(tmp_path / "data") as relay:
        await fill(relay, space)
        async with httpx.AsyncClient(base_url=http_url(relay.url), trust_env=False) as client:
            size_bytes = (tmp_path / "data" / "relay.sqlite3-wal").stat().st_size + 100_000
            limit(relay.process.pid, resource.RLIMIT_FSIZE, (size_bytes, -1))
            async with raw_client(relay.url) as device:
                await device.hello(space.founder)
                lost = [space.founder.update(record(1), bytes(50_000)) for _ in range(4)]
                await device.send(Push(lost))
                assert (await device.closed())[0] == 1011
            problem = await client.get("/readyz")
            assert (problem.status_code, problem.json()["detail"]) == (503, "the last commit failed")
            assert "crdt_sync_relay_commit_failures_total 1.0" in (await client.get("/metrics")).text
            limit(relay.process.pid, resource.RLIMIT_FSIZE, (-1, -1))
            async with raw_client(relay.url) as device:
                await device.hello(space.founder)
                await device.send(Push(lost))
                assert (await device.expect(Ack)).sequence == 24
            assert (await client.get("/readyz")).status_code == 200
        limit(relay.process.pid, resource.RLIMIT_FSIZE, (1, -1))
        assert relay.stop() == 0
        assert "a commit failed (OperationalError: the disk failed)" in relay.stderr
    assert relay_command("check", "--data", tmp_path / "data")["findings"] == []


def test_a_torn_file_is_found(tmp_path: Path, filled: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(filled, data)
    path = data / "relay.sqlite3"
    pages = bytearray(path.read_bytes())
    half = len(pages) // 2 // 2048 * 2048
    pages[half : half + 4096] = bytes(4096)
    path.write_bytes(pages)
    found = relay_command("check", "--data", data, code=5)
    assert found.get("findings") or found.get("code") == "data_dir"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a stopped relay with a space in it."""
    data, space = tmp_path_factory.mktemp("filled") / "data", TestSpace(304)
    space.member()
    with RelayProcess(data) as relay:
        asyncio.run(fill(relay, space))
        relay.stop()
    return data
