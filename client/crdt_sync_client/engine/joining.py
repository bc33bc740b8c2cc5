"""Spaces: founding one, inviting into one, joining one.

Founding and joining need the relay's agreement, so a space is stored as `creating` or `joining`, with the
entry to hand over, before the relay is asked: whatever breaks in between, the same entry can be handed
over again. A space becomes `active` when the relay has confirmed, or when the entry comes back in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import PermissionDenied, UnknownSpace
from crdt_sync.ids import SpaceId
from crdt_sync.membership.authoring import make_genesis, make_invite, make_join
from crdt_sync.membership.entries import Join, parse_entry
from crdt_sync.membership.invites import InviteLink, open_invite
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import holders, publishing
from crdt_sync_client.engine.leaving import remove
from crdt_sync_client.engine.model import JoinStart, MemberInfo, SpaceState, UnfinishedGroup
from crdt_sync_client.engine.space import Space, Stage
from crdt_sync_client.engine.taking_entries import take_entry
from crdt_sync_client.engine.waiting import FIRST

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


def begin_space(
    replica: Replica, name: str, relay_url: str, schemas: Sequence[RecordSchema]
) -> tuple[SpaceId, bytes]:
    """Found a space and write its record types; returns its id and the genesis entry."""
    keys = SpaceKeys.generate(replica.entropy)
    genesis, id = make_genesis(
        replica.keys,
        keys,
        space_name=name,
        device_name=replica.name,
        at_ms=replica.now_ms(),
        entropy=replica.entropy,
    )
    _store(replica, id, name, relay_url, "creating", keys, genesis, [genesis])
    for schema in schemas:
        publishing.add_schema(replica, replica.space(id), schema)
    return id, genesis


def _store(
    replica: Replica,
    id: SpaceId,
    name: str,
    relay_url: str,
    stage: Stage,
    keys: SpaceKeys,
    pending: bytes,
    entries: Sequence[bytes],
) -> None:
    with replica.transaction(durable=True):
        db = replica.db
        db.execute("DELETE FROM membership WHERE space IN (SELECT no FROM spaces WHERE id = ?)", (id,))
        db.execute(
            "INSERT INTO spaces (id, name, relay_url, stage, keys, pending_entry) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, relay_url = excluded.relay_url,"
            " stage = excluded.stage, keys = excluded.keys, pending_entry = excluded.pending_entry",
            (id, name, relay_url, stage, keys.to_bytes(), pending),
        )
        no = db.value("SELECT no FROM spaces WHERE id = ?", (id,))
        db.many(
            "INSERT INTO membership VALUES (?, ?, ?)",
            [(no, position, entry) for position, entry in enumerate(entries)],
        )
    replica.reload()


def confirm(replica: Replica, space: Space) -> None:
    """The relay has the entry that was handed over."""
    with replica.transaction(durable=True):
        if space.stage == "joining" and space.pending_entry is not None:
            take_entry(replica, space, space.pending_entry)
        replica.db.execute(
            "UPDATE spaces SET stage = 'active', pending_entry = NULL WHERE no = ?", (space.no,)
        )
        space.stage, space.pending_entry = "active", None


def abandon(replica: Replica, space: Space) -> None:
    """Forget a space that the relay never took. Raises PermissionDenied for an active one."""
    if space.stage == "active":
        raise PermissionDenied(f"space {space.name} is in use", hint="leave it instead")
    with replica.transaction(durable=True):
        remove(replica, space)
    replica.reload()


def invite(replica: Replica, space: Space, role: Role, expires_at_ms: int) -> tuple[bytes, str]:
    """An entry for the relay and the link for a person. Raises PermissionDenied."""
    own = space.role_of(replica.device_id)
    if own is not Role.ADMIN:
        raise PermissionDenied(
            f"only an admin may invite into space {space.name}", hint="ask one of its admins"
        )
    entry, secret = make_invite(
        space.log,
        replica.keys,
        space.keys,
        space_name=space.name,
        role=role,
        expires_at_ms=expires_at_ms,
        at_ms=replica.now_ms(),
        entropy=replica.entropy,
    )
    return entry, InviteLink.for_relay(space.relay_url, space.id, secret).format()


def begin_join(link_text: str) -> JoinStart:
    """What connecting with an invite needs. Raises InviteGarbled."""
    link = InviteLink.parse(link_text)
    return JoinStart(link.space, link.relay_url, link.secret.invite_id, link.secret.sign)


def join_from_log(replica: Replica, link_text: str, entries: Sequence[bytes], now_ms: int) -> bytes:
    """Check the log, take the keys and store the space as `joining`; returns the join entry.

    A device that the log has already gets the entry that let it in, also when its store has forgotten. One
    that is in the space, and that the relay has lost for good (see `forks`), gets a new entry; its store
    stays as it is: it is in when the relay knows it.
    """
    link = InviteLink.parse(link_text)
    known = replica.spaces.get(link.space)
    log = MembershipLog(link.space)
    for entry in entries:
        log.apply(entry)
    lost = known is not None and known.stage == "active" and log.role_of(replica.device_id) is None
    if known is not None and known.stage != "joining" and not lost:
        raise PermissionDenied(f"this device is in space {known.name} already", hint="sync instead")
    if known is not None and not lost:
        own = _handed_over_before(replica, known, log, link)
        if own is not None:
            return own
    contents = open_invite(log, link.secret, now_ms=now_ms)
    member = log.members.get(replica.device_id)
    if member is not None:  # the store has forgotten a space that it is in
        join = log.entries[member.joined_index]
    else:
        join = make_join(
            log,
            replica.keys,
            link.secret,
            contents,
            device_name=replica.name,
            at_ms=replica.now_ms(),
            entropy=replica.entropy,
        )
    if lost:
        return join
    _store(
        replica, link.space, contents.space_name, link.relay_url, "joining", contents.keys, join, log.entries
    )
    return join


def _handed_over_before(replica: Replica, known: Space, log: MembershipLog, link: InviteLink) -> bytes | None:
    """The entry that the relay has of us, or may still take: the same one again, so that it takes only one.

    None when what was handed over before can never be taken any more: the log has grown without it.
    """
    member = log.members.get(replica.device_id)
    if member is not None:
        own = log.entries[member.joined_index]
        if own != known.pending_entry:
            _store(replica, known.id, known.name, link.relay_url, "joining", known.keys, own, log.entries)
        return own
    if known.pending_entry is None:
        return None
    pending = parse_entry(known.pending_entry)
    same_invite = isinstance(pending.payload, Join) and pending.payload.invite_id == link.secret.invite_id
    return known.pending_entry if same_invite and log.follows(pending) else None


def state_of(replica: Replica, space: Space) -> SpaceState:
    checked_out, checkouts_ended = holders.own_counts(replica, space)
    return SpaceState(
        id=space.id,
        name=space.name,
        relay_url=space.relay_url,
        stage=space.stage,
        role=space.role_of(replica.device_id),
        cursor=space.cursor,
        types=space.types,
        off=space.off,
        absent=space.absent,
        wanted=len(space.wanted),
        checked_out=checked_out,
        checkouts_ended=checkouts_ended,
        unreadable=dict(space.record_types.unreadable),
        unfinished=tuple(
            UnfinishedGroup(
                device=author.device,
                device_name=space.device_name(author.device),
                arrived=len(waiters),
                size=last - first + 1,
                since_ms=min(waiter.at_ms for waiter in waiters),
            )
            for author, (first, last), waiters in space.waiting.groups()
        ),
        pending_entry=space.pending_entry,
        ready=space.catching_up != FIRST,
    )


def find_space(replica: Replica, name_or_id: str | bytes | None) -> Space:
    """The space of that id, hex id or name; None is the only one. Raises UnknownSpace."""
    if name_or_id is None:
        return replica.space(None)
    if isinstance(name_or_id, bytes):
        return replica.space(SpaceId(name_or_id))
    found = [s for s in replica.spaces.values() if s.id.hex() == name_or_id.lower()]
    found = found or [s for s in replica.spaces.values() if s.name == name_or_id]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(space.id.hex() for space in found)
        raise UnknownSpace(f"there are {len(found)} spaces called {name_or_id}", hint=f"use an id: {ids}")
    names = ", ".join(sorted(s.name for s in replica.spaces.values())) or "none"
    raise UnknownSpace(f"there is no space called {name_or_id}", hint=f"there is: {names}")


def members(replica: Replica, space: Space) -> list[MemberInfo]:
    """In the order in which they joined."""
    return [
        MemberInfo(
            device=member.device_id,
            name=space.device_name(member.device_id),
            role=member.role,
            is_self=member.device_id == replica.device_id,
            is_founder=member.joined_index == 0,
        )
        for member in sorted(space.log.members.values(), key=lambda member: member.joined_index)
    ]
