"""How far others are: counted by what they confirmed, and told to those who wait."""

from __future__ import annotations

import pytest

from crdt_sync.protocol.deliveries import AwaitDelivery, ConfirmCursor, Delivered
from crdt_sync.protocol.frames import Frame, Got, Mode, Push, encode
from crdt_sync_server.delivery import Delivery
from crdt_sync_server.effects import Effect, Peer, Send
from crdt_sync_server.live import LiveLog
from tests.server.engine_kit import Relay
from tests.server.relay_kit import TestDevice, TestSpace, record


@pytest.fixture
def space() -> TestSpace:
    return TestSpace(3)


@pytest.fixture
def readers(space: TestSpace) -> list[TestDevice]:
    return [space.member(), space.member()]


def told(effects: list[Effect], peer: Peer) -> list[Frame]:
    return [each.frame for each in effects if isinstance(each, Send) and each.peer is peer]


def confirm(relay: Relay, peer: Peer, cursor: int) -> list[Effect]:
    """As the hub does it: the engine hears of it only where somebody waits."""
    peer.confirmed = cursor
    return relay.do((peer, Got(cursor))) if peer.awaited else []


def test_a_device_that_waits_hears_how_many_have_confirmed_and_those_are_asked_to(
    engine: Relay, space: TestSpace, readers: list[TestDevice]
) -> None:
    engine.create(space)
    writer = engine.connect(space.founder)
    reader = engine.connect(readers[0], cursor=2)
    head = len(space.entries) + 1
    engine.push(writer, space.founder.update(record(1)))
    assert confirm(engine, reader, 3) == []  # nobody waits: it costs nothing
    asked = engine.do((writer, AwaitDelivery([3, head])))
    assert told(asked, writer) == [Delivered([3, head], [1, 0], 2)]
    assert told(asked, reader) == [ConfirmCursor(head)]
    assert told(confirm(engine, reader, head), writer) == [Delivered([3, head], [1, 1], 2)]
    assert confirm(engine, reader, head) == []  # it is not asked any more
    late = engine.connect(readers[1], cursor=head)
    assert told(engine.do((late, None)), writer) == []
    assert engine.answers(writer, AwaitDelivery([head])) == [Delivered([head], [2], 2)]


def test_what_a_device_confirmed_before_it_left_counts_and_what_was_only_sent_to_it_does_not(
    engine: Relay, space: TestSpace, readers: list[TestDevice]
) -> None:
    engine.create(space)
    writer = engine.connect(space.founder)
    for device, confirmed in zip(readers, (4, 5), strict=True):
        peer = engine.connect(device, cursor=2)
        confirm(engine, peer, confirmed)
        peer.cursor = peer.confirmed
        engine.do((peer, None))
    engine.push(writer, *(space.founder.update(record(1)) for _ in range(4)))
    assert engine.answers(writer, AwaitDelivery([3, 5])) == [Delivered([3, 5], [2, 1], 2)]
    engine.restart()
    again = engine.connect(space.founder)
    assert engine.answers(again, AwaitDelivery([3, 5])) == [Delivered([3, 5], [2, 1], 2)]
    assert engine.answers(again, AwaitDelivery([])) == [Delivered([], [], 2)]


def test_a_device_that_comes_back_is_asked_and_one_that_waits_is_told_in_every_session(
    engine: Relay, space: TestSpace, readers: list[TestDevice]
) -> None:
    engine.create(space)
    writer = engine.connect(space.founder)
    head = len(space.entries) + 1
    engine.push(writer, space.founder.update(record(1)))
    assert engine.answers(writer, AwaitDelivery([head])) == [Delivered([head], [0], 2)]
    reader = Peer(bytes(32))
    effects = engine.do((reader, readers[0].hello(bytes(32), engine.engine.relay_id, 2)))
    assert told(effects, reader) == [ConfirmCursor(head)]
    assert told(confirm(engine, reader, head), writer) == [Delivered([head], [1], 2)]
    engine.do((writer, None))
    assert confirm(engine, reader, head) == []  # with who waited, all of it went
    writer = engine.connect(space.founder)
    assert engine.answers(writer, AwaitDelivery([head])) == [Delivered([head], [1], 2)]


def test_a_row_that_is_not_there_yet_is_nobodys_and_asks_nobody(
    engine: Relay, space: TestSpace, readers: list[TestDevice]
) -> None:
    engine.create(space)
    writer, reader = engine.connect(space.founder), engine.connect(readers[0], cursor=2)
    effects = engine.do((writer, AwaitDelivery([99])))
    assert told(effects, writer) == [Delivered([99], [0], 2)]
    assert told(effects, reader) == []
    assert not reader.awaited
    engine.push(writer, space.founder.update(record(1)))


def test_a_failed_commit_forgets_nobody_who_waits(
    engine: Relay, space: TestSpace, readers: list[TestDevice]
) -> None:
    engine.create(space)
    writer, reader = engine.connect(space.founder), engine.connect(readers[0], cursor=2)
    engine.push(writer, space.founder.update(record(1)))
    head = len(space.entries) + 1
    engine.answers(writer, AwaitDelivery([head]))
    engine.engine._spaces.clear()  # as after a transaction that failed
    assert told(confirm(engine, reader, head), writer) == [Delivered([head], [1], 2)]
    engine.do((writer, Push([space.founder.update(record(1))])))


def test_a_session_keeps_what_was_confirmed_apart_from_what_was_sent() -> None:
    from crdt_sync.protocol.relay_session import RelaySession, RelayState

    session = RelaySession(bytes(32))
    session.state = RelayState.CHECKING
    delivery = Delivery(session, Peer(bytes(32)), lambda: None)
    live: LiveLog[Delivery] = LiveLog(9)
    session.admitted(Mode.DEVICE, 3)
    delivery._live = live
    live.readers[delivery] = None
    session.delivered(9, 100)
    delivery.cursor = 9
    delivery.received(encode(Got(7)))
    delivery.ended()
    assert delivery.peer.cursor == 7
