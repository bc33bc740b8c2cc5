"""Snapshots: this device's whole version of a record in one envelope, with exactly what it covers.

A snapshot is refused to the relay, not made wrongly, when this device cannot vouch for it:

- it has work on the record that the relay does not have yet: the snapshot would hold writes that other
  devices could then have, or not have, depending on what they were given;
- something in its document waits for an update it was not given or put aside: the document is not whole
  (a relay that has lost something is given what shows of it, see `giving_back`);
- the record carries record types and this device is no admin: others would not believe it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.envelope import Header, seal
from crdt_sync.crypto.groups import encode_ends
from crdt_sync.crypto.payload import Payload
from crdt_sync.crypto.space_keys import NONCE_BYTES
from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.rare import rare
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


def make_snapshots(replica: Replica, space: Space, records: Iterable[OpaqueId]) -> list[bytes]:
    """Envelopes for those of `records` that this device can vouch for; the others are left out."""
    role = space.role_of(replica.device_id)
    if role is None or not role.may_write:
        return []
    envelopes = []
    for opaque in records:
        record = replica.records.find(space, opaque, replica.author)
        if record is not None and record.heads and _can_vouch(replica, record, role):
            envelope = seal_snapshot(replica, space, record)
            if len(envelope) <= MAX_ENVELOPE_BYTES:
                envelopes.append(envelope)
    return envelopes


def _can_vouch(replica: Replica, record: OpenRecord, role: Role) -> bool:
    if record.no in replica.unsent or record.no in replica.failed or rare("compaction_declined"):
        return False
    if record.type == SCHEMA_TYPE and role is not Role.ADMIN:
        return False
    return not record.doc.pending


def seal_snapshot(replica: Replica, space: Space, record: OpenRecord) -> bytes:
    """The record as it shows here, with what that covers."""
    schema = space.schemas.get(record.type)
    public = CoverVector(record.heads, space.unmerged.get(record.opaque, ())).encode()
    epoch = space.keys.current_epoch
    header = Header.for_snapshot(
        space=space.id,
        record=record.opaque,
        author=replica.author,
        epoch=epoch,
        public=public,
        members_head=space.log.short_head,
        frontier=space.frontier(replica.author),
    )
    version = 0 if schema is None else schema.version
    state, ends = record.doc.shown_state(), encode_ends(record.group_ends)
    payload = Payload(record.type, record.id, version, state, ends)
    return seal(
        header,
        payload.encode(),
        public=public,
        key=space.keys.envelope_key(epoch),
        keys=replica.keys,
        nonce=replica.entropy(NONCE_BYTES),
    )
