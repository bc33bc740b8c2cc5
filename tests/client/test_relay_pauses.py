"""A relay that takes nothing for a while, and waits for delivery: a session, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.protocol.deliveries import AwaitDelivery, ConfirmCursor, Delivered
from crdt_sync.protocol.frames import Ack, Deliver, Got, Push, Refuse
from crdt_sync_client.delivery_desk import DeliveryWait
from crdt_sync_client.endings import Reconnect
from crdt_sync_client.refusals import pause_s
from tests.client.engine_world import World
from tests.client.test_session_driver import Line


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    world = World(tmp_path)
    yield Line(world.join("tablet"))
    world.close()


@pytest.mark.parametrize("code", ["over_quota", "rate_limited"])
def test_it_waits_in_the_session_says_why_and_then_sends_the_same_bytes(line: Line, code: str) -> None:
    line.peer.create({"title": "Pump"})
    line.greet()
    (push,) = line.sent()
    assert isinstance(push, Push)
    line.relay(Refuse(line.incarnation, 1, code, "come again later"))
    driver = line.driver
    assert not driver.ended
    assert driver.window.held
    pause_s = driver.window.pause_s
    assert pause_s > 0
    assert driver.refusal is not None
    assert driver.refusal.relay_code == code
    assert "come again later" in str(driver.refusal)
    line.peer.create({"title": "Hose"})
    for _ in range(20):  # whatever wakes it meanwhile
        line.now_s += pause_s / 21
        driver.push_soon()
        line.work()
    assert not driver.ended
    assert line.sent() == []
    line.now_s += pause_s
    line.work()
    assert isinstance(driver.error, Reconnect)
    again = Line(line.peer)
    again.greet()
    (sent,) = [frame for frame in again.sent() if isinstance(frame, Push)]
    assert sent.envelopes[: len(push.envelopes)] == push.envelopes


@pytest.mark.parametrize(("code", "times", "least_s"), [
    ("rate_limited", 1, 1), ("rate_limited", 2, 2), ("rate_limited", 9, 30),
    ("over_quota", 1, 30), ("over_quota", 9, 300),
])  # fmt: skip
def test_a_share_grows_back_within_seconds_and_a_quota_does_not(
    code: str, times: int, least_s: float
) -> None:
    assert pause_s(code, times, 0.0) == least_s
    assert least_s < pause_s(code, times, 0.99) <= least_s * 1.25


def test_who_waits_for_delivery_asks_when_the_relay_has_it_and_goes_on_in_the_next_session(
    line: Line,
) -> None:
    line.peer.create({"title": "Pump"})
    line.greet()
    (push,) = line.sent()
    assert isinstance(push, Push)
    head = line.peer.world.relay.head + 1
    line.relay(Ack(line.incarnation, len(push.envelopes), head))
    wait = DeliveryWait()
    line.driver.deliveries.add(wait)
    assert line.sent() == [AwaitDelivery([head])]
    line.relay(Delivered([head], [1], 2))
    assert (wait.reached, wait.members, wait.done) == (1, 2, False)
    line.relay(Delivered([head], [2], 2))
    assert wait.done
    assert line.sent() == [AwaitDelivery([])]


def test_it_confirms_what_it_has_when_it_is_asked_to(line: Line) -> None:
    line.greet()
    line.sent()
    cursor = line.driver.cursor
    line.relay(ConfirmCursor(cursor + 1))
    assert line.sent() == []
    line.relay(Deliver(cursor, [], cursor + 1, True))
    assert line.sent() == [Got(cursor + 1)]
    line.relay(ConfirmCursor(cursor + 1))
    assert line.sent() == []
