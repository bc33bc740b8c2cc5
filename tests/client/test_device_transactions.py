"""`async with device.transaction()`: all of it or nothing, mistakes raise where they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import RecordNotFound, TransactionError, TransitionError, ValidationError
from crdt_sync_client import Device, find_schema
from crdt_sync_client.engine import Engine
from tests.client.alone import found_space

TYPE = "work_order"
UNKNOWN = "00000000-0000-4000-8000-00000000000f"


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    """A device in a space that its relay has taken, as far as the store knows; there is no relay."""
    async with await Device.create(tmp_path / "d.db", name="Tablet", key=bytes(32)) as device:
        await found_space(device, find_schema(TYPE), find_schema("asset"))
        yield device


async def test_what_follows_can_name_what_was_made_before_and_all_is_told_at_once(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await device.create(TYPE, {"title": "Old"})
    told: list[list[str]] = []
    monkeypatch.setattr(
        device._hub, "publish", lambda changes: told.append([change.id for change in changes])
    )
    watch = device.watch()
    async with device.transaction() as t:
        made = await t.create(TYPE, {"title": "New"})
        assert made.changed
        await t.update(TYPE, made.id, {"description": f"instead of {first.id}"})
        await t.delete(TYPE, first.id)
        assert await device.get(TYPE, made.id) is None
        assert await device.get(TYPE, first.id) is not None
        assert t.results == []
    watch.close()
    assert [sorted(ids) for ids in told] == [sorted([made.id, first.id])]
    assert [result.id for result in t.results] == [made.id, made.id, first.id]
    order = await device.get(TYPE, made.id)
    assert order is not None
    assert order["description"] == f"instead of {first.id}"
    assert await device.get(TYPE, first.id) is None


async def test_a_block_that_raises_has_written_nothing(device: Device) -> None:
    t = device.transaction()

    async def block() -> None:
        async with t:
            await t.create(TYPE, {"title": "New"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()
    assert await device.count(TYPE) == 0
    assert {item.type for item in await device.outbox()} == {"_schema"}
    assert t.results == []
    async with device.transaction() as t:
        pass
    assert t.results == []


async def test_what_is_wrong_raises_where_it_is_written_and_the_block_may_go_on(device: Device) -> None:
    async with device.transaction() as t:
        made = await t.create(TYPE, {"title": "New", "status": "assigned"})
        with pytest.raises(TransitionError):
            await t.update(TYPE, made.id, {"status": "closed"})
        await t.update(TYPE, made.id, {"status": "in_progress"})
        await t.update(TYPE, made.id, {"status": "completed"})
        with pytest.raises(ValidationError):
            await t.create(TYPE, {"title": 7})
        with pytest.raises(RecordNotFound):
            await t.update(TYPE, UNKNOWN, {"title": "No such order"})
    (order,) = await device.query(TYPE)
    assert order["status"] == "completed"


async def test_a_block_that_lets_an_error_through_has_written_nothing(device: Device) -> None:
    async def block() -> None:
        async with device.transaction() as t:
            await t.create(TYPE, {"title": "New"})
            await t.update(TYPE, UNKNOWN, {"title": "No such order"})

    with pytest.raises(RecordNotFound):
        await block()
    assert await device.count(TYPE) == 0


async def test_it_is_done_upon_what_stands_at_its_end(device: Device) -> None:
    made = await device.create(TYPE, {"title": "Pump", "status": "assigned"})
    async with device.transaction() as t:
        await t.update(TYPE, made.id, {"title": "Pump 4"})
        await device.update(TYPE, made.id, {"title": "Pump 3", "description": "leaks"})
    order = await device.get(TYPE, made.id)
    assert order is not None
    assert (order["title"], order["description"]) == ("Pump 4", "leaks")

    async def block() -> None:
        async with device.transaction() as t:
            await t.create(TYPE, {"title": "Another"})
            await t.update(TYPE, made.id, {"status": "in_progress"})
            await device.update(TYPE, made.id, {"status": "cancelled"})

    with pytest.raises(TransitionError):
        await block()
    assert await device.count(TYPE) == 1


async def test_a_transaction_is_for_one_block(device: Device) -> None:
    transaction = device.transaction()
    with pytest.raises(TransactionError, match="not open"):
        await transaction.create(TYPE, {"title": "Before"})
    async with transaction as t:
        await t.create(TYPE, {"title": "In it"})
    with pytest.raises(TransactionError, match="not open"):
        await t.create(TYPE, {"title": "Afterwards"})
    with pytest.raises(TransactionError, match="one block"):
        async with transaction:
            pass
    assert await device.count(TYPE) == 1


async def test_several_at_a_time_share_commits_and_one_that_fails_is_alone(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    write = Engine.write

    def counted(self: Engine, ops: Any) -> Any:
        calls.append(1)
        return write(self, ops)

    monkeypatch.setattr(Engine, "write", counted)
    victim = await device.create(TYPE, {"title": "Victim"})
    calls.clear()

    async def one(number: int) -> None:
        async with device.transaction() as t:
            await t.create(TYPE, {"title": f"A{number}"})
            await t.create(TYPE, {"title": f"B{number}"})
            if number % 5 == 0:
                await t.update(TYPE, victim.id, {"title": f"by {number}"})
                await device.delete(TYPE, victim.id)

    outcomes = await asyncio.gather(*(one(number) for number in range(1, 30)), return_exceptions=True)
    failed = [number for number, outcome in enumerate(outcomes, 1) if outcome is not None]
    assert failed
    assert set(failed) <= {5, 10, 15, 20, 25}
    assert await device.count(TYPE) == 2 * (29 - len(failed))
    assert len(calls) < 29
