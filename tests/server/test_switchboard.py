"""Connections, batches and the spreading of effects, without sockets or an engine."""

from __future__ import annotations

import os

import pytest

from crdt_sync.ids import Author, DeviceId, Incarnation, RelayId, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import (
    Ack,
    Appended,
    Bye,
    Challenge,
    Deliver,
    Frame,
    FromRelay,
    Got,
    Mode,
    Push,
    Row,
    RowKind,
    Welcome,
    decode_from_relay,
)
from crdt_sync.protocol.relay_session import RelayState
from crdt_sync_server import switchboard as switchboard_module
from crdt_sync_server.delivery import Delivery, ReadPage
from crdt_sync_server.effects import Admit, Close, Created, Grown, LiveRow, Replaced, Send
from crdt_sync_server.switchboard import Switchboard

SPACE = SpaceId(b"s" * 16)
RELAY = RelayId(b"r" * 16)
PUSH = Push([b"an envelope"])


def told(delivery: Delivery) -> list[FromRelay]:
    """Everything that is to be sent now."""
    frames: list[FromRelay] = []
    while (todo := delivery.next()) is not None:
        assert not isinstance(todo, ReadPage)
        if isinstance(todo, Bye):
            return [*frames, todo]
        frames.append(decode_from_relay(todo))
    return frames


def admit(board: Switchboard, delivery: Delivery, device: int, head: int = 3) -> None:
    """What the engine's answer to a good hello does."""
    delivery.session.state = RelayState.CHECKING
    delivery.peer.space = SPACE
    delivery.peer.author = Author(DeviceId(bytes([device]) * 16), Incarnation(1))
    welcome = Welcome(head, head, bytes(32), 0, bytes(32), 0)
    board.spread([Admit(delivery.peer, SPACE, Mode.DEVICE, welcome)])


@pytest.fixture
def board() -> Switchboard:
    return Switchboard(os.urandom)


def member(board: Switchboard, device: int) -> Delivery:
    delivery = board.opened(lambda: None)
    board.greet(delivery, RELAY, 1)
    admit(board, delivery, device)
    told(delivery)
    return delivery


def test_a_new_connection_is_asked_who_it_is(board: Switchboard) -> None:
    one, other = board.opened(lambda: None), board.opened(lambda: None)
    board.greet(one, RELAY, 1)
    board.greet(other, RELAY, 1)
    (mine,), (theirs,) = told(one), told(other)
    assert isinstance(mine, Challenge)
    assert isinstance(theirs, Challenge)
    assert mine.nonce != theirs.nonce
    assert board.connections == 2


def test_rows_reach_those_who_read_along_except_their_author(board: Switchboard) -> None:
    one, two = member(board, 1), member(board, 2)
    row = Row(4, RowKind.UPDATE, b"update")
    board.arrived(one, PUSH, 100)
    board.arrived(one, PUSH, 100)
    batch = board.next_batch()
    board.arrived(one, PUSH, 100)
    ack = Ack(Incarnation(1), 1, 4)
    board.committed(batch, [Send(one.peer, ack), Grown(SPACE, (LiveRow(row, one.peer.author),))])
    assert told(two) == [Deliver(3, [row], 4, True)]
    assert told(one) == [ack], "busy: another push of it waits"
    board.committed(board.next_batch(), [])
    assert told(one) == [Deliver(3, [], 4, True)]


def test_a_snapshot_takes_its_place_for_those_who_come_to_it_later(board: Switchboard) -> None:
    one = member(board, 1)
    snapshot = Row(4, RowKind.SNAPSHOT, b"snapshot")
    update = LiveRow(Row(4, RowKind.UPDATE, b"update"), None)
    board.spread([Grown(SPACE, (update,)), Replaced(SPACE, snapshot)])
    assert told(one) == [Deliver(3, [snapshot], 4, True)]


def test_a_batch_holds_so_many_bytes_and_at_least_one_frame(
    board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard_module, "BATCH_BYTES", 100)
    one = member(board, 1)
    for size_bytes in (60, 40, 200, 1):
        assert board.arrived(one, PUSH, size_bytes)
    assert [[waiting.size_bytes for waiting in board.next_batch()] for _ in range(4)] == [
        [60, 40], [200], [1], []
    ]  # fmt: skip


def test_confirmations_wait_for_no_commit(board: Switchboard) -> None:
    one = member(board, 1)
    assert not board.arrived(one, Got(3), 10)
    assert board.waiting == 0


def test_the_end_of_a_connection_is_told_to_the_engine(board: Switchboard) -> None:
    one = member(board, 1)
    board.ended(one)
    assert [waiting.arrival for waiting in board.next_batch()] == [(one.peer, None)]
    assert board.connections == 0
    board.spread([Send(one.peer, Appended(1, bytes(32)))])
    assert told(one) == []


def test_a_log_that_nobody_reads_is_forgotten_and_comes_back_at_its_end(board: Switchboard) -> None:
    """Its ring was not told of rows that came while nobody read along."""
    one = member(board, 1)
    board.ended(one)
    two = board.opened(lambda: None)
    admit(board, two, 2, head=9)
    assert told(two)[1:] == [Deliver(9, [], 9, True)]


def test_a_batch_that_failed_closes_those_who_were_part_of_it(board: Switchboard) -> None:
    one, two = member(board, 1), member(board, 2)
    board.arrived(one, PUSH, 100)
    board.failed(board.next_batch())
    (bye,) = told(one)
    assert isinstance(bye, Bye)
    assert bye.code == CloseCode.INTERNAL
    assert told(two) == []


def test_who_closed_while_its_hello_was_checked_is_not_admitted(board: Switchboard) -> None:
    one = board.opened(lambda: None)
    one.received(b"no frame")
    admit(board, one, 1)
    board.spread([Created(one.peer, Appended(1, bytes(32))), Grown(SPACE, ())])
    (bye,) = told(one)
    assert isinstance(bye, Bye)
    assert bye.code in (CloseCode.MALFORMED, CloseCode.DAMAGED)


def test_the_engine_may_close_a_connection(board: Switchboard) -> None:
    one = member(board, 1)
    bye = Bye(CloseCode.CONFLICT, "replaced", "this device has opened a newer connection")
    board.spread([Close(one.peer, bye)])
    assert told(one) == [bye]


def test_what_was_sent_after_a_frame_that_was_not_taken_is_not_looked_at(board: Switchboard) -> None:
    one, two = member(board, 1), member(board, 2)
    board.arrived(one, PUSH, 100)
    batch = board.next_batch()
    board.arrived(two, PUSH, 100)
    board.arrived(one, PUSH, 100)
    bye = Bye(CloseCode.INTERNAL, "internal", "no room")
    board.committed(batch, [Close(one.peer, bye)])
    board.ended(one)
    assert [(waiting.delivery, waiting.arrival.frame) for waiting in board.next_batch()] == [
        (two, PUSH),
        (one, None),
    ]


def test_a_relay_that_stops_takes_nothing_and_says_so(board: Switchboard) -> None:
    one = member(board, 1)
    board.closing = True
    assert not board.arrived(one, PUSH, 100)
    board.close_all()
    late = board.opened(lambda: None)
    board.greet(late, RELAY, 1)
    farewells: list[Frame] = [*told(one), *told(late)]
    assert [bye.code for bye in farewells if isinstance(bye, Bye)] == [CloseCode.GOING_AWAY] * 2
