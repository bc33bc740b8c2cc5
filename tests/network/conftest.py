"""A relay process, and devices that reach it through bad links."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from crdt_sync_client import Device, backoff, find_schema
from tests.end_to_end.relay_process import RestartableRelay
from tests.network.bad_link import BadLink, Link

KEY = bytes(range(32))
SCHEMAS = ("work_order", str(Path(__file__).parents[2] / "simulations" / "scenarios" / "inspection.yaml"))


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableRelay]:
    running = RestartableRelay(tmp_path_factory.mktemp("network") / "relay")
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices come back as they do, but do not wait for minutes."""
    monkeypatch.setattr(backoff, "DELAYS_S", (0.0, 0.02, 0.05, 0.1))
    monkeypatch.setattr(backoff, "FIRST_JITTER_S", 0.02)


@dataclass
class Site:
    """An office with a good network, and tablets with the networks of the test."""

    office: Device
    enter: Callable[[str, Link], Awaitable[tuple[Device, BadLink]]]


@pytest.fixture
async def site(tmp_path: Path, relay: RestartableRelay) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(
            await Device.create(tmp_path / "office.db", name="Office", key=KEY)
        )
        await office.create_space(
            tmp_path.name, relay=relay.url, token=relay.setup_token, schemas=[find_schema(s) for s in SCHEMAS]
        )

        async def enter(name: str, link: Link) -> tuple[Device, BadLink]:
            """A field device that has joined through a good network; then it is as `link` says."""
            net = await stack.enter_async_context(BadLink(relay.url, seed=len(name)).running())
            device = await Device.create(tmp_path / f"{name}.db", name=name, key=KEY)
            await stack.enter_async_context(device)
            await device.join(net.through(await office.invite(role="field")))
            net.link = link
            return device, net

        yield Site(office, enter)
