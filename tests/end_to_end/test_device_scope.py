"""Devices and a relay process: what is kept, when a device syncs by itself, and the first sync."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import NotReady, RelayUnreachable, ValidationError
from crdt_sync_client import Device, field
from crdt_sync_client.engine.filters import nothing
from tests.end_to_end.office import KEY, TYPE, office_and_tablet
from tests.end_to_end.relay_process import RestartableRelay

OPEN = field("status") != "closed"


@pytest.fixture
async def pair(tmp_path: Path, own_relay: RestartableRelay) -> AsyncIterator[tuple[Device, Device]]:
    async with office_and_tablet(tmp_path, own_relay) as pair:
        yield pair


async def titles(device: Device) -> list[str]:
    if not await device.schemas():
        return []
    return sorted(record.values["title"] for record in await device.query(TYPE))


async def until(device: Device, wanted: list[str]) -> None:
    watch = device.watch()
    async with asyncio.timeout(15):
        while await titles(device) != wanted:
            await anext(watch)


async def test_a_tablet_keeps_what_it_chose_and_is_told_of_what_leaves(pair: tuple[Device, Device]) -> None:
    office, tablet = pair
    first = (await office.create(TYPE, {"title": "A", "status": "completed"})).id
    gone = (await office.create(TYPE, {"title": "B", "status": "closed"})).id
    await office.sync()
    await office.connect()
    await tablet.sync()
    assert await tablet.set_scope(TYPE, OPEN) == 1
    await tablet.connect()
    assert await titles(tablet) == ["A"]
    watch = tablet.watch(TYPE)
    await office.update(TYPE, first, {"status": "closed"})
    change = await asyncio.wait_for(anext(watch), 10)
    assert (change.id, change.record, change.left) == (first, None, True)
    await until(tablet, [])
    assert (await tablet.fetch(TYPE, gone)).values["title"] == "B"
    assert await titles(tablet) == ["B"]
    await tablet.pick(TYPE, first)
    await until(tablet, ["A", "B"])
    scope = await tablet.scope()
    assert (scope.picks, scope.wanted, scope.to_json()["picks"]) == (
        ((TYPE, first),),
        0,
        [{"type": TYPE, "id": first}],
    )
    assert await tablet.unpick(TYPE, first) == 1
    await tablet.set_scope(TYPE, None)
    await until(tablet, ["A", "B"])


async def test_what_was_chosen_outlives_the_program(pair: tuple[Device, Device], tmp_path: Path) -> None:
    office, tablet = pair
    await tablet.sync()
    await tablet.set_scope(TYPE, nothing)
    await tablet.set_setting("sync_every_s", 60)
    await tablet.set_setting("keep_days.work_order", 7)
    await tablet.close()
    await office.create(TYPE, {"title": "A"})
    await office.sync()
    async with await Device.open(tmp_path / "Tablet.db", key=KEY) as again:
        settings = await again.settings()
        assert (settings.sync_every_s, dict(settings.keep_days)) == (60, {TYPE: 7})
        await again.sync()
        assert await titles(again) == []
        assert (await again.scope()).absent == 1
        assert (await again.set_setting("sync_every_s", None)).sync_every_s == 900
        for name, value in (
            ("sync_every_s", -1),
            ("sync_every", 1),
            ("metered_fetch", 7),
            ("keep_days.x", True),
        ):
            with pytest.raises(ValidationError):
                await again.set_setting(name, value)
        assert (await again.settings()).to_json()["keep_days.work_order"] == 7


async def test_a_cleared_cache_comes_back_and_nothing_old_is_cleaned_up_early(
    pair: tuple[Device, Device],
) -> None:
    office, tablet = pair
    await office.create(TYPE, {"title": "A", "status": "closed"})
    await office.sync()
    await tablet.sync()
    assert await tablet.clean_up() == 0
    assert await tablet.finished() == []
    assert await tablet.clear_cache() == 1
    assert await titles(tablet) == []
    await tablet.sync()
    assert await titles(tablet) == ["A"]


async def test_a_device_that_is_not_connected_syncs_by_itself(pair: tuple[Device, Device]) -> None:
    office, tablet = pair
    await office.create(TYPE, {"title": "A"})
    await office.sync()
    await office.connect()
    await tablet.auto_sync()
    await until(tablet, ["A"])
    usual = (await tablet.create(TYPE, {"title": "B"})).id
    await asyncio.sleep(0.1)
    assert await office.get(TYPE, usual) is None
    await tablet.create(TYPE, {"title": "C", "priority": "emergency"})
    await until(office, ["A", "B", "C"])
    await office.create(TYPE, {"title": "D"})
    await tablet.foreground()
    await until(tablet, ["A", "B", "C", "D"])
    await tablet.disconnect()
    await office.create(TYPE, {"title": "E"})
    await tablet.foreground()
    await asyncio.sleep(0.1)
    assert "E" not in await titles(tablet)


async def test_a_network_that_costs_carries_what_the_settings_say(pair: tuple[Device, Device]) -> None:
    office, tablet = pair
    await tablet.set_setting("metered_initial", False)
    await tablet.network("metered")
    with pytest.raises(RelayUnreachable, match="not metered"):
        await tablet.sync()
    await tablet.network("wifi")
    await tablet.sync()
    await tablet.set_setting("metered_priority", 3)
    await tablet.network("metered")
    await tablet.create(TYPE, {"title": "usual"})
    await tablet.create(TYPE, {"title": "urgent", "priority": "emergency"})
    await tablet.sync()
    await office.sync()
    assert await titles(office) == ["urgent"]
    assert (await tablet.status()).pending == 1
    await tablet.connect()
    await tablet.network("unknown")
    await tablet.sync()
    await office.sync()
    assert await titles(office) == ["urgent", "usual"]
    unknown: Any = "5g"
    with pytest.raises(ValidationError):
        await tablet.network(unknown)


async def test_without_a_network_nothing_is_tried_until_there_is_one(pair: tuple[Device, Device]) -> None:
    office, tablet = pair
    await office.create(TYPE, {"title": "A"})
    await office.sync()
    await tablet.network("none")
    await tablet.connect()
    assert (await tablet.status()).state == "offline"
    await tablet.network("wifi")
    await until(tablet, ["A"])
    await tablet.network("none")
    assert (await tablet.status()).state == "offline"


async def test_a_space_can_be_waited_for_before_it_is_read(
    pair: tuple[Device, Device], own_relay: RestartableRelay
) -> None:
    office, tablet = pair
    for n in range(5):
        await office.create(TYPE, {"title": f"{n}"})
    await office.sync()
    await tablet.require_ready()
    with pytest.raises(NotReady, match="has not been received whole yet"):
        await tablet.query(TYPE)
    own_relay.kill()
    with pytest.raises(RelayUnreachable):
        await tablet.ready()
    own_relay.start()
    told: list[tuple[int, int]] = []
    await tablet.ready(progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 5
    assert len(await titles(tablet)) == 5
    await tablet.ready()


async def test_the_status_counts_what_is_not_here_and_what_is_on_its_way(pair: tuple[Device, Device]) -> None:
    office, tablet = pair
    for title in ("A", "B"):
        await office.create(TYPE, {"title": title})
    await office.sync()
    await tablet.sync()
    await tablet.set_scope(TYPE, nothing)
    (space,) = (await tablet.status()).spaces
    assert (space.absent, space.wanted) == (2, 0)
    await tablet.set_scope(TYPE, None)
    (space,) = (await tablet.status()).spaces
    assert (space.absent, space.wanted) == (2, 2)
    await tablet.sync()
    (space,) = (await tablet.status()).spaces
    assert (space.absent, space.wanted, space.to_json()["absent"]) == (0, 0, 0)
