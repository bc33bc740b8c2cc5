"""One space at the relay: what it must know to take an update, a snapshot or a membership entry, or not.

A `Space` is the memory of a log in the storage: its end, its members, the heads of its chains, the lengths of
its tails. It checks, decides, and writes through the storage port inside the transaction that the engine has
opened. Updates are buffered and written in one statement per stretch (`flush`); whoever reads the log of the
space flushes first.

When the transaction fails, the memory is wrong: the engine throws the space away and loads it again. Refusals
are errors that were raised before anything changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from crdt_sync.crypto.chain import ChainHead, Duplicate
from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.envelope import Envelope, parse
from crdt_sync.errors import BadMembership, FrameTooLarge, PermissionDenied, UnknownEpoch
from crdt_sync.ids import Author, DeviceId, OpaqueId, SpaceId
from crdt_sync.membership.entries import parse_entry
from crdt_sync.membership.log import Member, MembershipLog
from crdt_sync.protocol.frames import Row, RowKind
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES, MAX_PUSH_ENVELOPES
from crdt_sync.rare import rare
from crdt_sync_server.checkouts import LeaseBook
from crdt_sync_server.compaction import SHORT_TAIL, CompactionPlanner
from crdt_sync_server.confirming import Proposals
from crdt_sync_server.effects import LiveRow, Peer
from crdt_sync_server.limits import DEFAULT_RELAY_LIMITS, OverQuota, RecordOverQuota, RelayLimits
from crdt_sync_server.snapshots import Accepted, Rejected, judge
from crdt_sync_server.storage.port import AuthorKey, NewUpdate, SpaceKey, Storage, StoredLease

REMEMBERED_RECORDS: Final = 65_536
"""Records whose size is remembered; beyond, it is looked up again when they next grow."""


class StaleHead(BadMembership):
    """An entry made to follow another than the newest one: make it again and send it."""

    code = "stale_head"


class Proposed:
    """The snapshot is sound as far as the relay can tell; a second device is to say what it holds."""


class Chain:
    """The chain of one author. `key` is None until its first update is taken."""

    __slots__ = ("head", "key", "moved")

    def __init__(self, head: ChainHead, key: AuthorKey | None) -> None:
        self.head = head
        self.key = key
        self.moved = False
        """The storage does not have this head yet."""


def travelling(row: Row) -> Row:
    """The row as it is delivered: membership entries travel without the HPKE key they bring.

    It is 1.2 KB that only who rotates keys needs. The entry's hash and signatures do not depend on it.
    """
    if row.kind is not RowKind.MEMBERSHIP:
        return row
    return Row(row.sequence, row.kind, parse_entry(row.payload).without_hpke())


class Space:
    """See the module. Make one with `load` or `found`."""

    def __init__(
        self,
        storage: Storage,
        space: SpaceId,
        key: SpaceKey,
        members: MembershipLog,
        now_ms: int,
        limits: RelayLimits = DEFAULT_RELAY_LIMITS,
    ) -> None:
        self.id = space
        self.key = key
        self.head = storage.head(key)
        self.members = members
        self.planner: CompactionPlanner[Peer] = CompactionPlanner(
            lambda record: storage.tail_length(key, record), storage.long_tails(key, SHORT_TAIL), now_ms
        )
        self.proposals = Proposals()
        self.size_bytes = storage.size_bytes(key)
        """Of everything that is stored for it, and of what is buffered."""
        self._record_bytes: dict[OpaqueId, int] = {}
        self._limits = limits
        self._storage = storage
        self._chains: dict[Author, Chain] = {}
        self._grown: list[LiveRow] = []
        self._buffered: list[NewUpdate] = []
        self._moved: list[tuple[AuthorKey, Chain]] = []
        self.leases = LeaseBook(storage, key, members, self)

    @classmethod
    def load(
        cls, storage: Storage, space: SpaceId, now_ms: int, limits: RelayLimits = DEFAULT_RELAY_LIMITS
    ) -> Space | None:
        """The space from the storage, None if it is not there."""
        key = storage.find_space(space)
        if key is None:
            return None
        members = MembershipLog.restore(space, storage.membership(key))
        return cls(storage, space, key, members, now_ms, limits)

    @classmethod
    def found(
        cls, storage: Storage, genesis: bytes, now_ms: int, limits: RelayLimits = DEFAULT_RELAY_LIMITS
    ) -> Space:
        """A new space with its first entry. Raises BadMembership."""
        members = MembershipLog()
        members.apply(genesis, now_ms=now_ms)
        key = storage.add_space(members.space_id)
        space = cls(storage, members.space_id, key, members, now_ms, limits)
        space._append_entry(genesis)
        return space

    # Members

    def writer(self, device: DeviceId) -> Member:
        """The member, if it may write. Raises UnknownMember or PermissionDenied."""
        member = self.members.member(device)
        if not member.role.may_write:
            raise PermissionDenied(
                f"a {member.role.text} may not write records", hint="ask an admin for an invite with a role"
            )
        return member

    def append_entry(self, raw: bytes, now_ms: int | None) -> int:
        """Take an entry at the end of the membership log, and give its row's number.

        An entry that is there already is not taken again, and gets the number 0. Raises BadMembership or
        InviteError.
        """
        entry = parse_entry(raw)
        if self.members.holds(entry.hash):
            return 0
        if entry.space == self.id and not self.members.follows(entry):
            raise StaleHead(
                "the membership log has moved on since the entry was made", hint="build it on the new head"
            )
        self.members.apply(raw, now_ms=now_ms)
        return self._append_entry(raw)

    def _append_entry(self, raw: bytes) -> int:
        self.flush()
        self.head += 1
        self.size_bytes += len(raw)
        self._storage.append_membership(self.key, self.head, raw)
        self._grown.append(LiveRow(travelling(Row(self.head, RowKind.MEMBERSHIP, raw)), None))
        return self.head

    # Updates

    def chain(self, author: Author) -> Chain:
        """An author's chain as far as the log has it."""
        chain = self._chains.get(author)
        if chain is None:
            known = self._storage.author(self.key, author)
            if known is None:
                # Not remembered: whoever makes up incarnations shall not fill our memory.
                return Chain(ChainHead.start(self.id, author), None)
            chain = self._chains[author] = Chain(known[1], known[0])
        return chain

    def resume(self, author: Author, acked: ChainHead) -> Chain:
        """The chain as its author knows it, if more of it was acknowledged than the log has."""
        chain = self.chain(author)
        if acked.sequence > chain.head.sequence:
            self._move(author, chain, acked)
        return chain

    def _move(self, author: Author, chain: Chain, head: ChainHead) -> AuthorKey:
        """The chain ends there now."""
        if chain.key is None:
            chain.key = self._storage.add_author(self.key, author, head)
            self._chains[author] = chain
        chain.head = head
        if not chain.moved:
            chain.moved = True
            self._moved.append((chain.key, chain))
        return chain.key

    def append_update(self, envelope: Envelope, now_ms: int) -> int:
        """Take an update whose signature is good. Gives the end of its chain, also if it was there already.

        Raises UnknownEpoch, ChainBroken, Equivocation, FrameTooLarge, OverQuota or RecordOverQuota.
        """
        header = envelope.header
        self.check_size(envelope)
        if header.epoch not in self.members.epochs:
            raise UnknownEpoch(f"the space has no epoch {header.epoch}")
        author = header.author
        chain = self.chain(author)
        stored_hash = None
        if chain.key is not None and header.sequence < chain.head.sequence:
            self.flush()
            stored_hash = self._storage.update_hash(chain.key, header.sequence)
        head = chain.head.accept(envelope, stored_hash=stored_hash)
        if isinstance(head, Duplicate):
            return chain.head.sequence
        self._take_room(header.record, len(envelope.raw))
        key = self._move(author, chain, head)
        self.planner.grew(header.record, now_ms)
        self.head += 1
        self._buffered.append(NewUpdate(key, header.sequence, header.record, envelope.raw))
        self._grown.append(LiveRow(Row(self.head, RowKind.UPDATE, envelope.raw), author))
        if self.leases:
            self.leases.took(header, now_ms)
        return head.sequence

    def check_size(self, envelope: Envelope) -> None:
        """Raises FrameTooLarge: there is room for no envelope of that size."""
        most = self._limits.wire.max_envelope_bytes
        if len(envelope.raw) > most:
            raise FrameTooLarge(
                f"an envelope of {len(envelope.raw):,} bytes; this relay takes at most {most:,}"
            )

    def _take_room(self, record: OpaqueId, size_bytes: int) -> None:
        """For an update. Snapshots make room and need none. Raises OverQuota or RecordOverQuota."""
        limits = self._limits
        most = limits.space_bytes
        if most is not None and (self.size_bytes + size_bytes > most or rare("space_full")):
            raise OverQuota(
                f"the space has {self.size_bytes:,} of {most:,} bytes at this relay",
                hint="the relay's operator can raise space_quota",
            )
        if limits.record_bytes is not None:
            stored = self._record_bytes.get(record)
            if stored is None:
                stored = self._storage.record_bytes(self.key, record)
            if stored + size_bytes > limits.record_bytes or rare("record_full"):
                raise RecordOverQuota(
                    f"the record has {stored:,} of {limits.record_bytes:,} bytes at this relay",
                    hint="it takes less when it is compacted; the relay's operator can raise max_record",
                )
            self._record_bytes[record] = stored + size_bytes
        self.size_bytes += size_bytes

    # Snapshots

    def take_snapshot(
        self,
        envelope: Envelope,
        *,
        now_ms: int = 0,
        confirmed: bool = False,
        given_back: bool = False,
    ) -> Accepted | Rejected | Proposed:
        """Put a snapshot whose signature is good in the place of what it covers, or say why not.

        It may have to wait for a second device's word first; `confirmed`: that is there.

        Raises UnknownEpoch, FrameTooLarge, and MalformedEnvelope when what it covers cannot be read.
        """
        header = envelope.header
        self.check_size(envelope)
        if header.epoch not in self.members.epochs:
            raise UnknownEpoch(f"the space has no epoch {header.epoch}")
        cover = envelope.cover()
        seen = self.members.position_of_head(header.members_head)
        if seen is None:
            return Rejected("mismatch", "was made after membership entries that the log does not have")
        self.flush()
        tail = self._storage.tail(self.key, header.record)
        current = self._storage.snapshot(self.key, header.record)
        previous = None if current is None else (current.sequence, _cover_of(current.envelope))
        not_before = self._storage.membership_sequence(self.key, seen)
        waits = not confirmed and self.proposals.needs_second(envelope, given_back=given_back)
        verdict = judge(
            cover, tail, self._update_hash, previous, not_before, self.head + 1, given_back=given_back
        )
        if isinstance(verdict, Accepted) and not (waits and self.proposals.add(envelope, now_ms)):
            self.proposals.drop(header.record)
            if verdict.sequence > self.head:
                self.head = verdict.sequence
                self._grown.append(LiveRow(Row(self.head, RowKind.SNAPSHOT, envelope.raw), None))
            self.size_bytes += self._storage.replace_by_snapshot(
                self.key, header.record, verdict.sequence, envelope.raw, verdict.covered
            )
            self._record_bytes.pop(header.record, None)
            self.planner.compacted(header.record, len(tail) - len(verdict.covered))
        elif isinstance(verdict, Accepted):
            self.planner.waits(header.record, True)
            return Proposed()
        return verdict

    def rows_of(self, record: OpaqueId) -> Iterator[tuple[Envelope, bytes]]:
        """The record's updates in the log."""
        self.flush()
        rows, _ = self._storage.read_record(
            self.key, record, 0, max_rows=MAX_PUSH_ENVELOPES + 1, max_bytes=MAX_ENVELOPE_BYTES
        )
        for row in rows:
            if row.kind is RowKind.UPDATE:
                yield parse(row.payload, max_bytes=MAX_ENVELOPE_BYTES), row.payload

    def _update_hash(self, author: Author, chain_sequence: int) -> bytes | None:
        key = self.chain(author).key
        return None if key is None else self._storage.update_hash(key, chain_sequence)

    # Leases

    def put_lease(self, record: OpaqueId, payload: bytes) -> int:
        """As `checkouts.Log` asks for."""
        self.flush()
        self.head += 1
        self._storage.leases.put(self.key, StoredLease(record, self.head, payload))
        self.size_bytes = self._storage.size_bytes(self.key)
        self._grown.append(LiveRow(Row(self.head, RowKind.LEASE, payload), None))
        return self.head

    def drop_lease(self, record: OpaqueId) -> None:
        """As `checkouts.Log` asks for."""
        self.flush()
        self._storage.leases.drop(self.key, record)
        self.size_bytes = self._storage.size_bytes(self.key)

    # The end of a batch

    def flush(self) -> None:
        """Write what is buffered."""
        if self._buffered:
            self._storage.append_updates(self.key, self.head - len(self._buffered) + 1, self._buffered)
            self._buffered = []

    def finish(self) -> tuple[LiveRow, ...]:
        """Write everything that is left, and hand over the rows that came since the last time."""
        self.flush()
        if len(self._record_bytes) > REMEMBERED_RECORDS:
            self._record_bytes.clear()
        if self._moved:
            self._storage.set_chain_heads([(key, chain.head) for key, chain in self._moved])
            for _, chain in self._moved:
                chain.moved = False
            self._moved = []
        grown = tuple(self._grown)
        self._grown = []
        return grown


def _cover_of(snapshot: bytes) -> CoverVector:
    return parse(snapshot, max_bytes=MAX_ENVELOPE_BYTES).cover()
