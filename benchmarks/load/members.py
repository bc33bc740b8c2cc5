"""Members of spaces that speak the protocol and keep nothing: a thousand of them fit one process.

A member has a device key, a connection and a chain of its own, so to the relay it is a device like any other:
what it pushes is padded, encrypted and signed, what comes is checked frame by frame. It has no store and does
not decrypt, because a thousand SQLCipher files on one machine would measure the disk, not the relay.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Opcode
from websockets.typing import Subprotocol

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.envelope import Header, parse, seal
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.ids import Author, Incarnation, OpaqueId, SpaceId
from crdt_sync.membership.authoring import make_genesis, make_invite, make_join
from crdt_sync.membership.invites import open_invite
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import Ack, Appended, Bye, Challenge, Deliver, RowKind, Welcome
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES, MAX_FRAME_BYTES, PATH, SUBPROTOCOL
from crdt_sync.roles import Role

AGENT = "crdt-sync load generator"
PAYLOAD = bytes(60)
"""A write of one field is 60 to 70 bytes; padding makes what is sealed larger."""
INVITES_VALID_MS = 24 * 3_600_000


def now_ms() -> int:
    return int(time.time() * 1e3)


class InlineConnection(ClientConnection):
    """Hands each message on as it comes, with no task and no queue between."""

    member: Member

    def process_event(self, event: Any) -> None:
        if self.response is not None and event.opcode is Opcode.BINARY:
            self.member.receive(bytes(event.data), self)
        else:
            super().process_event(event)


class Member:
    """One device of one space. `cursor`, `acked` and `live` say how far it has come in this connection."""

    def __init__(self, url: str, space: SpaceId, keys: DeviceKeys, space_keys: SpaceKeys) -> None:
        self.url = url
        self.space = space
        self.keys = keys
        self.space_keys = space_keys
        self.author = Author(keys.device_id, Incarnation(1))
        self.cursor = 0
        self.acked = 0
        self.live = False
        self.error: str | None = None
        self.delivered = 0
        self.on_frame: Any = None
        """Called without arguments after each frame."""
        self._chain = ChainHead.start(space, self.author)
        self._sealed: list[bytes] = []
        self._unconfirmed = 0
        self._socket: ClientConnection | None = None
        self._session = DeviceSession()
        self._welcomed = asyncio.Event()

    @property
    def sealed(self) -> int:
        """The last sequence number of its chain."""
        return self._chain.sequence

    def seal(self, count: int, *, records: int) -> list[bytes]:
        """The next envelopes of its chain, as a device seals them, about `records` records in turns."""
        raws = []
        for _ in range(count):
            sequence = self._chain.sequence + 1
            header = Header.for_update(
                space=self.space, record=OpaqueId((sequence % records).to_bytes(16, "big")),
                author=self.author, epoch=1, sequence=sequence, prev=self._chain.hash,
                members_head=bytes(16), frontier=bytes(16),
            )  # fmt: skip
            raw = seal(
                header, PAYLOAD, key=self.space_keys.envelope_key(1), keys=self.keys, nonce=os.urandom(12)
            )
            self._chain = ChainHead(sequence, parse(raw, max_bytes=MAX_ENVELOPE_BYTES).hash)
            raws.append(raw)
        return raws

    async def connect(self) -> None:
        """Connect and be welcomed; delivery goes on from the cursor. Raises what `websockets` raises."""
        self.live, self._unconfirmed = False, 0
        self._session = DeviceSession()
        self._welcomed = asyncio.Event()
        member = self

        class Mine(InlineConnection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.member = member

        self._socket = await connect(
            self.url + PATH,
            create_connection=Mine,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            ping_interval=None,
            open_timeout=60,
            max_size=MAX_FRAME_BYTES,
            proxy=None,
        )
        await asyncio.wait_for(self._welcomed.wait(), 60)

    async def push(self, envelopes: Sequence[bytes]) -> None:
        assert self._socket is not None
        await self._socket.send(self._session.push(envelopes))

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    def receive(self, data: bytes, socket: ClientConnection) -> None:
        """One message of the relay, in the connection's own callback."""
        frame = self._session.receive(data)
        if isinstance(frame, Deliver):
            self._unconfirmed += len(data)
            self.delivered += sum(row.kind is not RowKind.MEMBERSHIP for row in frame.rows)
            self.cursor, self.live = frame.cursor, self.live or frame.caught_up
            if self._unconfirmed >= self._session.limits.got_every_bytes:
                self._unconfirmed = 0
                self._answer(socket, self._session.got(frame.cursor))
        elif isinstance(frame, Ack):
            self.acked = frame.sequence
        elif isinstance(frame, Challenge):
            hello = self._session.hello(
                space=self.space, device=self.keys.device_id, incarnation=self.author.incarnation,
                cursor=self.cursor, relay_seen=frame.relay_id, sign=self.keys.sign, agent=AGENT,
            )  # fmt: skip
            self._answer(socket, hello)
        elif isinstance(frame, Welcome):
            self._welcomed.set()
        elif isinstance(frame, Bye):
            self.error = f"{frame.code} {frame.error}: {frame.reason}"
        if self.on_frame is not None:
            self.on_frame()

    @staticmethod
    def _answer(socket: ClientConnection, message: bytes) -> None:
        task = asyncio.ensure_future(socket.send(message))
        _ANSWERS.add(task)
        task.add_done_callback(_ANSWERS.discard)


