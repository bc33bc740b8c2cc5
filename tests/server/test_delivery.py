"""What a connection is sent, and when: without sockets, storage or time."""

from __future__ import annotations

import pytest

from crdt_sync.errors import UnknownSpace
from crdt_sync.ids import Author, DeviceId, Incarnation
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import (
    Appended,
    Bye,
    Deliver,
    FromRelay,
    Got,
    Mode,
    Row,
    RowKind,
    Welcome,
    decode_from_relay,
    encode,
)
from crdt_sync.protocol.limits import Limits
from crdt_sync.protocol.relay_session import RelaySession, RelayState
from crdt_sync_server import delivery as delivery_module
from crdt_sync_server.delivery import Delivery, ReadPage
from crdt_sync_server.effects import LiveRow, Peer
from crdt_sync_server.live import FIRST_FRAME_BYTES, FRAME_BYTES, FRAME_ROWS, RING_ROWS, LiveLog
from crdt_sync_server.storage.port import Page

ME = Author(DeviceId(b"d" * 16), Incarnation(1))
OTHER = Author(DeviceId(b"o" * 16), Incarnation(1))


class Device:
    """A delivery to an admitted device (or, without an author, the holder of an invite)."""

    def __init__(
        self,
        head: int,
        cursor: int | None = None,
        *,
        author: Author | None = ME,
        limits: Limits | None = None,
    ) -> None:
        self.woken = 0
        session = RelaySession(bytes(32), limits or Limits())
        session.state = RelayState.CHECKING
        self.peer = Peer(bytes(32))
        self.peer.author = author
        self.delivery = Delivery(session, self.peer, self._wake)
        self.live: LiveLog[Delivery] = LiveLog(head)
        welcome = Welcome(head, head if cursor is None else cursor, bytes(32), 0, bytes(32), 0)
        mode = Mode.INVITE if author is None else Mode.DEVICE
        self.delivery.admitted(mode, welcome, self.live)
        assert self.told() == welcome

    def _wake(self) -> None:
        self.woken += 1

    def caught_up(self) -> bool:
        return self.peer.caught_up

    def room(self) -> bool:
        return self.delivery.room

    def told(self) -> FromRelay | None:
        """What is sent next; None if nothing."""
        todo = self.delivery.next()
        assert todo is None or isinstance(todo, bytes)
        return None if todo is None else decode_from_relay(todo)

    def asks(self) -> ReadPage:
        """The page it wants."""
        todo = self.delivery.next()
        assert isinstance(todo, ReadPage)
        return todo

    def grow(self, *authors: Author | None) -> None:
        """New rows of these authors."""
        rows = [row(self.live.head + 1 + index) for index in range(len(authors))]
        self.live.grow([LiveRow(new, author) for new, author in zip(rows, authors, strict=True)])
        for reader in self.live.readers:
            reader.wake()


def row(sequence: int) -> Row:
    return Row(sequence, RowKind.UPDATE, b"update %d" % sequence)


def test_who_has_everything_is_told_so_once() -> None:
    device = Device(4)
    assert device.told() == Deliver(4, [], 4, True)
    assert device.told() is None


def test_new_rows_wake_and_follow() -> None:
    device = Device(4)
    device.told()
    before = device.woken
    device.grow(OTHER, None)
    assert device.woken > before
    assert device.told() == Deliver(4, [row(5), row(6)], 6, True)
    assert device.told() is None


def test_a_device_at_rest_is_told_its_cursor_though_its_last_push_was_nothing_new() -> None:
    """Its own rows passed in silence while a second push waited, and that one made no row that would tell."""
    device = Device(4)
    device.told()
    device.delivery.waits(100)
    device.grow(ME)
    assert device.told() is None
    assert device.delivery.cursor == 5
    before = device.woken
    device.delivery.committed(100)
    assert device.woken > before
    assert device.told() == Deliver(4, [], 5, True)
    device.delivery.waits(100)
    device.grow(ME)
    assert device.told() is None
    assert device.delivery.cursor == 6
    device.grow(None)
    assert device.told() == Deliver(5, [row(7)], 7, True)


def test_a_busy_device_hears_of_its_own_rows_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "SILENT_ROWS", 3)
    device = Device(0)
    device.told()
    device.delivery.waits(100)
    device.grow(ME, ME)
    assert device.told() is None
    device.grow(ME)
    assert device.told() == Deliver(0, [], 3, True)


def test_answers_come_before_rows_and_the_last_word_after_answers() -> None:
    device = Device(4)
    device.grow(OTHER)
    appended = Appended(5, bytes(32))
    device.delivery.answer(appended)
    assert device.told() == appended
    device.delivery.answer(appended)
    bye = Bye(CloseCode.CONFLICT, "replaced", "")
    device.delivery.close(bye)
    device.delivery.close(Bye(CloseCode.NORMAL, "bye", ""))
    assert device.told() == appended
    assert device.delivery.next() == bye, "the first reason counts, and no row goes before it"
    assert device.delivery.received(encode(Got(4))) is None


