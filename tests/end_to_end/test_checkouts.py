"""Document 0's day on a rig: check out, work without a network, check in; others are told who has what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from crdt_sync.errors import RecordNotFound, RelayUnreachable, UnknownType, ValidationError
from crdt_sync_client import Device, Query, blocking
from crdt_sync_client.shipped import find_schema
from tests.end_to_end.conftest import RelayProcess, crdt_sync, start_relay
from tests.waiting import PATIENCE_S, until


@pytest.fixture
async def crew(relay: RelayProcess, tmp_path: Path) -> AsyncIterator[tuple[Device, Device]]:
    """An office, an admin, and a tablet that have the same work orders."""
    office = await Device.create(tmp_path / "office.db", name="Office", key=b"o" * 32)
    tablet = await Device.create(tmp_path / "tablet.db", name="Rig 7", key=b"t" * 32)
    await office.create_space(
        "Pit 4", relay=relay.url, token=relay.setup_token, schemas=[find_schema("work_order")]
    )
    await tablet.join(await office.invite())
    for title in ("Swap bucket", "Grease"):
        await office.create("work_order", {"title": title, "asset_id": "RIG-7"})
    await office.sync()
    await tablet.sync()
    yield office, tablet
    await office.close()
    await tablet.close()


async def ids(device: Device) -> list[str]:
    return sorted(record.id for record in await device.query("work_order"))


async def test_full_checkout_and_checkin_flow(crew: tuple[Device, Device]) -> None:
    office, tablet = crew
    one, two = await ids(office)
    results = await tablet.check_out("work_order", where={"asset_id": "RIG-7"}, ttl_s=3600)
    assert sorted(result.id for result in results if result.done) == [one, two]
    await office.sync()
    assert {(held.id, held.device, held.state) for held in await office.checkouts()} == {
        (one, "Rig 7", "held"), (two, "Rig 7", "held"),
    }  # fmt: skip
    # Somebody else is refused, and told who has it and until when.
    (refused,) = await office.check_out("work_order", [one])
    assert refused.code == "checked_out"
    assert refused.checkout is not None
    assert refused.checkout.device == "Rig 7"
    # The rig works without a network, the office writes too: that waits.
    await tablet.update("work_order", one, {"description": "cracked"})
    await office.update("work_order", one, {"title": "Swap bucket teeth"})
    await office.sync()
    assert [item.id for item in await office.outbox()] == [one]
    done = {result.id: result for result in await tablet.check_in()}
    assert (done[one].state, done[one].sent, done[one].pending, done[one].refused) == ("returned", 1, 0, 0)
    assert done[two].sent == 0
    assert await tablet.checkouts() == []
    await office.sync()
    assert await office.outbox() == []
    await tablet.sync()
    record = await tablet.get("work_order", one)
    assert record is not None
    assert (record["title"], record["description"]) == ("Swap bucket teeth", "cracked")


async def test_records_are_freed_at_the_end_of_a_block_and_renewed_within(
    crew: tuple[Device, Device],
) -> None:
    office, tablet = crew
    one, _ = await ids(office)
    async with tablet.checkout("work_order", [one], ttl_s=2) as lease:
        assert [result.id for result in lease.granted] == [one]
        first = (await tablet.checkouts())[0].until_at

        async def renewed() -> bool:
            return (await tablet.checkouts())[0].until_at != first

        await until(renewed)
        assert (await tablet.checkouts())[0].state == "held"
    assert [result.state for result in lease.checked_in] == ["returned"]
    (granted,) = await office.check_out("work_order", [one])
    assert granted.code == "granted"


async def test_checkout_and_checkin_without_a_network_say_what_to_do(tmp_path: Path) -> None:
    relay = start_relay(tmp_path / "relay")
    async with await Device.create(tmp_path / "tablet.db", name="Rig 7", key=b"t" * 32) as tablet:
        await tablet.create_space(
            "Pit 4", relay=relay.url, token=relay.setup_token, schemas=[find_schema("work_order")]
        )
        one = (await tablet.create("work_order", {"title": "Swap bucket", "asset_id": "RIG-7"})).id
        await tablet.check_out("work_order", [one])
        assert relay.stop() == 0
        with pytest.raises(RelayUnreachable, match="needs the relay") as caught:
            await tablet.renew_checkouts()
        assert "crdt-sync sync" in caught.value.hint
        with pytest.raises(RelayUnreachable):
            await tablet.check_in()
    async with await Device.open(tmp_path / "tablet.db", key=b"t" * 32) as tablet:
        assert [(held.id, held.state) for held in await tablet.checkouts()] == [(one, "held")]


async def test_an_admin_frees_what_a_lost_tablet_has_and_its_late_work_is_marked(
    crew: tuple[Device, Device],
) -> None:
    office, tablet = crew
    one, two = await ids(office)
    await tablet.check_out("work_order", [one])
    with pytest.raises(RecordNotFound):
        await tablet.check_in("work_order", [two])
    (denied,) = await tablet.break_checkouts("work_order", [one])
    assert denied.code == "permission"
    await tablet.update("work_order", one, {"description": "cracked"})
    (broken,) = await office.break_checkouts("work_order", [one])
    assert broken.done
    await tablet.sync()
    (result,) = await tablet.check_in()
    assert (result.state, result.late, result.sent) == ("broken", 1, 1)
    await office.sync()
    record = await office.get("work_order", one)
    assert record is not None
    assert record["description"] == "cracked"


Stores = tuple[Path, Path, str]


@pytest.fixture
def stores(relay: RelayProcess, tmp_path: Path) -> Stores:
    """An office, a tablet, and the id of a work order that both have."""
    office, tablet = tmp_path / "office.db", tmp_path / "tablet.db"
    crdt_sync("init", "--store", office, "--name", "Office")
    crdt_sync("init", "--store", tablet, "--name", "Rig 7")
    crdt_sync(
        "space", "create", "Pit 4", "--store", office, "--relay", relay.url, "--schema", "work_order",
        CRDT_SYNC_TOKEN=relay.setup_token,
    )  # fmt: skip
    link = crdt_sync("invite", "--role", "field", "--store", office, "--json").json["link"]
    crdt_sync("join", link, "--store", tablet)
    made = crdt_sync("create", "work_order", "title=Grease", "asset_id=A", "--store", office, "--json").json
    crdt_sync("sync", "--store", office)
    crdt_sync("sync", "--store", tablet)
    return office, tablet, made["id"]


def test_every_command_says_who_has_a_record(stores: Stores) -> None:
    office, tablet, id = stores
    columns = crdt_sync("ls", "work_order", "--store", office).out.splitlines()[0]
    assert "checked out" not in columns
    crdt_sync("checkout", "work_order", id, "--store", tablet)
    assert "1 record checked out here" in crdt_sync("status", "--store", tablet).err
    crdt_sync("sync", "--store", office)
    reads: list[tuple[str, ...]] = [
        ("get", "work_order", id),
        ("explain", "work_order", id),
        ("ls", "work_order"),
    ]
    for command in reads:
        assert "Rig 7 until" in crdt_sync(*command, "--store", office).out
    told = crdt_sync("get", "work_order", id, "--store", office, "--json").json["_sync"]["checkout"]
    assert (told["device"], told["own"], told["state"], told["late"]) == ("Rig 7", False, "held", [])
    assert crdt_sync("explain", "work_order", id, "--store", office, "--json").json["checkout"] == told
    (listed,) = crdt_sync("ls", "work_order", "--store", office, "--json").json
    assert listed["_sync"]["checkout"] == told
    own = crdt_sync("get", "work_order", id, "--store", tablet, "--json").json["_sync"]["checkout"]
    assert (own["own"], own["until_at"] - told["until_at"] < 5_000) == (True, True)

    written = crdt_sync("set", "work_order", id, "title=Oil", "--store", office)
    assert "Checked out by Rig 7 until" in written.err
    assert "this is saved here, and sent when that ends." in written.err
    writes = [("set", "work_order", id, "title=Wax"), ("rm", "work_order", id), ("restore", "work_order", id)]
    for command in writes:
        body = crdt_sync(*command, "--store", office, "--json").json
        assert (body["waits_for"]["device"], body["late"]) == ("Rig 7", False)
    said = crdt_sync("sync", "--store", office).out
    assert "1 record waits for other devices' checkouts to end" in said
    assert "checked out by Rig 7 until" in " ".join(crdt_sync("outbox", "ls", "--store", office).out.split())
    (item,) = crdt_sync("outbox", "ls", "--store", office, "--json").json
    assert item["waits_for"]["device"] == "Rig 7"
    (life, *_) = crdt_sync("outbox", "life", "work_order", id, "--store", office, "--json").json
    assert (life["stage"], life["waits_for"]["device"]) == ("pending", "Rig 7")
    assert "waits: checked out by Rig 7" in crdt_sync("explain", "work_order", id, "--store", office).out

    crdt_sync("checkouts", "break", "work_order", id, "--store", office)
    crdt_sync("sync", "--store", tablet)
    late = crdt_sync("set", "work_order", id, "title=Fat", "--store", tablet)
    assert "has ended: this merges, and is marked as late" in late.err
    status = crdt_sync("status", "--store", tablet, "--json").json["spaces"][0]
    assert (status["checked_out"], status["checkouts_ended"]) == (0, 1)
    assert "1 checkout ended before" in crdt_sync("sync", "--store", tablet).err
    crdt_sync("sync", "--store", office)
    said = crdt_sync("explain", "work_order", id, "--store", office).out
    assert "late: Rig 7 sent work at" in said
    (note,) = crdt_sync("explain", "work_order", id, "--store", office, "--json").json["checkout"]["late"]
    assert note["device"] == "Rig 7"
    assert note["at"] > note["ended_at"]


def test_the_same_by_command(stores: Stores) -> None:
    office, tablet, id = stores
    said = crdt_sync("checkout", "work_order", "--where", "asset_id=A", "--ttl", "8h", "--store", tablet)
    assert said.out.startswith("1 of 1 checked out until ")
    refused = crdt_sync("checkout", "work_order", id, "--store", office, code=8)
    assert f"work_order {id}: checked out by Rig 7 until" in refused.out
    assert "Rig 7" in crdt_sync("checkouts", "ls", "--store", office).out
    crdt_sync("renew", "--ttl", "1d", "--store", tablet)
    (back,) = crdt_sync("checkin", "--store", tablet, "--json").json
    assert (back["id"], back["state"], back["conflicts"]) == (id, "returned", [])
    crdt_sync("checkout", "work_order", id, "--store", tablet)
    crdt_sync("checkouts", "break", "work_order", id, "--store", office)
    assert crdt_sync("checkouts", "ls", "--store", office).out == "Nothing is checked out.\n"
    crdt_sync("checkout", "work_order", "--store", office, code=2)


@pytest.fixture
async def rig(relay: RelayProcess, tmp_path: Path) -> AsyncIterator[tuple[Device, Device]]:
    """An office and a rig's tablet with daily records and what belongs to them; the tablet is behind."""
    office = await Device.create(tmp_path / "office.db", name="Office", key=b"o" * 32)
    tablet = await Device.create(tmp_path / "tablet.db", name="Rig 7", key=b"t" * 32)
    types = ("daily_work_record", "time_record", "charge_record", "charge_item")
    await office.create_space(
        "Pit 4", relay=relay.url, token=relay.setup_token, schemas=[find_schema(each) for each in types]
    )
    await tablet.join(await office.invite(role="supervisor"))
    await tablet.sync()
    yield office, tablet
    await office.close()
    await tablet.close()


