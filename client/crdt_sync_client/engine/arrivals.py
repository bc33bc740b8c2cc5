"""One envelope on its way in: admitted, then opened and checked as far as that goes without its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.envelope import Envelope
from crdt_sync.crypto.groups import GroupPlace, decode_ends
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import BadUpdate
from crdt_sync.ids import Author, OpaqueId, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_check import CheckedUpdate, check_update
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine.space import Space

Span = tuple[int, int]
"""First and last sequence number of a group."""

ALONE: Final[Span] = (0, 0)


@dataclass(slots=True)
class Arrival:
    """One admitted envelope. `seq` is its number in the log, 0 of a log that is lost; `role` its author's."""

    seq: int
    envelope: Envelope
    role: Role
    author: Author
    cover: CoverVector | None


class Opened(NamedTuple):
    """What is inside an arrival. An update has been `checked`, a snapshot not yet.

    `span` is the group an update belongs to, `ends` are those that a snapshot holds parts of.
    """

    arrival: Arrival
    payload: Payload
    checked: CheckedUpdate | None
    span: Span = ALONE
    ends: dict[Author, int] | None = None


@dataclass(slots=True)
class Incoming:
    """What a batch brings for one record."""

    record_type: str
    record_id: RecordId
    opened: list[Opened] = field(default_factory=list)


def open_arrival(space: Space, arrival: Arrival) -> Opened:
    """Decrypt and check. Raises DecryptionFailed, UnknownEpoch, BadUpdate."""
    header = arrival.envelope.header
    payload = Payload.decode(arrival.envelope.open(space.keys.envelope_key(header.epoch)))
    if space.keys.opaque_id(payload.record_type, payload.record_id) != header.record:
        raise BadUpdate("payload: its type and id are not those of the header's record")
    if not arrival.role.may_write:
        raise BadUpdate(f"its author is a {arrival.role.text} and may not write")
    admins_only = payload.record_type == SCHEMA_TYPE
    if admins_only and arrival.role is not Role.ADMIN:
        raise BadUpdate("only an admin may write record types")
    if arrival.cover is not None:
        return Opened(arrival, payload, None, ALONE, decode_ends(payload.group))
    checked = check_update(payload.update, arrival.author, arrival.role, max_bytes=MAX_ENVELOPE_BYTES)
    if payload.group is None:
        return Opened(arrival, payload, checked)
    span = GroupPlace.decode(payload.group).span(header.sequence)
    return Opened(arrival, payload, checked, span)


def bring(incoming: dict[OpaqueId, Incoming], opened: Opened) -> None:
    """It is to be merged, with what else there is for its record."""
    opaque = opened.arrival.envelope.header.record
    coming = incoming.get(opaque)
    if coming is None:
        payload = opened.payload
        coming = incoming[opaque] = Incoming(payload.record_type, payload.record_id)
    coming.opened.append(opened)
