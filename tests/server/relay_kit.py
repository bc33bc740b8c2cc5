"""Devices for testing a relay: real keys, envelopes and entries, and nothing of the client package."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.envelope import Header, parse, seal
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.ids import Author, Incarnation, OpaqueId, RelayId, SpaceId
from crdt_sync.membership.authoring import make_genesis, make_invite, make_join
from crdt_sync.membership.invites import InviteSecret, open_invite
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.frames import (
    Append,
    Appended,
    Challenge,
    Create,
    Deliver,
    Frame,
    FromRelay,
    Got,
    Hello,
    Mode,
    Welcome,
    auth_message,
    decode_from_relay,
    encode,
)
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES, PATH, SUBPROTOCOL
from crdt_sync.roles import Role

FAR_FUTURE_MS = 2**45
NO_RELAY = RelayId(bytes(16))
F = TypeVar("F")


def record(number: int) -> OpaqueId:
    return OpaqueId(number.to_bytes(16, "big"))


@dataclass
class TestSpace:
    """A space, its keys and its membership log, with whatever devices the test wants."""

    __test__ = False

    seed: int = 0
    log: MembershipLog = field(default_factory=MembershipLog)
    entries: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.entropy: Callable[[int], bytes] = random.Random(self.seed).randbytes
        self.keys = SpaceKeys.generate(self.entropy)
        founder = DeviceKeys.generate(self.entropy)
        genesis, self.id = make_genesis(
            founder, self.keys, space_name="Pit 4", device_name="Office", at_ms=1, entropy=self.entropy
        )
        self._take(genesis)
        self.founder = TestDevice(self, founder)

    def _take(self, entry: bytes) -> bytes:
        self.log.apply(entry)
        self.entries.append(entry)
        return entry

    def invite(self, role: Role, expires_at_ms: int = FAR_FUTURE_MS) -> tuple[bytes, InviteSecret]:
        """An entry, taken into this log, and the secret."""
        entry, secret = make_invite(
            self.log, self.founder.keys, self.keys, space_name="Pit 4", role=role,
            expires_at_ms=expires_at_ms, at_ms=2, entropy=self.entropy,
        )  # fmt: skip
        return self._take(entry), secret

    def join(self, secret: InviteSecret) -> tuple[bytes, TestDevice]:
        keys = DeviceKeys.generate(self.entropy)
        contents = open_invite(self.log, secret, now_ms=3)
        entry = make_join(
            self.log, keys, secret, contents, device_name="Tablet", at_ms=3, entropy=self.entropy
        )
        return self._take(entry), TestDevice(self, keys)

    def member(self, role: Role = Role.FIELD) -> TestDevice:
        """A device that has joined; the entries are at the end of `entries`."""
        return self.join(self.invite(role)[1])[1]


class TestDevice:
    """One author in a space, with its chain."""

    __test__ = False

    def __init__(self, space: TestSpace, keys: DeviceKeys, incarnation: int = 7) -> None:
        self.space = space
        self.keys = keys
        self.author = Author(keys.device_id, Incarnation(incarnation))
        self.head = ChainHead.start(space.id, self.author)

    def update(self, of: OpaqueId, payload: bytes = b"update", *, epoch: int = 1) -> bytes:
        """The next update of this device's chain."""
        header = Header.for_update(
            space=self.space.id, record=of, author=self.author, epoch=epoch,
            sequence=self.head.sequence + 1, prev=self.head.hash,
            members_head=self.space.log.head, frontier=bytes(16),
        )  # fmt: skip
        raw = self._sealed(header, payload)
        self.head = ChainHead(self.head.sequence + 1, parse(raw, max_bytes=MAX_ENVELOPE_BYTES).hash)
        return raw

    def snapshot(
        self, of: OpaqueId, covered: Iterable[bytes], unmerged: Iterable[bytes] = (), payload: bytes = b"s"
    ) -> bytes:
        """A snapshot that covers exactly up to the last of the given updates of each author."""
        heads: dict[Author, ChainHead] = {}
        for raw in covered:
            envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
            sequence = envelope.header.sequence
            if envelope.header.author not in heads or heads[envelope.header.author].sequence < sequence:
                heads[envelope.header.author] = ChainHead(sequence, envelope.hash)
        unmerged_headers = [parse(raw, max_bytes=MAX_ENVELOPE_BYTES).header for raw in unmerged]
        cover = CoverVector(heads, [(header.author, header.sequence) for header in unmerged_headers])
        return self.snapshot_of(of, cover, payload)

    def snapshot_of(self, of: OpaqueId, cover: CoverVector, payload: bytes = b"s") -> bytes:
        public = cover.encode()
        header = Header.for_snapshot(
            space=self.space.id, record=of, author=self.author, epoch=1, public=public,
            members_head=self.space.log.head, frontier=bytes(16),
        )  # fmt: skip
        return self._sealed(header, payload, public)

    def _sealed(self, header: Header, payload: bytes, public: bytes = b"") -> bytes:
        key = self.space.keys.envelope_key(1)
        if header.epoch != 1:
            key = type(key)(bytes(32), header.epoch)
        return seal(header, payload, public=public, key=key, keys=self.keys, nonce=self.space.entropy(12))

    def hello(self, nonce: bytes, relay_id: RelayId, cursor: int = 0, seen: RelayId | None = None) -> Hello:
        message = auth_message(
            nonce=nonce, relay_id=relay_id, space=self.space.id, party=self.author.device,
            incarnation=self.author.incarnation, mode=Mode.DEVICE,
        )  # fmt: skip
        return Hello(
            1, Mode.DEVICE, self.space.id, self.author.device, self.author.incarnation, cursor,
            relay_id if seen is None else seen, "test", self.keys.sign(message),
        )  # fmt: skip


