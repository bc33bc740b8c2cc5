"""Asking second devices about snapshots, and what their answers do: see `confirming`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from crdt_sync.protocol.frames import ConfirmSnapshot, DenySnapshot, Row, RowKind
from crdt_sync_server.batch import Batch
from crdt_sync_server.confirming import DIFFERS, Proposal, question
from crdt_sync_server.effects import Effect, Grown, Peer, Replaced, Send
from crdt_sync_server.roster import Roster
from crdt_sync_server.snapshots import Accepted
from crdt_sync_server.spaces import Space
from crdt_sync_server.storage.port import Storage

log: Final = logging.getLogger("crdt_sync_server")


def ask_seconds(space: Space, peers: Iterable[Peer], now_ms: int) -> list[Effect]:
    """Show snapshots that wait to devices that have everything; readers may tell as well."""
    able = [peer for peer in peers if peer.caught_up and peer.author is not None]
    effects: list[Effect] = []
    for peer, proposal in space.proposals.to_ask(able, now_ms):
        asks = question(proposal, space.rows_of(proposal.envelope.header.record))
        if asks is None:
            space.proposals.cannot_tell(proposal, peer, now_ms)
        else:
            effects.append(Send(peer, asks))
    return effects


def take(batch: Batch, space: Space, proposal: Proposal, event: str, **detail: str) -> None:
    """Put the snapshot in its place, if the log still takes it. Inside a transaction."""
    envelope = proposal.envelope
    record = envelope.header.record
    space.proposals.drop(record)
    verdict = space.take_snapshot(envelope, confirmed=True)
    if isinstance(verdict, Accepted):
        batch.replaced.append(Replaced(space.id, Row(verdict.sequence, RowKind.SNAPSHOT, envelope.raw)))
        if event != "confirmed":
            batch.note(space.key, proposal.device, event, record=record.hex(), **detail)
    else:
        space.planner.waits(record, False)


def take_overdue(storage: Storage, space: Space, now_ms: int) -> list[Effect]:
    """Take snapshots about which nobody could say anything for long enough, in a transaction of its own."""
    overdue = space.proposals.overdue(now_ms)
    if not overdue:
        return []
    batch = Batch(now_ms)
    with storage.transaction():
        for proposal in overdue:
            take(batch, space, proposal, "unconfirmed")
        rows = space.finish()
        batch.keep(storage.books)
    return [*([Grown(space.id, rows)] if rows else []), *batch.replaced]


def confirmed(batch: Batch, space: Space, peer: Peer, frame: ConfirmSnapshot) -> None:
    """A second device finds in it what it says it covers."""
    assert peer.author is not None
    proposal = space.proposals.find(frame.record, frame.content_hash)
    if proposal is not None and peer.author.device != proposal.device:
        take(batch, space, proposal, "confirmed")


def denied(batch: Batch, space: Space, peer: Peer, frame: DenySnapshot, roster: Roster) -> None:
    """A second device cannot tell, or finds something else in it: then nothing is pruned for it."""
    assert peer.author is not None
    proposal = space.proposals.find(frame.record, frame.content_hash)
    if proposal is None or peer.author.device == proposal.device:
        return
    if frame.code != DIFFERS:
        space.proposals.cannot_tell(proposal, peer, batch.now_ms)
        return
    space.proposals.drop(frame.record)
    space.planner.waits(frame.record, False)
    others = [
        other for other in roster.of(space.id) if other.author and other.author.device == proposal.device
    ]
    space.planner.distrusts(others, frame.record, batch.now_ms)
    log.error(
        "device %s says that a snapshot of device %s holds something else than it covers; it was not taken",
        peer.author.device.hex()[:8],
        proposal.device.hex()[:8],
    )
    batch.note(
        space.key, proposal.device, "snapshot_denied", record=frame.record.hex(),
        by=peer.author.device.hex(),
    )  # fmt: skip
