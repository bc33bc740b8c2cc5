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
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from crdt_sync.crypto.device_keys import DeviceKeys  # noqa: E402  (the checkout's packages are found first)
from crdt_sync.crypto.envelope import parse  # noqa: E402
from crdt_sync.crypto.payload import Payload  # noqa: E402
from crdt_sync.crypto.space_keys import SpaceKeys  # noqa: E402
from crdt_sync.ids import Incarnation  # noqa: E402
from crdt_sync.membership.authoring import make_join  # noqa: E402
from crdt_sync.membership.invites import InviteLink, open_invite  # noqa: E402
from crdt_sync.membership.log import MembershipLog  # noqa: E402
from crdt_sync.protocol.frames import Appended, AppendRefused, Deliver, RowKind, Welcome  # noqa: E402
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES  # noqa: E402
from crdt_sync.records.document import RecordDocument  # noqa: E402
from crdt_sync.records.update_check import check_update  # noqa: E402
from crdt_sync_client.relay_connection import RelayConnection  # noqa: E402

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
        sent = False
        while True:
            frame = await connection.next_frame()
            if isinstance(frame, Deliver):
                for row in frame.rows:
                    self.log.apply(row.payload)
                if frame.caught_up and not sent:
                    await connection.send(connection.session.append(self._join_entry()))
                    sent = True
            elif isinstance(frame, AppendRefused):
                sent = False
            elif isinstance(frame, Appended):
                break
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

    async def read(self, ready: asyncio.Event) -> None:
        """Connect, catch up, then take live edits until cancelled."""
        connection = await RelayConnection.open(self.link.relay_url)
        self.log = MembershipLog(self.link.space)
        hello = connection.session.hello(
            space=self.link.space,
            device=self.keys.device_id,
            incarnation=Incarnation(1),
            cursor=0,
            relay_seen=None,
            sign=self.keys.sign,
            agent=AGENT,
        )
        await connection.send(hello)
        while True:
            frame = await connection.next_frame()
            if isinstance(frame, Deliver):
                for row in frame.rows:
                    self._take(row.kind, row.payload)
                if frame.caught_up and not self.live:
                    self.live = True
                    ready.set()
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
        document = self.documents.setdefault(header.record, RecordDocument())
        if kind is RowKind.UPDATE:
            check_update(payload.update, header.author, member.role, max_bytes=MAX_ENVELOPE_BYTES)
        document.apply(payload.update)
        if self.live:
            writes = document.writes().get(FIELD)
            if writes:
                self.tally.saw(writes[-1].value, time.monotonic())


async def main() -> None:
    """All readers of this process, until standard input closes."""
    links = _links()
    tally = Tally(len(links))
    readers = [Reader(link, tally) for link in links]
    for reader in readers:
        await reader.join()
    events = [asyncio.Event() for _ in readers]
    tasks: list[asyncio.Task[Any]] = []
    for reader, event in zip(readers, events, strict=True):
        tasks.append(asyncio.create_task(reader.read(event)))
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait({waiting, tasks[-1]}, return_when=asyncio.FIRST_COMPLETED)
        if tasks[-1].done():
            await tasks[-1]
    print(json.dumps({"ready": len(readers)}), flush=True)
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    done, _ = await asyncio.wait({*tasks, asyncio.ensure_future(closed)}, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for finished in done:
        finished.result()


def _links() -> list[str]:
    """Invite links from standard input, up to an empty line."""
    links = []
    for line in iter(sys.stdin.readline, ""):
        if not line.strip():
            break
        links.append(line.strip())
    return links


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
