"""`doctor`: finds damage on any kind of page, saves what can be saved, and a sync makes the device whole."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device, Increment, doctor
from crdt_sync_client.store.connection import PAGE_BYTES, SALT_BYTES
from crdt_sync_client.store.salvage import read_salvage
from tests.end_to_end.relay_process import RestartableRelay

TYPE: Final = "job"
KEY: Final = bytes(range(32))
RECORDS: Final = 90
OFFLINE: Final = 24


class Site:
    """An office, and a tablet with synced records and with work that no relay has."""

    def __init__(self, office: Device, tablet: Path) -> None:
        self.office = office
        self.tablet = tablet
        self.ids: list[str] = []
        self.expected: dict[str, dict[str, Any]] = {}

    async def content(self, device: Device) -> dict[str, dict[str, Any]]:
        return {record.id: dict(record.values) for record in await device.query(TYPE)}


@pytest.fixture
async def site(tmp_path: Path, relay: RestartableRelay, job: RecordSchema) -> AsyncIterator[Site]:
    path = tmp_path / "tablet.db"
    async with await Device.create(tmp_path / "office.db", name="Office", key=KEY) as office:
        await office.create_space(tmp_path.name, relay=relay.url, token=relay.setup_token, schemas=[job])
        site = Site(office, path)
        async with await Device.create(path, name="Tablet", key=KEY) as tablet:
            await tablet.join(await office.invite())
            await tablet.sync()
            for number in range(RECORDS):
                device = office if number % 3 else tablet
                values = {
                    "title": f"Job {number}",
                    "notes": "as found " * 40,
                    "visits": 1,
                    "tags": ["a", "b"],
                }
                site.ids.append((await device.create(TYPE, values)).id)
            for device in (tablet, office, tablet):
                await device.sync(timeout_s=30)
            for number, id in enumerate(site.ids[:OFFLINE]):
                await tablet.update(TYPE, id, {"notes": f"seen {number} " * 30, "visits": Increment(1)})
            async with tablet.transaction() as together:
                for id in site.ids[OFFLINE : OFFLINE + 3]:
                    await together.update(TYPE, id, {"asset": "together"})
            new = await tablet.create(TYPE, {"title": "Made offline", "visits": 2})
            site.ids.append(new.id)
            site.expected = await site.content(tablet)
        yield site


def owners(path: Path) -> dict[int, str]:
    return read_salvage(path, KEY, path.read_bytes()[:SALT_BYTES]).owners


def flip(path: Path, pages: list[int], chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for page in pages:
        at = (page - 1) * PAGE_BYTES + chance.randrange(SALT_BYTES, PAGE_BYTES)
        content[at] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


async def whole_again(site: Site) -> dict[str, dict[str, Any]]:
    """What the tablet has after the repaired store has synced; both are the same."""
    async with await Device.open(site.tablet, key=KEY) as tablet:
        for device in (tablet, site.office, tablet, site.office):
            await device.sync(timeout_s=30)
        assert await tablet.outbox() == []
        found = await site.content(tablet)
        assert found == await site.content(site.office)
        assert [c.id for c in await tablet.conflicts()] == [c.id for c in await site.office.conflicts()]
    examined = await doctor.examine(site.tablet, key=KEY)
    assert examined.findings == ()
    return found


async def test_a_sound_store_is_healthy_and_left_as_it_is(site: Site) -> None:
    before = site.tablet.read_bytes()
    examined = await doctor.examine(site.tablet, key=KEY)
    assert examined.healthy, examined.findings
    assert examined.records >= RECORDS + 1
    assert examined.unsent >= OFFLINE
    repaired = await doctor.repair(site.tablet, key=KEY)
    assert repaired.old_file is None
    assert site.tablet.read_bytes() == before
    assert await whole_again(site) == site.expected


@pytest.mark.parametrize(
    "kind",
    [
        "meta", "spaces", "membership", "records", "documents", "chains", "types", "sqlite_master",
        "index records_by_type", "index sqlite_autoindex_records_1", "conflicts", "spare_meta",
    ],
)  # fmt: skip
async def test_one_damaged_page_costs_nothing(site: Site, kind: str) -> None:
    chance = random.Random(kind)
    chosen = [page for page, owner in owners(site.tablet).items() if owner == kind]
    page = chance.choice(chosen)
    flip(site.tablet, [page], chance)
    damaged = site.tablet.read_bytes()
    examined = await doctor.examine(site.tablet, key=KEY)
    assert {finding.code for finding in examined.findings} <= {"page", "row"}
    assert not examined.healthy
    repaired = await doctor.repair(site.tablet, key=KEY)
    assert repaired.old_file is not None
    assert repaired.old_file.read_bytes() == damaged
    assert repaired.lost_changes == ()
    if kind == "records":  # what stood only in it is gone, what the relay has is not
        found = await whole_again(site)
        assert set(site.ids[:-1]) <= set(found)
    else:
        assert await whole_again(site) == site.expected


@pytest.mark.parametrize("seed", range(3))
async def test_unsent_work_survives_a_damaged_outbox_in_the_documents(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    pages = [page for page, owner in owners(site.tablet).items() if owner == "outbox"]
    flip(site.tablet, pages, chance)
    repaired = await doctor.repair(site.tablet, key=KEY)
    assert repaired.from_start
    assert await whole_again(site) == site.expected