async def day_of_work(office: Device, date: str) -> dict[str, str]:
    """One day with hours and a charge, by type."""
    day = await office.create("daily_work_record", {"subproject_id": str(uuid4()), "date": date})
    below = {"daily_work_record_id": day.id}
    hours = await office.create("time_record", {**below, "employee_id": 7})
    charge = await office.create("charge_record", below)
    values = {"charge_record_id": charge.id, "kind": "service", "description": "Crane"}
    item = await office.create("charge_item", values)
    await office.sync()
    return {each.type: each.id for each in (day, hours, charge, item)}


async def test_what_belongs_to_a_record_comes_along_out_and_in(rig: tuple[Device, Device]) -> None:
    office, tablet = rig
    one = await day_of_work(office, "2026-03-01")
    two = await day_of_work(office, "2026-03-02")
    # The tablet has not heard of these days: checking out brings it up to date first.
    results = await tablet.check_out("daily_work_record", where={"status": "draft"})
    assert sorted(result.id for result in results) == sorted([*one.values(), *two.values()])
    assert all(result.done for result in results)
    back = await tablet.check_in("daily_work_record", [one["daily_work_record"]])
    assert {result.type: result.id for result in back} == one
    assert {held.id for held in await tablet.checkouts()} == set(two.values())
    # An admin frees a day with all that belongs to it.
    await office.sync()
    broken = await office.break_checkouts("daily_work_record", [two["daily_work_record"]])
    assert {result.type: result.id for result in broken} == two
    assert {result.code for result in broken} == {"broken"}
    (alone,) = await tablet.check_out("daily_work_record", [one["daily_work_record"]], children=False)
    assert alone.id == one["daily_work_record"]


