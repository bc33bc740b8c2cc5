"""Many connected readers in one process, for the `fanout` workload.

A reader is a member of the space with a device key of its own and a connection of its own. It does all a
device does with a delivered edit except keeping it: checks the frame, verifies the signature, decrypts,
checks authorship of the update, applies it to its own document and reads the field's new value. It has no
store, because 300 SQLCipher files on one machine would measure the disk, not the relay.

Started by `fanout`; reads an invite link a line from standard input, joins once for each, prints
`{"ready": …}`, then for every edit `{"edit": n, "first": s, "last": s}` in `time.monotonic()` seconds: when
the first and the last of its readers could read the value.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Opcode
from websockets.typing import Subprotocol

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.ids import Incarnation
from crdt_sync.membership.authoring import make_join
from crdt_sync.membership.invites import InviteLink, open_invite
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import (
    Appended,
    AppendRefused,
    Challenge,
    Deliver,
    RowKind,
    Welcome,
)
from crdt_sync.protocol.limits import (
    MAX_ENVELOPE_BYTES,
    MAX_FRAME_BYTES,
    PATH,
    SUBPROTOCOL,
)
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.update_check import check_update
from crdt_sync_client.relay_connection import RelayConnection

FIELD = ("meter_reading",)
AGENT = "crdt-sync benchmark reader"


class Tally:
    """Counts readers per edit."""

    def __init__(self, readers: int) -> None:
        self.readers = readers
        self.seen: dict[int, tuple[int, float]] = {}

    def saw(self, value: int, at: float) -> None:
        count, first = self.seen.get(value, (0, at))
        self.seen[value] = (count + 1, first)
        if count + 1 == self.readers:
            print(json.dumps({"edit": value, "first": first, "last": at}), flush=True)


class InlineConnection(ClientConnection):
    """Hands each message on as it comes, with no task and no queue between."""

    def __init__(self, reader: Reader, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader = reader

    def process_event(self, event: Any) -> None:
        if self.response is not None and event.opcode is Opcode.BINARY:
            if self._reader.socket is None:
                self._reader.socket = self
            self._reader.receive(bytes(event.data))
        else:
            super().process_event(event)


class Reader:
    """One member that reads."""

    def __init__(self, link: str, tally: Tally) -> None:
        self.link = InviteLink.parse(link)
        self.keys = DeviceKeys.generate(os.urandom)
        self.log = MembershipLog(self.link.space)
        self.space_keys: SpaceKeys | None = None
        self.documents: dict[bytes, RecordDocument] = {}
        self.tally = tally
        self.live = False
        self.ready = asyncio.Event()
        self.session = DeviceSession()
        self.socket: ClientConnection | None = None
        self.answer: asyncio.Future[None] | None = None

    async def join(self) -> None:
        """Take up the invite, again from the new head when another reader was faster."""
        connection = await RelayConnection.open(self.link.relay_url)
        hello = connection.session.hello_with_invite(
            space=self.link.space,
            invite=self.link.secret.invite_id,
            sign=self.link.secret.sign,
            agent=AGENT,
        )
        await connection.send(hello)
        head, waiting = b"", False
        while True:
            frame = await connection.next_frame()
            if isinstance(frame, Deliver):
                for row in frame.rows:
                    self.log.apply(row.payload)
            elif isinstance(frame, Welcome | AppendRefused):
                head, waiting = frame.members_head, False
            elif isinstance(frame, Appended):
                break
            if not waiting and self.log.position_of(head) is not None:  # or beyond it by now
                await connection.send(connection.session.append(self._join_entry()))
                waiting = True
        await connection.close()

    def _join_entry(self) -> bytes:
        now_ms = int(time.time() * 1e3)
        contents = open_invite(self.log, self.link.secret, now_ms=now_ms)
        self.space_keys = contents.keys
        return make_join(
            self.log,
            self.keys,
            self.link.secret,
            contents,
            device_name="reader",
            at_ms=now_ms,
            entropy=os.urandom,
        )

    async def read(self) -> None:
        """Connect and catch up; live edits are taken from then on, in the connection's own callback."""
        reader = self

        class Mine(InlineConnection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(reader, *args, **kwargs)

        socket = await connect(
            self.link.relay_url + PATH,
            create_connection=Mine,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
        )
        self.socket = socket
        await self.ready.wait()

    def receive(self, data: bytes) -> None:
        """One message of the relay."""
        frame = self.session.receive(data)
        if isinstance(frame, Challenge):
            self.log = MembershipLog(self.link.space)
            hello = self.session.hello(
                space=self.link.space,
                device=self.keys.device_id,
                incarnation=Incarnation(1),
                cursor=0,
                relay_seen=None,
                sign=self.keys.sign,
                agent=AGENT,
            )
            assert self.socket is not None
            self.answer = asyncio.ensure_future(self.socket.send(hello))
        elif isinstance(frame, Deliver):
            for row in frame.rows:
                self._take(row.kind, row.payload)
            if frame.caught_up and not self.live:
                self.live = True
                self.ready.set()
        elif not isinstance(frame, Welcome):
            raise RuntimeError(f"unexpected {type(frame).__name__}")

    def _take(self, kind: RowKind, raw: bytes) -> None:
        if kind is RowKind.MEMBERSHIP:
            self.log.apply(raw)
            return
        assert self.space_keys is not None
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        header = envelope.header
        member = self.log.member(header.device)
        envelope.verify(member.sign)
        payload = Payload.decode(envelope.open(self.space_keys.envelope_key(header.epoch)))
        document = self.documents.get(header.record)
        if document is None:
            document = self.documents[header.record] = RecordDocument()
        if kind is RowKind.UPDATE:
            check_update(payload.update, header.author, member.role, max_bytes=MAX_ENVELOPE_BYTES)
        document.apply(payload.update)
        if self.live:
            writes = document.writes().get(FIELD)
            if writes and isinstance(writes[-1].value, int):
                self.tally.saw(writes[-1].value, time.monotonic())


async def main() -> None:
    """All readers of this process, until standard input closes."""
    links = _links()
    tally = Tally(len(links))
    readers = [Reader(link, tally) for link in links]
    for reader in readers:
        await reader.join()
    for reader in readers:
        await asyncio.wait_for(reader.read(), 30)
    # Readers share a process here that nobody shares in the field: keep the collector out of the hundreds
    # of thousands of objects of their member logs.
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": len(readers)}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def _links() -> list[str]:
    """Invite links from standard input, up to an empty line."""
    links = []
    for line in iter(sys.stdin.readline, ""):
        if not line.strip():
            break
        links.append(line.strip())
    return links


if __name__ == "__main__":
    uvloop.run(main())
