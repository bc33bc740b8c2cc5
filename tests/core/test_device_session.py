"""The device's side of the protocol: what a relay may send when, and what a device never lets pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.errors import (
    FrameTooLarge,
    MalformedFrame,
    ProtocolViolation,
    RemoteError,
    VersionMismatch,
)
from crdt_sync.ids import DeviceId, Incarnation, InviteId, OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.device_session import NO_RELAY, DeviceSession, State, close_code_for
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Appended,
    AppendRefused,
    Bye,
    Challenge,
    CheckIn,
    CheckOut,
    CheckoutAnswer,
    CheckoutResult,
    CompactRequest,
    Create,
    Deliver,
    Fetched,
    FetchRecords,
    Frame,
    Hello,
    Mode,
    Push,
    Refuse,
    Row,
    RowKind,
    SnapshotResult,
    Welcome,
    auth_message,
    decode_from_device,
    encode,
)
from crdt_sync.protocol.limits import DEFAULT_LIMITS, PROTOCOL_VERSION, Limits

SPACE = SpaceId(b"s" * 16)
DEVICE = DeviceId(b"d" * 16)
RELAY = RelayId(b"r" * 16)
LIFE = Incarnation(7)
HASH = bytes(32)
CHALLENGE = Challenge((PROTOCOL_VERSION,), RELAY, b"n" * 32, 1_000, DEFAULT_LIMITS)


def signed(message: bytes) -> bytes:
    return (message + bytes(64))[:64]


def hello(session: DeviceSession, **over: Any) -> Hello:
    arguments = {
        "space": SPACE,
        "device": DEVICE,
        "incarnation": LIFE,
        "cursor": 5,
        "relay_seen": RELAY,
        "sign": signed,
        "agent": "test",
    }
    frame = decode_from_device(session.hello(**{**arguments, **over}))
    assert isinstance(frame, Hello)
    return frame


def live(*, head: int = 10, cursor: int = 5) -> DeviceSession:
    session = DeviceSession()
    session.receive(encode(CHALLENGE))
    hello(session)
    session.receive(encode(Welcome(head, cursor, HASH, 3, HASH, 1_000)))
    return session


def rows(*sequences: int) -> list[Row]:
    return [Row(sequence, RowKind.UPDATE, b"x") for sequence in sequences]


def test_a_hello_proves_the_key_for_this_connection_relay_and_space() -> None:
    session = DeviceSession()
    assert session.receive(encode(CHALLENGE)) == CHALLENGE
    frame = hello(session, relay_seen=None)
    message = auth_message(
        nonce=CHALLENGE.nonce,
        relay_id=RELAY,
        space=SPACE,
        party=DEVICE,
        incarnation=LIFE,
        mode=Mode.DEVICE,
    )
    assert frame.signature == signed(message)
    assert frame.relay_id_seen == NO_RELAY
    assert session.state is State.PROVING


def test_the_bearer_of_an_invite_says_so() -> None:
    session = DeviceSession()
    session.receive(encode(CHALLENGE))
    invite = InviteId(b"i" * 16)
    frame = decode_from_device(
        session.hello_with_invite(space=SPACE, invite=invite, sign=signed, agent="test")
    )
    assert isinstance(frame, Hello)
    assert (frame.mode, frame.party, frame.incarnation, frame.cursor) == (Mode.INVITE, invite, 0, 0)


def test_creating_a_space_ends_with_the_answer() -> None:
    session = DeviceSession()
    session.receive(encode(CHALLENGE))
    frame = decode_from_device(session.create_space(genesis=b"g", setup_token="t", agent="test"))
    assert isinstance(frame, Create)
    assert session.receive(encode(Appended(1, HASH))) == Appended(1, HASH)
    assert session.state is State.DONE


def test_deliveries_move_the_cursor_and_the_known_end_of_the_log() -> None:
    session = live()
    session.receive(encode(Deliver(5, rows(6, 9), 9, False)))
    assert (session.cursor, session.head) == (9, 10)
    session.receive(encode(Deliver(9, [], 12, True)))
    assert (session.cursor, session.head) == (12, 12)
    session.receive(encode(Ack(LIFE, 4, 15)))
    assert (session.cursor, session.head) == (12, 15)


@pytest.mark.parametrize(
    "frame",
    [
        Deliver(5, rows(5), 9, True),  # what the device has already
        Deliver(5, rows(6, 6), 9, True),
        Deliver(5, rows(7, 6), 9, True),
        Deliver(5, rows(6), 4, True),  # the cursor goes back
        Deliver(5, [], 4, True),
        Deliver(4, rows(6), 6, True),  # what follows another cursor
        Deliver(6, rows(7), 7, True),
        Ack(LIFE, 2, 10),  # less than the welcome said it has
        Appended(1, HASH),
        AppendRefused("x", "", HASH),
        SnapshotResult(OpaqueId(b"o" * 16), "stored", ""),
        Welcome(10, 5, HASH, 3, HASH, 1_000),
        CHALLENGE,
    ],
    ids=lambda frame: f"{type(frame).__name__}",
)
def test_a_live_session_refuses_what_contradicts_it_and_takes_nothing_over(frame: Frame) -> None:
    session = live()
    with pytest.raises(ProtocolViolation):
        session.receive(encode(frame))
    assert (session.state, session.cursor, session.head) == (State.DONE, 5, 10)


def test_a_replayed_delivery_is_refused() -> None:
    session = live()
    data = encode(Deliver(5, rows(6, 7), 7, False))
    session.receive(data)
    with pytest.raises(ProtocolViolation, match="follows row 5; this device stands at 7"):
        session.receive(data)


def test_swapped_deliveries_are_refused_before_the_cursor_moves() -> None:
    session = live()
    second = encode(Deliver(7, rows(8), 8, True))
    with pytest.raises(ProtocolViolation, match="follows row 7"):
        session.receive(second)
    assert session.cursor == 5


@pytest.mark.parametrize("cursor", [4, 6])
def test_a_welcome_to_another_cursor_than_that_of_the_hello_is_refused(cursor: int) -> None:
    session = DeviceSession()
    session.receive(encode(CHALLENGE))
    hello(session)
    with pytest.raises(ProtocolViolation, match="start delivery"):
        session.receive(encode(Welcome(10, cursor, HASH, 0, HASH, 0)))


def test_an_answer_is_taken_once_for_each_append_and_snapshot() -> None:
    session = live()
    assert decode_from_device(session.append(b"entry")) == Append(b"entry")
    session.push_snapshot(b"snapshot")
    session.receive(encode(AppendRefused("bad_membership", "too late", HASH)))
    session.receive(encode(SnapshotResult(OpaqueId(b"o" * 16), "stored", "")))
    for answer in (Appended(1, HASH), Fetched(rows(1), 1, 10)):
        session.state = State.LIVE
        with pytest.raises(ProtocolViolation):
            session.receive(encode(answer))


def test_records_are_asked_for_one_question_at_a_time() -> None:
    session, record = live(), OpaqueId(b"o" * 16)
    assert decode_from_device(session.fetch([record, record], 3)) == FetchRecords([record, record], 3)
    with pytest.raises(RuntimeError, match="has not come yet"):
        session.fetch([record])
    session.receive(encode(Fetched(rows(4, 2), 2, 10)))
    session.fetch([record])


@pytest.mark.parametrize("answer", [Fetched([], 2, 10), Fetched(rows(1), 2, 10), Fetched([], 0, 10)])
def test_an_answer_about_records_is_about_those_that_were_asked_for(answer: Fetched) -> None:
    session = live()
    session.fetch([OpaqueId(b"o" * 16)])
    with pytest.raises(ProtocolViolation):
        session.receive(encode(answer))
    assert session.state is State.DONE


def result(record: OpaqueId) -> CheckoutResult:
    return CheckoutResult(record, "granted", 4, None)


def test_checkouts_are_asked_for_one_question_at_a_time() -> None:
    session, one = live(), OpaqueId(b"o" * 16)
    assert decode_from_device(session.check_out([one], 60_000, 7)) == CheckOut([one], 60_000, 7)
    assert not session.may_ask_checkouts
    with pytest.raises(RuntimeError, match="has not come yet"):
        session.check_in([one])
    session.receive(encode(CheckoutAnswer([result(one)])))
    assert decode_from_device(session.check_in([one])) == CheckIn([one], False)


@pytest.mark.parametrize("asked", [[], [b"o"], [b"o", b"p", b"q"], [b"p", b"o"]])
def test_an_answer_about_checkouts_is_about_those_that_were_asked_for(asked: list[bytes]) -> None:
    session = live()
    if asked:
        session.check_out([OpaqueId(name * 16) for name in asked], 0, 0)
    with pytest.raises(ProtocolViolation, match="not asked for"):
        session.receive(encode(CheckoutAnswer([result(OpaqueId(b"o" * 16)), result(OpaqueId(b"p" * 16))])))
    assert session.state is State.DONE


def test_acknowledgements_of_another_life_of_the_device_are_not_compared_with_this_one() -> None:
    session = live()
    other, own = Ack(Incarnation(99), 1, 10), Ack(LIFE, 3, 10)
    assert (session.receive(encode(other)), session.receive(encode(own))) == (other, own)
    with pytest.raises(ProtocolViolation):
        session.receive(encode(Ack(LIFE, 2, 10)))


BEFORE_WELCOME = [
    Welcome(1, 1, HASH, 0, HASH, 0),
    Deliver(1, [], 1, True),
    Ack(LIFE, 1, 1),
    Refuse(LIFE, 1, "x", ""),
    CompactRequest([OpaqueId(b"o" * 16)]),
    Appended(1, HASH),
    Fetched([], 1, 1),
    CheckoutAnswer([CheckoutResult(OpaqueId(b"o" * 16), "granted", 4, None)]),
]


@pytest.mark.parametrize("frame", BEFORE_WELCOME, ids=lambda frame: type(frame).__name__)
def test_nothing_but_a_challenge_comes_first(frame: Frame) -> None:
    session = DeviceSession()
    with pytest.raises(ProtocolViolation, match="in state HEARING"):
        session.receive(encode(frame))
    assert session.state is State.DONE


def test_a_welcome_may_not_start_delivery_after_the_end_of_the_log() -> None:
    session = DeviceSession()
    session.receive(encode(CHALLENGE))
    hello(session)
    with pytest.raises(ProtocolViolation):
        session.receive(encode(Welcome(5, 6, HASH, 0, HASH, 0)))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Challenge((2, 3), RELAY, b"n" * 32, 0, DEFAULT_LIMITS), "speaks protocol version 2, 3"),
        (Challenge((1,), RELAY, b"n" * 32, 0, Limits(max_push_envelopes=0)), "limit below 1"),
    ],
)
def test_a_challenge_that_cannot_be_met_is_refused(frame: Challenge, words: str) -> None:
    with pytest.raises(ProtocolViolation, match=words):
        DeviceSession().receive(encode(frame))


@pytest.mark.parametrize("version", [0, 2])
def test_a_device_of_another_version_says_so_and_closes(version: int) -> None:
    session = DeviceSession(version=version)
    with pytest.raises(VersionMismatch) as caught:
        session.receive(encode(CHALLENGE))
    assert caught.value.message == f"the relay speaks protocol version 1, this device {version}"
    assert "update the older of the two" in caught.value.hint
    assert close_code_for(caught.value) is CloseCode.VERSION


def test_a_device_chooses_the_version_that_it_speaks() -> None:
    session = DeviceSession(version=2)
    session.receive(encode(Challenge((1, 2), RELAY, b"n" * 32, 0, DEFAULT_LIMITS)))
    assert hello(session).version == 2


def test_nothing_is_sent_before_its_time() -> None:
    session = DeviceSession()
    with pytest.raises(RuntimeError, match="only when LIVE"):
        session.push([b"x"])
    with pytest.raises(RuntimeError, match="only when CHALLENGED"):
        session.create_space(genesis=b"g", setup_token="t", agent="")


def test_a_push_within_the_budget_fits_a_frame() -> None:
    session = live()
    count, size_bytes = session.push_budget
    envelope = bytes(size_bytes // count)
    assert len(session.push([envelope] * count)) <= session.limits.max_frame_bytes
    frame = decode_from_device(session.push([envelope] * 2))
    assert isinstance(frame, Push)
    assert len(frame.envelopes) == 2


def test_a_frame_above_the_limit_is_refused_unread() -> None:
    session = DeviceSession(max_frame_bytes=100)
    with pytest.raises(FrameTooLarge) as refused:
        session.receive(bytes(101))
    assert close_code_for(refused.value) is CloseCode.TOO_LARGE
    assert close_code_for(MalformedFrame("x")) is CloseCode.MALFORMED


def test_a_bye_ends_the_session_in_every_state() -> None:
    for session in (DeviceSession(), live()):
        session.receive(encode(Bye(1001, "", "restarting")))
        assert session.state is State.DONE
        with pytest.raises(ProtocolViolation):
            session.receive(encode(CHALLENGE))


FRAMES = st.sampled_from([*BEFORE_WELCOME, CHALLENGE, Deliver(5, rows(6, 7), 9, True), Bye(1000, "", "")])


@given(
    data=st.one_of(st.binary(max_size=200), FRAMES.map(encode)), cut=st.integers(0, 40), at_live=st.booleans()
)
@settings(max_examples=300, deadline=None)
def test_whatever_arrives_is_taken_whole_or_refused_as_the_relays_fault(
    data: bytes, cut: int, at_live: bool
) -> None:
    session = live() if at_live else DeviceSession()
    before = (session.cursor, session.head)
    try:
        session.receive(data[: len(data) - cut] if cut else data)
    except RemoteError:
        assert session.state is State.DONE
        assert (session.cursor, session.head) == before


@given(st.lists(FRAMES, max_size=12))
@settings(max_examples=200, deadline=None)
def test_cursor_and_head_never_go_back(frames: list[Frame]) -> None:
    session = live()
    for frame in frames:
        before = (session.cursor, session.head)
        try:
            session.receive(encode(frame))
        except RemoteError:
            return
        assert session.cursor >= before[0]
        assert session.head >= before[1]
