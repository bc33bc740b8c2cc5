"""5,485 real maintenance work orders: imported, synced, joined, edited apart, converged.

The file belongs to no package: it is read from `../shared/data` beside the checkout, or from the folder that
CRDT_SYNC_DATA names. Its source is M. Hodkiewicz, M. Ho, "Cleaning historical maintenance work order data for
reliability analysis", Journal of Quality in Maintenance Engineering 22(2), 2016.
"""

from __future__ import annotations

import asyncio
import csv
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync_client import Device

Run = Callable[..., Any]

FOLDER: Final = Path(
    os.environ.get("CRDT_SYNC_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)
FILE: Final = FOLDER / "excavators-cleaned.csv"
ROWS: Final = 5_485
SPOILT: Final = (3_454, "cost")
"""Line and field: a comma too many (`won,t swing`) put PM01 in the cost column. Reported, not guessed at."""
EDITS: Final = 200
MAPS: Final = (
    "title=OriginalShorttext",
    "asset_id=Asset",
    "scheduled_start=BscStartDate",
    "type=PMType",
    "cost=Cost",
)

pytestmark = pytest.mark.skipif(
    not FILE.is_file(),
    reason=f"there is no {FILE}; set CRDT_SYNC_DATA to the folder that holds excavators-cleaned.csv",
)


async def test_thousands_of_real_work_orders_converge(
    run: Run, relay: Any, passphrase: str, tmp_path: Path
) -> None:
    store = tmp_path / "office.db"
    await asyncio.to_thread(import_at_the_command_line, run, relay, store, passphrase)
    async with (
        await Device.open(store, passphrase=passphrase) as office,
        await Device.create(tmp_path / "tablet.db", name="Tablet", passphrase=passphrase) as tablet,
    ):
        await office.sync(timeout_s=60)
        await tablet.join(await office.invite(role="field"))
        await tablet.sync(timeout_s=60)
        everything = await content(tablet)
        assert everything == await content(office)
        titles = [values["title"] for values, _ in everything.values()]
        assert sorted(titles) == sorted(titles_in_the_file())

        chance = random.Random(20_040_701)
        for device in (office, tablet):
            await edit(device, chance)
        # The office a second time: what the tablet sent after the office had synced.
        for device in (office, tablet, office):
            await device.sync(timeout_s=60)

        office_has, tablet_has = await content(office), await content(tablet)
        assert office_has == tablet_has
        assert len(office_has) == ROWS - 1
        conflicts = {entry.id for entry in await office.conflicts(open_only=True)}
        assert conflicts == {entry.id for entry in await tablet.conflicts(open_only=True)}
        for values, open_conflicts in office_has.values():
            # Edited by both, or by one, or by none: the set of tags says by whom.
            both = set(values.get("tags", [])) == {"Office", "Tablet"}
            assert len(open_conflicts) == (1 if both else 0)
        assert len(conflicts) == sum(len(found) for _, found in office_has.values())


def import_at_the_command_line(run: Run, relay: Any, store: Path, passphrase: str) -> None:
    run("init", "--store", store, "--name", "Office", CRDT_SYNC_PASSPHRASE=passphrase)
    create = ("space", "create", "Excavators", "--store", store, "--schema", "work_order")
    run(*create, "--relay", relay.url, "--token", relay.setup_token, CRDT_SYNC_PASSPHRASE=passphrase)
    command = ("import", "work_order", FILE, "--store", store, "--map", *MAPS, "--json")
    report = run(*command, CRDT_SYNC_PASSPHRASE=passphrase, code=8).json
    assert report["imported"] == ROWS - 1
    assert [(row["line"], row["field"]) for row in report["failed"]] == [SPOILT]


async def edit(device: Device, chance: random.Random) -> None:
    """200 work orders at random: a status, a diagnosis, a part and a tag."""
    for record in chance.sample(sorted(await device.query("work_order"), key=lambda r: r.id), EDITS):
        changes: dict[str | tuple[str, ...], Any] = {
            "root_cause": f"as {device.name} sees it",
            "tags": [device.name],
            "parts_used": {f"P{chance.randrange(50)}": {"qty": chance.randrange(1, 9)}},
            "cost": round(chance.uniform(0, 5000), 2),
        }
        await device.update("work_order", record.id, changes)


async def content(device: Device) -> dict[str, tuple[dict[str, Any], tuple[str, ...]]]:
    """Everything a person would see, by record."""
    return {r.id: (r.values, tuple(sorted(r.conflicts))) for r in await device.query("work_order")}


def titles_in_the_file() -> list[str]:
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == ROWS
    # Line 1 has the names, so row n stands in line n + 2.
    return [row["OriginalShorttext"].strip() for n, row in enumerate(rows) if n + 2 != SPOILT[0]]
