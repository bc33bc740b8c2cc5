"""What became of a write, over real sockets, as typed, without asyncio, and as `docs/outbox.md` shows it."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync.errors import RecordNotFound
from crdt_sync_client import Device, blocking, find_schema
from crdt_sync_client.records import CannotWait
from tests.end_to_end.conftest import RelayProcess, make_pair
from tests.end_to_end.office import KEY, TYPE, Enter

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "outbox.md"
Run = Any


async def test_a_write_is_followed_from_the_device_to_all_others(
    tmp_path: Path, office: Device, enter: Enter
) -> None:
    tablet = await enter("Tablet")
    await tablet.sync()
    await tablet.connect()
    write = await tablet.create(TYPE, {"title": "Leak"}, priority=1)
    await write.wait("relayed", timeout_s=30)
    relayed = await write.life()
    assert (relayed.stage, relayed.priority) == ("relayed", 1)
    assert (relayed.delivered_to, relayed.others) == (0, 1)
    assert relayed.relayed_ms is not None
    assert relayed.relay_row is not None
    await tablet.disconnect()
    (version,) = (await tablet.explain(TYPE, write.id, "title")).fields[0].versions
    assert version.life is not None
    assert (version.life.delivered_to, version.life.others) == (0, 1), "as it was told last"
    await office.connect()
    await tablet.connect()
    await write.wait("delivered", timeout_s=30)
    delivered = await tablet.life(write)
    assert delivered.stage == "delivered"
    await tablet.close()
    async with await Device.open(tmp_path / "Tablet.db", key=KEY) as again:
        known = await again.life(write.ref)
        assert (known.stage, known.envelope) == ("delivered", delivered.envelope)
        assert known.delivered_ms is not None
        assert [each.stage for each in await again.lives(TYPE, write.id)] == ["delivered"]
        with pytest.raises(CannotWait, match="no write of this device"):
            await again.life("x:y")
        with pytest.raises(RecordNotFound):
            await again.life(write.ref.replace(write.id, write.id[::-1]))


async def test_what_keeps_a_write_from_going_is_said(office: Device, enter: Enter, own_relay: Any) -> None:
    tablet = await enter("Tablet")
    await tablet.sync()
    own_relay.stop()
    write = await tablet.create(TYPE, {"title": "Leak"})
    await tablet.connect()
    async with asyncio.timeout(30):
        async for status in tablet.watch_status():
            if status.state == "backoff" and status.retry_in_s:
                break
    life = await write.life()
    assert life.retry_at_ms is not None
    assert life.stage == "pending"
    assert life.refusal is None
    assert life.error
    own_relay.start()


async def test_a_write_that_a_transaction_will_do_has_no_life_yet(office: Device) -> None:
    async with office.transaction() as together:
        draft = await together.create(TYPE, {"title": "Leak"})
        for ask in (draft.wait, draft.life):
            with pytest.raises(CannotWait, match="no write yet"):
                await ask()
        with pytest.raises(CannotWait, match="no write yet"):
            _ = draft.ref
    (write,) = together.results
    assert (await write.life()).stage in ("pending", "sending", "relayed", "delivered")


def test_without_asyncio_a_write_is_waited_for_and_followed(tmp_path: Path, relay: Any) -> None:
    with blocking.Device.create(tmp_path / "tablet.db", name="Tablet", key=KEY) as device:
        device.create_space("Pit", relay=relay.url, token=relay.setup_token, schemas=[find_schema(TYPE)])
        write = device.create(TYPE, {"title": "Leak"})
        assert write.life().stage == "pending"
        device.connect()
        write.wait("relayed", timeout_s=30)
        write.wait("delivered", timeout_s=30)
        assert write.life().stage == "delivered", "there is nobody else"
        with device.transaction() as together:
            together.update(TYPE, write.id, {"title": "Leak at pump 2"})
        (second,) = together.results
        second.wait(timeout_s=30)
        device.wait(second, timeout_s=30)
        device.wait(second.ref, timeout_s=30)
        assert "title" not in {value.field for value in device.life(write).values or ()}
        assert second == together.results[0]
        assert repr(second).startswith("WriteResult(")
    assert (second.id, second.changed) == (write.id, True), "a value is read also when the device is closed"


def test_it_is_told_as_typed(run: Run, tmp_path: Path, relay: RelayProcess) -> None:
    pair = make_pair(tmp_path, relay)  # of its own: in the shared one others may have let devices in
    made = run("create", "work_order", "title=Leak", "--priority", "2", "--store", pair.office, "--json").json
    record, place = made["id"], ("--store", pair.office)
    assert "pending" in run("outbox", "life", "work_order", record, *place).out
    (item,) = [each for each in run("outbox", "ls", *place, "--json").json if each["id"] == record]
    assert item["sealed"] is None
    assert "not sent yet" in run("explain", "work_order", record, "title", *place).out
    pair.sync()
    life = run("outbox", "life", made["ref"], "--ask", *place, "--json").json
    assert (life["stage"], life["priority"], life["error"]) == ("delivered", 2, None)
    assert life["relayed"] is not None
    assert {value["field"] for value in life["values"]} >= {"title"}
    (listed,) = run("outbox", "life", "work_order", record, *place, "--json").json
    assert listed["stage"] == "delivered"
    assert "on all other devices" in run("explain", "work_order", record, "title", *place).out
    explained = run("explain", "work_order", record, "title", *place, "--json").json
    assert explained["fields"][0]["writes"][0]["life"]["stage"] == "delivered"
    changed = run("set", "work_order", record, "title=Leak at pump 2", *place, "--json").json
    run("set", "work_order", record, "title=Leak at pump 3", *place)
    life = run("outbox", "life", changed["ref"], *place, "--json").json
    assert (life["stage"], life["overwritten"]) == ("pending", True)
    assert "overwritten" in run("outbox", "life", changed["ref"], *place).out
    assert run("explain", "work_order", record, "--store", pair.tablet, "--json").json["fields"]
    assert "by its ref" in run("outbox", "life", "work_order", *place, code=2).err
    run("outbox", "life", made["ref"].replace(record, record[::-1]), *place, code=3)
    assert run("outbox", "life", "work_order", record[::-1], *place).out.startswith("Nothing was written")


async def test_the_page_does_what_it_says(
    tmp_path: Path, office: Device, enter: Enter, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    device = await enter("Tablet")
    await device.sync()
    order = await device.create(TYPE, {"title": "Pump", "status": "in_progress"})
    await device.sync()
    names: dict[str, Any] = {"device": device, "id": order.id}
    program = "async def page():\n" + textwrap.indent("\n".join(blocks[1:]), "    ")
    program = program.replace(
        '    await write.wait("relayed")', '    await device.connect()\n    await write.wait("relayed")'
    )
    exec(compile(program, str(PAGE), "exec"), names)
    await names["page"]()
    assert capsys.readouterr().out == shown
