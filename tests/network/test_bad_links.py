"""Devices and a relay process over networks that are slow, that break at random and that fall silent."""

from __future__ import annotations

import asyncio
import os
import random
from operator import itemgetter
from typing import Any

import pytest

from crdt_sync_client import AddElement, Device, Increment, http_tunnel, relay_connection, session_driver
from tests.network.bad_link import BUFFER_PIECES, PIECE_BYTES, BadLink, Link
from tests.network.conftest import Site
from tests.waiting import PATIENCE_S, until

THIRD_GENERATION = Link(latency_s=0.15, jitter_s=0.05, bytes_per_s=48_000)
ROUND = "inspection"


EDGE = Link(bytes_per_s=1_000_000, drop_after_bytes=(20_000, 60_000))
"""At the edge of what a network covers: each connection lasts for so little."""


async def make_orders(device: Device, count: int, size_bytes: int) -> None:
    rows = [{"title": f"Order {n}", "description": "x" * size_bytes} for n in range(count)]
    assert (await device.import_rows("work_order", rows)).imported == count
    await device.sync()


async def settle(*devices: Device) -> None:
    for device in (*devices, *devices):
        await device.sync(timeout_s=PATIENCE_S)


async def content(device: Device) -> list[dict[str, Any]]:
    found = await device.query(ROUND) + await device.query("work_order")
    return sorted((record.to_json() for record in found), key=itemgetter("id"))


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_connections_that_break_at_random_lose_nothing_and_double_nothing(
    site: Site, seed: int
) -> None:
    order = await site.office.create(ROUND, {"title": "Round"})
    await site.office.sync()
    chance = random.Random(seed)
    broken = Link(drop_after_bytes=(200, 6_000))
    tablets = [await site.enter(name, broken) for name in ("north", "southern")]
    for device, net in tablets:
        net.random.seed(seed)
        net.link = Link()
        await device.sync()
        net.link = broken
        await device.connect()
    await site.office.connect()

    async def work(name: str, device: Device) -> None:
        for n in range(40):
            await device.update(
                *(ROUND, order.id),
                {
                    "defects": Increment(1),
                    "areas": AddElement(f"{name} {n}"),
                    f"readings.{name}{n}.bar": float(n),
                },
            )
            if chance.random() < 0.3:
                await device.create("work_order", {"title": f"{name} {n}", "status": "draft"})
            await asyncio.sleep(chance.random() * 0.02)

    devices = [site.office, *(device for device, _ in tablets)]
    await asyncio.gather(*(work(f"d{n}", device) for n, device in enumerate(devices)))
    assert sum(net.drops for _, net in tablets) >= 4
    for _, net in tablets:
        net.mend()
    await settle(*devices)
    record = await site.office.get(ROUND, order.id)
    assert record is not None
    assert record["defects"] == 120
    assert len(record["areas"]) == len(record["readings"]) == 120
    expected = await content(site.office)
    for device in devices[1:]:
        assert await content(device) == expected
        status = await device.status()
        assert (status.pending, status.failed, status.spaces[0].quarantined) == (0, 0, 0)


async def test_a_first_sync_goes_on_where_the_connection_broke(site: Site) -> None:
    await make_orders(site.office, 400, 500)
    tablet, net = await site.enter("tablet", EDGE)
    await tablet.connect()

    async def has_all() -> bool:
        return bool(await tablet.schemas()) and await tablet.count("work_order") == 400

    await until(has_all)
    assert net.drops >= 3
    assert tablet._syncs[next(iter(tablet._syncs))].received <= 420  # and not from the beginning each time


async def test_over_a_third_generation_network_everything_comes_in_one_connection(site: Site) -> None:
    """A hundred orders down, twenty edits up, and a change live: slowly, without a time-out."""
    await make_orders(site.office, 100, 300)
    tablet, net = await site.enter("tablet", THIRD_GENERATION)
    report = await tablet.sync()  # not patient: a connection that breaks would raise
    assert await tablet.count("work_order") == 100
    assert report.received >= 100
    orders = await tablet.query("work_order", limit=20)
    for order in orders:
        await tablet.update("work_order", order.id, {"description": "y" * 300})
    assert (await tablet.sync()).sent >= 20
    assert net.drops == 0
    assert net.most_waiting <= BUFFER_PIECES
    await settle(site.office, tablet)
    assert await content(site.office) == await content(tablet)


