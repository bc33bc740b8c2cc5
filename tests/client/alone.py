"""A device in a space that, as far as its store knows, a relay has taken; and there is no relay."""

from __future__ import annotations

from crdt_sync.ids import SpaceId
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client import Device, find_schema

NOWHERE = "ws://127.0.0.1:9"
"""The discard port: nobody listens there."""


async def found_space(device: Device, *schemas: RecordSchema) -> SpaceId:
    """Put the device in a space with these record types; with work orders if none is given."""
    engine = device._engine

    def found() -> SpaceId:
        space, _ = engine.begin_space("Pit 4", NOWHERE, schemas or (find_schema("work_order"),))
        engine.confirm_space(space)
        return space

    space = await device._thread.run(found)
    device._add_sync(space)
    return space
