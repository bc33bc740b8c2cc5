"""A relay with tight limits and real devices: work waits where people see it, and all of it arrives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from crdt_sync.errors import OverQuota, RelayBusy, WorkTooLarge
from crdt_sync_client import Device, find_schema, refusals
from crdt_sync_client.refusals import treatment
from tests.server.relay_kit import RelayProcess

TYPE = "work_order"
KEY = bytes(range(32))
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute between tries is right for a relay and long for a test."""
    monkeypatch.setattr(refusals, "WHILE_S", (0.5, 0.5))
    monkeypatch.setattr(refusals, "SHARE_S", (0.5, 0.5))


@asynccontextmanager
async def founder(folder: Path, relay: RelayProcess) -> AsyncIterator[Device]:
    async with await Device.create(folder / "o.db", name="Office", key=KEY) as device:
        token = relay.setup_token or ""
        await device.create_space("Pit 4", relay=relay.url, token=token, schemas=[find_schema(TYPE)])
        yield device


async def until_told(device: Device, words: str) -> None:
    """Until the device's status says why its work waits."""
    for _ in range(int(PATIENCE_S / 0.01)):
        if words in ((await device.status()).spaces[0].problem or ""):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the status never said {words!r}")


async def test_a_device_that_sends_too_much_at_once_goes_on_by_itself(tmp_path: Path) -> None:
    with RelayProcess(tmp_path / "relay", "--update-rate", "20", "--update-burst", "10") as relay:
        async with founder(tmp_path, relay) as office:
            await office.connect()
            for number in range(60):
                await office.create(TYPE, {"title": f"Order {number}"})
            await until_told(office, "more than its share")
            await office.sync(timeout_s=PATIENCE_S)
            assert await office.outbox() == []
            async with await Device.create(tmp_path / "t.db", name="Tablet", key=KEY) as tablet:
                await tablet.join(await office.invite(role="field"))
                await tablet.sync(timeout_s=PATIENCE_S)
                assert len(await tablet.query(TYPE)) == 60


async def test_what_a_full_space_does_not_take_waits_and_goes_when_there_is_room(tmp_path: Path) -> None:
    data = tmp_path / "relay"
    with RelayProcess(data, "--space-quota", "4MiB") as relay:
        async with founder(tmp_path, relay) as office:
            await office.connect()
            for number in range(20):
                photo = os.urandom(300_000).hex()
                await office.create(TYPE, {"title": f"Order {number}", "description": photo})
            await until_told(office, "of 4,194,304 bytes at this relay")
            waiting = await office.outbox()
            assert 0 < len(waiting) < 20
            assert relay.stop() == 0
            port = relay.url.rpartition(":")[2]
            with RelayProcess(data, "--port", port, "--space-quota", "64MiB") as larger:
                await office.sync(timeout_s=PATIENCE_S)
                assert await office.outbox() == []
                assert larger.stop() == 0


async def test_an_envelope_that_is_too_large_waits_for_a_person_and_the_rest_goes(tmp_path: Path) -> None:
    with RelayProcess(tmp_path / "relay", "--max-envelope", "16KiB") as relay:
        async with founder(tmp_path, relay) as office:
            large = await office.create(TYPE, {"title": "Photo", "description": os.urandom(20_000).hex()})
            small = await office.create(TYPE, {"title": "Order"})
            await office.sync(timeout_s=PATIENCE_S)
            (item,) = await office.outbox()
            assert (item.id, item.state, item.code) == (large.id, "failed", "too_large")
            (life,) = await office.lives(TYPE, large.id)
            assert isinstance(life.refusal, WorkTooLarge)
            assert "this relay takes at most 16,384" in str(item.error)
            sent = await office.get(TYPE, small.id)
            assert sent is not None
            assert sent.sync_state == "synced"


async def test_a_record_that_is_full_waits_alone_and_goes_when_there_is_room(tmp_path: Path) -> None:
    data = tmp_path / "relay"
    with RelayProcess(data, "--max-record", "64KiB") as relay:
        async with founder(tmp_path, relay) as office:
            grows = await office.create(TYPE, {"title": "Log"})
            await office.sync(timeout_s=PATIENCE_S)
            await office.update(TYPE, grows.id, {"description": os.urandom(70_000).hex()})
            other = await office.create(TYPE, {"title": "Order"})
            await office.sync(timeout_s=PATIENCE_S)
            (item,) = await office.outbox()
            assert (item.id, item.state, item.code) == (grows.id, "waiting", "record_over_quota")
            assert treatment("record_over_quota").error is OverQuota
            sent = await office.get(TYPE, other.id)
            assert sent is not None
            assert sent.sync_state == "synced"
            assert relay.stop() == 0
            with RelayProcess(data, "--port", relay.url.rpartition(":")[2]) as larger:
                await office.retry(TYPE, grows.id)
                await office.sync(timeout_s=PATIENCE_S)
                assert await office.outbox() == []
                assert larger.stop() == 0


async def test_who_finds_no_free_connection_is_told_and_comes_back(tmp_path: Path) -> None:
    with RelayProcess(tmp_path / "relay", "--max-connections", "1") as relay:
        async with (
            founder(tmp_path, relay) as office,
            await Device.create(tmp_path / "t.db", name="Tablet", key=KEY) as tablet,
        ):
            invite = await office.invite(role="field")
            await office.connect()
            async with asyncio.timeout(PATIENCE_S):
                async for status in office.watch_status():
                    if status.state == "idle":
                        break
            with pytest.raises(RelayBusy, match="as many connections as it may") as told:
                await tablet.join(invite)
            assert told.value.retryable
            await office.disconnect()
            await tablet.join(invite)


async def test_the_tightest_limits_only_make_more_and_smaller_frames(tmp_path: Path) -> None:
    tight = ("--max-push", "2", "--max-frame", "64KiB", "--max-envelope", "16KiB", "--window", "64KiB")
    with RelayProcess(tmp_path / "relay", *tight) as relay:
        async with founder(tmp_path, relay) as office:
            for number in range(40):
                await office.create(TYPE, {"title": f"Order {number}", "description": "x" * 1000})
            await office.sync(timeout_s=PATIENCE_S)
            async with await Device.create(tmp_path / "t.db", name="Tablet", key=KEY) as tablet:
                await tablet.join(await office.invite(role="field"))
                await tablet.sync(timeout_s=PATIENCE_S)
                assert len(await tablet.query(TYPE)) == 40