def test_who_is_behind_the_ring_reads_pages_until_the_ring_has_it() -> None:
    device = Device(4, 0)
    assert device.asks() == ReadPage(0, FRAME_ROWS, FIRST_FRAME_BYTES)
    assert device.delivery.next() is None, "one page at a time"
    data = device.delivery.page_read(Page([row(1), row(2)], 2, False))
    assert decode_from_relay(data) == Deliver(0, [row(1), row(2)], 2, False)
    assert not device.caught_up()
    assert device.asks().after == 2
    data = device.delivery.page_read(Page([row(3), row(4)], 4, True))
    assert decode_from_relay(data) == Deliver(2, [row(3), row(4)], 4, True)
    assert device.caught_up()
    device.grow(OTHER)
    assert device.told() == Deliver(4, [row(5)], 5, True)


def test_what_happens_while_a_page_is_read_is_not_lost() -> None:
    device = Device(4, 0)
    device.asks()
    device.grow(OTHER)
    device.delivery.answer(Appended(1, bytes(32)))
    assert device.delivery.next() is None
    data = device.delivery.page_read(Page([row(4)], 4, True))
    assert decode_from_relay(data) == Deliver(0, [row(4)], 4, False), "the log has grown meanwhile"
    assert device.told() == Appended(1, bytes(32))
    assert device.told() == Deliver(4, [row(5)], 5, True)


def test_a_ring_that_moves_on_while_a_page_is_read_is_followed_by_another_page() -> None:
    device = Device(4, 0)
    device.asks()
    device.grow(*[OTHER] * (RING_ROWS + 1))
    device.delivery.page_read(Page([row(4)], 4, True))
    assert device.asks().after == 4


def test_a_page_that_is_ahead_of_the_ring_waits_for_the_ring() -> None:
    """A commit may be in the storage before its rows are in the ring."""
    device = Device(4, 0)
    device.asks()
    data = device.delivery.page_read(Page([row(5), row(6)], 6, False))
    assert decode_from_relay(data) == Deliver(0, [row(5), row(6)], 6, False)
    assert device.told() is None
    device.grow(OTHER, OTHER, OTHER)
    assert device.told() == Deliver(6, [row(7)], 7, True)


def test_a_page_for_a_connection_that_is_closing_is_dropped() -> None:
    device = Device(4, 0)
    device.asks()
    device.delivery.close(Bye(CloseCode.NORMAL, "bye", ""))
    assert device.delivery.page_read(Page([row(4)], 4, True)) == b""
    assert not device.caught_up(), "nobody asks it to compact any more"
    assert isinstance(device.delivery.next(), Bye)


def test_a_page_that_cannot_be_read_ends_the_connection() -> None:
    device = Device(4, 0)
    device.asks()
    device.delivery.page_failed(UnknownSpace("this relay does not hold the space any more"))
    bye = device.delivery.next()
    assert isinstance(bye, Bye)
    assert bye.code == CloseCode.UNKNOWN_SPACE


def test_the_holder_of_an_invite_is_served_from_the_storage_only() -> None:
    device = Device(4, 0, author=None)
    device.asks()
    data = device.delivery.page_read(Page([row(1)], 4, True))
    assert decode_from_relay(data) == Deliver(0, [row(1)], 4, True)
    assert not device.caught_up(), "it cannot compact"
    device.grow(OTHER)
    assert device.asks().after == 4
    assert device.delivery.page_read(Page([], 5, True))
    assert device.delivery.next() is None


def test_a_full_window_holds_rows_back_until_some_are_confirmed() -> None:
    device = Device(0, limits=Limits(window_bytes=1))
    device.told()
    device.grow(OTHER)
    assert device.told() is None
    before = device.woken
    device.delivery.received(encode(Got(0)))
    assert device.woken > before
    assert device.told() == Deliver(0, [row(1)], 1, True)


def test_there_is_room_again_when_what_waited_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "BACKLOG_BYTES", 100)
    device = Device(0)
    device.told()
    device.delivery.waits(100)
    assert not device.room()
    before = device.woken
    device.delivery.committed(1)
    assert device.room()
    assert device.woken > before


def test_who_does_not_take_answers_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "MAX_ANSWERS", 1)
    device = Device(0)
    device.told()
    device.delivery.answer(Appended(1, bytes(32)))
    assert not device.room()
    device.told()
    assert device.room()


def test_who_created_a_space_is_not_overdue() -> None:
    session = RelaySession(bytes(32))
    delivery = Delivery(session, Peer(bytes(32)), lambda: None)
    session.state = RelayState.CREATED
    delivery.overdue(10)
    assert not delivery.closing


def test_text_messages_close_the_connection() -> None:
    device = Device(0)
    device.told()
    assert device.delivery.received(None) is None
    bye = device.delivery.next()
    assert isinstance(bye, Bye)
    assert bye.code == CloseCode.MALFORMED
    assert device.delivery.session.state is RelayState.CLOSED


def test_an_ended_connection_reads_along_no_more() -> None:
    device = Device(0)
    device.told()
    device.delivery.ended()
    assert not device.live.readers
    assert not device.caught_up()


def test_the_first_frames_of_a_connection_are_small_and_each_may_be_twice_as_large() -> None:
    """A network that breaks every few seconds brings some of them whole."""
    device = Device(1_000, 0)
    sizes: list[int] = []
    for cursor in range(1, 7):
        sizes.append(device.asks().max_bytes)
        device.delivery.page_read(Page([row(cursor)], cursor, False))
    assert sizes == [FIRST_FRAME_BYTES << n for n in range(5)] + [FRAME_BYTES]
