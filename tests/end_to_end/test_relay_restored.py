"""A relay put back from a copy goes on without entries that members have: devices make one log of both."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from crdt_sync.errors import ForkedLog, PermissionDenied
from crdt_sync_client import Device, find_schema
from tests.end_to_end.relay_process import RestartableRelay

TYPE = "work_order"
KEY = bytes(range(32))
PATIENCE_S = 20.0


class Site:
    """An office and a boss, both admins, and a relay of which there is a copy from when they were alone."""

    def __init__(self, relay: RestartableRelay, directory: Path, stack: AsyncExitStack) -> None:
        self.relay = relay
        self.directory = directory
        self.stack = stack
        self.office: Device
        self.boss: Device

    async def device(self, name: str) -> Device:
        made = await Device.create(self.directory / f"{name}.db", name=name, key=KEY)
        return await self.stack.enter_async_context(made)

    async def enter(self, name: str, link: str) -> Device:
        device = await self.device(name)
        await device.join(link)
        await device.sync(timeout_s=PATIENCE_S)
        return device

    async def begin(self) -> None:
        self.office = await self.device("office")
        await self.office.create_space(
            "Pit 4", relay=self.relay.url, token=self.relay.setup_token, schemas=[find_schema(TYPE)]
        )
        self.boss = await self.enter("boss", await self.office.invite(role="admin"))
        await self.office.sync(timeout_s=PATIENCE_S)

    def copy(self) -> None:
        self.relay.stop()
        shutil.copytree(self.relay.data, self.directory / "copy")
        self.relay.start()

    def put_back(self) -> None:
        self.relay.kill()
        shutil.rmtree(self.relay.data)
        shutil.copytree(self.directory / "copy", self.relay.data)
        self.relay.start()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    relay = RestartableRelay(tmp_path / "relay")
    relay.start()
    try:
        async with AsyncExitStack() as stack:
            site = Site(relay, tmp_path, stack)
            await site.begin()
            yield site
    finally:
        relay.stop()


async def shown(device: Device) -> list[str]:
    return sorted(str(record["title"]) for record in await device.query(TYPE))


async def test_who_was_let_in_before_and_after_are_both_members_and_nothing_is_lost(site: Site) -> None:
    site.copy()
    early = await site.enter("early", await site.office.invite())
    await early.create(TYPE, {"title": "by early, acknowledged"})
    await early.sync(timeout_s=PATIENCE_S)
    site.put_back()
    # The boss has heard of nobody, and lets another one in.
    late = await site.enter("late", await site.boss.invite())
    await late.create(TYPE, {"title": "by late"})
    await late.sync(timeout_s=PATIENCE_S)
    await early.create(TYPE, {"title": "by early, later"})
    # Nobody but early has the entry that let it in.
    devices = [early, site.office, site.boss, late]
    for device in (*devices, *devices):
        await device.sync(timeout_s=PATIENCE_S)
    for device in devices:
        assert await shown(device) == ["by early, acknowledged", "by early, later", "by late"]
        assert {member.name for member in await device.members()} == {"office", "boss", "early", "late"}
    # And the space goes on: the next one gets everything.
    latest = await site.enter("latest", await site.office.invite())
    assert await shown(latest) == await shown(early)


async def test_whose_invite_was_used_by_another_comes_back_with_a_new_one_and_keeps_its_work(
    site: Site,
) -> None:
    link = await site.office.invite()
    await site.boss.sync(timeout_s=PATIENCE_S)
    site.copy()
    early = await site.enter("early", link)
    site.put_back()
    await site.enter("late", link)
    await early.create(TYPE, {"title": "not sent yet"})
    with pytest.raises(ForkedLog, match="lets nobody in any more") as told:
        await early.sync(timeout_s=PATIENCE_S)
    assert told.value.hint is not None
    assert "crdt-sync join" in told.value.hint
    assert await shown(early) == ["not sent yet"]
    await early.join(await site.office.invite())
    for device in (early, site.office, site.boss):
        await device.sync(timeout_s=PATIENCE_S)
        assert await shown(device) == ["not sent yet"]
    with pytest.raises(PermissionDenied, match="in space Pit 4 already"):
        await early.join(await site.office.invite())
