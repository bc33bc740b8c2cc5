"""Devices and a relay process: what was written apart comes together, whoever dies in the middle."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from contextlib import AsyncExitStack
from operator import itemgetter
from pathlib import Path

import pytest

from crdt_sync.errors import InviteUsed, RelayRefused, RelayUnreachable, SyncTimeout
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync_client import Device, find_schema
from crdt_sync_client.engine import joining as engine_joining
from crdt_sync_server.data_dir import DataDir
from tests.end_to_end.office import KEY, TYPE, Enter
from tests.end_to_end.relay_process import RestartableRelay

PATIENCE_S = 20.0


async def settle(*devices: Device) -> None:
    """Until all have everything: twice, because the first may lack what the last one sent."""
    for device in (*devices, *devices):
        await device.sync(timeout_s=PATIENCE_S)


async def assert_same(*devices: Device) -> None:
    first, *others = [
        (
            sorted((record.to_json() for record in await device.query(TYPE)), key=itemgetter("id")),
            sorted((c.type, c.record, c.path, c.id) for c in await device.conflicts()),
        )
        for device in devices
    ]
    for other in others:
        assert other == first


async def test_edits_made_apart_meet_and_a_person_decides_what_no_rule_may(
    office: Device, enter: Enter
) -> None:
    order = await office.create(TYPE, {"title": "Swap bucket teeth", "status": "assigned"})
    await office.sync()
    tablet = await enter("Tablet")
    await tablet.sync()
    assert [r.values["title"] for r in await tablet.query(TYPE)] == ["Swap bucket teeth"]

    await office.update(TYPE, order.id, {"priority": "high", "root_cause": "Worn pins"})
    await tablet.update(TYPE, order.id, {"status": "in_progress", "root_cause": "Cracked adapter"})
    await tablet.update(TYPE, order.id, {"parts_used": {"A": {"qty": 2}}})
    await settle(office, tablet)
    await assert_same(office, tablet)
    (conflict,) = await office.conflicts()
    assert {a.value for a in conflict.alternatives} == {"Worn pins", "Cracked adapter"}
    record = await tablet.get(TYPE, order.id)
    assert record is not None
    assert record.values["priority"] == "high"
    assert record.values["parts_used"] == {"A": {"qty": 2}}
    assert (record.sync_state, record.provisional) == ("conflict", ("root_cause",))

    await office.resolve(conflict.id, field="root_cause", keep="theirs")
    await settle(office, tablet)
    await assert_same(office, tablet)
    record = await tablet.get(TYPE, order.id)
    assert record is not None
    assert (record.values["root_cause"], record.sync_state) == ("Cracked adapter", "synced")


async def test_a_change_reaches_a_connected_device_while_it_watches(office: Device, enter: Enter) -> None:
    tablet = await enter("Tablet")
    await office.connect()
    await tablet.connect()
    async with tablet.watch(TYPE) as changes, asyncio.timeout(PATIENCE_S):
        order = await office.create(TYPE, {"title": "Grease line"})
        await office.update(TYPE, order.id, {"status": "assigned"})
        seen: dict[str, object] = {}
        while seen.get("status") != "assigned":
            change = await anext(changes)
            assert (change.id, change.origin) == (order.id, "remote")
            assert change.record is not None
            seen = change.record.values
    await office.sync()
    status = await office.status()
    assert (status.state, status.pending, status.failed) == ("idle", 0, 0)


async def test_a_fresh_device_gets_all_of_what_was_long_compacted(office: Device, enter: Enter) -> None:
    tablet = await enter("Tablet")
    await office.connect()
    await tablet.connect()
    ids = [(await office.create(TYPE, {"title": f"Order {n}"})).id for n in range(3)]
    for n in range(100):
        # One at a time, so that none are merged: the record's tail grows past what the relay tolerates.
        await office.update(TYPE, ids[0], {"meter_reading": n})
        await office.sync(timeout_s=PATIENCE_S)
    await settle(office, tablet)
    late = await enter("Late")
    report = await late.sync()
    await assert_same(office, tablet, late)
    assert report.received < 60


async def test_a_killed_relay_loses_nothing_it_acknowledged_and_gets_the_rest(
    office: Device, enter: Enter, own_relay: RestartableRelay
) -> None:
    tablet = await enter("Tablet")
    await office.connect()
    orders = await asyncio.gather(*(office.create(TYPE, {"title": f"Order {n}"}) for n in range(50)))
    await office.sync(timeout_s=PATIENCE_S)
    async with office.watch() as changes:
        writing = asyncio.create_task(_write_on(office, [order.id for order in orders]))
        for _ in range(200):
            await anext(changes)
        own_relay.kill()
    await writing
    with pytest.raises(RelayUnreachable):
        await tablet.sync()
    assert (await office.status()).pending > 0
    own_relay.start()
    await settle(office, tablet)
    await assert_same(office, tablet)
    assert await tablet.count(TYPE) == 50
    assert (await office.status()).pending == 0


async def _write_on(device: Device, ids: list[str]) -> None:
    for value in range(12):
        await asyncio.gather(*(device.update(TYPE, id, {"meter_reading": value}) for id in ids))


async def test_a_device_that_died_between_sealing_and_acknowledgement_sends_the_same_again(
    tmp_path: Path, office: Device, own_relay: RestartableRelay, enter: Enter
) -> None:
    tablet = await enter("Tablet")
    await tablet.sync()
    script = tmp_path / "die.py"
    script.write_text(DIE_AFTER_SEALING, encoding="utf-8")
    path = tmp_path / "Tablet.db"
    await tablet.close()
    process = await asyncio.create_subprocess_exec(sys.executable, str(script), str(path), KEY.hex())
    assert await process.wait() == -9
    async with await Device.open(path, key=KEY) as again:
        (item, *_) = await again.outbox()
        assert item.state == "sending"
        assert await again.count(TYPE) == 20
        await settle(again, office)
        assert await again.outbox() == []
        await assert_same(office, again)
    assert await office.count(TYPE) == 20


DIE_AFTER_SEALING = """
import asyncio, os, signal, sys
from crdt_sync_client import Device
from crdt_sync_client.session_driver import SessionDriver

