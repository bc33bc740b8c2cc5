"""Membership entries at the relay: spaces are founded, entries appended, and given back after a loss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from crdt_sync.errors import CrdtSyncError, MalformedEnvelope, PermissionDenied, UnknownMember
from crdt_sync.ids import DeviceId, RelayId, SpaceId
from crdt_sync.membership.entries import Genesis, Join, parse_entry
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.frames import Append, Appended, AppendRefused, Create, Revive
from crdt_sync.protocol.limits import MAX_REASON_CHARS
from crdt_sync_server import returning
from crdt_sync_server.batch import Batch
from crdt_sync_server.effects import Created, Peer, Send
from crdt_sync_server.limits import RelayLimits
from crdt_sync_server.spaces import Space
from crdt_sync_server.storage.port import Storage

log: Final = logging.getLogger("crdt_sync_server")


class WrongToken(UnknownMember):
    """Creating a space needs the relay's setup token."""

    code = "wrong_token"


def append(batch: Batch, space: Space, peer: Peer, frame: Append) -> None:
    """Take an entry, or say why not."""
    try:
        if peer.invite is not None:
            entry = parse_entry(frame.entry)
            joins = isinstance(entry.payload, Join) and entry.payload.invite_id == peer.invite
            # Who joined with another invite, and was not told, may ask for it with this one.
            if not joins and not space.members.holds(entry.hash):
                raise PermissionDenied("an invite lets its holder join, and nothing else")
        # A member gives back what the relay lost: then the invite was used before it expired.
        sequence = space.append_entry(frame.entry, None if peer.invite is None else batch.now_ms)
    except CrdtSyncError as exc:
        refusal = AppendRefused(exc.code, exc.message[:MAX_REASON_CHARS], space.members.head)
        batch.effects.append(Send(peer, refusal))
        return
    if sequence:
        who = None if peer.author is None else peer.author.device
        batch.note(space.key, who, "membership", kind=_kind_of(frame.entry), row=sequence)
    answer = Appended(sequence or space.head, parse_entry(frame.entry).hash)
    batch.effects.append(Send(peer, answer))


class Founding:
    """Spaces that come to this relay, for the first time or again.

    `find` gives a space that the relay has; `keep` is told of a new one; `check` raises for who is shut out.
    """

    def __init__(
        self,
        storage: Storage,
        limits: RelayLimits,
        *,
        token_is_right: Callable[[str], bool],
        takes_back: Callable[[int], bool],
        find: Callable[[SpaceId, int], Space | None],
        keep: Callable[[Space], object],
        check: Callable[[SpaceId, DeviceId], None],
    ) -> None:
        self._storage = storage
        self._limits = limits
        self._token_is_right = token_is_right
        self._takes_back = takes_back
        self._find = find
        self._keep = keep
        self._check = check

    def create(self, batch: Batch, peer: Peer, frame: Create) -> None:
        """A new space, or the one that was made with this genesis before."""
        if not self._token_is_right(frame.setup_token):
            raise WrongToken(
                "the setup token is not this relay's", hint="`crdt-sync relay token` makes a new one"
            )
        space_id = _founded_by(frame.genesis)
        space = self._find(space_id, batch.now_ms)
        if space is None:
            space = Space.found(self._storage, frame.genesis, batch.now_ms, self._limits)
            self._keep(space)
            log.info("a space was created")
            batch.note(space.key, None, "space_created", agent=frame.agent)
        batch.touched[space_id] = space
        batch.effects.append(Created(peer, Appended(1, space.members.head)))

    def revive(self, batch: Batch, peer: Peer, frame: Revive, relay_id: RelayId) -> None:
        """A membership log that this relay lost, or the end of it."""
        returning.check_log(frame, peer.nonce, relay_id)
        allowed, device = self._takes_back(batch.now_ms), DeviceId(frame.party)
        self._check(frame.space, device)
        space = self._find(frame.space, batch.now_ms)
        if space is None:
            space = returning.found_again(
                self._storage, frame.entries, batch.now_ms, self._limits, allowed=allowed
            )
            self._keep(space)
            log.warning("a space that was lost here was given back by one of its members")
            batch.note(space.key, device, "space_revived", entries=len(frame.entries), agent=frame.agent)
        else:
            forked = returning.fork_of(space, frame)
            if forked is not None:
                log.warning("the membership log went on differently after a loss; a member makes one of both")
                batch.note(space.key, device, "members_forked", common=forked.common)
                batch.effects.append(Created(peer, forked))
                return
            taken = returning.give_entries_back(space, frame, batch.now_ms, allowed=allowed)
            if taken:
                log.warning("%d membership entries that were lost here were given back", taken)
                batch.note(space.key, device, "members_revived", entries=taken, agent=frame.agent)
        batch.touched[space.id] = space
        batch.effects.append(Created(peer, Appended(space.members.index + 1, space.members.head)))


def _kind_of(entry: bytes) -> str:
    return type(parse_entry(entry).payload).__name__.lower()


def _founded_by(genesis: bytes) -> SpaceId:
    """The space that a genesis entry founds. Raises BadMembership, also for a forged one."""
    if not isinstance(parse_entry(genesis).payload, Genesis):
        raise MalformedEnvelope("a space begins with a genesis entry")
    members = MembershipLog()
    members.apply(genesis)
    return members.space_id
