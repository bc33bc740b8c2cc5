"""Frames: they survive the wire, and nothing else does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.errors import DamagedFrame, FrameTooLarge, MalformedFrame
from crdt_sync.ids import DeviceId, Incarnation, OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.deliveries import AwaitDelivery, ConfirmCursor, Delivered
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Appended,
    AppendRefused,
    Bye,
    Challenge,
    CheckedOut,
    CheckIn,
    CheckOut,
    CheckoutAnswer,
    CheckoutResult,
    CompactDecline,
    CompactRequest,
    ConfirmRequest,
    ConfirmSnapshot,
    Create,
    Deliver,
    DenySnapshot,
    Fetched,
    FetchRecords,
    Forked,
    Frame,
    GiveBack,
    Got,
    Hello,
    Mode,
    Push,
    PushSnapshot,
    Refuse,
    Revive,
    Row,
    RowKind,
    SnapshotResult,
    Welcome,
    auth_message,
    decode_from_device,
    decode_from_relay,
    encode,
    with_checksum,
)
from crdt_sync.protocol.leases import Former, Late, Lease, LeaseState
from crdt_sync.protocol.limits import (
    MAX_AWAITED_ROWS,
    MAX_COMPACT_RECORDS,
    MAX_FETCH_RECORDS,
    MAX_FRAME_BYTES,
    MAX_LEASE_NOTES,
    MAX_PUSH_ENVELOPES,
    Limits,
)

ids = st.binary(min_size=16, max_size=16)
hashes = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**63 - 1)
millis = st.integers(0, 2**53 - 1)
incarnations = st.integers(0, 2**32 - 1).map(Incarnation)
blobs = st.binary(min_size=1, max_size=40)
codes = st.text(max_size=40)
reasons = st.text(max_size=500)
agents = st.text(max_size=100)
signatures = st.binary(min_size=64, max_size=64)
records = st.lists(ids.map(OpaqueId), min_size=1, max_size=MAX_COMPACT_RECORDS)
rows = st.builds(Row, numbers, st.sampled_from(RowKind), blobs)
limits = st.builds(Limits, *[st.integers(0, 2**40)] * 4)
spaces, relays = ids.map(SpaceId), ids.map(RelayId)

devices = ids.map(DeviceId)
former = st.lists(st.builds(Former, devices, numbers, millis), max_size=MAX_LEASE_NOTES).map(tuple)
late = st.lists(
    st.builds(Late, devices, numbers, millis, incarnations, numbers, numbers, millis),
    max_size=MAX_LEASE_NOTES,
).map(tuple)
leases = st.builds(
    Lease, ids.map(OpaqueId), devices, numbers, millis, millis, st.sampled_from(LeaseState), former, late
)
awaited = st.lists(numbers, max_size=MAX_AWAITED_ROWS)
results = st.builds(CheckoutResult, ids.map(OpaqueId), codes, numbers, st.none() | leases)

byes = st.builds(Bye, st.integers(1000, 4999), codes, reasons)
from_device = st.one_of(
    st.builds(
        Hello,
        numbers,
        st.sampled_from(Mode),
        spaces,
        ids,
        incarnations,
        numbers,
        relays,
        agents,
        signatures,
        numbers,
        numbers,
        hashes,
    ),
    st.builds(Revive, numbers, spaces, ids, st.lists(blobs, min_size=1, max_size=5), agents, signatures),
    st.builds(GiveBack, blobs),
    st.builds(DenySnapshot, ids.map(OpaqueId), hashes, codes),
    st.builds(Create, numbers, blobs, st.text(max_size=200), agents),
    st.builds(Got, numbers),
    st.builds(Push, st.lists(blobs, min_size=1, max_size=5)),
    st.builds(Append, blobs),
    st.builds(PushSnapshot, blobs),
    st.builds(CompactDecline, records),
    st.builds(ConfirmSnapshot, ids.map(OpaqueId), hashes),
    st.builds(FetchRecords, records, numbers),
    st.builds(CheckOut, records, millis, numbers),
    st.builds(CheckIn, records, st.booleans()),
    st.builds(AwaitDelivery, awaited),
    byes,
)
from_relay = st.one_of(
    st.builds(
        Challenge, st.lists(numbers, min_size=1, max_size=16).map(tuple), relays, hashes, millis, limits
    ),
    st.builds(Forked, numbers, st.lists(blobs, min_size=1, max_size=5)),
    st.builds(Welcome, numbers, numbers, hashes, numbers, hashes, millis),
    st.builds(Deliver, numbers, st.lists(rows, max_size=5), numbers, st.booleans()),
    st.builds(Ack, incarnations, numbers, numbers),
    st.builds(Refuse, incarnations, numbers, codes, reasons),
    st.builds(Appended, numbers, hashes),
    st.builds(AppendRefused, codes, reasons, hashes),
    st.builds(CompactRequest, records),
    st.builds(ConfirmRequest, blobs, st.lists(blobs, max_size=5)),
    st.builds(SnapshotResult, ids.map(OpaqueId), codes, reasons),
    st.builds(Fetched, st.lists(rows, max_size=5), st.integers(0, MAX_FETCH_RECORDS), numbers),
    st.builds(CheckoutAnswer, st.lists(results, min_size=1, max_size=5)),
    st.builds(CheckedOut, incarnations, numbers, numbers, numbers, leases),
    st.builds(Delivered, awaited, awaited, numbers),
    st.builds(ConfirmCursor, numbers),
    byes,
)


@given(from_device)
def test_what_a_device_sends_arrives(frame: Frame) -> None:
    assert decode_from_device(encode(frame)) == frame


@given(from_relay)
def test_what_a_relay_sends_arrives(frame: Frame) -> None:
    assert decode_from_relay(encode(frame)) == frame


@given(from_device | from_relay, st.data())
def test_no_other_length_is_a_frame(frame: Frame, data: st.DataObject) -> None:
    raw = encode(frame)
    shorter = raw[: data.draw(st.integers(0, len(raw) - 1))]
    longer = raw + data.draw(st.binary(min_size=1, max_size=4))
    for bad in (shorter, longer, with_checksum(shorter[:-4]), with_checksum(raw[:-4] + longer[len(raw) :])):
        for decode in (decode_from_device, decode_from_relay):
            with pytest.raises(MalformedFrame):
                decode(bad)


@given(from_device | from_relay, st.data())
def test_a_flipped_bit_anywhere_is_told_from_what_a_peer_sent(frame: Frame, data: st.DataObject) -> None:
    raw = bytearray(encode(frame))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for decode in (decode_from_device, decode_from_relay):
        with pytest.raises(DamagedFrame):
            decode(bytes(raw))


@given(from_device | from_relay)
def test_frames_know_their_direction(frame: Frame) -> None:
    decode = decode_from_relay if isinstance(frame, FROM_DEVICE_ONLY) else decode_from_device
    if not isinstance(frame, Bye):
        with pytest.raises(MalformedFrame, match="not a frame of this protocol"):
            decode(encode(frame))


FROM_DEVICE_ONLY = (
    Hello,
    Create,
    Got,
    Push,
    Append,
    PushSnapshot,
    CompactDecline,
    GiveBack,
    ConfirmSnapshot,
    DenySnapshot,
    Revive,
    FetchRecords,
    CheckOut,
    CheckIn,
    AwaitDelivery,
)


@given(st.binary(max_size=300))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    for decode in (decode_from_device, decode_from_relay):
        with pytest.raises(MalformedFrame):
            decode(noise)
        try:
            frame = decode(with_checksum(noise))
        except MalformedFrame:
            continue
        assert decode(encode(frame)) == frame


@pytest.mark.parametrize(
    "bad",
    [
        [6],
        [6, -1],
        [6, 2**63],
        [6, 1.0],
        [6, "1"],
        [6, True],
        [6, 1, 1],
        [26],
        [25, 1, b"s" * 16, b"p" * 16, [], "", b"x" * 64],
        [7, []],
        [7, [b""]],
        [7, ["text"]],
        [7, [b"x"] * (MAX_PUSH_ENVELOPES + 1)],
        [16, [b"x" * 15]],
        [16, [b"x" * 16] * (MAX_COMPACT_RECORDS + 1)],
        [18, 999, "", ""],
        [18, 1000, "x" * 41, ""],
        [18, 1000, "", "x" * 501],
        [29, 1],
        [29, [-1]],
        [29, [1] * (MAX_AWAITED_ROWS + 1)],
        [30, [1], [1], 1],
        [31, 1],
        [99],
        {"tag": 6},
        6,
        None,
    ],
)
def test_values_out_of_shape_are_refused(bad: Any) -> None:
    with pytest.raises(MalformedFrame):
        decode_from_device(with_checksum(msgspec.msgpack.encode(bad)))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(MalformedFrame):
        decode_from_device(with_checksum(b"\x91" * 100_000))


def test_a_frame_above_the_limit_is_not_decoded() -> None:
    with pytest.raises(FrameTooLarge, match="4,194,305 bytes is above the limit of 4,194,304"):
        decode_from_device(bytes(MAX_FRAME_BYTES + 1))
    with pytest.raises(FrameTooLarge):
        decode_from_relay(encode(Got(1)), max_bytes=2)


def test_an_error_shows_places_not_values() -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode_from_device(with_checksum(msgspec.msgpack.encode([7, ["the pump is broken"]])))
    assert "pump" not in str(caught.value)
    assert "$[1][0]" in str(caught.value)


def test_what_is_signed_differs_with_every_part() -> None:
    parts: dict[str, Any] = {
        "nonce": bytes(32),
        "relay_id": RelayId(bytes(16)),
        "space": SpaceId(bytes(16)),
        "party": bytes(16),
        "incarnation": 1,
        "mode": Mode.DEVICE,
    }
    others: dict[str, Any] = {
        "nonce": b"x" * 32,
        "relay_id": RelayId(b"x" * 16),
        "space": SpaceId(b"x" * 16),
        "party": b"x" * 16,
        "incarnation": 2,
        "mode": Mode.INVITE,
    }
    messages = {auth_message(**parts)} | {auth_message(**(parts | {key: others[key]})) for key in parts}
    assert len(messages) == 7
    assert {len(message) for message in messages} == {17 + 32 + 16 + 16 + 16 + 4 + 1}