async def test_a_heartbeat_whose_answer_waits_behind_rows_does_not_end_a_connection_that_works(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first sync that takes ten times as long as a heartbeat may, all of it in one connection."""
    monkeypatch.setattr(relay_connection, "PING_S", 0.2)
    monkeypatch.setattr(relay_connection, "ANSWER_S", 0.15)
    rows = [{"title": f"Order {n}", "description": os.urandom(1_000).hex()} for n in range(300)]
    await site.office.import_rows("work_order", rows)
    await site.office.sync()
    tablet, _ = await site.enter("tablet", Link(latency_s=0.02, bytes_per_s=300_000))
    await tablet.sync()  # not patient: a connection that breaks would raise
    assert await tablet.count("work_order") == 300


@pytest.mark.parametrize("way", ["up", "down"])
async def test_what_was_sent_into_a_cut_in_one_direction_is_there_once(site: Site, way: Any) -> None:
    tablet, net = await site.enter("tablet", Link())
    await settle(site.office, tablet)
    await tablet.connect()
    await until(lambda: state_is(tablet, "idle"))
    net.silence(way)
    round_ = await tablet.create(ROUND, {"title": "Round", "defects": Increment(2)})
    await tablet.update(ROUND, round_.id, {"defects": Increment(3)})
    if way == "down":  # the relay has it, the tablet does not know

        async def arrived() -> bool:
            await site.office.sync()
            return await site.office.get(ROUND, round_.id) is not None

        await until(arrived)
        assert (await tablet.status()).pending == 1
    net.cut()
    net.mend()
    await settle(tablet, site.office)
    for device in (site.office, tablet):
        record = await device.get(ROUND, round_.id)
        assert record is not None
        assert record["defects"] == 5


async def test_a_link_that_falls_silent_is_noticed_by_the_heartbeat(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_connection, "PING_S", 0.2)
    monkeypatch.setattr(relay_connection, "ANSWER_S", 0.1)
    tablet, net = await site.enter("tablet", Link())
    await tablet.sync()
    await tablet.connect()
    await until(lambda: state_is(tablet, "idle"))
    net.silence("up", "down")
    await until(lambda: state_is(tablet, "connecting", "backoff"))
    before = net.connections
    round_ = await tablet.create(ROUND, {"title": "Written into silence"})
    net.mend()
    await until(lambda: state_is(tablet, "idle"))
    assert net.connections >= before
    await site.office.sync()
    assert await site.office.get(ROUND, round_.id) is not None


async def test_a_network_that_takes_connections_and_says_nothing_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_connection, "OPEN_TIMEOUT_S", 0.3)
    monkeypatch.setattr(http_tunnel, "ANSWER_S", 0.3)  # the other way, which is tried then
    tablet, net = await site.enter("tablet", Link())
    net.silence("up", "down")
    await tablet.connect()
    await until(lambda: state_is(tablet, "backoff", "connecting"))
    await until(lambda: said(tablet, "did not answer"))
    net.mend()
    await until(lambda: state_is(tablet, "idle"))
    assert (await tablet.status()).spaces[0].problem is None


def test_a_dead_link_is_noticed_within_the_declared_time() -> None:
    assert relay_connection.OPEN_TIMEOUT_S <= 10
    assert relay_connection.PING_S + relay_connection.ANSWER_S <= 30
    assert session_driver.WELCOME_TIMEOUT_S <= 20


async def state_is(device: Device, *states: str) -> bool:
    return (await device.status()).state in states


async def said(device: Device, words: str) -> bool:
    return words in ((await device.status()).spaces[0].problem or "")


async def test_a_link_holds_back_no_more_than_it_says() -> None:
    """The proxy itself: what it cannot pass on stays with the sender."""
    taken = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await taken.wait()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server, BadLink(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}").running() as net:
        net.silence("up")
        host, port = net.url.removeprefix("ws://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(bytes(PIECE_BYTES * BUFFER_PIECES * 4))

        async def full() -> bool:
            return net.most_waiting >= BUFFER_PIECES

        await until(full)
        await asyncio.sleep(0.1)
        assert net.most_waiting == BUFFER_PIECES
        writer.transport.abort()
        taken.set()
