"""An office and a tablet on one relay, the tablet with synced records and with work that no relay has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device, Increment, doctor
from crdt_sync_client.store.connection import SALT_BYTES
from crdt_sync_client.store.salvage import read_salvage
from tests.crashes.local_device import KEY, TYPE
from tests.end_to_end.relay_process import RestartableRelay


class Site:
    """The office is open, the tablet is a file. `expected`: what the tablet shows."""

    def __init__(self, office: Device, tablet: Path) -> None:
        self.office = office
        self.tablet = tablet
        self.ids: list[str] = []
        self.expected: dict[str, dict[str, Any]] = {}

    async def content(self, device: Device) -> dict[str, dict[str, Any]]:
        return {record.id: dict(record.values) for record in await device.query(TYPE)}


@asynccontextmanager
async def made_site(
    folder: Path, relay: RestartableRelay, job: RecordSchema, *, records: int, offline: int
) -> AsyncIterator[Site]:
    """`records` that all have, of which `offline` were edited on the tablet since, and one made there."""
    path = folder / "tablet.db"
    async with await Device.create(folder / "office.db", name="Office", key=KEY) as office:
        await office.create_space(folder.name, relay=relay.url, token=relay.setup_token, schemas=[job])
        site = Site(office, path)
        async with await Device.create(path, name="Tablet", key=KEY) as tablet:
            await tablet.join(await office.invite())
            await tablet.sync()
            for number in range(records):
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
            for number, id in enumerate(site.ids[:offline]):
                await tablet.update(TYPE, id, {"notes": f"seen {number} " * 30, "visits": Increment(1)})
            async with tablet.transaction() as together:
                for id in site.ids[offline : offline + 3]:
                    await together.update(TYPE, id, {"asset": "together"})
            new = await tablet.create(TYPE, {"title": "Made offline", "visits": 2})
            site.ids.append(new.id)
            site.expected = await site.content(tablet)
        yield site


def owners(path: Path) -> dict[int, str]:
    """What each page of a store belongs to."""
    return read_salvage(path, KEY, path.read_bytes()[:SALT_BYTES]).owners


async def whole_again(site: Site) -> dict[str, dict[str, Any]]:
    """What the tablet has after the repaired store has synced; both are the same."""
    async with await Device.open(site.tablet, key=KEY) as tablet:
        if not await tablet.spaces():  # the keys of its space stood on two pages, and both were damaged
            await tablet.join(await site.office.invite())
        for device in (tablet, site.office, tablet, site.office):
            await device.sync(timeout_s=30)
        assert await tablet.outbox() == []
        found = await site.content(tablet)
        assert found == await site.content(site.office)
        assert [c.id for c in await tablet.conflicts()] == [c.id for c in await site.office.conflicts()]
    examined = await doctor.examine(site.tablet, key=KEY)
    assert examined.findings == ()
    return found
