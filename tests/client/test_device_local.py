"""A device without a relay: shared durable commits, refusals that change nothing, watching, importing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import (
    CrdtSyncError,
    ImportFileError,
    InviteGarbled,
    NoKey,
    NotAStore,
    RecordNotFound,
    RelayRefused,
    RelayUnreachable,
    StoreClosed,
    StoreExists,
    StoreInUse,
    StoreMissing,
    TransitionError,
    UnknownSpace,
    UnknownType,
    ValidationError,
    WrongPassphrase,
)
from crdt_sync.ids import SpaceId
from crdt_sync_client import Change, Device, read_csv
from crdt_sync_client.engine import Engine
from tests.client.alone import NOWHERE, found_space

TYPE = "work_order"
KEY = bytes(range(32))


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    """A device in a space that its relay has taken, as far as the store knows; there is no relay."""
    async with await Device.create(tmp_path / "d.db", name="Tablet", key=KEY) as device:
        await found_space(device)
        yield device


async def test_an_apps_own_dicts_are_taken_as_they_are_typed(device: Device) -> None:
    """Checked by mypy too: a `dict` of one kind of key must pass where several kinds are allowed."""
    values: dict[str, Any] = {"title": "Typed"}
    made = await device.create(TYPE, values)
    by_name: dict[str, str] = {"site_id": "P4"}
    by_path: dict[tuple[str, ...], int] = {("parts_used", "A", "qty"): 2}
    by_both: dict[str | tuple[str, ...], Any] = {"cost": 1.5, ("tasks", "t", "done"): True}
    where: dict[str, str] = {"site_id": "P4"}
    for changes in (by_name, by_path, by_both):
        await device.update(TYPE, made.id, changes)
    await device.update(TYPE, made.id, by_name)
    await device.update(TYPE, made.id, by_path)
    await device.update(TYPE, made.id, {"asset_id": "A", ("parts_used", "B", "qty"): 1})
    (record,) = await device.query(TYPE, where)
    assert record.values["parts_used"] == {"A": {"qty": 2}, "B": {"qty": 1}}
    assert record.values["tasks"] == {"t": {"done": True}}


async def test_a_device_and_its_spaces_have_names(device: Device, tmp_path: Path) -> None:
    for name in ("", " ", "x" * 201):
        with pytest.raises(ValidationError, match="device name"):
            await Device.create(tmp_path / "nameless.db", name=name, key=KEY)
    assert not (tmp_path / "nameless.db").exists()
    with pytest.raises(ValidationError, match="in a space called Pit 4 already"):
        await device.create_space("Pit 4", relay=NOWHERE, token="t")


async def test_concurrent_writes_share_commits_and_fail_alone(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    write = Engine.write

    def counted(self: Engine, ops: Any) -> Any:
        calls.append(len(ops))
        return write(self, ops)

    monkeypatch.setattr(Engine, "write", counted)
    outcomes = await asyncio.gather(
        *(device.create(TYPE, {"title": f"Order {n}"} if n % 10 else {"title": n}) for n in range(100)),
        return_exceptions=True,
    )
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(failed) == 10
    assert all(isinstance(error, ValidationError) and error.field == "title" for error in failed)
    assert await device.count(TYPE) == 90
    assert calls == [100]


async def test_writes_of_one_record_keep_their_order(device: Device) -> None:
    order = await device.create(TYPE, {"title": "Order"})
    await asyncio.gather(*(device.update(TYPE, order.id, {"meter_reading": n}) for n in range(50)))
    record = await device.get(TYPE, order.id)
    assert record is not None
    assert record["meter_reading"] == 49
    assert record.sync_state == "pending"


async def test_a_cancelled_write_is_not_done_and_the_others_are(device: Device) -> None:
    tasks = [asyncio.create_task(device.create(TYPE, {"title": f"Order {n}"})) for n in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert sorted(r["title"] for r in await device.query(TYPE)) == ["Order 0", "Order 2"]


async def test_what_cannot_be_is_refused_and_changes_nothing(device: Device) -> None:
    order = await device.create(TYPE, {"title": "Order", "status": "assigned"})
    before = await device.get(TYPE, order.id)
    refused: list[tuple[type[CrdtSyncError], Awaitable[object]]] = [
        (UnknownType, device.create("gadget", {})),
        (ValidationError, device.create(TYPE, {})),
        (ValidationError, device.update(TYPE, order.id, {"cost": "much"})),
        (ValidationError, device.update(TYPE, order.id, {"colour": "red"})),
        (TransitionError, device.update(TYPE, order.id, {"status": "closed"})),
        (RecordNotFound, device.update(TYPE, "00000000-0000-4000-8000-000000000000", {"cost": 1})),
        (UnknownSpace, device.create(TYPE, {"title": "x"}, space="Pit 5")),
        (InviteGarbled, device.join("crdt-sync://nowhere")),
        (RelayUnreachable, device.invite()),
        (RelayUnreachable, device.sync()),
        (RelayRefused, device.create_space("x", relay="http://relay", token="t")),
    ]
    for kind, attempt in refused:
        with pytest.raises(kind) as error:
            await attempt
        assert error.value.message
    assert await device.get(TYPE, order.id) == before
    assert await device.count(TYPE) == 1
    assert len(await device.spaces()) == 1


async def test_where_no_relay_answers_nothing_of_a_session_has_begun(device: Device) -> None:
    """What this device is to give the relay in its next session it still gives when one answers again."""
    (space,) = [info.id for info in await device.spaces()]
    found, engine = SpaceId(bytes.fromhex(space)), device._engine
    assert await device._thread.run(lambda: engine.revive(found, wanted=True))
    with pytest.raises(RelayUnreachable):
        await device.sync()
    assert (await device._thread.run(lambda: engine.session_start(found))).revive


async def test_local_writes_are_watched_with_the_fields_that_changed(device: Device) -> None:
    async with device.watch(TYPE) as changes:
        order = await device.create(TYPE, {"title": "Order"})
        await device.update(TYPE, order.id, {"status": "assigned", "parts_used": {"A": {"qty": 2}}})
        await device.delete(TYPE, order.id)
        await device.restore(TYPE, order.id)
        seen: list[Change] = [await anext(changes) for _ in range(4)]
    assert [change.origin for change in seen] == ["local"] * 4
    assert set(seen[1].fields) == {"parts_used", "status"}
    assert seen[2].record is None
    assert seen[3].record is not None
    assert seen[3].record["status"] == "assigned"


async def test_closing_finishes_what_was_asked_and_ends_everything(tmp_path: Path, device: Device) -> None:
    watch = device.watch()
    writing = asyncio.create_task(device.create(TYPE, {"title": "Last order"}))
    await asyncio.sleep(0)
    await device.close()
    await device.close()
    assert (await writing).type == TYPE
    assert [change.type async for change in watch] == [TYPE]
    with pytest.raises(StoreClosed):
        await device.get(TYPE, "00000000-0000-4000-8000-000000000000")
    with pytest.raises(StoreClosed):
        await device.create(TYPE, {"title": "Too late"})
    async with await Device.open(tmp_path / "d.db", key=KEY) as again:
        assert again.device_id == device.device_id
        assert [r["title"] for r in await again.query(TYPE)] == ["Last order"]


async def test_a_store_is_opened_once_and_with_its_own_secret(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(StoreMissing):
        await Device.open(path, key=KEY)
    device = await Device.create(path, name="Tablet", passphrase="correct horse")
    with pytest.raises(StoreInUse):
        await Device.open(path, passphrase="correct horse")
    await device.close()
    with pytest.raises(StoreExists):
        await Device.create(path, name="Tablet", key=KEY)
    with pytest.raises(WrongPassphrase):
        await Device.open(path, passphrase="incorrect horse")
    for wrong in ({}, {"passphrase": ""}, {"key": b"short"}, {"passphrase": "x", "key": KEY}):
        with pytest.raises(NoKey):
            await Device.open(path, **wrong)
    text = tmp_path / "notes.txt"
    text.write_text("shopping list")
    with pytest.raises(NotAStore):
        await Device.open(text, key=KEY)
    await (await Device.open(path, passphrase="correct horse")).close()


async def test_rows_that_fail_are_listed_and_the_rest_go_in(tmp_path: Path, device: Device) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(
        "No,Text,Cost\n1,Bucket,10.5\n2,Hose,NA\n3,,7\n4,Pump,much\n5,Belt\n,Seal,1\n", encoding="utf-8-sig"
    )
    schema = await device.schema(TYPE)
    rows = read_csv(file, schema, {"title": "Text", "cost": "Cost"}, key="No")
    done: list[int] = []
    report = await device.import_rows(TYPE, rows, progress=done.append)
    assert report.imported == 2
    assert [(line, field) for line, field, _ in report.failed] == [
        (4, "title"),
        (5, "cost"),
        (6, ""),
        (7, ""),
    ]
    assert done == [6]
    costs = {r["title"]: r.values.get("cost") for r in await device.query(TYPE)}
    assert costs == {"Bucket": 10.5, "Hose": None}

    again = await device.import_rows(TYPE, rows)
    assert again.imported == 2
    assert await device.count(TYPE) == 2


async def test_rows_of_a_program_are_imported_by_their_key(device: Device) -> None:
    rows = [{"no": n, "title": f"Order {n}"} for n in range(1_200)]
    done: list[int] = []
    report = await device.import_rows(TYPE, rows, key="no", progress=done.append)
    assert (report.imported, report.failed, done) == (1_200, [], [500, 1_000, 1_200])
    await device.import_rows(TYPE, [{"no": 7, "title": "Changed"}], key="no")
    assert await device.count(TYPE) == 1_200
    assert await device.count(TYPE, {"title": "Changed"}) == 1
    missing = await device.import_rows(TYPE, [{"title": "No number"}], key="no")
    assert missing.failed == [(1, "no", "the key is missing")]


@pytest.mark.parametrize(
    ("content", "mapping", "words"),
    [
        (b"", {"title": "Text"}, "is empty"),
        (b"Text\xff\n", {"title": "Text"}, "not UTF-8"),
        (b"Texd,Cost\na,1\n", {"title": "Text"}, "no column Text; did you mean 'Texd'"),
        (b"Text\na\n", {"title": "Text", "colour": "Text"}, "no field 'colour'"),
        (b"Text\na\n", {"description": "Text"}, "no column is mapped to title"),
        (b'Text\n"a\n', {"title": "Text"}, "not a CSV file: line 2"),
    ],
)
async def test_a_file_that_is_not_what_was_asked_for_is_refused_before_anything_is_written(
    tmp_path: Path, device: Device, content: bytes, mapping: dict[str, str], words: str
) -> None:
    file = tmp_path / "orders.csv"
    file.write_bytes(content)
    with pytest.raises(ImportFileError) as refused:
        read_csv(file, await device.schema(TYPE), mapping)
    assert words in refused.value.message
    assert refused.value.hint
