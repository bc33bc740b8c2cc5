"""A device that is in a space of its own, which its relay has not heard of: for tests without a network."""

from __future__ import annotations

from pathlib import Path

from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device
from tests.client.alone import found_space

KEY = bytes(range(32))
TYPE = "job"


async def make_device(path: Path | str, *schemas: RecordSchema, key: bytes = KEY) -> Device:
    """A new store at `path`, with a space of these types."""
    device = await Device.create(path, name="Tablet", key=key)
    await found_space(device, *schemas)
    return device
