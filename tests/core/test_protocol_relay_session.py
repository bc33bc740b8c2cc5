"""The relay's session: which frame when, the window, and the codes with which it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync import errors
from crdt_sync.errors import (
    CrdtSyncError,
    FrameTooLarge,
    MalformedFrame,
    ProtocolViolation,
    VersionMismatch,
)
from crdt_sync.ids import Incarnation, OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.deliveries import AwaitDelivery
from crdt_sync.protocol.frames import (
    Append,
    Bye,
    CheckIn,
    CheckOut,
    CompactDecline,
    ConfirmSnapshot,
    Create,
    DenySnapshot,
    FetchRecords,
    Frame,
    GiveBack,
    Got,
    Hello,
    Mode,
    Push,
    PushSnapshot,
    Revive,
    encode,
)
from crdt_sync.protocol.limits import Limits
from crdt_sync.protocol.relay_session import (
    _TRANSITIONS,
    RelaySession,
    RelayState,
    bye_of,
    close_code_of,
)

ID = bytes(16)


def hello(version: int = 1, mode: Mode = Mode.DEVICE, incarnation: int = 1) -> Hello:
    return Hello(version, mode, SpaceId(ID), ID, Incarnation(incarnation), 0, RelayId(ID), "test", bytes(64))


FRAMES: list[Frame] = [
    hello(),
    Create(1, b"x", "token", "test"),
    Got(5),
    Push([b"x"]),
    Append(b"x"),
    PushSnapshot(b"x"),
    CompactDecline([OpaqueId(ID)]),
    Revive(1, SpaceId(ID), ID, [b"x"], "test", bytes(64)),
    GiveBack(b"x"),
    ConfirmSnapshot(OpaqueId(ID), bytes(32)),
    DenySnapshot(OpaqueId(ID), bytes(32), "differs"),
    FetchRecords([OpaqueId(ID)], 0),
    CheckOut([OpaqueId(ID)], 0, 0),
    CheckIn([OpaqueId(ID)], False),
    AwaitDelivery([1, 5]),
    Bye(1000, "", ""),
]


def session(state: RelayState, limits: Limits | None = None) -> RelaySession:
    made = RelaySession(bytes(32), limits or Limits())
    if state is not RelayState.WAITING:
        made.receive(encode(hello()))
    if state in (RelayState.DEVICE, RelayState.INVITE):
        made.admitted(Mode.DEVICE if state is RelayState.DEVICE else Mode.INVITE, 5)
    if state is RelayState.CREATED:
        made.created()
    if state is RelayState.CLOSED:
        made.close()
    assert made.state is state
    return made


@pytest.mark.parametrize("state", RelayState)
@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_every_state_takes_what_the_table_says_and_nothing_else(state: RelayState, frame: Frame) -> None:
    relay = session(state)
    after = _TRANSITIONS[state].get(type(frame))
    if after is None:
        with pytest.raises(ProtocolViolation, match=f"a {type(frame).__name__} frame may not be sent"):
            relay.receive(encode(frame))
        assert relay.state is RelayState.CLOSED
    else:
        assert relay.receive(encode(frame)) == frame
        assert relay.state is after


def test_a_version_that_was_not_offered() -> None:
    relay = session(RelayState.WAITING)
    with pytest.raises(VersionMismatch) as caught:
        relay.receive(encode(hello(version=2)))
    assert bye_of(caught.value).code == CloseCode.VERSION


def test_devices_have_incarnations_and_invites_have_none() -> None:
    for wrong in (hello(incarnation=0), hello(mode=Mode.INVITE, incarnation=1)):
        with pytest.raises(ProtocolViolation, match="incarnation"):
            session(RelayState.WAITING).receive(encode(wrong))


def test_records_are_asked_for_one_question_at_a_time() -> None:
    relay = session(RelayState.DEVICE)
    question = encode(FetchRecords([OpaqueId(ID)], 0))
    relay.receive(question)
    relay.fetch_answered()
    relay.receive(question)
    with pytest.raises(ProtocolViolation, match="before the answer"):
        relay.receive(question)
    assert relay.state is RelayState.CLOSED


def test_checkouts_are_asked_for_one_question_at_a_time() -> None:
    relay = session(RelayState.DEVICE)
    out, back = encode(CheckOut([OpaqueId(ID)], 0, 0)), encode(CheckIn([OpaqueId(ID)], False))
    relay.receive(out)
    relay.checkout_answered()
    relay.receive(back)
    with pytest.raises(ProtocolViolation, match="before the answer"):
        relay.receive(out)
    assert relay.state is RelayState.CLOSED


def test_too_many_envelopes_in_a_push() -> None:
    relay = session(RelayState.DEVICE, Limits(max_push_envelopes=2))
    relay.receive(encode(Push([b"x"] * 2)))
    with pytest.raises(FrameTooLarge):
        relay.receive(encode(Push([b"x"] * 3)))


def test_a_frame_above_its_own_limit() -> None:
    relay = session(RelayState.DEVICE, Limits(max_frame_bytes=200))
    with pytest.raises(FrameTooLarge):
        relay.receive(encode(Push([bytes(200)])))
    assert relay.state is RelayState.CLOSED


def test_noise_closes() -> None:
    relay = session(RelayState.DEVICE)
    with pytest.raises(MalformedFrame):
        relay.receive(b"noise")
    with pytest.raises(ProtocolViolation):
        relay.receive(encode(Got(5)))


def test_a_device_cannot_confirm_what_it_was_not_sent_nor_go_back() -> None:
    relay = session(RelayState.DEVICE)
    relay.delivered(9, 100)
    relay.receive(encode(Got(7)))
    for wrong in (6, 10):
        other = session(RelayState.DEVICE)
        other.delivered(9, 100)
        other.receive(encode(Got(7)))
        with pytest.raises(ProtocolViolation, match=f"row {wrong} was confirmed"):
            other.receive(encode(Got(wrong)))
    relay.receive(encode(Got(7)))
    relay.receive(encode(Got(9)))


def may_deliver(relay: RelaySession) -> bool:
    return relay.window_open


def test_the_window_closes_and_opens() -> None:
    relay = session(RelayState.DEVICE, Limits(window_bytes=1000))
    relay.delivered(6, 600)
    assert may_deliver(relay)
    relay.delivered(7, 600)
    assert not may_deliver(relay)
    relay.receive(encode(Got(6)))
    assert may_deliver(relay)
    relay.receive(encode(Got(7)))
    relay.delivered(8, 999)
    assert may_deliver(relay)


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=200))
def test_a_device_that_confirms_everything_always_gets_its_whole_window_back(
    steps: list[tuple[int, bool]],
) -> None:
    relay = session(RelayState.DEVICE, Limits(window_bytes=6400))
    cursor = 5
    for size_bytes, confirms in steps:
        cursor += 1
        relay.delivered(cursor, size_bytes)
        if confirms:
            relay.receive(encode(Got(cursor)))
            assert relay._unconfirmed_bytes == 0
    assert relay._unconfirmed_bytes == sum(size for _, size in relay._unconfirmed)
    assert len(relay._unconfirmed) <= 2 * relay._unconfirmed_bytes / (6400 // 64) + 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MalformedFrame("x"), CloseCode.MALFORMED),
        (errors.MalformedEnvelope("x"), CloseCode.MALFORMED),
        (errors.BadMembership("x"), CloseCode.MALFORMED),
        (errors.ProtocolViolation("x"), CloseCode.MALFORMED),
        (errors.FrameTooLarge("x"), CloseCode.TOO_LARGE),
        (errors.UnknownMember("x"), CloseCode.UNAUTHENTICATED),
        (errors.BadSignature("x"), CloseCode.UNAUTHENTICATED),
        (errors.UnknownSpace("x"), CloseCode.UNKNOWN_SPACE),
        (errors.InviteUsed("x"), CloseCode.FORBIDDEN),
        (errors.InviteExpired("x"), CloseCode.FORBIDDEN),
        (errors.InviteWithdrawn("x"), CloseCode.FORBIDDEN),
        (errors.CrdtSyncError("x"), CloseCode.INTERNAL),
    ],
)
def test_every_error_has_its_close_code(error: CrdtSyncError, code: CloseCode) -> None:
    assert close_code_of(error) == code
    assert bye_of(error) == Bye(code, error.code, "x")


def test_a_reason_is_cut_to_what_a_frame_holds() -> None:
    bye = bye_of(errors.MalformedFrame("x" * 1000))
    assert len(bye.reason) == 500
    encode(bye)