_ANSWERS: set[asyncio.Future[None]] = set()


async def make_space(url: str, token: str, members: int) -> list[Member]:
    """A new space with so many members, none connected. The first is its founder."""
    founder, keys, at_ms = DeviceKeys.generate(os.urandom), SpaceKeys.generate(os.urandom), now_ms()
    genesis, space = make_genesis(
        founder, keys, space_name="load", device_name="office", at_ms=at_ms, entropy=os.urandom
    )
    async with _Talk(url) as talk:
        await talk.send(talk.session.create_space(genesis=genesis, setup_token=token, agent=AGENT))
        await talk.until(Appended)
    log = MembershipLog(space)
    log.apply(genesis)
    made = [Member(url, space, founder, keys)]
    if members > 1:
        async with _Talk(url) as office:
            hello = office.session.hello(
                space=space, device=founder.device_id, incarnation=Incarnation(1), cursor=0,
                relay_seen=None, sign=founder.sign, agent=AGENT,
            )  # fmt: skip
            await office.send(hello)
            await office.until(Welcome)
            for _ in range(members - 1):
                made.append(Member(url, space, await _join(office, log, founder, keys), keys))
    return made


async def _join(office: _Talk, log: MembershipLog, founder: DeviceKeys, keys: SpaceKeys) -> DeviceKeys:
    """Invite a new device and let it join."""
    expires_at_ms = now_ms() + INVITES_VALID_MS
    invite, secret = make_invite(
        log, founder, keys, space_name="load", role=Role.FIELD, expires_at_ms=expires_at_ms,
        at_ms=now_ms(), entropy=os.urandom,
    )  # fmt: skip
    await office.send(office.session.append(invite))
    await office.until(Appended)
    log.apply(invite)
    device = DeviceKeys.generate(os.urandom)
    contents = open_invite(log, secret, now_ms=now_ms())
    entry = make_join(log, device, secret, contents, device_name="tablet", at_ms=now_ms(), entropy=os.urandom)
    async with _Talk(office.url) as guest:
        hello = guest.session.hello_with_invite(
            space=log.space_id, invite=secret.invite_id, sign=secret.sign, agent=AGENT
        )
        await guest.send(hello)
        await guest.until(Welcome)
        await guest.send(guest.session.append(entry))
        await guest.until(Appended)
    log.apply(entry)
    return device


class _Talk:
    """A connection that is talked over in turns, for making spaces."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = DeviceSession()
        self._socket: ClientConnection

    async def __aenter__(self) -> _Talk:
        self._socket = await connect(
            self.url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, ping_interval=None,
            max_size=MAX_FRAME_BYTES, proxy=None,
        )  # fmt: skip
        await self.until(Challenge)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

    async def send(self, message: bytes) -> None:
        await self._socket.send(message)

    async def until(self, wanted: type[Any]) -> None:
        """Receive until such a frame has come. Raises RuntimeError on a refusal."""
        while True:
            data = await asyncio.wait_for(self._socket.recv(), 60)
            assert isinstance(data, bytes)
            frame = self.session.receive(data)
            if isinstance(frame, wanted):
                return
            if not isinstance(frame, Deliver):
                raise RuntimeError(f"the relay answered {frame!r}")