def die(self, envelopes, *, more=False):
    if envelopes:
        os.kill(os.getpid(), signal.SIGKILL)

SessionDriver.pushed = die

async def main():
    device = await Device.open(sys.argv[1], key=bytes.fromhex(sys.argv[2]))
    for n in range(20):
        await device.create("work_order", {"title": f"Order {n}"})
    await device.sync()

asyncio.run(main())
"""


async def test_random_work_of_three_devices_with_a_relay_that_dies_converges(
    office: Device, enter: Enter, own_relay: RestartableRelay
) -> None:
    devices = [office, await enter("One"), await enter("Two")]
    orders = [(await office.create(TYPE, {"title": f"Order {n}"})).id for n in range(10)]
    await settle(*devices)
    dice = random.Random(7)
    for device in devices:
        await device.connect()
    for step in range(120):
        device, order = dice.choice(devices), dice.choice(orders)
        field = dice.choice(["priority", "root_cause", "description", "completion_notes"])
        parts = {dice.choice("AB"): {"qty": step}}
        await device.update(TYPE, order, {field: f"{field} {step}", "parts_used": parts})
        if step == 40:
            own_relay.kill()
        if step == 80:
            own_relay.start()
    await settle(*devices)
    await assert_same(*devices)


async def test_a_used_or_garbled_invite_and_a_wrong_token_change_nothing(
    tmp_path: Path, office: Device, own_relay: RestartableRelay, stack: AsyncExitStack
) -> None:
    link = await office.invite(role="field")
    first = await stack.enter_async_context(await Device.create(tmp_path / "1.db", name="1", key=KEY))
    second = await stack.enter_async_context(await Device.create(tmp_path / "2.db", name="2", key=KEY))
    await first.join(link)
    with pytest.raises(InviteUsed):
        await second.join(link)
    with pytest.raises(RelayRefused) as refused:
        await second.create_space("Pit 5", relay=own_relay.url, token="wrong", schemas=[])
    assert "token" in refused.value.hint
    assert await second.spaces() == []
    status = await second.status()
    assert (status.state, status.spaces) == ("offline", ())
    members = await first.members()
    assert sorted((m.name, m.role, m.is_self) for m in members) == [
        ("1", "field", True),
        ("Office", "admin", False),
    ]


async def test_two_admins_that_invite_at_the_same_time_both_succeed(
    tmp_path: Path, office: Device, stack: AsyncExitStack
) -> None:
    second = await stack.enter_async_context(await Device.create(tmp_path / "2.db", name="2", key=KEY))
    await second.join(await office.invite(role="admin"))
    await office.connect()
    await second.connect()
    links = await asyncio.gather(
        *(device.invite(role="field") for device in (office, second) for _ in range(3))
    )
    assert len(set(links)) == 6
    third = await stack.enter_async_context(await Device.create(tmp_path / "3.db", name="3", key=KEY))
    assert (await third.join(links[-1])).role == "field"


async def test_without_a_relay_sync_fails_at_once_or_when_its_time_is_up(
    office: Device, own_relay: RestartableRelay
) -> None:
    await office.sync()
    own_relay.stop()
    await office.create(TYPE, {"title": "Still works"})
    with pytest.raises(RelayUnreachable) as unreachable:
        await office.sync()
    assert "check that the relay runs" in unreachable.value.hint
    with pytest.raises((RelayUnreachable, SyncTimeout)):
        await office.sync(timeout_s=0.5)
    with pytest.raises(RelayUnreachable):
        await office.invite()
    status = await office.status()
    assert (status.state, status.pending) == ("offline", 1)
    await office.connect()
    sync = next(iter(office._syncs.values()))
    async with asyncio.timeout(PATIENCE_S):
        await sync.signal.until(lambda: sync.failures > 0 and sync.state == "backoff")
    status = await office.status()
    assert status.spaces[0].problem is not None
    assert (status.spaces[0].retry_in_s or 0) > 0
    own_relay.start()
    await office.sync(timeout_s=PATIENCE_S)
    assert (await office.status()).pending == 0


async def test_no_plaintext_reaches_the_relay(office: Device, own_relay: RestartableRelay) -> None:
    secret = "Ölwechsel " + os.urandom(8).hex()
    await office.create(TYPE, {"title": secret, "root_cause": secret})
    await office.sync()
    own_relay.stop()
    stored = b"".join(path.read_bytes() for path in own_relay.data.rglob("*") if path.is_file())
    assert len(stored) > 1_000
    for plain in (secret.encode(), b"root_cause", b"work_order", b"Pit 4", b"Office"):
        assert plain not in stored


async def test_a_space_whose_making_was_cut_off_is_taken_up_or_forgotten(
    tmp_path: Path, office: Device, own_relay: RestartableRelay, stack: AsyncExitStack
) -> None:
    """A device that died between its genesis or join leaving and the relay's answer."""
    device = await stack.enter_async_context(await Device.create(tmp_path / "2.db", name="2", key=KEY))
    engine = device._engine
    await device._thread.run(lambda: engine.begin_space("Never", own_relay.url, [find_schema(TYPE)]))
    await device.close()
    device = await stack.enter_async_context(await Device.open(tmp_path / "2.db", key=KEY))
    assert [space.name for space in await device.spaces()] == ["Never"]
    with pytest.raises(RelayRefused):
        await device.sync()
    assert await device.spaces() == []
    await device.sync()

    confirm = engine_joining.confirm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_joining, "confirm", _die)
        with pytest.raises(ZeroDivisionError):
            await device.join(await office.invite(role="office"))
    await device.close()
    assert engine_joining.confirm is confirm
    device = await stack.enter_async_context(await Device.open(tmp_path / "2.db", key=KEY))
    await device.sync()
    assert [(space.name, space.role) for space in await device.spaces()] == [("Pit 4", "office")]


