"""A relay process that loses its database while records are checked out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from crdt_sync_client import Device
from crdt_sync_client.shipped import find_schema
from crdt_sync_server.data_dir import DataDir
from tests.end_to_end.relay_process import RestartableRelay

TYPE = "work_order"
PATIENCE_S = 30.0


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RestartableRelay]:
    running = RestartableRelay(tmp_path / "relay")
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize("how", ["wiped", "restored"])
async def test_a_device_asks_a_relay_again_that_lost_what_it_has_checked_out(
    relay: RestartableRelay, tmp_path: Path, how: str
) -> None:
    async with AsyncExitStack() as stack:
        office, tablet = [
            await stack.enter_async_context(await Device.create(tmp_path / f"{name}.db", name=name, key=key))
            for name, key in (("Office", b"o" * 32), ("Rig 7", b"t" * 32))
        ]
        await office.create_space(
            "Pit 4", relay=relay.url, token=relay.setup_token, schemas=[find_schema(TYPE)]
        )
        await tablet.join(await office.invite())
        kept, taken = [(await office.create(TYPE, {"title": title})).id for title in ("Bucket", "Grease")]
        await office.sync()
        await tablet.sync()
        if how == "restored":
            relay.stop()
            shutil.copytree(relay.data, tmp_path / "backup")
            relay.start()
        before = {each.id: each for each in await tablet.check_out(TYPE, [kept, taken], ttl_s=7200)}
        await tablet.update(TYPE, kept, {"description": "cracked"})
        await tablet.sync()
        for device in (office, tablet):
            await device.disconnect()
        relay.kill()
        shutil.rmtree(relay.data)
        if how == "restored":
            shutil.copytree(tmp_path / "backup", relay.data)
        relay.start()
        DataDir.open(relay.data).take_back(2**62)

        # The office is there first, and gets an order that is free as far as the new relay knows.
        (result,) = await office.check_out(TYPE, [taken], ttl_s=3600)
        assert result.code == "granted"
        await tablet.update(TYPE, taken, {"description": "dry"})
        await tablet.sync(timeout_s=PATIENCE_S)
        now = {each.id: each for each in await tablet.checkouts()}
        assert [(now[id].device, now[id].state) for id in (kept, taken)] == [
            ("Rig 7", "held"), ("Office", "taken"),
        ]  # fmt: skip
        first = before[kept].checkout
        assert first is not None
        assert now[kept].token > first.token
        assert now[kept].until_at - first.until_at < 5_000
        assert now[kept].sent == 1
        (refused,) = await office.check_out(TYPE, [kept])
        assert refused.checkout is not None
        assert (refused.code, refused.checkout.device) == ("checked_out", "Rig 7")

        # What the tablet wrote to the order that it has lost waits, comes late, and is marked.
        assert [item.id for item in await tablet.outbox()] == [taken]
        await office.check_in(TYPE, [taken])
        await tablet.sync(timeout_s=PATIENCE_S)
        done = {each.id: each for each in await tablet.check_in()}
        assert (done[kept].state, done[kept].late) == ("returned", 0)
        assert (done[taken].state, done[taken].sent, done[taken].late) == ("taken", 1, 1)
        await office.sync()
        record = await office.get(TYPE, taken)
        assert record is not None
        assert record["description"] == "dry"
