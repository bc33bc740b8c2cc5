"""An office that made a space with work orders at a relay process, and the devices that it lets in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from crdt_sync_client import Device, find_schema

TYPE = "work_order"
KEY = bytes(range(32))

Enter = Callable[[str], Awaitable[Device]]
"""Makes a field device of that name, which has joined the space."""


class AtRelay(Protocol):
    """A relay process, of whatever kind."""

    @property
    def url(self) -> str: ...

    @property
    def setup_token(self) -> str: ...


@asynccontextmanager
async def office_at(
    folder: Path, relay: AtRelay, *, url: str = "", space: str = "Pit 4"
) -> AsyncIterator[Device]:
    """The admin of the space. `url`: by another way than straight to the relay."""
    async with await Device.create(folder / "o.db", name="Office", key=KEY) as office:
        await office.create_space(
            space, relay=url or relay.url, token=relay.setup_token, schemas=[find_schema(TYPE)]
        )
        yield office


@asynccontextmanager
async def let_in(folder: Path, office: Device, name: str = "Tablet") -> AsyncIterator[Device]:
    """A field device that has joined."""
    async with await Device.create(folder / f"{name}.db", name=name, key=KEY) as device:
        await device.join(await office.invite(role="field"))
        yield device


@asynccontextmanager
async def office_and_tablet(
    folder: Path, relay: AtRelay, *, url: str = "", space: str = "Pit 4"
) -> AsyncIterator[tuple[Device, Device]]:
    async with (
        office_at(folder, relay, url=url, space=space) as office,
        let_in(folder, office) as tablet,
    ):
        yield office, tablet