def _die(*_: object) -> None:
    raise ZeroDivisionError


async def test_an_update_that_the_relay_refuses_waits_visibly_and_blocks_nothing(
    office: Device, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    tablet = await enter("Tablet")
    await tablet.sync()
    push = DeviceSession.push

    def tampered(self: DeviceSession, envelopes: list[bytes]) -> bytes:
        return push(self, [envelope[:-1] + bytes([envelope[-1] ^ 1]) for envelope in envelopes])

    monkeypatch.setattr(DeviceSession, "push", tampered)
    spoiled = await tablet.create(TYPE, {"title": "Spoiled on the way"})
    await tablet.sync(timeout_s=PATIENCE_S)
    monkeypatch.setattr(DeviceSession, "push", push)
    (item,) = await tablet.outbox()
    assert (item.id, item.state, item.code) == (spoiled.id, "waiting", "bad_signature")
    assert item.attempts == 3
    assert (await tablet.status()).pending == 1
    await tablet.create(TYPE, {"title": "Good"})
    await settle(tablet, office)
    assert [r["title"] for r in await office.query(TYPE)] == ["Good"]
    assert await tablet.retry_failed() == 1
    await settle(tablet, office)
    assert sorted(r["title"] for r in await office.query(TYPE)) == ["Good", "Spoiled on the way"]


async def test_a_relay_that_was_wiped_gets_everything_back_when_its_operator_lets_it(
    office: Device, enter: Enter, own_relay: RestartableRelay
) -> None:
    tablet = await enter("Tablet")
    made = await office.create(TYPE, {"title": "Pump 12"})
    await settle(office, tablet)
    await tablet.update(TYPE, made.id, {"title": "Pump 13"})
    await settle(office, tablet)
    await office.disconnect()
    await tablet.disconnect()
    own_relay.kill()
    shutil.rmtree(own_relay.data)
    own_relay.start()
    with pytest.raises(RelayRefused, match="only while its operator allows it"):
        await tablet.sync(timeout_s=PATIENCE_S)
    DataDir.open(own_relay.data).take_back(2**62)
    await settle(tablet, office)
    late = await enter("Late")
    await late.sync(timeout_s=PATIENCE_S)
    await assert_same(office, tablet, late)
