"""The relay's engine: frames of many connections in, one durable commit, effects out.

`process` takes whatever arrived while the last call ran and handles it in order in one transaction. What it
returns is to be done after the commit, so nothing is acknowledged or passed on that is not durable. Frames
are isolated from each other: one that is refused leaves nothing behind; when the transaction itself fails, or
a frame meets a bug of ours, each frame is tried again in a transaction of its own, so that it takes down no
other connection than its own.

The engine is synchronous and belongs to one thread. It knows no sockets, tasks or clocks; `now_ms` and the
random nonces of peers are given. The simulator drives it as it is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from crdt_sync.crypto.device_keys import verify_signature
from crdt_sync.errors import (
    BadSignature,
    CrdtSyncError,
    Equivocation,
    MalformedEnvelope,
    UnknownMember,
    UnknownSpace,
)
from crdt_sync.ids import Author, DeviceId, InviteId, RelayId, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.deliveries import AwaitDelivery
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Bye,
    CheckIn,
    CheckOut,
    CheckoutAnswer,
    CompactDecline,
    CompactRequest,
    ConfirmSnapshot,
    Create,
    DenySnapshot,
    FetchRecords,
    FromDevice,
    GiveBack,
    Got,
    Hello,
    Mode,
    Push,
    PushSnapshot,
    Revive,
    Row,
    RowKind,
    SnapshotResult,
    Welcome,
    auth_message,
)
from crdt_sync.protocol.limits import MAX_REASON_CHARS
from crdt_sync.protocol.relay_session import bye_of
from crdt_sync.rare import rare
from crdt_sync_server import entries, returning
from crdt_sync_server.awaiting import Awaiting
from crdt_sync_server.batch import Batch
from crdt_sync_server.checking import Checked, check_envelopes, check_signer
from crdt_sync_server.compaction import NEVER_MS
from crdt_sync_server.confirming import GRACE_MS, PROPOSED, Proposals
from crdt_sync_server.effects import Admit, Arrival, Close, Effect, Grown, Peer, Replaced, Send
from crdt_sync_server.entries import Founding
from crdt_sync_server.fetching import fetched
from crdt_sync_server.limits import DEFAULT_RELAY_LIMITS, RateLimited, RelayLimits, TooManyConnections
from crdt_sync_server.live import page_rows
from crdt_sync_server.naming import named
from crdt_sync_server.rates import Rates
from crdt_sync_server.revocations import Revocations
from crdt_sync_server.roster import Roster
from crdt_sync_server.seconds import ask_seconds, confirmed, denied, take_overdue
from crdt_sync_server.signatures import Claim, verify_here
from crdt_sync_server.snapshots import Accepted, Rejected
from crdt_sync_server.spaces import Proposed, Space, travelling
from crdt_sync_server.storage.port import Page, Storage, Visit

log: Final = logging.getLogger("crdt_sync_server")

MAX_RESTING_SPACES: Final = 64
"""Spaces kept in memory though nobody is connected to them; loading one again takes milliseconds."""
_NO_HASH: Final = bytes(32)


class RelayEngine:
    """See the module. `token_is_right` decides about setup tokens; `verify` about many signatures."""

    def __init__(
        self,
        storage: Storage,
        *,
        token_is_right: Callable[[str], bool],
        verify: Callable[[Sequence[Claim]], list[bool]] = verify_here,
        limits: RelayLimits = DEFAULT_RELAY_LIMITS,
        takes_back: Callable[[int], bool] = lambda _: False,
        grace_ms: int = GRACE_MS,
    ) -> None:
        """`takes_back`, asked with the time: whether members may bring back a space that is not here.

        `grace_ms`: how long a snapshot waits for a second device's word; 0 takes all as they come.
        """
        self._grace_ms = grace_ms
        self._storage = storage
        self._verify = verify
        self._limits = limits
        self._spaces: dict[SpaceId, Space] = {}
        self._roster = Roster()
        self._awaiting = Awaiting(storage)
        self.revocations = Revocations(storage, self._roster)
        self._founding = Founding(
            storage, limits, token_is_right=token_is_right, takes_back=takes_back, find=self._open,
            keep=self._keep, check=self.revocations.check,
        )  # fmt: skip
        self._rates = Rates(limits)
        self.due_ms = NEVER_MS
        """Before this time (Unix milliseconds) `tick` has nothing to do, unless frames are processed."""

    @property
    def relay_id(self) -> RelayId:
        """Which life of which relay this is."""
        return self._storage.relay_id

    # Batches

    def process(
        self, arrivals: Sequence[Arrival], now_ms: int, monotonic_ms: int | None = None
    ) -> list[Effect]:
        """Handle frames in order, durably. Effects are in the order in which they are to be done.

        `monotonic_ms` is a clock that nobody sets, for rates; `now_ms` if there is no other.
        """
        admitted = self._admit(arrivals, now_ms if monotonic_ms is None else monotonic_ms)
        try:
            if not rare("frame_per_commit"):
                return self._process(arrivals, now_ms, admitted)
        except Exception as exc:
            log.error("a commit failed (%s); trying its %d frames one by one", named(exc), len(arrivals))
        effects: list[Effect] = []
        closed: set[Peer] = set()
        for arrival, may in zip(arrivals, admitted, strict=True):
            if arrival.peer in closed and arrival.frame is not None:
                continue  # as in `Batch.close`
            try:
                effects += self._process([arrival], now_ms, [may])
            except Exception as exc:
                log.error("a frame could not be handled (%s); its connection is closed", named(exc))
                reason = "the relay could not do its work; nothing of this frame was kept"
                effects.append(Close(arrival.peer, Bye(CloseCode.INTERNAL, "internal", reason)))
            closed.update(effect.peer for effect in effects if isinstance(effect, Close))
        return effects

    def _admit(self, arrivals: Sequence[Arrival], monotonic_ms: int) -> list[int | None]:
        """How many updates of each push its device may send now; before anything is done for them."""
        return [
            self._rates.admit(peer.author.device, [len(raw) for raw in frame.envelopes], monotonic_ms)
            if isinstance(frame, Push) and peer.author is not None
            else None
            for peer, frame in arrivals
        ]

    def _process(
        self, arrivals: Sequence[Arrival], now_ms: int, admitted: Sequence[int | None]
    ) -> list[Effect]:
        batch = Batch(now_ms)
        checked = check_envelopes(arrivals, self._sign_key, self._verify, admitted)
        try:
            with self._storage.transaction():
                for index, (peer, frame) in enumerate(arrivals):
                    if frame is None or peer not in batch.closed:
                        self._handle(batch, peer, frame, checked[index])
                for space in batch.touched.values():
                    rows = space.finish()
                    if rows:
                        batch.effects.append(Grown(space.id, rows))
                batch.effects += batch.replaced
                batch.keep(self._storage.books)
        except BaseException:
            for space_id in batch.touched:
                self._spaces.pop(space_id, None)
            raise
        acks: list[Effect] = [
            Send(peer, Ack(incarnation, sequence, self._head_for(peer)))
            for (peer, incarnation), sequence in batch.acks.items()
        ]
        for space in batch.touched.values():
            if space.planner.urgent or space.proposals.due_ms <= now_ms:
                batch.effects += self._ask(space, now_ms)
            batch.effects += self._awaiting.look(space, self._roster.of(space.id))
            self._note_due(space, now_ms)
        self._rest()
        return acks + batch.effects

    def _head_for(self, peer: Peer) -> int:
        assert peer.space is not None
        return self._spaces[peer.space].head

    def _handle(self, batch: Batch, peer: Peer, frame: FromDevice | None, checked: Checked) -> None:
        """One frame. What a device can do wrong ends here: in an answer, or in its connection closed."""
        try:
            if checked.error is not None:
                raise checked.error
            if frame is not None:
                self.revocations.check_peer(peer)
            match frame:
                case Push():
                    self._push(batch, peer, checked)
                case PushSnapshot() | GiveBack():
                    self._snapshot(batch, peer, checked, given_back=isinstance(frame, GiveBack))
                case Hello():
                    self._hello(batch, peer, frame)
                case Append():
                    entries.append(batch, self._space_of(batch, peer), peer, frame)
                case Create():
                    self._founding.create(batch, peer, frame)
                case Revive():
                    self._founding.revive(batch, peer, frame, self.relay_id)
                case CompactDecline():
                    self._space_of(batch, peer).planner.declined(peer, frame.records, batch.now_ms)
                case ConfirmSnapshot():
                    confirmed(batch, self._space_of(batch, peer), peer, frame)
                case DenySnapshot():
                    denied(batch, self._space_of(batch, peer), peer, frame, self._roster)
                case FetchRecords():
                    answer = fetched(self._storage, self._space_of(batch, peer), frame)
                    batch.effects.append(Send(peer, answer))
                case CheckOut() | CheckIn():
                    self._checkouts(batch, peer, frame)
                case AwaitDelivery() | Got():
                    self._awaiting.heard(self._space_of(batch, peer), peer, frame)
                case None | Bye():
                    self._gone(batch, peer)
        except TooManyConnections as exc:
            batch.close(peer, Bye(CloseCode.RATE, exc.code, exc.message))
        except CrdtSyncError as exc:
            batch.close(peer, bye_of(exc))

    # Envelopes

    def _sign_key(self, peer: Peer) -> bytes | None:
        assert peer.author is not None
        member = self._loaded(peer).members.members.get(peer.author.device)
        return None if member is None else member.sign

    def _push(self, batch: Batch, peer: Peer, checked: Checked) -> None:
        space = self._space_of(batch, peer)
        assert peer.author is not None
        device, may_write = peer.author.device, False
        checked_out = space.leases.refusal(
            device, checked.envelopes, lambda author: space.chain(author).head.sequence, batch.now_ms
        )
        if checked_out is not None:
            batch.refuse_checked_out(peer, checked_out)
            return
        for index, (envelope, good) in enumerate(zip(checked.envelopes, checked.good, strict=True)):
            header = envelope.header
            try:
                if index >= checked.admitted:
                    raise RateLimited(self._rates.wait_s(device))
                if not may_write:  # once a frame: nobody's role changes within it
                    may_write = space.writer(device).role.may_write
                check_signer(device, envelope, good)
                end = space.append_update(envelope, batch.now_ms)
            except CrdtSyncError as exc:
                batch.refuse(peer, envelope, exc)
                if isinstance(exc, Equivocation):
                    reason = "two different envelopes claim one place in this device's chain"
                    batch.close(peer, Bye(CloseCode.CONFLICT, exc.code, reason))
                return
            peer.pushed += 1
            batch.acks[peer, header.incarnation] = end

    def _checkouts(self, batch: Batch, peer: Peer, asked: CheckOut | CheckIn) -> None:
        space = self._space_of(batch, peer)
        assert peer.author is not None
        results = space.leases.answer(asked, peer.author.device, batch.now_ms)
        batch.effects.append(Send(peer, CheckoutAnswer(results)))
        for code, count in sorted(Counter(result.code for result in results).items()):
            batch.note(space.key, peer.author.device, "checkout", result=code, records=count)

    def _snapshot(self, batch: Batch, peer: Peer, checked: Checked, *, given_back: bool) -> None:
        envelope, good = checked.envelopes[0], checked.good[0]
        space = self._space_of(batch, peer)
        record = envelope.header.record
        try:
            assert peer.author is not None
            space.writer(peer.author.device)
            check_signer(peer.author.device, envelope, good)
            verdict = space.take_snapshot(envelope, now_ms=batch.now_ms, given_back=given_back)
        except MalformedEnvelope:
            raise
        except CrdtSyncError as exc:
            code, reason = exc.code, exc.message[:MAX_REASON_CHARS]
        else:
            code, reason = verdict if isinstance(verdict, Rejected) else ("stored", "")
            if isinstance(verdict, Proposed):
                code = PROPOSED
            elif isinstance(verdict, Accepted):
                row = Row(verdict.sequence, RowKind.SNAPSHOT, envelope.raw)
                batch.replaced.append(Replaced(space.id, row))
        space.planner.answered(peer, record, batch.now_ms)
        batch.effects.append(Send(peer, SnapshotResult(record, code, reason)))

    # Who is who

    def _hello(self, batch: Batch, peer: Peer, hello: Hello) -> None:
        space = self._open(hello.space, batch.now_ms)
        if space is None:
            raise UnknownSpace("this relay does not hold the space", hint="check the relay's address")
        batch.touched[space.id] = space
        signer = (
            self._member_key(space, hello)
            if hello.mode is Mode.DEVICE
            else self._invite_key(batch, space, hello)
        )
        message = auth_message(
            nonce=peer.nonce, relay_id=self.relay_id, space=space.id, party=hello.party,
            incarnation=hello.incarnation, mode=hello.mode,
        )  # fmt: skip
        if not verify_signature(signer, message, hello.signature):
            raise BadSignature("the hello is not signed with the key of the device or invite it names")
        peer.space = space.id
        own_sequence, own_hash, cursor = 0, _NO_HASH, 0
        if hello.mode is Mode.DEVICE:
            peer.author = Author(DeviceId(hello.party), hello.incarnation)
            self.revocations.check_peer(peer)
            self._take_over(batch, peer)
            self._check_connections(peer.author.device)
            chain = returning.resume(space, peer.author, hello)
            if chain.key is not None:
                own_sequence, own_hash = chain.head
            cursor, peer.echo_until = returning.place_of(self._storage, space, hello)
            peer.confirmed = cursor
        else:
            peer.invite = InviteId(hello.party)
        self._roster.add(peer, space.id)
        self._note_arrival(batch, space, peer, hello, cursor)
        welcome = Welcome(space.head, cursor, space.members.head, own_sequence, own_hash, batch.now_ms)
        batch.effects.append(Admit(peer, space.id, hello.mode, welcome))

    def _member_key(self, space: Space, hello: Hello) -> bytes:
        member = space.members.members.get(DeviceId(hello.party))
        if member is None:
            raise UnknownMember("this device is not a member of the space", hint="join with an invite")
        return member.sign

    def _invite_key(self, batch: Batch, space: Space, hello: Hello) -> bytes:
        invite = space.members.invites.get(InviteId(hello.party))
        if invite is None:
            raise UnknownMember("the space has no such invite", hint="ask an admin for a new one")
        invite.check_usable(batch.now_ms)
        return invite.sign

    def _take_over(self, batch: Batch, peer: Peer) -> None:
        """A device that connects again has lost its old connection, whether that knows it or not."""
        assert peer.space is not None
        for other in list(self._roster.of(peer.space)):
            if other.author == peer.author and other is not peer:
                self._gone(batch, other)
                reason = "this device has opened a newer connection"
                batch.close(other, Bye(CloseCode.CONFLICT, "replaced", reason))

    def _check_connections(self, device: DeviceId) -> None:
        if self._roster.connections_of(device) >= self._limits.device_connections:
            raise TooManyConnections(
                f"this device has {self._limits.device_connections} connections already",
                hint="it needs one for each of its spaces",
            )

    @staticmethod
    def _note_arrival(batch: Batch, space: Space, peer: Peer, hello: Hello, cursor: int) -> None:
        peer.agent, peer.since_ms = hello.agent, batch.now_ms
        if peer.author is not None:
            device = peer.author.device
            batch.visit(Visit(space.key, device, batch.now_ms, agent=hello.agent, cursor=cursor))
            batch.note(space.key, device, "connected", agent=hello.agent, cursor=cursor)

    def _gone(self, batch: Batch, peer: Peer) -> None:
        if peer.space is None or not self._roster.remove(peer):
            return
        self._awaiting.gone(peer.space, peer)
        space = self._spaces.get(peer.space)
        if space is None:
            return
        space.planner.gone(peer)
        space.proposals.gone(peer)
        self.due_ms = min(self.due_ms, space.planner.due_ms)
        if peer.author is not None:
            device, synced_ms = peer.author.device, batch.now_ms if peer.synced else None
            batch.visit(Visit(space.key, device, batch.now_ms, cursor=peer.cursor, synced_ms=synced_ms))
            spent_ms = max(0, batch.now_ms - peer.since_ms)
            batch.note(space.key, device, "disconnected", pushed=peer.pushed, after_ms=spent_ms)

    # Spaces

    def space(self, space_id: SpaceId, now_ms: int) -> Space | None:
        """A space as it stands, to be looked at; None if it is not here."""
        return self._open(space_id, now_ms)

    def _open(self, space_id: SpaceId, now_ms: int) -> Space | None:
        """The space, from memory or loaded; the most recently used stands last."""
        space = self._spaces.pop(space_id, None)
        if space is not None:
            self._spaces[space_id] = space
            return space
        space = Space.load(self._storage, space_id, now_ms, self._limits)
        if space is not None:
            self._keep(space)
        return space

    def _keep(self, space: Space) -> None:
        space.proposals = Proposals(self._grace_ms)
        self._spaces[space.id] = space

    def _loaded(self, peer: Peer, now_ms: int = 0) -> Space:
        assert peer.space is not None
        space = self._spaces.get(peer.space) or self._open(peer.space, now_ms)
        if space is None:
            raise UnknownSpace("this relay does not hold the space any more")
        return space

    def _space_of(self, batch: Batch, peer: Peer) -> Space:
        space = self._loaded(peer, batch.now_ms)
        batch.touched[space.id] = space
        return space

    def _rest(self) -> None:
        """Forget spaces to which nobody is connected, the longest unused first."""
        excess = len(self._spaces) - len(self._roster) - MAX_RESTING_SPACES
        if excess > 0:
            resting = [space_id for space_id in self._spaces if space_id not in self._roster]
            for space_id in resting[:excess]:
                del self._spaces[space_id]

    # Compaction and reading

    def tick(self, now_ms: int) -> list[Effect]:
        """Ask devices to compact what is due. Call it twice a second or so."""
        effects: list[Effect] = []
        if now_ms < self.due_ms:
            return effects
        self.due_ms = NEVER_MS
        for space_id in self._roster:
            space = self._spaces.get(space_id)
            if space is not None:
                effects += self._overdue(space, now_ms)
                if min(space.planner.due_ms, space.proposals.due_ms) <= now_ms:
                    effects += self._ask(space, now_ms)
                self._note_due(space, now_ms)
        return effects

    def _overdue(self, space: Space, now_ms: int) -> list[Effect]:
        try:
            return take_overdue(self._storage, space, now_ms)
        except Exception as exc:
            log.error("a commit failed (%s); snapshots are asked for again", named(exc))
            self._spaces.pop(space.id, None)
            return []

    def _note_due(self, space: Space, now_ms: int) -> None:
        self.due_ms = min(self.due_ms, space.planner.due_ms)
        self.due_ms = min(self.due_ms, space.proposals.due_ms)

    def _ask(self, space: Space, now_ms: int) -> list[Effect]:
        able = [peer for peer in self._roster.of(space.id) if self._may_compact(space, peer)]
        effects: list[Effect] = [
            Send(peer, CompactRequest(records)) for peer, records in space.planner.plan(able, now_ms)
        ]
        if space.proposals.due_ms <= now_ms:
            effects += ask_seconds(space, self._roster.of(space.id), now_ms)
        return effects

    @staticmethod
    def _may_compact(space: Space, peer: Peer) -> bool:
        if not peer.caught_up or peer.author is None:
            return False
        role = space.members.role_of(peer.author.device)
        return role is not None and role.may_write

    def read(self, peer: Peer, after: int, *, max_rows: int, max_bytes: int) -> Page:
        """The next rows for that peer behind `after`. An invite's holder sees the membership log only."""
        space = self._loaded(peer)
        only = RowKind.MEMBERSHIP if peer.author is None else None
        whole = peer.author is None or after < peer.echo_until
        without = None if peer.author is None or whole else space.chain(peer.author).key
        page = self._storage.read(
            space.key, after, max_rows=page_rows(max_rows), max_bytes=max_bytes, without=without, only=only
        )
        return Page([travelling(row) for row in page.rows], page.cursor, page.at_end)
