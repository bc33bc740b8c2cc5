"""What documents 0 to 4 ask of a device, by name: real stores, real sockets, a relay process.

Which test shows which scenario: docs/scenarios.md. Conflicts are in tests/model, kills in tests/crashes, bad
networks in tests/network, and time (days, network speed) in simulations/scenarios.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import RelayUnreachable, ValidationError
from crdt_sync_client import Device, Increment, backoff, find_schema
from tests.end_to_end.relay_process import RestartableRelay
from tests.network.bad_link import BadLink, Link
from tests.waiting import PATIENCE_S, until

KEY = bytes(range(32))
ORDER = "work_order"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableRelay]:
    running = RestartableRelay(tmp_path_factory.mktemp("scenarios") / "relay")
    running.start()
    yield running
    assert running.stop() == 0


@dataclass
class Team:
    """Devices of one space. The admin is the office or the server, as the documents call it."""

    office: Device
    folder: Path
    relay: RestartableRelay
    _stack: AsyncExitStack

    async def enter(self, name: str) -> Device:
        """A field device that has joined and synced, and is offline."""
        device = await Device.create(self.folder / f"{name}.db", name=name, key=KEY)
        await self._stack.enter_async_context(device)
        await device.join(await self.office.invite(role="field"))
        await self.office.sync()
        await device.sync()
        return device

    async def reopen(self, name: str) -> Device:
        """The app is started again."""
        device = await Device.open(self.folder / f"{name}.db", key=KEY)
        return await self._stack.enter_async_context(device)


@pytest.fixture
async def team(
    tmp_path: Path, relay: RestartableRelay, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Team]:
    monkeypatch.setattr(backoff, "DELAYS_S", (0.0, 0.05, 0.1))  # as it is, but sooner
    async with AsyncExitStack() as stack:
        office = await Device.create(tmp_path / "office.db", name="Office", key=KEY)
        await stack.enter_async_context(office)
        schemas = [
            find_schema(name) for name in (ORDER, "citizen_report", "citizen_profile", "volunteer", "todo")
        ]
        await office.create_space(tmp_path.name, relay=relay.url, token=relay.setup_token, schemas=schemas)
        yield Team(office, tmp_path, relay, stack)


async def rest(*devices: Device) -> None:
    for device in (*devices, *devices):
        await device.sync(timeout_s=PATIENCE_S)


async def content(device: Device, type: str = ORDER) -> list[dict[str, Any]]:
    return sorted((record.to_json() for record in await device.query(type)), key=itemgetter("id"))


# Document 0, rig crews -----------------------------------------------------------------------------------


async def test_rig_crews_offline_mode_on_edit_offline_mode_off(team: Team) -> None:
    order = await team.office.create(ORDER, {"title": "Swap bucket", "status": "assigned"})
    crew = await team.enter("Crew")
    assert (await crew.status()).state == "offline"
    await crew.update(ORDER, order.id, {"status": "in_progress"})
    await crew.update(ORDER, order.id, {"parts_used.PIN-40.qty": 2})
    record = await crew.get(ORDER, order.id)
    assert record is not None
    assert (record["status"], record.sync_state) == ("in_progress", "pending")
    await crew.sync()
    await team.office.sync()
    assert await content(team.office) == await content(crew)
    status = await crew.status()
    assert (status.pending, status.failed, status.conflicts) == (0, 0, 0)


async def test_rig_crews_what_cannot_be_is_said_at_the_field_and_changes_nothing(team: Team) -> None:
    order = await team.office.create(ORDER, {"title": "Swap bucket", "status": "assigned"})
    crew = await team.enter("Crew")
    with pytest.raises(ValidationError) as wrong:
        await crew.update(ORDER, order.id, {"priority": 7})
    assert wrong.value.field == "priority"
    assert (await crew.status()).pending == 0


# Document 1, maintenance -----------------------------------------------------------------------------------


async def test_maintenance_an_order_created_offline_keeps_its_id(team: Team) -> None:
    technician = await team.enter("Technician")
    made = await technician.create(ORDER, {"title": "Found on the round"})
    await technician.update(ORDER, made.id, {"description": "Oil below the left boom cylinder"})
    await rest(technician, team.office)
    assert [(record["id"], record["title"]) for record in await content(team.office)] == [
        (made.id, "Found on the round")
    ]


async def test_maintenance_an_order_deleted_in_the_office_leaves_the_tablet_at_the_next_sync(
    team: Team,
) -> None:
    order = await team.office.create(ORDER, {"title": "Swap bucket"})
    technician = await team.enter("Technician")
    await team.office.delete(ORDER, order.id)
    await team.office.sync()
    assert await technician.count(ORDER) == 1
    await technician.sync()
    assert await technician.count(ORDER) == 0


async def test_maintenance_a_cleared_cache_downloads_everything_again(team: Team) -> None:
    for number in range(30):
        await team.office.create(ORDER, {"title": f"Order {number}"})
    technician = await team.enter("Technician")
    await technician.update(ORDER, (await technician.query(ORDER))[0].id, {"priority": "high"})
    await technician.sync()
    await technician.logout()  # which needs no force: nothing waits
    again = await team.enter("Technician")
    await team.office.sync()
    assert await content(again) == await content(team.office)
    assert await again.count(ORDER, {"priority": "high"}) == 1


async def test_maintenance_a_hundred_orders_on_first_launch(team: Team) -> None:
    rows = [{"title": f"Order {number}", "asset_id": f"EX-{number % 7}"} for number in range(100)]
    assert (await team.office.import_rows(ORDER, rows)).imported == 100
    await team.office.sync()
    technician = await team.enter("Technician")
    assert await content(technician) == await content(team.office)


async def test_maintenance_the_queue_survives_the_end_of_the_app(team: Team) -> None:
    order = await team.office.create(ORDER, {"title": "Swap bucket", "status": "assigned"})
    technician = await team.enter("Technician")
    await technician.update(ORDER, order.id, {"status": "in_progress"})
    made = await technician.create(ORDER, {"title": "Found on the round"})
    before = [(item.type, item.id) for item in await technician.outbox()]
    await technician.close()
    technician = await team.reopen("Technician")
    assert [(item.type, item.id) for item in await technician.outbox()] == before
    assert {id for _, id in before} == {order.id, made.id}
    assert (await technician.status()).pending == 2
    await rest(technician, team.office)
    assert await content(technician) == await content(team.office)
    assert await technician.outbox() == []


async def test_maintenance_a_week_offline_with_thousands_of_edits_syncs_in_one_go(team: Team) -> None:
    chance = random.Random(7)
    orders = [await team.office.create(ORDER, {"title": f"Order {number}"}) for number in range(60)]
    first, second = await team.enter("First"), await team.enter("Second")

    async def week(device: Device, who: str) -> None:
        for day in range(7):
            work = []
            for number in range(100):
                order = chance.choice(orders)
                change = chance.choice(
                    (
                        {f"parts_used.{who}{day}.qty": number},
                        {"meter_reading": 12_000 + number},
                        {f"labor_records.{who}{day}.hours": float(number % 9)},
                        {"tags": [who, f"day {day}"]},
                    )
                )
                work.append(device.update(ORDER, order.id, change))
            work.append(device.create(ORDER, {"title": f"{who} on day {day}"}))
            await asyncio.gather(*work)

    await asyncio.gather(week(first, "a"), week(second, "b"), week(team.office, "c"))
    assert (await first.status()).pending >= 50
    report = await first.sync()
    assert report.sent >= 50
    assert (await first.status()).pending == 0
    await rest(second, team.office, first)
    assert await team.office.count(ORDER) == 60 + 3 * 7
    assert await content(first) == await content(team.office) == await content(second)


# Document 2, volunteers ------------------------------------------------------------------------------------


async def test_volunteers_more_than_a_thousand_items_at_once(team: Team) -> None:
    rows = [{"name": f"Volunteer {number}", "hours": 1} for number in range(1_200)]
    assert (await team.office.import_rows("volunteer", rows)).imported == 1_200
    assert (await team.office.sync()).sent >= 1_200
    helper = await team.enter("Helper")
    assert await helper.count("volunteer") == 1_200
    one = (await helper.query("volunteer", limit=1))[0]
    await asyncio.gather(
        helper.update("volunteer", one.id, {"hours": Increment(2)}),
        team.office.update("volunteer", one.id, {"hours": Increment(3)}),
    )
    await rest(helper, team.office)
    record = await team.office.get("volunteer", one.id)
    assert record is not None
    assert record["hours"] == 6


# Document 3, citizens --------------------------------------------------------------------------------------


async def test_citizens_a_report_created_offline_syncs_by_itself_when_the_network_is_back(
    team: Team, tmp_path: Path
) -> None:
    own = RestartableRelay(tmp_path / "own")
    own.start()
    async with await Device.create(tmp_path / "phone.db", name="Phone", key=KEY) as phone:
        try:
            await phone.create_space(
                "City", relay=own.url, token=own.setup_token, schemas=[find_schema("citizen_report")]
            )
            await phone.connect()
            await until(lambda: is_in_sync(phone))
            own.stop()
            report = await phone.create("citizen_report", {"title": "Pothole", "category": "road"})
            record = await phone.get("citizen_report", report.id)
            assert record is not None
            assert record.sync_state == "pending"
            own.start()
            await until(lambda: is_in_sync(phone))
        finally:
            await phone.disconnect()
            own.stop()


async def is_in_sync(device: Device) -> bool:
    status = await device.status()
    return status.state == "idle" and status.pending == 0


async def test_citizens_three_days_offline_then_all_in_one_sync_and_nothing_pending(team: Team) -> None:
    phone = await team.enter("Phone")
    profile = await phone.create("citizen_profile", {"name": "A. Citizen"})
    for number in range(10):
        await phone.create("citizen_report", {"title": f"Lamp {number}", "category": "light"})
    for number in range(5):
        await phone.update("citizen_profile", profile.id, {"phone": f"+43 1 {number}"})
    assert (await phone.status()).pending == 11
    await phone.sync()
    assert (await phone.status()).pending == 0
    await team.office.sync()
    assert await team.office.count("citizen_report") == 10
    assert await content(team.office, "citizen_profile") == await content(phone, "citizen_profile")


# Document 4, tasks on a phone -------------------------------------------------------------------------------


async def test_task_list_the_first_sync_fails_says_so_and_goes_on_when_asked_again(
    team: Team, tmp_path: Path
) -> None:
    own = RestartableRelay(tmp_path / "own")
    own.start()
    async with (
        await Device.create(tmp_path / "web.db", name="Web", key=KEY) as web,
        await Device.create(tmp_path / "phone.db", name="Phone", key=KEY) as phone,
    ):
        await web.create_space("Tasks", relay=own.url, token=own.setup_token, schemas=[find_schema("todo")])
        await web.create("todo", {"text": "Buy milk"})
        await web.sync()
        await phone.join(await web.invite())
        own.stop()
        with pytest.raises(RelayUnreachable, match="cannot be reached"):
            await phone.sync()
        assert (await phone.status()).last_synced_at is None
        own.start()
        await phone.sync(timeout_s=PATIENCE_S)
        assert [record["text"] for record in await phone.query("todo")] == ["Buy milk"]
        assert (await phone.status()).last_synced_at is not None
        await web.close()
        await phone.close()
        own.stop()


async def test_task_list_the_icon_shows_offline_connecting_syncing_and_done(team: Team) -> None:
    async with BadLink(team.relay.url, Link(latency_s=0.05)).running() as net:
        phone = await Device.create(team.folder / "phone.db", name="Phone", key=KEY)
        async with phone:
            await phone.join(net.through(await team.office.invite()))
            await phone.sync()
            await phone.create("todo", {"text": "Buy milk"})
            shown: list[str] = []

            async def done() -> bool:
                state = (await phone.status()).state
                if shown[-1:] != [state]:
                    shown.append(state)
                return state == "idle"

            await done()
            await phone.connect()
            await until(done)
            assert shown == ["offline", "connecting", "syncing", "idle"]