async def test_a_block_tells_what_it_lost_while_it_lasted(crew: tuple[Device, Device]) -> None:
    office, tablet = crew
    one, two = await ids(office)
    async with tablet.checkout("work_order", [one, two], ttl_s=2) as lease:
        await office.break_checkouts("work_order", [one])
        (granted,) = await office.check_out("work_order", [one])
        assert granted.done

        async def noticed() -> bool:
            return bool(lease.lost)

        await until(noticed)
        (lost,) = lease.lost
        assert lost.checkout is not None
        assert (lost.id, lost.code, lost.checkout.device) == (one, "checked_out", "Office")
    assert {result.id: result.state for result in lease.checked_in} == {one: "taken", two: "returned"}


@pytest.mark.parametrize("ttl_s", [0, -1, 8 * 86_400])
async def test_a_time_that_no_checkout_can_last_is_refused(crew: tuple[Device, Device], ttl_s: float) -> None:
    _, tablet = crew
    with pytest.raises(ValidationError, match="a checkout lasts at most 7 days"):
        await tablet.check_out("work_order", where={"asset_id": "RIG-7"}, ttl_s=ttl_s)
    with pytest.raises(ValidationError):
        await tablet.renew_checkouts(ttl_s=ttl_s)
    assert await tablet.checkouts() == []


