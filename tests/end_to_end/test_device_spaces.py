"""Devices and a relay process: a space that is off on a device, and one that is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from crdt_sync.errors import LocalError, ShutOut, UnknownSpace, UnsyncedWork
from crdt_sync_client import Device, find_schema
from crdt_sync_client.cli.main import cli
from crdt_sync_client.engine.leaving import BY_RECORD, BY_SPACE
from tests.end_to_end.office import KEY, TYPE, office_and_tablet
from tests.end_to_end.relay_process import RestartableRelay


@pytest.fixture
async def pair(tmp_path: Path, own_relay: RestartableRelay) -> AsyncIterator[tuple[Device, Device]]:
    """The office with two spaces, and a tablet that is in both."""
    async with office_and_tablet(tmp_path, own_relay) as (office, tablet):
        await office.create_space(
            "Yard", relay=own_relay.url, token=own_relay.setup_token, schemas=[find_schema(TYPE)]
        )
        await tablet.join(await office.invite("Yard", role="field"))
        yield office, tablet


async def titles(device: Device, space: str | None = None) -> list[str]:
    return sorted(record.values["title"] for record in await device.query(TYPE, space=space))


async def test_a_space_that_is_off_is_read_and_written_and_goes_on_where_it_was(
    tmp_path: Path, pair: tuple[Device, Device]
) -> None:
    office, tablet = pair
    await office.create(TYPE, {"title": "Before"}, space="Yard")
    await office.sync()
    await tablet.sync()
    await tablet.switch_space("Yard", False)
    await office.create(TYPE, {"title": "Meanwhile"}, space="Yard")
    await office.create(TYPE, {"title": "Pit"}, space="Pit 4")
    await office.sync()
    await tablet.create(TYPE, {"title": "Mine"}, space="Yard")
    await tablet.sync()
    assert await titles(tablet, "Yard") == ["Before", "Mine"]
    assert await titles(tablet, "Pit 4") == ["Pit"]
    with pytest.raises(LocalError, match="off on this device"):
        await tablet.invite("Yard")
    await tablet.close()
    async with await Device.open(tmp_path / "Tablet.db", key=KEY) as again:
        states = {space.name: space.state for space in (await again.status()).spaces}
        assert states == {"Pit 4": "offline", "Yard": "off"}
        await again.connect()
        assert (await again.status()).spaces[1].state == "off"
        await again.switch_space("Yard", True)
        await again.sync()
        assert await titles(again, "Yard") == ["Before", "Meanwhile", "Mine"]


async def test_a_space_is_left_with_all_that_was_kept_of_it(
    tmp_path: Path, pair: tuple[Device, Device]
) -> None:
    office, tablet = pair
    made = await office.create(TYPE, {"title": "Pump"}, space="Yard")
    await office.create(TYPE, {"title": "Pit"}, space="Pit 4")
    await office.sync()
    await tablet.sync()
    await tablet.update(TYPE, made.id, {"title": "Pump 2"}, space="Yard")
    with pytest.raises(UnsyncedWork, match="1 record"):
        await tablet.leave("Yard")
    assert await titles(tablet, "Yard") == ["Pump 2"]
    watch, states = tablet.watch(TYPE), tablet.watch_status()
    await anext(states)
    report = await tablet.leave("Yard", export_to=tmp_path / "unsent.jsonl")
    assert (report.name, report.unsynced_records) == ("Yard", 1)
    change = await anext(watch)
    assert (change.id, change.left, change.record) == (made.id, True, None)
    assert [space.name for space in (await anext(states)).spaces] == ["Pit 4"]
    (line,) = (tmp_path / "unsent.jsonl").read_text().splitlines()
    assert [write["value"] for write in json.loads(line)["writes"]] == ["Pump 2"]
    assert await titles(tablet) == ["Pit"]
    with pytest.raises(UnknownSpace):
        await tablet.query(TYPE, space="Yard")
    await tablet.sync()


async def test_nothing_of_a_left_space_is_in_any_table_and_no_table_is_forgotten(
    pair: tuple[Device, Device],
) -> None:
    office, tablet = pair
    await office.create(TYPE, {"title": "Pump"}, space="Yard")
    await office.sync()
    await tablet.sync()
    db = tablet._thread.store.db
    tables = [name for (name,) in db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {t: {row[1] for row in db.rows(f"PRAGMA table_info({t})")} for t in tables}
    assert {t for t in tables if "space" in columns[t]} == {*BY_SPACE, "records"}
    assert {t for t in tables if "record" in columns[t] and "space" not in columns[t]} == {*BY_RECORD}
    (yard,) = [space for space in await tablet.spaces() if space.name == "Yard"]
    await tablet.leave("Yard")
    assert db.value("SELECT count(*) FROM spaces") == db.value("SELECT count(*) FROM spare_spaces") == 1
    assert db.value("SELECT count(*) FROM meta WHERE name LIKE ?", (f"%{yard.id}%",)) == 0
    left = {t: db.value(f"SELECT count(*) FROM {t}") for t in (*BY_RECORD, "records")}
    assert left["records"] == left["documents"] == 1  # the record type of the other space


async def test_who_left_comes_back_with_an_invite_and_writes_on(pair: tuple[Device, Device]) -> None:
    office, tablet = pair
    await tablet.sync()
    mine = await tablet.create(TYPE, {"title": "Pump"}, space="Yard")
    await tablet.sync()
    await tablet.leave("Yard")
    await tablet.join(await office.invite("Yard", role="field"))
    await tablet.sync()
    assert await titles(tablet, "Yard") == ["Pump"]
    await tablet.update(TYPE, mine.id, {"title": "Pump 2"}, space="Yard")
    await tablet.sync()
    await office.sync()
    assert await titles(office, "Yard") == ["Pump 2"]
    assert not (await tablet.status()).failed


async def test_who_is_shut_out_works_on_and_takes_the_unsent_work_along(
    tmp_path: Path, own_relay: RestartableRelay, pair: tuple[Device, Device]
) -> None:
    _, tablet = pair
    await tablet.sync()
    revoke = ["relay", "revoke", tablet.device_id.hex(), "--data", str(own_relay.data)]
    done = await asyncio.to_thread(lambda: CliRunner().invoke(cli, revoke))
    assert done.exit_code == 0, done.output
    with pytest.raises(ShutOut):
        await tablet.sync()
    assert {space.state for space in (await tablet.status()).spaces} <= {"revoked", "offline"}
    await tablet.create(TYPE, {"title": "Written since"}, space="Yard")
    assert await titles(tablet, "Yard") == ["Written since"]
    report = await tablet.leave("Yard", export_to=tmp_path / "unsent.jsonl")
    assert report.unsynced_records == 1
    assert "Written since" in (tmp_path / "unsent.jsonl").read_text()
