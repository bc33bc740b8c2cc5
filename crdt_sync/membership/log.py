"""The membership log of a space: who is in it, in which role, since when. Signed, chained, append-only.

Rules, checked for every entry by devices and by the relay alike, and without any space key:

- The first entry is the genesis; its hash begins with the space's id; the founder signs it and is admin.
- Every other entry names the space, the next index and the hash of the entry before it.
- Only an admin invites or withdraws. An invite may be for any role, admin too.
- A join is signed by the joining device and by the key of an invite that is neither used nor withdrawn.
  One invite, one device: of two joins with one invite, the first in the log counts.
- A device id stands in the log once. A device that lost its store has lost its keys too and comes back
  as a new device; one that is still a member has nothing to gain from joining again.
- A carry brings entries of another branch of this log (see `carrying`). Each of them has to be new here and
  to take effect, by the same rules but for its place; and its signer is a member by then.
- Expiry is held against a clock only where one is given (`now_ms`): the relay does when an entry is
  appended, the joiner before he joins. Devices that follow the log do not: all must come to one result.

What it does not know: whether the log is complete, or the only one. A relay cannot change, reorder, remove
or invent entries. It can hold back the newest, and where two were made for one place (two guests joining
at once) it can show one to some devices and the other to others. Envelopes cite the head their author
knew, so such a fork shows as soon as an envelope crosses it (`knows_head`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from crdt_sync.crypto.device_keys import device_id_of
from crdt_sync.crypto.space_keys import FIRST_EPOCH
from crdt_sync.errors import (
    BadMembership,
    CrdtSyncError,
    InviteExpired,
    InviteUsed,
    InviteWithdrawn,
    UnknownMember,
)
from crdt_sync.ids import ID_BYTES, DeviceId, InviteId, SpaceId
from crdt_sync.membership.entries import (
    NO_HASH,
    Carry,
    Entry,
    Genesis,
    Invite,
    Join,
    Withdraw,
    parse_entry,
)
from crdt_sync.roles import Role

SHORT_HEAD_BYTES: Final = 16
"""How much of the log's head an envelope's header has room for."""
_ASK_AGAIN: Final = "ask an admin of the space for a new invite"


@dataclass(frozen=True, slots=True)
class Member:
    """A device in a space. `hpke` is None where the entry came without the key (see `entries`).

    `revoked_at` is the index of the entry that removed the device. No kind of entry of this version
    removes one, so it is None; readers of the field are ready for the one that will.
    """

    device_id: DeviceId
    role: Role
    sign: bytes
    hpke: bytes | None
    sealed_name: bytes
    joined_index: int
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class InviteState:
    """An invite in the log and what has become of it."""

    invite_id: InviteId
    sign: bytes
    role: Role
    expires_at_ms: int
    issuer: DeviceId
    entry: Entry
    used_by: DeviceId | None = None
    withdrawn: bool = False

    def check_usable(self, now_ms: int | None) -> None:
        """Raises InviteUsed, InviteWithdrawn, or InviteExpired when a clock is given and it is past."""
        if self.used_by is not None:
            raise InviteUsed("this invite was used already; an invite lets one device in", hint=_ASK_AGAIN)
        if self.withdrawn:
            raise InviteWithdrawn("this invite was withdrawn", hint=_ASK_AGAIN)
        if now_ms is not None and now_ms >= self.expires_at_ms:
            raise InviteExpired("this invite has expired", hint=_ASK_AGAIN)


class MembershipLog:
    """A space's members, as the entries applied so far make them. A refused entry changes nothing."""

    def __init__(self, space_id: SpaceId | None = None) -> None:
        """An empty log. With `space_id`, only that space's genesis is taken as the first entry."""
        self._space_id = space_id
        self._entries: list[bytes] = []
        self._positions: dict[bytes, int] = {}
        self._carried: dict[bytes, int] = {}
        """Entries of other branches that took effect here, and the index of the entry that brought them."""
        self._short_positions: dict[bytes, int] = {}
        self._members: dict[DeviceId, Member] = {}
        self._invites: dict[InviteId, InviteState] = {}
        self._epochs: dict[int, bytes] = {}
        self.head: bytes = NO_HASH
        """Hash of the newest entry (32 bytes); zeros in an empty log."""
        self.members: Mapping[DeviceId, Member] = MappingProxyType(self._members)
        self.invites: Mapping[InviteId, InviteState] = MappingProxyType(self._invites)
        self.epochs: Mapping[int, bytes] = MappingProxyType(self._epochs)
        """Epoch number to the commitment to its key (`SpaceKeys.commitment`)."""

    @classmethod
    def restore(cls, space_id: SpaceId, entries: Iterable[bytes]) -> MembershipLog:
        """The log from entries that `apply` took before and this machine kept itself.

        Their order and rules are checked again, their signatures are not (63 µs each).
        """
        log = cls(space_id)
        for raw in entries:
            log._take(parse_entry(raw), now_ms=None, check_signatures=False)
        return log

    def copy(self) -> MembershipLog:
        """One that goes on by itself."""
        other = MembershipLog(self._space_id)
        other._entries = list(self._entries)
        for name in ("_positions", "_carried", "_short_positions", "_members", "_invites", "_epochs"):
            getattr(other, name).update(getattr(self, name))
        other.head = self.head
        return other

    @property
    def space_id(self) -> SpaceId:
        """The space; raises BadMembership when the log is empty and was made for none."""
        if self._space_id is None:
            raise BadMembership("membership log: it is empty, so it belongs to no space yet")
        return self._space_id

    @property
    def index(self) -> int:
        """Index of the newest entry; -1 in an empty log."""
        return len(self._entries) - 1

    @property
    def short_head(self) -> bytes:
        """The 16 bytes of the head that stand in envelopes."""
        return self.head[:SHORT_HEAD_BYTES]

    @property
    def genesis_hash(self) -> bytes:
        """Hash of the genesis entry; raises BadMembership when the log is empty."""
        if not self._entries:
            raise BadMembership("membership log: it is empty, it has no genesis entry")
        return next(iter(self._positions))

    @property
    def current_epoch(self) -> int:
        """The newest epoch; 0 in an empty log."""
        return max(self._epochs, default=0)

    @property
    def entries(self) -> tuple[bytes, ...]:
        """All entries as they were applied, oldest first."""
        return tuple(self._entries)

    def role_of(self, device: DeviceId) -> Role | None:
        """The device's role, or None for a device that is no member."""
        member = self._members.get(device)
        return None if member is None else member.role

    def member(self, device: DeviceId) -> Member:
        """The member; raises UnknownMember."""
        try:
            return self._members[device]
        except KeyError:
            raise UnknownMember(
                f"device {device.hex()[:8]} is not a member of this space",
                hint="sync the membership log first; if it stays unknown, the device never joined",
            ) from None

    def position_of(self, entry_hash: bytes) -> int | None:
        """Index of the entry with that hash (32 bytes), or None: was an append taken already?"""
        return self._positions.get(entry_hash)

    def holds(self, entry_hash: bytes) -> bool:
        """Whether the entry with that hash has taken effect here, at its own place or carried."""
        return entry_hash in self._positions or entry_hash in self._carried

    def knows_head(self, short_head: bytes) -> bool:
        """Whether the log has once ended where an envelope's `members_head` says its author saw it end."""
        return short_head in self._short_positions

    def position_of_head(self, short_head: bytes) -> int | None:
        """Index of the entry at which the log ended for who made an envelope with that `members_head`."""
        return self._short_positions.get(short_head)

    def follows(self, entry: Entry) -> bool:
        """Whether the entry was made for the place after the present head. If not, make it anew."""
        return entry.index == len(self._entries) and entry.prev == self.head

    def apply(self, raw: bytes, *, now_ms: int | None = None) -> Entry:
        """Check an entry against every rule and take it in.

        `now_ms` is given by whoever decides about a *new* entry, and makes expired invites count as such.
        Raises BadMembership, or InviteUsed, InviteWithdrawn, InviteExpired for a join that comes too late.
        """
        return self._take(parse_entry(raw), now_ms=now_ms, check_signatures=True)

    def _take(self, entry: Entry, *, now_ms: int | None, check_signatures: bool) -> Entry:
        self._check_place(entry)
        carried: list[Entry] = []
        if isinstance(entry.payload, Carry):
            carried = self._carry(entry, entry.payload, now_ms, check_signatures)
        else:
            self._take_effect(entry, entry.index, now_ms, check_signatures)
        for each in carried:
            self._carried[each.hash] = entry.index
            self._short_positions[each.hash[:SHORT_HEAD_BYTES]] = entry.index
        self._positions[entry.hash] = len(self._entries)
        self._short_positions[entry.hash[:SHORT_HEAD_BYTES]] = len(self._entries)
        self._entries.append(entry.raw)
        self.head = entry.hash
        return entry

    def _take_effect(self, entry: Entry, index: int, now_ms: int | None, check_signatures: bool) -> None:
        """What the entry does, at that index of the log, but for a carry. Raises before anything changed."""
        match entry.payload:
            case Genesis() as genesis:
                member = self._admit(entry, genesis, Role.ADMIN, index, check_signatures)
                self._space_id = SpaceId(entry.hash[:ID_BYTES])
                self._epochs[FIRST_EPOCH] = genesis.commitment
                self._members[member.device_id] = member
            case Invite() as invite:
                self._check_admin(entry, check_signatures)
                if invite.invite_id in self._invites:
                    raise BadMembership("membership entry: there is an invite with that id already")
                self._invites[invite.invite_id] = InviteState(
                    invite_id=invite.invite_id,
                    sign=invite.invite_sign,
                    role=Role(invite.role),
                    expires_at_ms=invite.expires_at_ms,
                    issuer=entry.signer,
                    entry=entry,
                )
            case Withdraw(invite_id):
                self._check_admin(entry, check_signatures)
                state = self._invite(invite_id)
                state.check_usable(None)
                self._invites[invite_id] = replace(state, withdrawn=True)
            case Join() as join:
                state = self._invite(join.invite_id)
                if check_signatures and not entry.signed_with_invite(state.sign):
                    raise BadMembership("membership entry: a join that its invite's key did not sign")
                member = self._admit(entry, join, state.role, index, check_signatures)
                state.check_usable(now_ms)
                self._members[member.device_id] = member
                self._invites[join.invite_id] = replace(state, used_by=member.device_id)
            case Carry():
                raise BadMembership("membership entry: a carry brings no carry")

    def _carry(self, entry: Entry, payload: Carry, now_ms: int | None, check_signatures: bool) -> list[Entry]:
        """Let the entries of another branch take effect: all of them, or none."""
        members, invites = dict(self._members), dict(self._invites)
        carried: list[Entry] = []
        try:
            for raw in payload.entries:
                each = parse_entry(raw)
                self._check_carried(each, carried)
                self._take_effect(each, entry.index, now_ms, check_signatures)
                carried.append(each)
            signer = self._members.get(entry.signer)
            if signer is None:
                raise BadMembership("membership entry: a carry by a device that is no member with it either")
            if check_signatures and not entry.signed_by(signer.sign):
                raise BadMembership("membership entry: signature does not fit; it was changed or forged")
        except CrdtSyncError:
            self._members.clear()
            self._members.update(members)
            self._invites.clear()
            self._invites.update(invites)
            raise
        return carried

    def try_carried(self, raw: bytes) -> bool:
        """Let an entry of another branch take effect, as if it were carried; whether it can. On a `copy`."""
        try:
            entry = parse_entry(raw)
            self._check_carried(entry, ())
            self._take_effect(entry, len(self._entries), None, True)
        except CrdtSyncError:
            return False
        self._carried[entry.hash] = len(self._entries)
        return True

    def _check_carried(self, entry: Entry, before: Sequence[Entry]) -> None:
        if isinstance(entry.payload, Genesis | Carry) or entry.raw != entry.without_hpke():
            raise BadMembership("membership entry: a carry brings invites, joins and withdrawals, bare")
        if entry.space != self._space_id:
            raise BadMembership("membership entry: it belongs to another space")
        if self.holds(entry.hash) or any(each.hash == entry.hash for each in before):
            raise BadMembership("membership entry: a carry of what is in the log already")

    def _check_place(self, entry: Entry) -> None:
        if self.holds(entry.hash):
            raise BadMembership(f"membership entry: entry {entry.index} is in the log already")
        if isinstance(entry.payload, Genesis):
            if self._entries:
                raise BadMembership("membership entry: a second genesis")
            if self._space_id is not None and entry.hash[:ID_BYTES] != self._space_id:
                raise BadMembership(
                    "membership entry: this genesis belongs to another space",
                    hint="the relay gave the beginning of another space; do not trust it",
                )
            return
        if self._space_id is None or not self._entries:
            raise BadMembership("membership entry: the first entry must be a genesis")
        if entry.space != self._space_id:
            raise BadMembership("membership entry: it belongs to another space")
        if not self.follows(entry):
            raise BadMembership(
                f"membership entry: made to follow another entry than the newest, entry {self.index}",
                hint="sync and try again: someone else changed the members meanwhile",
            )

    def _check_admin(self, entry: Entry, check_signatures: bool) -> None:
        signer = self._members.get(entry.signer)
        if signer is None:
            raise BadMembership(f"membership entry: its signer {entry.signer.hex()[:8]} is not a member")
        if check_signatures and not entry.signed_by(signer.sign):
            raise BadMembership("membership entry: signature does not fit; it was changed or forged")
        if signer.role is not Role.ADMIN:
            raise BadMembership(
                f"membership entry: only an admin may make an entry of kind {entry.kind.name.lower()}, "
                f"and {entry.signer.hex()[:8]} has the role {signer.role.text}",
                hint="ask an admin of the space to do it",
            )

    def _admit(
        self, entry: Entry, payload: Genesis | Join, role: Role, index: int, check_signatures: bool
    ) -> Member:
        device_id = device_id_of(payload.sign)
        if entry.signer != device_id:
            raise BadMembership("membership entry: its signer is not the device whose keys it brings")
        if check_signatures and not entry.signed_by(payload.sign):
            raise BadMembership("membership entry: the device did not sign it, or it was changed")
        if device_id in self._members:
            raise BadMembership(
                f"membership entry: device {device_id.hex()[:8]} is a member already; "
                "a device joins a space once",
                hint="this device need not join again; sync instead",
            )
        return Member(device_id, role, payload.sign, entry.hpke, payload.private, index)

    def _invite(self, invite_id: InviteId) -> InviteState:
        try:
            return self._invites[invite_id]
        except KeyError:
            raise BadMembership("membership entry: there is no invite with that id") from None

    def __repr__(self) -> str:
        return f"<MembershipLog of {len(self._entries)} entries, {len(self._members)} members>"
