"""`doctor` on a small store each page of which is damaged in turn: it says so, and saves everything else.

Without a relay: what the next sync brings back is shown in `test_doctor`, by kind of page.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync.errors import NotAStore, PermissionDenied, StoreDamaged, StoreTooNew
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device, doctor
from crdt_sync_client.doctor import Examination, Repair
from crdt_sync_client.store.connection import PAGE_BYTES, Database
from tests.crashes.local_device import KEY, TYPE
from tests.crashes.sites import Site, made_site, owners, whole_again
from tests.crashes.spoiling import flip, spoil
from tests.end_to_end.relay_process import RestartableRelay

OF_RECORDS: Final = ("records", "documents")
"""Tables a page of which holds records: those are fetched again."""
PER_PAGE: Final = 12
"""More records than ever stand on one page here."""


@pytest.fixture
async def site(tmp_path: Path, relay: RestartableRelay, job: RecordSchema) -> AsyncIterator[Site]:
    async with made_site(tmp_path, relay, job, records=24, offline=10) as site:
        yield site


def content_of(file: Path) -> bytes:
    return file.read_bytes()


async def treated(store: Path) -> tuple[Examination, Repair, dict[str, dict[str, Any]]]:
    """What the doctor finds, what it repairs, and what the device shows then, offline."""
    damaged = content_of(store)
    examined = await doctor.examine(store, key=KEY)
    assert content_of(store) == damaged
    repaired = await doctor.repair(store, key=KEY)
    assert examined.healthy == (repaired.old_file is None)
    if repaired.old_file is not None:
        assert content_of(repaired.old_file) == damaged
    async with await Device.open(store, key=KEY) as device:
        shown: dict[str, dict[str, Any]] = {
            record.id: dict(record.values) for record in await device.query(TYPE)
        }
        await device.outbox()
        await device.conflicts()
        with suppress(PermissionDenied):  # until a sync says again whose the space is
            await device.create(TYPE, {"title": "written after the repair"})
    assert (await doctor.examine(store, key=KEY)).healthy
    return examined, repaired, shown


async def test_each_page_in_turn_is_named_and_costs_what_stood_on_it(site: Site) -> None:
    case = site.tablet.with_name("case.db")
    for page, owner in sorted(owners(site.tablet).items()):
        shutil.copy(site.tablet, case)
        flip(case, [page], random.Random(page))
        examined, repaired, shown = await treated(case)
        assert {finding.code for finding in examined.findings} <= {"page", "row", "sqlite"}, (page, owner)
        if owner != "free":
            assert (owner, 1) in [(each.where, each.count) for each in examined.findings], (page, owner)
        if owner not in OF_RECORDS:
            assert shown == site.expected, (page, owner)
        missing = site.expected.keys() - shown.keys()
        assert len(missing) <= PER_PAGE, (page, owner)
        assert not missing or repaired.to_fetch or repaired.from_start, (page, owner)


async def test_a_page_that_verifies_and_makes_no_sense_is_treated_like_a_damaged_one(site: Site) -> None:
    """Memory fails before a page is encrypted: the file is sound, and what is in it is not."""
    case = site.tablet.with_name("case.db")
    for page, owner in sorted(owners(site.tablet).items()):
        shutil.copy(site.tablet, case)
        spoil(case, KEY, page, random.Random(page))
        try:
            examined, repaired, shown = await treated(case)
        except (StoreTooNew, NotAStore):  # what the file is, and its format, stand there once
            assert page == 1
            continue
        if examined.healthy:
            assert shown == site.expected, (page, owner)
        missing = site.expected.keys() - shown.keys()
        if missing:
            assert owner in OF_RECORDS, (page, owner)
            assert repaired.to_fetch or repaired.from_start, (page, owner)


@pytest.mark.parametrize("kind", ["documents", "membership", "spaces", "outbox"])
async def test_what_memory_spoilt_comes_again_from_the_relay(site: Site, kind: str) -> None:
    page = max(page for page, owner in owners(site.tablet).items() if owner == kind)
    chance = random.Random(kind)
    while (await doctor.examine(site.tablet, key=KEY)).healthy:  # a flip may hit where nothing stands
        spoil(site.tablet, KEY, page, chance)
    await doctor.repair(site.tablet, key=KEY)
    found = await whole_again(site)
    assert set(site.ids) <= set(found)
    if kind != "documents":
        assert found == site.expected


async def test_a_first_page_full_of_zeros_is_saved_while_the_files_salt_stands(site: Site) -> None:
    content = bytearray(site.tablet.read_bytes())
    content[16:PAGE_BYTES] = bytes(PAGE_BYTES - 16)
    site.tablet.write_bytes(content)
    examined = await doctor.examine(site.tablet, key=KEY)
    assert "sqlite_master" in {finding.where for finding in examined.findings}
    await doctor.repair(site.tablet, key=KEY)
    assert await whole_again(site) == site.expected


async def test_a_store_whose_tables_make_no_sense_to_sqlite_is_said_to_be_damaged(site: Site) -> None:
    """Its own messages quote what it found, which need not even be text."""
    case = site.tablet.with_name("case.db")
    opened = tried = 0
    for page in [
        page for page, owner in owners(site.tablet).items() if owner == "sqlite_master" and page > 1
    ]:
        for seed in range(30):
            shutil.copy(site.tablet, case)
            spoil(case, KEY, page, random.Random(seed))
            tried += 1
            with suppress(StoreDamaged):  # whatever else it raised would fail the test
                Database.open(case, KEY).close()
                opened += 1
    assert 0 < opened < tried