def invite_hello(space: SpaceId, secret: InviteSecret, nonce: bytes, relay_id: RelayId) -> Hello:
    party = bytes(secret.invite_id)
    message = auth_message(
        nonce=nonce, relay_id=relay_id, space=space, party=party, incarnation=0, mode=Mode.INVITE
    )
    return Hello(1, Mode.INVITE, space, party, Incarnation(0), 0, NO_RELAY, "test", secret.sign(message))


class RawClient:
    """One WebSocket to a relay, frame by frame."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.challenge: Challenge

    async def send(self, frame: Frame) -> None:
        await self.socket.send(encode(frame))

    async def receive(self) -> FromRelay:
        data = await asyncio.wait_for(self.socket.recv(decode=False), 10)
        return decode_from_relay(data)

    async def expect(self, kind: type[F]) -> F:
        """The next frame of that kind; others are passed over."""
        while True:
            frame = await self.receive()
            if isinstance(frame, kind):
                return frame

    async def hello(self, device: TestDevice, cursor: int = 0) -> Welcome:
        await self.send(device.hello(self.challenge.nonce, self.challenge.relay_id, cursor))
        return await self.expect(Welcome)

    async def caught_up(self) -> list[Deliver]:
        """Deliveries until the relay says that was all."""
        frames = [await self.expect(Deliver)]
        while not frames[-1].caught_up:
            await self.send(Got(frames[-1].cursor))
            frames.append(await self.expect(Deliver))
        return frames

    async def closed(self) -> tuple[int, str]:
        """Close code and reason, once the relay has closed."""
        await asyncio.wait_for(self.socket.wait_closed(), 15)
        return self.socket.close_code or 0, self.socket.close_reason or ""


@asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[RawClient]:
    """Connected, and the challenge has been received."""
    socket = await connect(
        url + PATH,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        max_size=None,
        proxy=None,
        ping_interval=None,
    )
    async with socket:
        client = RawClient(socket)
        client.challenge = await client.expect(Challenge)
        yield client


async def create(url: str, token: str, space: TestSpace) -> None:
    """Make the space at the relay, with all its entries."""
    async with raw_client(url) as client:
        await client.send(Create(1, space.entries[0], token, "test"))
        await client.expect(Appended)
    if len(space.entries) > 1:
        async with raw_client(url) as client:
            await client.hello(space.founder)
            for entry in space.entries[1:]:
                await client.send(Append(entry))
                await client.expect(Appended)


class RelayProcess:
    """A real relay in a process of its own."""

    def __init__(self, data: Path, *extra: str) -> None:
        command = [sys.executable, "-m", "crdt_sync_server", "serve", "--data", str(data)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--json", *extra],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise RuntimeError(f"the relay did not start: {self.process.stderr.read().decode()}")
        listening = json.loads(line)
        self.url: str = listening["url"]
        self.setup_token: str | None = listening["setup_token"]

    def kill(self) -> None:
        """As a power cut would, as far as a process can."""
        self.process.kill()
        self._finish()

    def stop(self) -> int:
        """As an operator would. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._finish()

    def _finish(self) -> int:
        code = self.process.wait(timeout=20)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.stderr = self.process.stderr.read().decode()
        self.process.stderr.close()
        return code

    def __enter__(self) -> RelayProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
