"""A device that is in a space of its own, which its relay has not heard of: for tests without a network."""

from __future__ import annotations

from pathlib import Path

from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device

KEY = bytes(range(32))
TYPE = "job"


async def make_device(path: Path | str, *schemas: RecordSchema, key: bytes = KEY) -> Device:
    """A new store at `path`, with a space of these types."""
    device = await Device.create(path, name="Tablet", key=key)
    engine = device._engine
    space, _ = await device._thread.run(lambda: engine.begin_space("Pit 4", "ws://127.0.0.1:1", schemas))
    await device._thread.run(lambda: engine.confirm_space(space))
    device._add_sync(space)
    return device
