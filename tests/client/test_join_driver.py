"""Entering a space when connections break in the middle: never twice, and never without knowing it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crdt_sync.errors import InviteUsed, RelayRefused, RelayUnreachable
from crdt_sync.ids import DeviceId, InviteId
from crdt_sync.membership.entries import parse_entry
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import (
    Append,
    Appended,
    AppendRefused,
    Bye,
    Challenge,
    Deliver,
    Frame,
    Hello,
    Mode,
    Row,
    RowKind,
    Welcome,
    decode_from_device,
    encode,
)
from crdt_sync.protocol.limits import Limits
from crdt_sync.roles import Role
from crdt_sync_client.connection_driver import ConnectionDriver
from crdt_sync_client.join_driver import Joining
from crdt_sync_client.session_driver import SessionDriver
from crdt_sync_client.unsettled import ON_ITS_WAY_MS, forget_what_never_was
from tests.client.engine_world import Peer, World

Line = Callable[[bytes], list[Frame]]
"""A message on its way to the relay; gives the relay's answers."""


class LogRelay:
    """A relay that knows membership logs and nothing else."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.log = MembershipLog(world.space)
        for _, kind, raw, *_ in world.relay.rows:
            if kind == RowKind.MEMBERSHIP:
                self.log.apply(raw)

    def challenge(self) -> Frame:
        return Challenge((1,), self.world.relay.id, b"n" * 32, self.world.now_ms, Limits())

    def answer(self, data: bytes) -> list[Frame]:
        match decode_from_device(data):
            case Hello() as hello:
                return self._hello(hello)
            case Append(entry):
                return [self.append(entry)]
            case _:
                return []

    def _hello(self, hello: Hello) -> list[Frame]:
        if hello.mode is Mode.INVITE:
            invite = self.log.invites[InviteId(hello.party)]
            if invite.used_by is not None:
                return [Bye(CloseCode.UNAUTHENTICATED, "invite_used", "used")]
        elif DeviceId(hello.party) not in self.log.members:
            return [Bye(CloseCode.UNAUTHENTICATED, "unknown_member", "who are you?")]
        rows = [Row(n, RowKind.MEMBERSHIP, raw) for n, raw in enumerate(self.log.entries, start=1)]
        welcome = Welcome(len(rows), 0, self.log.head, 0, bytes(32), self.world.now_ms)
        return [welcome, Deliver(0, rows, len(rows), True)]

    def append(self, raw: bytes) -> Frame:
        entry = parse_entry(raw)
        if self.log.position_of(entry.hash) is None:
            if not self.log.follows(entry):
                return AppendRefused("stale_head", "moved on", self.log.head)
            self.log.apply(raw)
        return Appended(len(self.log.entries), self.log.head)

    def invite(self) -> str:
        """A link for one more device."""
        office = self.world.office.engine
        entry, link = office.make_invite(self.world.space, Role.FIELD, self.world.now_ms + 86_400_000)
        self.append(entry)
        office.apply_membership(self.world.space, entry)
        return link


@pytest.fixture
def relay(world: World) -> LogRelay:
    return LogRelay(world)


@pytest.fixture
def tablet(world: World) -> Peer:
    peer = Peer(world, "tablet")
    world.peers.append(peer)
    return peer


class Attempt:
    """The way in with one link, one connection at a time."""

    def __init__(self, relay: LogRelay, peer: Peer, link: str) -> None:
        self.relay = relay
        self.joining = Joining(peer.engine, link)
        self.entries: list[bytes] = []
        """What was appended, as it left."""

    def connect(self, line: Line | None = None) -> ConnectionDriver:
        """One connection from its beginning to its end."""
        line = line or self.relay.answer
        driver = self.joining.next_driver(protocol=DeviceSession(), clock=lambda: 0.0, agent="test")
        driver.received_bytes(encode(self.relay.challenge()))
        while not driver.ended:
            if driver.outgoing:
                message = driver.outgoing.popleft()
                sent = decode_from_device(message)
                if isinstance(sent, Append):
                    self.entries.append(sent.entry)
                for frame in line(message):
                    driver.received_bytes(encode(frame))
            elif (step := driver.next_step()) is not None:
                step.run()
                driver.done(step)
                if isinstance(driver, SessionDriver) and driver.welcomed:
                    driver.end()
            else:
                driver.closed(1006)  # nobody says anything more
        self.joining.ended(driver)
        return driver

    def lose(self, *kinds: type[Frame], late: list[bytes] | None = None) -> Line:
        """A line that swallows these messages of the device; `late` gets them."""

        def line(message: bytes) -> list[Frame]:
            if isinstance(decode_from_device(message), kinds):
                if late is not None:
                    late.append(message)
                return []
            return self.relay.answer(message)

        return line

    def assert_in_once(self, peer: Peer) -> None:
        assert self.joining.joined
        assert self.joining.error is None
        assert len(self.relay.log.members) == 2
        state = peer.engine.space(self.relay.world.space)
        assert state.stage == "active"
        assert [member.is_self for member in peer.engine.members(state.id)] == [False, True]


def without_appended(relay: LogRelay, message: bytes) -> list[Frame]:
    """The relay takes the message, and its answer to an entry is lost."""
    return [frame for frame in relay.answer(message) if not isinstance(frame, Appended)]


def test_the_way_in(relay: LogRelay, tablet: Peer) -> None:
    attempt = Attempt(relay, tablet, relay.invite())
    attempt.connect()
    attempt.assert_in_once(tablet)


def test_a_lost_answer_is_asked_for_as_a_member(relay: LogRelay, tablet: Peer) -> None:
    attempt = Attempt(relay, tablet, relay.invite())
    attempt.connect(lambda message: without_appended(relay, message))
    assert not attempt.joining.decided
    assert isinstance(attempt.connect(), SessionDriver)
    attempt.assert_in_once(tablet)


def test_an_entry_that_arrives_after_its_repetition_counts_once(relay: LogRelay, tablet: Peer) -> None:
    attempt, late = Attempt(relay, tablet, relay.invite()), list[bytes]()
    attempt.connect(attempt.lose(Append, late=late))
    attempt.connect()  # as a member, who is not known
    assert not attempt.joining.decided
    attempt.connect()
    attempt.assert_in_once(tablet)
    assert len(set(attempt.entries)) == 1
    assert isinstance(relay.answer(late[0])[0], Appended)
    attempt.assert_in_once(tablet)


@pytest.mark.parametrize("arrives_at", [Hello, Append])
def test_an_entry_that_arrives_before_its_repetition_counts_once(
    relay: LogRelay, tablet: Peer, arrives_at: type[Frame]
) -> None:
    attempt, late = Attempt(relay, tablet, relay.invite()), list[bytes]()
    attempt.connect(attempt.lose(Append, late=late))
    attempt.connect()

    def line(message: bytes) -> list[Frame]:
        if late and isinstance(decode_from_device(message), arrives_at):
            relay.answer(late.pop())
        return relay.answer(message)

    attempt.connect(line)
    if not attempt.joining.decided:  # the invite is used: by us?
        attempt.connect()
    attempt.assert_in_once(tablet)


def test_a_second_try_with_the_same_link_finds_out_that_the_first_worked(
    relay: LogRelay, tablet: Peer
) -> None:
    link = relay.invite()
    first = Attempt(relay, tablet, link)
    first.connect(lambda message: without_appended(relay, message))
    first.connect(first.lose(Hello))
    assert isinstance(first.joining.error, RelayUnreachable)
    tablet.crash()
    second = Attempt(relay, tablet, link)
    second.connect()
    second.assert_in_once(tablet)


def test_an_entry_is_made_anew_when_anothers_came_first(relay: LogRelay, tablet: Peer) -> None:
    attempt = Attempt(relay, tablet, relay.invite())

    def overtaken(message: bytes) -> list[Frame]:
        if not isinstance(decode_from_device(message), Append) or len(attempt.entries) > 1:
            return relay.answer(message)
        before = len(relay.log.entries)
        relay.invite()
        row = Row(before + 1, RowKind.MEMBERSHIP, relay.log.entries[-1])
        return [*relay.answer(message), Deliver(before, [row], before + 1, True)]

    attempt.connect(overtaken)
    attempt.assert_in_once(tablet)
    assert len(attempt.entries) == 2


def test_an_invite_that_another_device_used_leaves_nothing_behind(
    world: World, relay: LogRelay, tablet: Peer
) -> None:
    link = relay.invite()
    attempt = Attempt(relay, tablet, link)
    attempt.connect(attempt.lose(Append))
    attempt.connect()
    quicker = Peer(world, "quicker")
    world.peers.append(quicker)
    Attempt(relay, quicker, link).connect()
    attempt.connect()
    attempt.connect()
    assert isinstance(attempt.joining.error, InviteUsed)
    assert tablet.engine.spaces() == []


def test_a_space_is_not_forgotten_while_our_entry_may_be_on_its_way(
    world: World, relay: LogRelay, tablet: Peer
) -> None:
    attempt = Attempt(relay, tablet, relay.invite())
    attempt.connect(attempt.lose(Append))
    unknown = RelayRefused("who are you?", close_code=CloseCode.UNAUTHENTICATED)
    assert not forget_what_never_was(tablet.engine, world.space, unknown, world.now_ms)
    assert [state.stage for state in tablet.engine.spaces()] == ["joining"]
    assert forget_what_never_was(tablet.engine, world.space, unknown, world.now_ms + ON_ITS_WAY_MS)
    assert tablet.engine.spaces() == []
