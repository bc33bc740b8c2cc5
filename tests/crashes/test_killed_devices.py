"""`kill -9` of real device processes in import, sync and initial sync: nothing is lost, nothing doubled.

What a device acknowledged to its app is there once; what it was killed in may be there, once. Half of the
kills fall in front of a chosen SQL statement, so that every place is reached; the others come from outside,
at any moment.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync.ids import SpaceId, keyed_record_id
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device
from tests.crashes.launcher import Account, Launcher
from tests.end_to_end.relay_process import RestartableRelay

TYPE: Final = "job"
KEY: Final = bytes(range(32))
KILLS_AT_WORK: Final = 36
KILLS_WHILE_JOINING: Final = 16
PATIENCE_S: Final = 30.0


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def plan(store: Path, *steps: dict[str, Any], connect: bool = False, die_at: int = 0) -> dict[str, Any]:
    return {
        "store": os.fspath(store),
        "key": KEY.hex(),
        "connect": connect,
        "die_at": die_at,
        "steps": steps,
    }


async def found(tmp_path: Path, relay: RestartableRelay, job: RecordSchema) -> tuple[Path, Path, SpaceId]:
    """An office and a tablet in one space, closed."""
    office, tablet = tmp_path / "office.db", tmp_path / "tablet.db"
    async with (
        await Device.create(office, name="Office", key=KEY) as one,
        await Device.create(tablet, name="Tablet", key=KEY) as two,
    ):
        space = await one.create_space(tmp_path.name, relay=relay.url, token=relay.setup_token, schemas=[job])
        await two.join(await one.invite())
        await two.sync()
    return office, tablet, SpaceId(bytes.fromhex(space.id))


async def settled(*stores: Path) -> list[dict[str, dict[str, Any]]]:
    """What each device has after all have synced twice: id -> values."""
    devices = [await Device.open(store, key=KEY) for store in stores]
    try:
        for device in (*devices, *devices):
            await device.sync(timeout_s=PATIENCE_S)
        for device in devices:
            assert await device.outbox() == []
            assert await device.quarantined() == []
        return [{record.id: dict(record.values) for record in await device.query(TYPE)} for device in devices]
    finally:
        for device in devices:
            await device.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_while_importing_writing_and_sending(
    tmp_path: Path,
    relay: RestartableRelay,
    launcher: Launcher,
    job: RecordSchema,
    orders: list[dict[str, Any]],
    seed: int,
) -> None:
    office, tablet, space = await found(tmp_path, relay, job)
    chance = random.Random(seed)
    ids = {row["number"]: keyed_record_id(space, TYPE, row["number"]) for row in orders}
    numbers, visits = Account(), Account()
    start = 0
    while numbers.kills + visits.kills < KILLS_AT_WORK // 2:
        store = chance.choice((office, tablet))
        die_at = chance.randrange(5, 250) if chance.random() < 0.5 else 0
        kill_after_s = None if die_at else chance.random() * 0.25
        connect = chance.random() < 0.5
        known = [ids[number] for number in numbers.acknowledged]
        if not known or chance.random() < 0.4:
            rows = orders[start % 160 :][:40]
            start += 20  # half of the next ones are rows that were imported before
            steps: list[dict[str, Any]] = [{"do": "import", "rows": rows}, {"do": "sync"}]
            launcher.run(
                plan(store, *steps, connect=connect, die_at=die_at), numbers, kill_after_s=kill_after_s
            )
            continue
        launcher.run(plan(store, {"do": "sync"}), visits)  # so that it has the records
        chosen = chance.sample(known, min(len(known), 12))
        steps = [
            {"do": "count_up", "records": chosen[:6], "note": f"life {visits.kills} of {seed}"},
            {"do": "count_up_together", "records": chosen[6:]} if chosen[6:] else {"do": "sync"},
            {"do": "sync"},
        ]
        launcher.run(plan(store, *steps, connect=connect, die_at=die_at), visits, kill_after_s=kill_after_s)
    on_office, on_tablet = await settled(office, tablet)
    assert on_office == on_tablet
    assert {ids[number] for number in numbers.acknowledged} <= set(on_office)
    assert set(on_office) <= {ids[number] for number in numbers.tried}
    doubled = [n for n, times in Counter(v["number"] for v in on_office.values()).items() if times > 1]
    assert doubled == []
    for id, values in on_office.items():
        count = values.get("visits", 0)
        assert visits.acknowledged[id] <= count <= visits.tried[id], f"{id}: {count} visits"


async def test_killed_during_the_initial_sync(
    tmp_path: Path,
    relay: RestartableRelay,
    launcher: Launcher,
    job: RecordSchema,
    orders: list[dict[str, Any]],
) -> None:
    office, _, _ = await found(tmp_path, relay, job)
    async with await Device.open(office, key=KEY) as device:
        await device.import_rows(TYPE, orders, key="number")
        await device.sync()
    chance, stores, kills = random.Random(3), list[Path](), 0
    while kills < KILLS_WHILE_JOINING:
        store = tmp_path / f"new{len(stores)}.db"
        stores.append(store)
        async with (
            await Device.open(office, key=KEY) as device,
            await Device.create(store, name=f"New {len(stores)}", key=KEY) as new,
        ):
            await new.join(await device.invite())
        account = Account()
        while not account.synced and account.kills < 5:
            die_at = chance.randrange(10, 60) if len(stores) % 2 else 0
            kill_after_s = None if die_at else chance.random() * 0.1
            sync = plan(store, {"do": "sync"}, connect=not die_at, die_at=die_at)
            launcher.run(sync, account, kill_after_s=kill_after_s)
        kills += account.kills
    everything = await settled(office, *stores)
    assert all(each == everything[0] for each in everything)
    assert sorted(v["number"] for v in everything[0].values()) == sorted(row["number"] for row in orders)


def test_there_are_fifty_kills() -> None:
    assert KILLS_AT_WORK + KILLS_WHILE_JOINING >= 50
