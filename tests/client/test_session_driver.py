"""One connection without I/O: an engine on a real store, and frames as a relay would send them."""

from __future__ import annotations

import gc

import pytest

from crdt_sync.errors import DamagedFrame, ProtocolViolation, RelayRefused, RelayUnreachable
from crdt_sync.ids import Incarnation
from crdt_sync.membership.entries import parse_entry
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import (
    Ack,
    Appended,
    Bye,
    Challenge,
    CompactDecline,
    CompactRequest,
    Deliver,
    Frame,
    Got,
    Hello,
    Push,
    Refuse,
    Row,
    RowKind,
    Welcome,
    decode_from_device,
    encode,
)
from crdt_sync.protocol.limits import Limits
from crdt_sync.roles import Role
from crdt_sync_client.endings import Reconnect
from crdt_sync_client.engine.arrivals import Arrival
from crdt_sync_client.engine.model import UpdateOp, WriteResult
from crdt_sync_client.engine.receiving import ReceivedBatch
from crdt_sync_client.incoming_batch import IncomingBatch
from crdt_sync_client.session_driver import LAZY_CURSORS, SessionDriver
from crdt_sync_client.session_steps import PushStep, Step, WelcomeStep
from crdt_sync_client.write_queue import write_and_seal
from tests.client.engine_world import Peer, World


