"""Where no WebSocket passes a device goes on over plain HTTP by itself, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from crdt_sync.errors import RelayRefused, RelayUnreachable, ShutOut
from crdt_sync_client import Device, relay_connection
from crdt_sync_client.cli.main import cli
from crdt_sync_client.relay_connection import RelayConnection
from tests.end_to_end.office import TYPE, office_and_tablet
from tests.end_to_end.refusing_proxy import RefusingProxy, Way
from tests.end_to_end.relay_process import RestartableRelay

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def forget_networks() -> Iterator[None]:
    relay_connection._http_until_s.clear()
    yield
    relay_connection._http_until_s.clear()


@pytest.fixture
async def proxy(own_relay: RestartableRelay) -> AsyncIterator[RefusingProxy]:
    async with RefusingProxy(own_relay.url) as proxy:
        yield proxy


@pytest.fixture
async def pair(
    tmp_path: Path, own_relay: RestartableRelay, proxy: RefusingProxy
) -> AsyncIterator[tuple[Device, Device]]:
    """An office and a tablet behind the proxy, in one space: made and joined over HTTP."""
    async with office_and_tablet(tmp_path, own_relay, url=proxy.url) as (office, tablet):
        await tablet.sync(timeout_s=PATIENCE_S)
        yield office, tablet


async def test_making_joining_and_syncing_work_without_any_websocket(
    pair: tuple[Device, Device], proxy: RefusingProxy
) -> None:
    office, tablet = pair
    made = await office.create(TYPE, {"title": "Swap bucket", "description": os.urandom(60_000).hex()})
    await office.sync(timeout_s=PATIENCE_S)
    await tablet.sync(timeout_s=PATIENCE_S)
    assert await tablet.get(TYPE, made.id) is not None
    for number in range(300):
        await tablet.create(TYPE, {"title": f"Order {number}"})
    await tablet.sync(timeout_s=PATIENCE_S)
    await office.sync(timeout_s=PATIENCE_S)
    assert len(await office.query(TYPE)) == 301
    assert proxy.requests > 0
    assert proxy.upgrades == 1, "after the first refusal HTTP is kept to"


async def test_what_one_writes_the_other_sees_live(pair: tuple[Device, Device], proxy: RefusingProxy) -> None:
    office, tablet = pair
    await office.connect()
    await tablet.connect()
    made = await office.create(TYPE, {"title": "Swap bucket"})
    async with asyncio.timeout(PATIENCE_S):
        async with tablet.watch(TYPE, made.id) as watch:
            async for _ in watch:
                if await tablet.get(TYPE, made.id) is not None:
                    break
        await tablet.update(TYPE, made.id, {"title": "Swapped"})
        async with office.watch(TYPE, made.id) as watch:
            async for _ in watch:
                seen = await office.get(TYPE, made.id)
                if seen is not None and seen["title"] == "Swapped":
                    break


async def test_a_broken_tunnel_is_a_lost_connection_and_nothing_is_lost(
    pair: tuple[Device, Device], proxy: RefusingProxy
) -> None:
    office, tablet = pair
    await tablet.connect()
    for number in range(20):
        await tablet.create(TYPE, {"title": f"Order {number}"})
        if number % 5 == 0:
            await asyncio.sleep(0.05)
            proxy.cut_all()
    await tablet.sync(timeout_s=PATIENCE_S)
    await office.sync(timeout_s=PATIENCE_S)
    assert len(await office.query(TYPE)) == 20


async def test_records_are_checked_out_renewed_and_back_in_without_any_websocket(
    pair: tuple[Device, Device], proxy: RefusingProxy
) -> None:
    office, tablet = pair
    made = await office.create(TYPE, {"title": "Swap bucket"})
    await office.sync(timeout_s=PATIENCE_S)
    await tablet.sync(timeout_s=PATIENCE_S)
    (granted,) = await tablet.check_out(TYPE, [made.id], ttl_s=3600)
    assert granted.code == "granted"
    (refused,) = await office.check_out(TYPE, [made.id])
    assert refused.checkout is not None
    assert (refused.code, refused.checkout.device) == ("checked_out", "Tablet")
    (renewed,) = await tablet.renew_checkouts(ttl_s=7200)
    assert renewed.checkout is not None
    assert granted.checkout is not None
    assert (renewed.code, renewed.checkout.token) == ("renewed", granted.checkout.token)
    assert renewed.checkout.until_at > granted.checkout.until_at
    await tablet.update(TYPE, made.id, {"title": "Swapped"})
    await office.update(TYPE, made.id, {"description": "on the left"})
    await office.sync(timeout_s=PATIENCE_S)
    assert [item.id for item in await office.outbox()] == [made.id], "it waits until the record is free"
    (returned,) = await tablet.check_in()
    assert (returned.state, returned.sent) == ("returned", 1)
    await office.sync(timeout_s=PATIENCE_S)
    assert await office.outbox() == []
    await tablet.check_out(TYPE, [made.id])
    (broken,) = await office.break_checkouts(TYPE, [made.id])
    assert (broken.done, broken.code) == (True, "broken")
    await office.check_out(TYPE, [made.id])
    (own,) = await office.break_checkouts(TYPE, [made.id])
    assert (own.done, own.code) == (True, "returned")
    assert proxy.upgrades == 1, "all of that went over HTTP"


@pytest.mark.parametrize("way", ["403", "cut", "200"])
async def test_however_the_upgrade_is_refused_http_is_tried(
    own_relay: RestartableRelay, proxy: RefusingProxy, way: Way
) -> None:
    proxy.way = way
    connection = await RelayConnection.open(proxy.url)
    assert connection.challenge.nonce
    await connection.round_trip()
    await connection.close()


async def test_a_socket_that_works_is_preferred(own_relay: RestartableRelay, proxy: RefusingProxy) -> None:
    proxy.way = "pass"
    connection = await RelayConnection.open(proxy.url)
    await connection.close()
    assert proxy.requests == 0


async def test_after_a_while_a_better_network_is_found(
    proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_connection, "HTTP_FOR_S", 0.0)
    await (await RelayConnection.open(proxy.url)).close()
    proxy.way = "pass"
    before = proxy.requests
    await (await RelayConnection.open(proxy.url)).close()
    assert proxy.requests == before


async def test_a_relay_without_the_http_api_and_nobody_at_all_are_told_as_before(tmp_path: Path) -> None:
    async with RefusingProxy("ws://127.0.0.1:1") as proxy:
        with pytest.raises(RelayRefused, match="answered HTTP 403"):
            await RelayConnection.open(proxy.url)
        url = proxy.url
    with pytest.raises(RelayUnreachable):
        await RelayConnection.open(url)


async def test_a_relay_that_stops_says_so_over_http_too(
    proxy: RefusingProxy, own_relay: RestartableRelay
) -> None:
    connection = await RelayConnection.open(proxy.url)
    said = asyncio.create_task(connection.next_frame())
    await asyncio.sleep(0)  # the long poll is on its way
    assert await asyncio.to_thread(own_relay.stop) == 0
    with pytest.raises(RelayUnreachable, match=r"ended \(1001: the relay is shutting down\)"):
        await said
    await connection.close()


async def test_a_device_that_is_shut_out_is_told_over_http_too(
    own_relay: RestartableRelay, pair: tuple[Device, Device]
) -> None:
    _, tablet = pair
    await tablet.connect()
    await tablet.sync(timeout_s=PATIENCE_S)
    command = ["relay", "revoke", tablet.device_id.hex(), "--data", str(own_relay.data), "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, cli, command)
    assert json.loads(result.stdout)["closed"] >= 1
    async with asyncio.timeout(PATIENCE_S):
        async for status in tablet.watch_status():
            if status.state == "revoked":
                break
    with pytest.raises(ShutOut):
        await tablet.sync(timeout_s=PATIENCE_S)
