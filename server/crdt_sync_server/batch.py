"""What one transaction of the engine has come to so far: effects, answers, and what goes into the books."""

from __future__ import annotations

import json

from crdt_sync.crypto.envelope import Envelope
from crdt_sync.errors import ChainBroken, CrdtSyncError
from crdt_sync.ids import DeviceId, Incarnation, SpaceId
from crdt_sync.protocol.frames import Bye, CheckedOut, Refuse
from crdt_sync.protocol.limits import MAX_REASON_CHARS
from crdt_sync_server.effects import Close, Effect, Peer, Replaced, Send
from crdt_sync_server.limits import Refusal
from crdt_sync_server.spaces import Space
from crdt_sync_server.storage.port import AuditEvent, Books, SpaceKey, Visit


class Batch:
    """See the module."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.effects: list[Effect] = []
        self.touched: dict[SpaceId, Space] = {}
        self.replaced: list[Replaced] = []
        self.acks: dict[tuple[Peer, Incarnation], int] = {}
        self.closed: set[Peer] = set()
        self._visits: list[Visit] = []
        self._events: list[AuditEvent] = []

    def close(self, peer: Peer, bye: Bye) -> None:
        """Close the connection. What else it sent is not looked at: it may build on what was not taken."""
        self.closed.add(peer)
        self.effects.append(Close(peer, bye))

    def refuse(self, peer: Peer, envelope: Envelope, error: CrdtSyncError) -> CrdtSyncError:
        """Answer with why this update was not taken; gives the reason that the device is told.

        What was sent on behind an update that is to come again later does not fit the chain: it waits for the
        same reason and is told so.
        """
        header = envelope.header
        if isinstance(error, Refusal):
            peer.held = (header.incarnation, header.sequence, error)
        elif isinstance(error, ChainBroken) and peer.held is not None:
            incarnation, sequence, held = peer.held
            if header.incarnation == incarnation and header.sequence > sequence:
                error = held
        reason = error.message[:MAX_REASON_CHARS]
        self.effects.append(Send(peer, Refuse(header.incarnation, header.sequence, error.code, reason)))
        self._note_refusal(peer, error.code, header.sequence)
        return error

    def refuse_checked_out(self, peer: Peer, frame: CheckedOut) -> None:
        """Answer that nothing of a push was taken, because somebody else has a record of it."""
        self.effects.append(Send(peer, frame))
        self._note_refusal(peer, "checked_out", frame.sequence)

    def _note_refusal(self, peer: Peer, code: str, sequence: int) -> None:
        if code in peer.refused:  # once a connection: a device that insists fills no book
            return
        peer.refused.add(code)
        assert peer.space is not None
        assert peer.author is not None
        self.note(self.touched[peer.space].key, peer.author.device, "refused", code=code, sequence=sequence)

    # The books

    def visit(self, visit: Visit) -> None:
        """A device was here."""
        self._visits.append(visit)

    def note(self, space: SpaceKey, device: DeviceId | None, event: str, **detail: int | str) -> None:
        """Something happened that an operator may want to know of later."""
        body = json.dumps(detail, separators=(",", ":"))
        self._events.append(AuditEvent(self.now_ms, space, device, event, body))

    def keep(self, books: Books) -> None:
        """Write what is to be in the books. Call it at the end, within the transaction."""
        if self._visits:
            books.visit(self._visits)
        if self._events:
            books.note(self._events)