class Line:
    """A device's driver, and the other end of its connection."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.now_s = 0.0
        self.steps: list[Step] = []
        start = peer.engine.session_start(peer.space)
        self.incarnation = start.incarnation
        self.driver = SessionDriver(
            peer.engine, start, protocol=DeviceSession(), clock=lambda: self.now_s, agent="test"
        )

    def relay(self, *frames: Frame) -> None:
        """The relay sends these; everything they make the device do is done."""
        for frame in frames:
            self.driver.received_bytes(encode(frame))
        self.work()

    def work(self) -> None:
        while step := self.driver.next_step() or self.driver.next_push():
            if step.needs_store:
                step.run()
            self.steps.append(step)
            self.driver.done(step)

    def idle(self) -> bool:
        return self.driver.idle

    def sent(self) -> list[Frame]:
        """What the device has sent since the last look."""
        frames: list[Frame] = [decode_from_device(data) for data in self.driver.outgoing]
        self.driver.outgoing.clear()
        return frames

    def greet(self, *, head: int | None = None, limits: Limits | None = None) -> None:
        """Challenge, hello, welcome."""
        relay = self.peer.world.relay
        self.relay(Challenge((1,), relay.id, b"n" * 32, 0, limits or Limits()))
        (hello,) = self.sent()
        assert isinstance(hello, Hello)
        own = relay.chains.get(self.peer.engine.author, (0, bytes(32)))
        self.relay(Welcome(relay.head if head is None else head, hello.cursor, bytes(32), *own, 0))


@pytest.fixture
def line(world: World) -> Line:
    """A second device that has everything, about to connect."""
    return Line(world.join("tablet"))


def test_what_was_written_goes_out_and_is_idle_when_acknowledged(line: Line) -> None:
    line.peer.create({"title": "Pump"})
    line.greet()
    (push,) = line.sent()
    assert isinstance(push, Push)
    assert not line.idle()
    line.now_s += 1  # the pause after a push
    head = line.peer.world.relay.head + 1
    line.relay(Ack(line.incarnation, len(push.envelopes), head), Deliver(head - 1, [], head, True))
    assert line.idle()
    assert line.driver.acknowledged == len(push.envelopes)
    assert line.peer.engine.status_counts().pending == 0


def test_a_write_that_failed_does_not_hold_up_the_one_before(line: Line) -> None:
    """Both wanted to take along what waits to be sent; the one that failed took nothing."""
    line.greet()
    line.now_s += 1
    line.work()
    line.peer.create({"title": "Pump"})
    line.driver.push_soon()
    assert line.driver.window.begin()
    line.driver.pushed(None)
    line.work()
    assert [type(frame) for frame in line.sent()] == [Push]


def test_the_store_is_asked_for_more_only_while_there_is_more(line: Line) -> None:
    line.greet()
    assert [type(step) for step in line.steps] == [WelcomeStep]  # nothing had been written
    for n in range(3):
        line.peer.create({"title": f"Job {n}"})
    line.driver.window.max_count = 2
    line.driver.push_soon()
    line.work()
    line.now_s += 1
    line.work()
    line.now_s += 1
    line.work()
    assert [len(frame.envelopes) for frame in line.sent() if isinstance(frame, Push)] == [2, 1]
    assert [type(step) for step in line.steps] == [WelcomeStep, PushStep, PushStep]


def test_what_a_write_finds_waiting_goes_out_after_it_also_if_it_changes_nothing(line: Line) -> None:
    line.greet()
    for n in range(3):
        last = line.peer.create({"title": f"Job {n}"})
    assert line.driver.window.begin()
    space, engine = line.peer.space, line.peer.engine
    same = UpdateOp("job", last, {"title": "Job 2"})
    results, sealed, again = write_and_seal(engine, [same], {space: (1, 10**6)})
    assert [result.changed for result in results if isinstance(result, WriteResult)] == [False]
    line.driver.pushed(sealed[space], more=space in again)
    line.now_s += 1
    line.work()
    assert [len(frame.envelopes) for frame in line.sent() if isinstance(frame, Push)] == [1, 2]


def test_what_waits_becomes_one_batch_and_is_confirmed_by_bytes(world: World, line: Line) -> None:
    line.greet(head=world.relay.head + 40, limits=Limits(window_bytes=16_000))
    for n in range(40):
        world.office.create({"title": f"Job {n}", "notes": "x" * 400})
    world.office.connect()
    world.office.push()
    before = line.driver.cursor
    rows = world.relay.after(before, line.peer.engine.author)
    assert len(rows) == 40
    line.steps.clear()
    frames = []
    for seq, kind, raw in rows:
        frames.append(Deliver(before, [Row(seq, RowKind(kind), raw)], seq, False))
        before = seq
    line.relay(*frames)
    assert len(line.steps) == 1
    assert line.sent() == [Got(before)]
    assert line.driver.caught_up
    assert len(line.peer.engine.query("job")) == 40


def test_a_stored_batch_is_gone_at_once_with_all_that_it_held(world: World, line: Line) -> None:
    """In reference cycles it would stay until the collector came by: a first sync is many such."""
    line.greet(head=world.relay.head + 5)
    for n in range(5):
        world.office.create({"title": f"Job {n}"})
    world.office.connect()
    world.office.push()
    before = line.driver.cursor
    rows = world.relay.after(before, line.peer.engine.author)
    gc.collect()
    gc.disable()
    try:
        line.relay(Deliver(before, [Row(q, RowKind(kind), raw) for q, kind, raw in rows], rows[-1][0], True))
        line.steps.clear()
        held = (IncomingBatch, ReceivedBatch, Arrival)
        kept = [type(each) for each in gc.get_objects() if isinstance(each, held)]
    finally:
        gc.enable()
    assert len(line.peer.engine.query("job")) == 5
    assert kept == []


def test_a_cursor_over_own_rows_is_stored_at_the_end(world: World, line: Line) -> None:
    line.greet()
    line.now_s += 1
    line.work()
    head = line.driver.cursor
    for n in range(5):
        line.relay(Deliver(head + n, [], head + n + 1, True))
    assert not any(step.needs_store for step in line.steps[-5:])
    assert line.peer.engine.space(world.space).cursor == head
    line.driver.closed(1006)
    last = line.driver.last_step()
    assert last is not None
    last.run()
    assert line.peer.engine.space(world.space).cursor == head + 5
    assert line.driver.last_step() is None


def test_a_cursor_is_not_put_off_for_ever(world: World, line: Line) -> None:
    line.greet()
    line.now_s += 1
    line.work()
    head = line.driver.cursor
    for n in range(LAZY_CURSORS + 1):
        line.relay(Deliver(head + n, [], head + n + 1, True))
    assert line.peer.engine.space(world.space).cursor == head + LAZY_CURSORS + 1


def test_a_damaged_frame_ends_the_session_and_is_named_in_the_last_word(line: Line) -> None:
    line.greet()
    data = bytearray(encode(Deliver(line.driver.cursor, [], line.driver.cursor + 1, True)))
    data[2] ^= 1
    line.driver.received_bytes(bytes(data))
    assert isinstance(line.driver.error, DamagedFrame)
    assert line.driver.last_word[0] is CloseCode.DAMAGED
    assert line.driver.next_step() is None
    assert line.driver.next_push() is None


def test_the_first_reason_counts(line: Line) -> None:
    line.greet()
    line.relay(Bye(4404, "unknown_space", "gone"))
    line.driver.closed(1006)
    assert isinstance(line.driver.error, RelayRefused)
    assert line.driver.last_word[0] is CloseCode.NORMAL


def test_a_refused_update_hands_over_to_the_next_session(line: Line) -> None:
    line.peer.create({"title": "Pump"})
    line.greet()
    line.relay(Refuse(line.incarnation, 1, "quota", "no room"))
    assert isinstance(line.driver.error, Reconnect)
    assert not line.driver.fruitful


def test_an_older_copy_is_told_to_begin_again(world: World, line: Line) -> None:
    """The relay has more of this device's chain than its store."""
    relay = world.relay
    line.relay(Challenge((1,), relay.id, b"n" * 32, 0, Limits()))
    cursor = line.peer.engine.space(world.space).cursor
    line.relay(Welcome(relay.head, cursor, bytes(32), 7, b"x" * 32, 0))
    assert isinstance(line.driver.error, Reconnect)
    assert not line.driver.welcomed


