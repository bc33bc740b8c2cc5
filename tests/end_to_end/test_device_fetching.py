"""Devices and a relay process: records that are not on a device are fetched when they are wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crdt_sync.errors import RecordAbsent, RecordNotFound
from crdt_sync_client import Device
from tests.end_to_end.office import TYPE, office_and_tablet
from tests.end_to_end.relay_process import RestartableRelay

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def pair(tmp_path: Path, own_relay: RestartableRelay) -> AsyncIterator[tuple[Device, Device]]:
    async with office_and_tablet(tmp_path, own_relay) as pair:
        yield pair


def give_up(device: Device, *ids: str) -> None:
    """As the repair of a damaged store does it."""
    engine = device._engine
    space = engine.space().id
    keys = engine._replica.space(space).keys
    engine.give_up(space, [keys.opaque_id(TYPE, id) for id in ids])


async def gave_up(device: Device, *ids: str) -> None:
    await device._run(lambda: give_up(device, *ids))


async def test_many_records_come_back_in_one_sync_own_ones_too(pair: tuple[Device, Device]) -> None:
    office, tablet = pair
    ids = [
        (await office.create(TYPE, {"title": f"Job {n}", "description": "x" * 9000})).id for n in range(90)
    ]
    await office.sync()
    await tablet.sync()
    own = (await tablet.create(TYPE, {"title": "Own"})).id
    await tablet.sync()
    before = {record.id: record.values for record in await tablet.query(TYPE)}
    assert len(before) == 91
    await gave_up(tablet, *ids, own)
    assert await tablet.count(TYPE) == 0
    await tablet.sync()
    assert {record.id: record.values for record in await tablet.query(TYPE)} == before
    assert (await tablet.status()).state == "offline"


async def test_a_connected_device_fetches_what_the_app_opens(pair: tuple[Device, Device]) -> None:
    office, tablet = pair
    id = (await office.create(TYPE, {"title": "Job"})).id
    await office.sync()
    await tablet.connect()
    await tablet.sync()
    await gave_up(tablet, id)
    assert await tablet.get(TYPE, id) is None
    assert (await tablet.fetch(TYPE, id)).values["title"] == "Job"
    assert (await tablet.fetch(TYPE, id)).values["title"] == "Job"
    with pytest.raises(RecordNotFound):
        await tablet.fetch(TYPE, NOBODY)


async def test_without_the_relay_it_says_so_and_comes_later(
    pair: tuple[Device, Device], own_relay: RestartableRelay
) -> None:
    office, tablet = pair
    id = (await office.create(TYPE, {"title": "Job"})).id
    await office.sync()
    await tablet.sync()
    await gave_up(tablet, id)
    own_relay.kill()
    with pytest.raises(RecordAbsent, match="the relay could not be asked"):
        await tablet.fetch(TYPE, id)
    with pytest.raises(RecordAbsent, match="only in the space"):
        await tablet.update(TYPE, id, {"title": "Other"})
    own_relay.start()
    await tablet.sync(timeout_s=20)
    record = await tablet.get(TYPE, id)
    assert record is not None
    assert record.values["title"] == "Job"
