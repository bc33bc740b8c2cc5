"""A relay that sends what cannot be: the device closes with code and reason, keeps what it has, and lives.

The hostile relay knows the protocol up to the welcome, then sends whatever the test gives it. Frames of a
real relay, recorded before, are what it cuts, mixes, repeats and tampers with.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from crdt_sync.errors import ConnectionFailed, CrdtSyncError, RelayRefused, RelayUnreachable, RemoteError
from crdt_sync.ids import RelayId
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import (
    Ack,
    Bye,
    Challenge,
    Deliver,
    Hello,
    Row,
    RowKind,
    Welcome,
    decode_from_device,
    encode,
    with_checksum,
)
from crdt_sync.protocol.limits import DEFAULT_LIMITS, MAX_FRAME_BYTES, SUBPROTOCOL
from crdt_sync_client import Device, find_schema
from tests.end_to_end.relay_process import RestartableRelay

T = TypeVar("T")
TYPE = "work_order"
KEY = bytes(range(32))
RELAY = RelayId(b"r" * 16)
OUR_CODES = {4400, 4413, 4422, 4426}
WEBSOCKET_CODES = {1002, 1007, 1009}


@dataclass
class Outcome:
    """How a connection to the hostile relay ended."""

    error: BaseException | None
    close_code: int | None
    close_reason: str
    bye: Bye | None


@dataclass
class World:
    """A device whose relay has turned hostile, on an event loop of its own thread."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    device: Device
    port: int
    deliveries: list[Deliver] = field(repr=False)
    """What the real relay delivered to another device of the space, and this one has not seen."""
    attack_with: list[bytes | str | Deliver] = field(default_factory=list, repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Outcome = field(default_factory=lambda: Outcome(None, None, "", None))

    def attack(self, *messages: bytes | str | Deliver) -> Outcome:
        """Sync once with a relay that sends these after its welcome; a Deliver as following its cursor."""
        outcome: Outcome = self.run(self._attack(messages))
        return outcome

    async def _attack(self, messages: Sequence[bytes | str | Deliver]) -> Outcome:
        self.attack_with, self.ended = list(messages), asyncio.Event()
        self.outcome = Outcome(None, None, "", None)
        error: BaseException | None = None
        try:
            async with asyncio.timeout(10):
                await self.device.sync()
        except CrdtSyncError as exc:
            error = exc
        async with asyncio.timeout(10):
            await self.ended.wait()
        self.outcome.error = error
        return self.outcome

    async def handle(self, socket: ServerConnection) -> None:
        """The hostile relay."""
        try:
            await socket.send(encode(Challenge((1,), RELAY, b"n" * 32, 0, DEFAULT_LIMITS)))
            hello = decode_from_device(await _binary(socket))
            assert isinstance(hello, Hello)
            cursor = hello.cursor if hello.relay_id_seen == RELAY else 0
            # One more than it delivers, so that a device in good faith waits for what comes.
            await socket.send(encode(Welcome(cursor + 1, cursor, bytes(32), 0, bytes(32), 0)))
            for message in self.attack_with:
                if isinstance(message, Deliver):
                    message = encode(msgspec.structs.replace(message, after=cursor))
                await socket.send(message)
            try:
                await self._listen(socket, 0.2 if self.attack_with else 0.0)
            except TimeoutError:  # the device has found nothing wrong and waits for the rest
                await socket.send(encode(Bye(1001, "going_away", "enough")))
                await self._listen(socket, 5)
        except ConnectionClosed as closed:
            if closed.rcvd is not None:
                self.outcome.close_code, self.outcome.close_reason = closed.rcvd.code, closed.rcvd.reason
        finally:
            self.ended.set()

    async def _listen(self, socket: ServerConnection, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while True:
                frame = decode_from_device(await _binary(socket))
                if isinstance(frame, Bye):
                    self.outcome.bye = frame

    def contents(self) -> list[dict[str, Any]]:
        """What the device has now; also shows that it lives."""

        async def read() -> list[dict[str, Any]]:
            return [record.to_json() for record in await self.device.query(TYPE)]

        found: list[dict[str, Any]] = self.run(read())
        return found


async def _binary(socket: ServerConnection) -> bytes:
    data = await asyncio.wait_for(socket.recv(), 5)
    assert isinstance(data, bytes)
    return data


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def world(run: Callable[[Any], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("hostile")
    relay = RestartableRelay(folder / "relay")
    relay.start()
    device, deliveries = run(_prepare(folder, relay))
    relay.stop()
    world = World(run, device, relay.port, deliveries)

    async def listen() -> Server:
        return await serve(
            world.handle, "127.0.0.1", relay.port, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None
        )

    server = run(listen())
    yield world
    run(device.close())

    async def close() -> None:
        server.close()
        await server.wait_closed()

    run(close())


async def _prepare(folder: Path, relay: RestartableRelay) -> tuple[Device, list[Deliver]]:
    """A member that has one order and lacks what the office wrote later, which another device recorded."""
    async with await Device.create(folder / "office.db", name="Office", key=KEY) as office:
        await office.create_space(
            "Pit 4", relay=relay.url, token=relay.setup_token, schemas=[find_schema(TYPE)]
        )
        order = await office.create(TYPE, {"title": "Seen by both"})
        await office.sync()
        device = await Device.create(folder / "device.db", name="Device", key=KEY)
        await device.join(await office.invite())
        await device.sync()
        async with await Device.create(folder / "other.db", name="Other", key=KEY) as other:
            await other.join(await office.invite())
            await other.sync()
            for n in range(5):
                await office.update(TYPE, order.id, {"title": f"Version {n}"})
                await office.sync()
            with pytest.MonkeyPatch.context() as patch:
                recorded: list[Deliver] = []
                receive = DeviceSession.receive

                def recording(self: DeviceSession, data: bytes) -> object:
                    frame = receive(self, data)
                    if isinstance(frame, Deliver) and frame.rows:
                        recorded.append(frame)
                    return frame

                patch.setattr(DeviceSession, "receive", recording)
                await other.sync()
    return device, recorded


def refused(outcome: Outcome, *, codes: set[int] = OUR_CODES) -> None:
    assert isinstance(outcome.error, RemoteError), outcome
    assert outcome.close_code in codes
    if codes is OUR_CODES:
        assert outcome.close_reason
        assert outcome.bye is not None
        assert (outcome.bye.code, outcome.bye.error) == (outcome.close_code, outcome.error.code)


def rows_of(world: World) -> list[Row]:
    return [row for delivery in world.deliveries for row in delivery.rows]


def row(sequence: int, payload: bytes) -> Deliver:
    return Deliver(0, [Row(sequence, RowKind.UPDATE, payload)], sequence, True)


def test_bytes_that_are_no_frame_and_text_are_refused(world: World) -> None:
    before = world.contents()
    refused(world.attack(b"\xc1 not msgpack"))
    refused(world.attack("text"))
    refused(world.attack(encode(Ack(world.device._engine.author.incarnation, 1, 1))[:-1]))
    assert world.contents() == before


def test_an_oversized_frame_is_not_even_read(world: World) -> None:
    outcome = world.attack(bytes(MAX_FRAME_BYTES + 1))
    refused(outcome, codes=WEBSOCKET_CODES)
    assert outcome.close_code == 1009


def test_a_replayed_and_a_reordered_delivery_are_refused(world: World) -> None:
    before = world.contents()
    delivery = Deliver(0, [], 1_000, False)
    older = encode(Deliver(1_000, [], 999, False))
    refused(world.attack(delivery, older))
    first = world.deliveries[0]
    refused(world.attack(encode(first), encode(first)))
    assert [r["title"] for r in before] == ["Seen by both"]


def test_an_envelope_that_is_none_is_refused_and_changes_nothing(world: World) -> None:
    before = world.contents()
    refused(world.attack(row(10_000, b"not an envelope")))
    assert world.contents() == before


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_envelope_with_one_flipped_bit_is_refused_and_changes_nothing(
    world: World, place: float, bit: int
) -> None:
    before = world.contents()
    payload = bytearray(next(r.payload for r in rows_of(world) if r.kind is RowKind.UPDATE))
    payload[int(place * len(payload))] ^= 1 << bit
    outcome = world.attack(row(20_000, bytes(payload)))
    assert isinstance(outcome.error, RemoteError), outcome
    refused(outcome)
    assert world.contents() == before


frames = st.sampled_from(
    [
        encode(Deliver(77, [], 79, True)),
        encode(Deliver(77, [Row(80, RowKind.SNAPSHOT, b"x" * 400)], 80, True)),
        encode(Deliver(77, [Row(80, RowKind.MEMBERSHIP, b"x" * 400)], 80, True)),
        encode(Welcome(1, 1, bytes(32), 0, bytes(32), 0)),
        encode(Bye(1000, "", "")),
    ]
)
mangled = st.builds(
    lambda data, at, cut, extra: with_checksum(
        data[: len(data) - cut][:at] + extra + data[: len(data) - cut][at:]
    ),
    frames.map(lambda data: data[:-4]),
    st.integers(0, 30),
    st.integers(0, 30),
    st.binary(max_size=4),
)


@given(st.lists(st.one_of(mangled, st.binary(max_size=64)), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_relay_sends_the_device_keeps_what_it_has_and_lives(
    world: World, messages: list[bytes]
) -> None:
    before = world.contents()
    outcome = world.attack(*messages)
    assert isinstance(outcome.error, RemoteError | ConnectionFailed)
    if isinstance(outcome.error, RemoteError):
        refused(outcome)
    assert world.contents() == before


def test_a_relay_that_asks_to_come_back_later_or_refuses_is_believed(world: World) -> None:
    assert isinstance(world.attack().error, RelayUnreachable)
    outcome = world.attack(encode(Bye(4403, "forbidden", "removed\x1b[31m by an admin")))
    assert isinstance(outcome.error, RelayRefused)
    assert outcome.error.close_code == 4403
    assert "\x1b" not in outcome.error.message


def test_after_all_this_the_device_still_takes_what_is_real(world: World) -> None:
    payloads = [(r.kind, r.payload) for r in rows_of(world)]
    real = [Row(30_000 + n, kind, payload) for n, (kind, payload) in enumerate(payloads)]
    world.attack(Deliver(0, real, 30_000 + len(real), True))
    assert [r["title"] for r in world.contents()] == ["Version 4"]
    # The same once more under new numbers: duplicates, which change nothing.
    again = [msgspec.structs.replace(r, sequence=r.sequence + 1_000) for r in real]
    assert world.attack(Deliver(0, again, 32_000, True)).error is None
    assert [r["title"] for r in world.contents()] == ["Version 4"]