def test_records_that_cannot_be_compacted_are_declined(world: World, line: Line) -> None:
    id = line.peer.create({"title": "Pump"})
    line.greet()
    line.sent()
    keys = line.peer.engine._replica.space(world.space).keys
    record = keys.opaque_id("job", id)
    line.relay(CompactRequest([record]))
    assert line.sent() == [CompactDecline([record])]


def test_whoever_waits_for_an_answer_hears_of_the_end(line: Line) -> None:
    answers: list[object] = []
    line.greet()
    line.sent()
    entry, _ = line.peer.world.office.engine.make_invite(
        line.peer.space, Role.FIELD, line.peer.world.now_ms + 60_000
    )
    line.driver.append(entry, answers.append)
    line.driver.closed(1006)
    assert answers == [None]
    assert not line.driver.can_send


def test_an_answer_nobody_asked_for_is_refused(line: Line) -> None:
    line.greet()
    line.relay(Appended(1, bytes(32)))
    assert isinstance(line.driver.error, ProtocolViolation)


def test_a_welcome_that_does_not_come(line: Line) -> None:
    line.driver.late()
    assert isinstance(line.driver.error, RelayUnreachable)
    assert "handshake" in line.driver.error.message


def test_lateness_of_a_welcome_that_came_is_nothing(line: Line) -> None:
    line.greet()
    line.driver.late()
    assert not line.driver.ended


def test_a_store_that_fails_ends_the_session_with_its_error(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.greet()
    full = OSError("disk full")

    def fail(*args: object, **kwargs: object) -> None:
        raise full

    monkeypatch.setattr(line.peer.engine, "acked", fail)
    line.relay(Ack(Incarnation(line.incarnation), 1, line.driver.head))
    assert line.driver.error is full
    assert line.driver.last_word[0] is CloseCode.NORMAL


def test_answers_that_were_swapped_put_no_entry_into_the_log(world: World) -> None:
    """Two invites in flight; the first was refused and the answers came in the wrong order."""
    office = Line(world.office)
    office.greet()
    engine = world.office.engine
    told: list[object] = []
    entries = [engine.make_invite(world.space, Role.FIELD, world.now_ms + n)[0] for n in (60_000, 61_000)]
    log = engine._replica.space(world.space).log
    before = log.head
    for entry in entries:
        office.driver.append(entry, told.append)
    office.relay(Appended(9, parse_entry(entries[1]).hash))
    assert told == [None, None]
    assert isinstance(office.driver.error, ProtocolViolation)
    assert log.head == before
