"""Whether another device's snapshot holds what it says it covers: the second pair of eyes before pruning.

This device has the updates that the snapshot is to replace, merged in its document. The relay sends along
those that the snapshot does not cover. So the snapshot with these, and what is here with these, have to be
the same, item by item and deletion by deletion, provided that this device has had exactly those updates: with
fewer, more, or unsent work of its own it cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.envelope import Envelope, Kind, parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import CrdtSyncError, MalformedEnvelope
from crdt_sync.ids import Author
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.update_check import check_snapshot, check_update
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine.giving_back import contains
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

SAME: Final = "same"
DIFFERS: Final = "differs"
UNABLE: Final = "unable"


def judge(replica: Replica, space: Space, raw: bytes, rest: Sequence[bytes]) -> str:
    """`same`, `differs` or `unable`. Raises MalformedEnvelope for what is no snapshot of this space."""
    snapshot = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
    header = snapshot.header
    if header.kind is not Kind.SNAPSHOT or header.space != space.id:
        raise MalformedEnvelope("header field kind: not a snapshot of this space")
    updates = [parse(each, max_bytes=MAX_ENVELOPE_BYTES) for each in rest]
    record = replica.records.find(space, header.record, replica.author)
    if record is None or record.no in replica.unsent or record.doc.pending:
        return UNABLE
    had = {author: head.sequence for author, head in record.heads.items()}
    if had != _expected(snapshot, updates):
        return UNABLE
    try:
        theirs = RecordDocument(_contents(space, snapshot))
    except CrdtSyncError:
        return DIFFERS
    mine = RecordDocument(record.doc.state())
    for update in updates:
        try:
            change = _contents(space, update)
        except CrdtSyncError:
            continue  # what nobody merges is in neither
        theirs.apply(change)
        mine.apply(change)
    here, there = parse_update(mine.state()), parse_update(theirs.state())
    same = contains(here, there) and contains(there, here) and mine.content_hash() == theirs.content_hash()
    return SAME if same else DIFFERS


def _expected(snapshot: Envelope, rest: Sequence[Envelope]) -> dict[Author, int]:
    """How far each author's updates of the record go, by the snapshot and what it does not cover."""
    upto = {author: head.sequence for author, head in snapshot.cover().covered.items()}
    for update in rest:
        author, sequence = update.header.author, update.header.sequence
        upto[author] = max(upto.get(author, 0), sequence)
    return upto


def _contents(space: Space, envelope: Envelope) -> bytes:
    """The update inside, checked. Raises CrdtSyncError."""
    header = envelope.header
    member = space.log.member(header.device)
    envelope.verify(member.sign)
    payload = Payload.decode(envelope.open(space.keys.envelope_key(header.epoch)))
    if space.keys.opaque_id(payload.record_type, payload.record_id) != header.record:
        raise MalformedEnvelope("payload: its type and id are not those of the header's record")
    if header.kind is Kind.SNAPSHOT:
        check_snapshot(payload.update, lambda author: space.role_of(author.device))
    else:
        check_update(payload.update, header.author, member.role, max_bytes=MAX_ENVELOPE_BYTES)
    return payload.update
