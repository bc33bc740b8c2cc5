"""Snapshots that wait for a second device's word before anything is pruned for them.

The relay cannot read a snapshot, and a member could leave out of one what others wrote. So one that is to
take the place of what other devices wrote waits here: the log stays as it is, and another device that has
everything is shown the snapshot together with the updates that it does not cover. It has the same content, or
not, or cannot tell because it is writing to the record itself; then it or another is asked again. When the
contents differ nothing is pruned, the snapshot is dropped, the operator is told, and another device is asked
to compact. When nobody could tell for `GRACE_MS` the snapshot is taken as it is: the one before is kept.

What a snapshot holds of its author's own device alone needs no second word: whoever lies about that harms
only what he could delete as well.

All of it is memory: when the relay starts anew, devices are asked to compact again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from crdt_sync.crypto.envelope import Envelope
from crdt_sync.ids import DeviceId, OpaqueId
from crdt_sync.protocol.frames import ConfirmRequest
from crdt_sync.protocol.limits import MAX_PUSH_ENVELOPES
from crdt_sync_server.compaction import NEVER_MS
from crdt_sync_server.effects import Peer

GRACE_MS: Final = 3_600_000
"""An hour: time enough for somebody else to be connected, and the tail of an hour is small."""
ASK_AGAIN_MS: Final = 100
"""A device that cannot tell is usually writing to the record, and done with that in a moment."""
ASK_LATEST_MS: Final = 60_000
"""One that still cannot tell is asked ever more seldom: each time it is sent the snapshot again."""
LOOK_AGAIN_MS: Final = 2_000
"""When nobody could be asked, somebody may have come."""
SILENT_MS: Final = 30_000
"""A device that takes longer is gone or busy; another one is asked."""
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Of snapshots that wait, per space. A device whose snapshot finds no room is asked for it again later."""
MAX_REST_BYTES: Final = 1024 * 1024
UNABLE: Final = "unable"
DIFFERS: Final = "differs"
PROPOSED: Final = "proposed"


@dataclass(slots=True)
class Proposal:
    """A snapshot that the log would take."""

    envelope: Envelope
    device: DeviceId
    since_ms: int
    asked: Peer | None = None
    asked_ms: int = 0
    passed: dict[DeviceId, int] = field(default_factory=dict)
    """Until when a device is not asked again."""
    unable: int = 0
    """How often somebody could not tell."""


class Proposals:
    """Those of one space."""

    def __init__(self, grace_ms: int = GRACE_MS) -> None:
        self._grace_ms = grace_ms
        self._waiting: dict[OpaqueId, Proposal] = {}
        self._bytes = 0
        self.due_ms = NEVER_MS
        """Before this time nobody needs to be asked anything."""

    def __contains__(self, record: OpaqueId) -> bool:
        return record in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def needs_second(self, envelope: Envelope, *, given_back: bool) -> bool:
        """Whether the snapshot stands for what other devices wrote as well."""
        if given_back or not self._grace_ms:
            return False  # nothing of what is here is pruned without its content in it: see `snapshots`
        own = envelope.header.device
        return any(author.device != own for author in envelope.cover().covered)

    def add(self, envelope: Envelope, now_ms: int) -> bool:
        """Let it wait; False when there is no room."""
        size_bytes = len(envelope.raw)
        if self._waiting and self._bytes + size_bytes > MAX_WAITING_BYTES:
            return False
        self.drop(envelope.header.record)
        self._waiting[envelope.header.record] = Proposal(envelope, envelope.header.device, now_ms)
        self._bytes += size_bytes
        self.due_ms = now_ms
        return True

    def drop(self, record: OpaqueId) -> Proposal | None:
        """It waits no longer."""
        proposal = self._waiting.pop(record, None)
        if proposal is not None:
            self._bytes -= len(proposal.envelope.raw)
        return proposal

    def find(self, record: OpaqueId, content_hash: bytes) -> Proposal | None:
        """The one that an answer is about."""
        proposal = self._waiting.get(record)
        if proposal is None or hashlib.sha256(proposal.envelope.raw).digest() != content_hash:
            return None
        return proposal

    def cannot_tell(self, proposal: Proposal, peer: Peer, now_ms: int) -> None:
        """That device could not say; another, or the same a little later, may."""
        assert peer.author is not None
        proposal.asked = None
        wait_ms = min(ASK_AGAIN_MS << min(proposal.unable, 16), ASK_LATEST_MS)
        proposal.unable += 1
        proposal.passed[peer.author.device] = now_ms + wait_ms
        self.due_ms = min(self.due_ms, now_ms + wait_ms)

    def gone(self, peer: Peer) -> None:
        """Its connection has ended."""
        for proposal in self._waiting.values():
            if proposal.asked is peer:
                proposal.asked = None

    def overdue(self, now_ms: int) -> list[Proposal]:
        """Those that nobody could tell about for long enough."""
        return [each for each in self._waiting.values() if now_ms - each.since_ms >= self._grace_ms]

    def to_ask(self, peers: Sequence[Peer], now_ms: int) -> Iterable[tuple[Peer, Proposal]]:
        """Whom to show which now. `peers` have everything."""
        self.due_ms = now_ms + LOOK_AGAIN_MS if self._waiting else NEVER_MS
        for proposal in self._waiting.values():
            if proposal.asked is not None:
                if now_ms - proposal.asked_ms < SILENT_MS:
                    continue
                self.cannot_tell(proposal, proposal.asked, now_ms)
            for peer in peers:
                assert peer.author is not None
                device = peer.author.device
                if device != proposal.device and proposal.passed.get(device, 0) <= now_ms:
                    proposal.asked, proposal.asked_ms = peer, now_ms
                    yield peer, proposal
                    break


def question(proposal: Proposal, rows: Iterable[tuple[Envelope, bytes]]) -> ConfirmRequest | None:
    """What to ask about it. `rows` are the record's updates in the log; None when those are too many."""
    cover = proposal.envelope.cover()
    rest = [
        raw for envelope, raw in rows if not cover.covers(envelope.header.author, envelope.header.sequence)
    ]
    if len(rest) > MAX_PUSH_ENVELOPES or sum(map(len, rest)) > MAX_REST_BYTES:
        return None
    return ConfirmRequest(proposal.envelope.raw, rest)
