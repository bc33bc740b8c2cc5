"""A new version of a schema on a device with many records: they are shown by it, and work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.schemas.loader import load_schema
from crdt_sync_client import Device
from crdt_sync_client.engine import upkeep

KEY = bytes(range(32))
V1 = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Tag
x-type: tag
x-version: 1
type: object
properties:
  label: {type: string}
"""
V2 = V1.replace("x-version: 1", "x-version: 2").replace(
    "label: {type: string}", "text: {type: string, x-aliases: [label]}"
)
COUNT = 300


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def office(tmp_path: Path, relay: Any, stack: AsyncExitStack) -> Device:
    device = await stack.enter_async_context(await Device.create(tmp_path / "o.db", name="Office", key=KEY))
    schemas = [load_schema(V1, source="test")]
    await device.create_space("Tags", relay=relay.url, token=relay.setup_token, schemas=schemas)
    return device


async def joined(office: Device, path: Path, stack: AsyncExitStack) -> Device:
    device = await stack.enter_async_context(await Device.create(path, name=path.stem, key=KEY))
    await device.join(await office.invite())
    await device.sync()
    return device


async def test_records_are_shown_by_the_new_version_while_writes_go_on(
    office: Device, tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "AT_ONCE", 16)
    results = await asyncio.gather(*(office.create("tag", {"label": f"T{n}"}) for n in range(COUNT)))
    await office.sync()
    tablet = await joined(office, tmp_path / "t.db", stack)
    await tablet.update("tag", results[-1].id, {"label": "mine"})
    changes = tablet.watch("tag")
    await office.add_schema(load_schema(V2, source="test"))
    assert (await office.status()).spaces[0].remaking > 0
    await office.update("tag", results[0].id, {"text": "while it goes on"})
    await office.sync()
    await tablet.sync()
    await office.sync()
    for device in (office, tablet):
        assert (await device.status()).spaces[0].remaking == 0
        assert await device.count("tag", {"text": None}) == 0
        first, last = [await device.get("tag", results[at].id) for at in (0, -1)]
        assert first is not None
        assert last is not None
        assert (first["text"], last["text"]) == ("while it goes on", "mine")
    told = set()
    while changes.waiting:
        change = await anext(changes)
        assert change.record is not None
        told.add(change.id)
    assert len(told) == COUNT


async def test_what_was_left_when_the_app_was_closed_is_done_at_the_next_start(
    office: Device, tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "AT_ONCE", 16)
    await asyncio.gather(*(office.create("tag", {"label": f"T{n}"}) for n in range(COUNT)))
    await office.add_schema(load_schema(V2, source="test"))
    await office.close()
    again = await stack.enter_async_context(await Device.open(tmp_path / "o.db", key=KEY))
    assert again.watch("tag").waiting == 0
    left = [(await again.status()).spaces[0].remaking]
    while left[-1]:
        left.append((await again.status()).spaces[0].remaking)
    assert left == sorted(left, reverse=True)
    assert await again.count("tag", {"text": None}) == 0