async def test_an_admin_frees_everything_that_a_lost_tablet_has_also_what_the_office_does_not_keep(
    crew: tuple[Device, Device],
) -> None:
    office, tablet = crew
    one, _ = await ids(office)
    await tablet.check_out("work_order", [one])
    away = (await tablet.create("work_order", {"title": "Paint", "asset_id": "RIG-7"})).id
    await tablet.check_out("work_order", [away])
    with pytest.raises(ValidationError, match="no device 'Rig 8' has anything checked out"):
        await office.break_checkouts(holder="Rig 8")
    with pytest.raises(ValidationError, match="needs a type with ids, or a holder"):
        await office.break_checkouts("work_order", [one], holder="Rig 7")
    with pytest.raises(UnknownType):
        await office.break_checkouts("wrok_order", [one])
    await office.set_scope("work_order", {"asset_id": "RIG-8"})
    await office.sync()
    broken = await office.break_checkouts(holder="Rig 7")
    assert [result.code for result in broken] == ["broken", "broken"]
    await tablet.sync()
    assert {held.id: held.state for held in await tablet.checkouts()} == {one: "broken", away: "broken"}


def test_a_block_in_an_app_without_asyncio(relay: RelayProcess, tmp_path: Path) -> None:
    with blocking.Device.create(tmp_path / "tablet.db", name="Rig 7", key=b"t" * 32) as device:
        device.create_space(
            "Pit 4", relay=relay.url, token=relay.setup_token, schemas=[find_schema("work_order")]
        )
        id = device.create("work_order", {"title": "Grease", "asset_id": "A"}).id
        with device.checkout("work_order", where={"asset_id": "A"}, ttl_s=60) as lease:
            assert [result.id for result in lease.granted] == [id]
            held = device.get("work_order", id)
            assert held is not None
            assert held.checkout is not None
            assert held.checkout.own
        assert [(result.id, result.state) for result in lease.checked_in] == [(id, "returned")]


async def test_whoever_watches_a_record_is_told_when_it_is_checked_out_and_in(
    crew: tuple[Device, Device],
) -> None:
    office, tablet = crew
    one, _ = await ids(office)
    await office.connect()
    for device in (office, tablet):
        changes = device.watch("work_order", one)
        await (tablet.check_out("work_order", [one]) if device is office else tablet.check_in())
        async with asyncio.timeout(PATIENCE_S):
            change = await anext(changes)
        assert change.record is not None
        held = change.record.checkout
        assert (held is not None and held.device == "Rig 7") is (device is office)
        changes.close()


async def test_a_live_query_shows_who_has_a_record(crew: tuple[Device, Device]) -> None:
    office, tablet = crew
    one, _ = await ids(office)
    await office.connect()
    seen: list[str | None] = []
    async with asyncio.timeout(PATIENCE_S):
        async for page in office.live(Query("work_order")):
            held = next(record.checkout for record in page.records if record.id == one)
            seen.append(None if held is None else held.device)
            if len(seen) == 1:
                await tablet.check_out("work_order", [one])
            elif seen[-1] is None:
                break
            elif len(seen) == 2:
                await tablet.check_in()
    assert seen == [None, "Rig 7", None]


def test_a_tablet_that_joined_a_moment_ago_checks_out_what_it_has_never_seen(stores: Stores) -> None:
    office, _, id = stores
    new = office.with_name("new.db")
    crdt_sync("init", "--store", new, "--name", "Rig 8")
    link = crdt_sync("invite", "--role", "field", "--store", office, "--json").json["link"]
    crdt_sync("join", link, "--store", new)
    (result,) = crdt_sync("checkout", "work_order", "--where", "asset_id=A", "--store", new, "--json").json
    assert (result["id"], result["code"]) == (id, "granted")
    crdt_sync("checkin", "--store", new)
    assert crdt_sync("renew", "--store", new).out == "Nothing is checked out on this device.\n"
    said = crdt_sync("checkout", "work_order", "--where", "asset_id=B", "--store", new)
    assert said.out == "No record on this device matches.\n"
    assert "at most 7 days" in crdt_sync("renew", "--ttl", "9d", "--store", new, code=4).err
