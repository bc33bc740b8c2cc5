"""`doctor`: finds damage on any kind of page, saves what can be saved, and a sync makes the device whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from crdt_sync.errors import StoreDamaged, StoreInUse, StoreMissing, WrongPassphrase
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device, doctor
from crdt_sync_client.store.connection import PAGE_BYTES, SALT_BYTES, Database, derive_key
from crdt_sync_client.store.salvage import read_salvage
from tests.crashes.local_device import KEY, TYPE
from tests.crashes.sites import Site, made_site, owners, whole_again
from tests.crashes.spoiling import flip
from tests.end_to_end.conftest import Answer, crdt_sync
from tests.end_to_end.relay_process import RestartableRelay

RECORDS: Final = 90
OFFLINE: Final = 24


@pytest.fixture
async def site(tmp_path: Path, relay: RestartableRelay, job: RecordSchema) -> AsyncIterator[Site]:
    async with made_site(tmp_path, relay, job, records=RECORDS, offline=OFFLINE) as site:
        yield site


def doctored(site: Site) -> dict[str, set[int]]:
    """The damaged pages by what they belong to."""
    return read_salvage(site.tablet, KEY, site.tablet.read_bytes()[:SALT_BYTES]).damage


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
    if kind == "records":  # what the relay has is there; unsent changes of records without a name are listed
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


@pytest.mark.parametrize("seed", range(8))
async def test_pages_damaged_at_random_cost_only_what_is_said(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    count = site.tablet.stat().st_size // PAGE_BYTES
    flip(site.tablet, chance.sample(range(1, count + 1), chance.randrange(1, 12)), chance)
    try:
        repaired = await doctor.repair(site.tablet, key=KEY)
    except StoreDamaged:  # the two pages that say who the device is
        assert {"meta", "spare_meta"} <= set(doctored(site))
        return
    found = await whole_again(site)
    assert set(site.ids[:-1]) <= set(found), "everything that was ever sent is there"
    if found != site.expected:
        assert repaired.unsaved


async def test_changes_whose_record_has_no_name_any_more_are_listed(site: Site) -> None:
    """All rows of records are gone; what was written in the one that no relay has is told."""
    pages = [page for page, owner in owners(site.tablet).items() if owner == "records"]
    flip(site.tablet, pages, random.Random(1))
    repaired = await doctor.repair(site.tablet, key=KEY)
    assert {"title": "Made offline", "visits": 2} in [change.values for change in repaired.lost_changes]
    assert "changes that no relay had" in repaired.unsaved[0]
    assert set(await whole_again(site)) == set(site.ids[:-1])


async def test_a_device_whose_identity_is_gone_twice_is_not_repaired(site: Site) -> None:
    pages = [page for page, owner in owners(site.tablet).items() if owner in ("meta", "spare_meta")]
    flip(site.tablet, pages, random.Random(1))
    before = sorted(site.tablet.parent.iterdir()), site.tablet.read_bytes()
    with pytest.raises(StoreDamaged, match="it cannot be told who it is") as refused:
        await doctor.repair(site.tablet, key=KEY)
    assert "join again with a new store" in refused.value.hint
    assert (sorted(site.tablet.parent.iterdir()), site.tablet.read_bytes()) == before


async def test_a_repair_broken_off_between_its_files_is_finished_by_the_next(site: Site) -> None:
    pages = [page for page, owner in owners(site.tablet).items() if owner == "documents"]
    flip(site.tablet, pages[:1], random.Random(1))
    repaired = await doctor.repair(site.tablet, key=KEY)
    assert repaired.old_file is not None
    site.tablet.rename(f"{site.tablet}.repaired")  # as it was before the last step
    again = await doctor.repair(site.tablet, key=KEY)
    assert again.old_file is None
    assert await whole_again(site) == site.expected


async def test_what_sqlite_would_drop_at_the_end_of_its_log_is_found_and_saved(site: Site) -> None:
    """A bit flips in the write-ahead log that a killed process left: SQLite ends there in silence."""
    wal = site.tablet.with_name(f"{site.tablet.name}-wal")
    tablet = await Device.open(site.tablet, key=KEY)
    for number in range(6):
        site.ids.append((await tablet.create(TYPE, {"title": f"In the log {number}"})).id)
    expected = await site.content(tablet)
    files = site.tablet.read_bytes(), bytearray(wal.read_bytes())
    await tablet.close()
    frames = (len(files[1]) - 32) // (24 + PAGE_BYTES)
    files[1][32 + (frames // 2) * (24 + PAGE_BYTES) + 24 + 500] ^= 1
    site.tablet.write_bytes(files[0])
    wal.write_bytes(files[1])
    examined = await doctor.examine(site.tablet, key=KEY)
    assert "write_ahead_log" in {finding.code for finding in examined.findings}
    assert bytes(wal.read_bytes()) == bytes(files[1])
    await doctor.repair(site.tablet, key=KEY)
    found = await whole_again(site)
    assert set(site.ids[: RECORDS + 1]) <= set(found)
    assert len(set(expected) - set(found)) <= 1


async def test_the_doctor_waits_for_nobody(site: Site) -> None:
    async with await Device.open(site.tablet, key=KEY):
        with pytest.raises(StoreInUse):
            await doctor.examine(site.tablet, key=KEY)
        with pytest.raises(StoreInUse):
            await doctor.repair(site.tablet, key=KEY)
    with pytest.raises(WrongPassphrase):
        await doctor.examine(site.tablet, key=bytes(32))
    with pytest.raises(StoreMissing):
        await doctor.repair(site.tablet.with_name("none.db"), key=KEY)


async def test_what_does_not_fit_together_is_found_and_mended(site: Site) -> None:
    """Every page is sound, but a program, or a person with a SQL prompt, wrote something wrong."""
    db = Database.open(site.tablet, KEY)
    with db.transaction(durable=True):
        db.execute('UPDATE records SET json = \'{"title": "made up"}\' WHERE id = ?', (site.ids[0],))
        db.execute(
            "UPDATE documents SET state = x'ffff' WHERE record = (SELECT no FROM records WHERE id = ?)",
            (site.ids[30],),
        )
        db.execute(
            "DELETE FROM documents WHERE record = (SELECT no FROM records WHERE id = ?)", (site.ids[40],)
        )
    db.close()
    examined = await doctor.examine(site.tablet, key=KEY)
    assert {finding.code for finding in examined.findings} == {
        "shown_otherwise", "document_unreadable", "documents_missing"
    }  # fmt: skip
    repaired = await doctor.repair(site.tablet, key=KEY)
    assert repaired.to_fetch == 2
    assert not repaired.from_start
    assert await whole_again(site) == site.expected


async def test_the_command_examines_repairs_and_syncs(site: Site) -> None:
    passphrase, store = "correct horse", str(site.tablet)
    async with await Device.open(store, key=KEY) as tablet:
        await tablet.change_passphrase(KEY, passphrase)

    async def run(*args: str, code: int) -> Answer:
        return await asyncio.to_thread(
            lambda: crdt_sync(*args, "--store", store, code=code, CRDT_SYNC_PASSPHRASE=passphrase)
        )

    sound = await run("doctor", code=0)
    assert f"{store} is sound: {RECORDS + 2} records" in sound.out
    salt = site.tablet.read_bytes()[:SALT_BYTES]
    salvage = read_salvage(store, derive_key(passphrase, salt), salt)
    flip(
        site.tablet, [p for p, owner in salvage.owners.items() if owner == "documents"][:2], random.Random(1)
    )
    damaged = await run("doctor", code=11)
    assert "is damaged:" in damaged.out
    assert "pages of documents that cannot be read" in damaged.out
    assert (await run("doctor", "--json", code=11)).json["findings"][0]["code"] == "page"
    repaired = await run("doctor", "--repair", code=0)
    assert f"{store} is repaired:" in repaired.out
    assert "What the relay has is here again." in repaired.out
    assert (await run("doctor", "--json", code=0)).json["healthy"] is True
    assert (
        await run("doctor", "--repair", code=0)
    ).out == f"{store} is sound; there was nothing to repair.\n"
    listed = (await run("ls", TYPE, "--limit", "1000", "--json", code=0)).json
    assert len(listed) == len(site.expected)


@pytest.mark.parametrize("seed", range(2))
async def test_unsent_work_survives_damaged_documents_in_the_outbox(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    pages = [page for page, owner in owners(site.tablet).items() if owner == "documents"]
    flip(site.tablet, pages, chance)
    repaired = await doctor.repair(site.tablet, key=KEY)
    assert repaired.unsent >= OFFLINE
    assert repaired.unsaved == ()
    assert await whole_again(site) == site.expected
