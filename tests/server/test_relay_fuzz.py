"""Whatever a stranger or a member sends, the relay answers with a close code and serves on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from crdt_sync.ids import RelayId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.deliveries import AwaitDelivery
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Bye,
    CheckIn,
    CheckOut,
    CompactDecline,
    ConfirmSnapshot,
    Deliver,
    DenySnapshot,
    FetchRecords,
    Frame,
    GiveBack,
    Got,
    Push,
    PushSnapshot,
    Revive,
    decode_from_relay,
    encode,
    with_checksum,
)
from crdt_sync.protocol.leases import Promised
from tests.server.relay_kit import RawClient, RelayProcess, TestDevice, TestSpace, create, raw_client, record

ALLOWED = set(CloseCode)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RelayProcess, TestSpace]]:
    """One relay and one space for all examples."""
    space = TestSpace(9)
    space.member()
    with RelayProcess(tmp_path_factory.mktemp("fuzz") / "relay") as relay:
        asyncio.run(create(relay.url, relay.setup_token or "", space))
        yield relay, space
        assert relay.stop() == 0
        assert relay.stderr == ""


def good_frames() -> list[bytes]:
    """Frames that would be welcome at some moment, to be damaged."""
    space = TestSpace(9)
    update, snapshot = space.founder.update(record(1)), space.founder.snapshot(record(1), [])
    frames: list[Frame] = [
        Push([update]),
        Push([update, update]),
        PushSnapshot(snapshot),
        Append(space.entries[0]),
        Got(1),
        CompactDecline([record(1)]),
        GiveBack(snapshot),
        ConfirmSnapshot(record(1), bytes(32)),
        DenySnapshot(record(1), bytes(32), "differs"),
        Revive(1, space.id, bytes(16), space.entries, "test", bytes(64)),
        FetchRecords([record(1), record(2)], 0),
        CheckOut([record(1), record(2)], 60_000, 0),
        CheckOut([record(1)], 0, 7, [Promised(7, 60_000)]),
        CheckIn([record(1)], True),
        AwaitDelivery([1, 2]),
        AwaitDelivery([2, 1]),
        Bye(1000, "", ""),
        space.founder.hello(bytes(32), RelayId(space.id)),
        Deliver(1, [], 1, True),
    ]
    return [encode(frame) for frame in frames]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.sampled_from(good_frames())))
    match draw(st.sampled_from(["cut", "flip", "insert", "append", "keep"])):
        case "cut":
            del raw[draw(st.integers(0, len(raw) - 1)) :]
        case "flip":
            raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.integers(1, 255))
        case "insert":
            at = draw(st.integers(0, len(raw)))
            raw[at:at] = draw(st.binary(min_size=1, max_size=8))
        case "append":
            raw += draw(st.binary(min_size=1, max_size=8))
    # Most with a checksum that fits, or nothing behind it would ever be reached.
    return with_checksum(bytes(raw[:-4])) if draw(st.integers(0, 4)) else bytes(raw)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary()
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)
ARRAYS = st.builds(
    lambda tag, rest: with_checksum(msgspec.msgpack.encode([tag, *rest])),
    st.integers(0, 24),
    st.lists(VALUES),
)
MESSAGES = st.lists(
    st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(with_checksum), damaged(), ARRAYS),
    min_size=1,
    max_size=3,
)


async def outcome(client: RawClient, messages: list[bytes]) -> None:
    """Send, and see that the relay closes with a code and reason, or simply goes on."""
    frames = []
    try:
        for message in messages:
            await client.socket.send(message)
        await client.socket.send(b"\xc1")  # no frame for sure, so every example ends with a close
        while True:
            frames.append(decode_from_relay(await asyncio.wait_for(client.socket.recv(decode=False), 10)))
    except ConnectionClosed:
        pass
    code, reason = await client.closed()
    assert code in ALLOWED
    assert isinstance(frames[-1], Bye)
    assert frames[-1].code == code
    assert reason or code == CloseCode.NORMAL


async def still_serves(relay: RelayProcess, space: TestSpace) -> None:
    async with raw_client(relay.url) as client:
        device = TestDevice(space, space.founder.keys, incarnation=1)
        welcome = await client.hello(device)
        assert welcome.head >= len(space.entries)


FUZZ = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(messages=MESSAGES)
def test_a_stranger_can_send_anything(target: tuple[RelayProcess, TestSpace], messages: list[bytes]) -> None:
    relay, space = target

    async def example() -> None:
        async with raw_client(relay.url) as client:
            await outcome(client, messages)
        await still_serves(relay, space)

    asyncio.run(example())


@FUZZ
@given(messages=MESSAGES)
def test_a_member_can_send_anything(target: tuple[RelayProcess, TestSpace], messages: list[bytes]) -> None:
    relay, space = target

    async def example() -> None:
        async with raw_client(relay.url) as client:
            await client.hello(TestDevice(space, space.founder.keys, incarnation=2))
            await outcome(client, messages)
        await still_serves(relay, space)

    asyncio.run(example())


@settings(FUZZ, max_examples=40)
@given(messages=MESSAGES)
def test_a_member_can_send_anything_before_it_is_welcome(
    target: tuple[RelayProcess, TestSpace], messages: list[bytes]
) -> None:
    relay, space = target

    async def example() -> None:
        async with raw_client(relay.url) as client:
            device = TestDevice(space, space.founder.keys, incarnation=4)
            await client.send(device.hello(client.challenge.nonce, client.challenge.relay_id))
            await outcome(client, messages)
        await still_serves(relay, space)

    asyncio.run(example())


async def test_the_fuzzed_relay_still_takes_updates(target: tuple[RelayProcess, TestSpace]) -> None:
    relay, space = target
    device = TestDevice(space, space.founder.keys, incarnation=3)
    async with raw_client(relay.url) as client:
        await client.hello(device)
        await client.send(Push([device.update(record(5))]))
        assert (await client.expect(Ack)).sequence == 1
