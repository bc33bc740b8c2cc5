"""Receiving: rows of the relay's log, one transaction per batch, the cursor in it.

In this order: take apart and admit every row (a row that no honest relay delivers ends the batch and
changes nothing); check all signatures at once; link each update into its author's chain; decrypt and
check what is inside; keep aside what shows only together with something that has not come (`gathering`);
then merge record by record, each viewed and stored once.

What is authentic but cannot be merged (a bad update, an unknown epoch, a broken chain, a role that may
not write) is quarantined: kept whole, told about, and named as not merged in the snapshots this device
makes. It blocks nothing.

Gaps in a chain are normal: a fresh device gets snapshots in place of the updates they cover. A link is
checked where its predecessor is known. Merging is idempotent, so an update that comes late or twice is
harmless; one that is known to be merged is skipped for speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.envelope import Kind, parse
from crdt_sync.crypto.groups import encode_ends
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import (
    BadSignature,
    BadUpdate,
    ChainBroken,
    CrdtSyncError,
    Equivocation,
    MalformedEnvelope,
    NotAllowed,
    RemoteError,
    TypeNotKnown,
)
from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author, OpaqueId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.document import merge_updates
from crdt_sync.records.update_check import CheckedUpdate, check_snapshot
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine import absent, admission, giving_back, older_copy, scoping, sending, unmerged
from crdt_sync_client.engine.arrivals import Arrival, Opened, bring, open_arrival
from crdt_sync_client.engine.arrivals import Incoming as _Incoming
from crdt_sync_client.engine.checkouts import RowKind, take_row
from crdt_sync_client.engine.fetched import Coming, FetchedRecord, put_back
from crdt_sync_client.engine.forks import carries_now
from crdt_sync_client.engine.gathering import Gathering
from crdt_sync_client.engine.materialising import Materialised, Materialiser
from crdt_sync_client.engine.model import QuarantinedEnvelope, Received, RecordChange
from crdt_sync_client.engine.older_copy import Rescues
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.place import move_cursor
from crdt_sync_client.engine.sealing import save_chains
from crdt_sync_client.engine.space import Space
from crdt_sync_client.engine.taking_entries import take_entry
from crdt_sync_client.engine.waiting import AT_HEAD

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_QUARANTINE: Final = (
    "INSERT INTO quarantine"
    " (space, seq, opaque, device, incarnation, sequence, hash, code, reason, envelope, at_ms, type)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (space, hash) DO UPDATE SET seq = excluded.seq"
)


def brings_nothing(space: Space, rows: Sequence[tuple[int, int, bytes]], *, caught_up: bool) -> bool:
    """Whether every row was here before, if there are any, and nothing waited to hear of the log's end."""
    giving = space.giving
    waits = space.waiting or space.held or giving.stage or giving.carries
    if caught_up and (waits or space.catching_up != AT_HEAD):
        return False
    return not rows or rows[-1][0] <= space.cursor


class ReceivedBatch:
    """One call of `Engine.receive`. Use once, inside the transaction it belongs to."""

    def __init__(self, replica: Replica, space: Space, *, caught_up: bool) -> None:
        """`caught_up`: the rows end where the log did."""
        self._replica = replica
        self._space = space
        self._caught_up = caught_up
        self._now_ms = replica.now_ms()
        self._gathering = Gathering(
            replica, space, caught_up=caught_up, now_ms=self._now_ms, put_aside=self._put_aside
        )
        self._group_ends: dict[OpenRecord, None] = {}
        """Records of which `group_ends` grew."""
        self._new: set[int] = set()
        """Numbers of records that were not here before."""
        self._quarantined: list[QuarantinedEnvelope] = []
        self._chains: dict[Author, ChainHead] = {}
        self._rescues = Rescues(replica, space)
        self._coming = Coming(replica, space)
        self._members_changed = False
        self._leases_changed: list[RecordChange] = []
        self._duplicates = 0
        self._clocks_ahead = 0
        self._envelopes = 0

    def run(self, rows: Sequence[tuple[int, int, bytes]], cursor: int) -> Received:
        """Take all rows in. Raises RemoteError."""
        arrivals = self._admit(rows)
        self._verify(arrivals)
        space, replica = self._space, self._replica
        forked = self._forked(arrivals)
        if forked:
            for author in forked:
                older_copy.fork(replica, space, author)
            return Received(members_changed=self._members_changed, reconnect=True)
        incoming: dict[OpaqueId, _Incoming] = {}
        self._gathering.begin(incoming, snapshots=any(arrival.cover is not None for arrival in arrivals))
        self._open(arrivals, incoming)
        result = self._merge(incoming) if incoming else Materialised()
        settled = bool(space.held) and self._caught_up and space.session.author is not None
        if settled:
            self._rescues.settle()
        if self._rescues.begun:
            result.add(self._rescues.save())
        self._gathering.save(rows=bool(rows))
        if space.giving.stage:
            giving_back.keep(replica, space, caught_up=self._caught_up)
        if self._chains:
            save_chains(replica, space, self._chains)
        move_cursor(replica, space, cursor)
        if self._envelopes:
            replica.save_clock()
        return Received(
            changes=(*self._leases_changed, *result.changes),
            conflicts_opened=tuple(result.opened),
            conflicts_closed=tuple(result.closed),
            quarantined=tuple(self._quarantined),
            members_changed=self._members_changed,
            schemas_changed=tuple(result.schemas_changed),
            envelopes=self._envelopes,
            duplicates=self._duplicates + self._gathering.duplicates,
            clocks_ahead=self._clocks_ahead,
            reconnect=settled or bool(self._rescues) or carries_now(space, caught_up=self._caught_up),
        )

    def run_fetched(self, answers: Sequence[FetchedRecord]) -> Received:
        """Make absent records anew from all rows there are of them. Raises RemoteError."""
        coming = self._coming
        arrivals: list[Arrival] = []
        for answer in coming.whole(answers):
            for seq, kind, raw in answer.rows:
                arrival = self._admit_envelope(seq, kind, raw)
                coming.check(arrival, answer)
                arrivals.append(arrival)
        self._verify(arrivals)
        incoming: dict[OpaqueId, _Incoming] = {}
        for arrival in arrivals:
            self._envelopes += 1
            if coming.waits(arrival):
                continue
            try:
                opened = self._contents(arrival)
                if not coming.is_remnant(opened):
                    bring(incoming, opened)
            except RemoteError as error:
                self._put_aside(arrival, error)
        result = self._merge(incoming)
        coming.finish()
        if self._envelopes:
            self._replica.save_clock()
        return Received(
            changes=tuple(result.changes),
            conflicts_opened=tuple(result.opened),
            conflicts_closed=tuple(result.closed),
            quarantined=tuple(self._quarantined),
            schemas_changed=tuple(result.schemas_changed),
            envelopes=self._envelopes,
            clocks_ahead=self._clocks_ahead,
        )

    def _forked(self, arrivals: Sequence[Arrival]) -> set[Author]:
        """Authors of our own with unsent work whose chain another life of this store has continued."""
        forked: set[Author] = set()
        for arrival in arrivals:
            if arrival.cover is not None:
                links = [
                    (a, h) for a, h in arrival.cover.covered.items() if a.device == self._replica.device_id
                ]
            elif arrival.author.device == self._replica.device_id:
                link = ChainHead(arrival.envelope.header.sequence, arrival.envelope.hash)
                links = [(arrival.author, link)]
            else:
                continue
            forked.update(
                a for a, head in links if sending.contradicts_unsent(self._replica, self._space, a, head)
            )
        return forked

    # Admission --------------------------------------------------------------------------------------

    def _admit(self, rows: Sequence[tuple[int, int, bytes]]) -> list[Arrival]:
        """Parse in log order, so that each author is looked up in the membership of that moment."""
        space = self._space
        arrivals = []
        for seq, kind, raw in rows:
            if seq <= space.cursor:
                self._duplicates += 1
            elif kind == Kind.MEMBERSHIP:
                self._members_changed |= take_entry(self._replica, space, raw)
            elif kind == RowKind.LEASE:
                self._leases_changed += take_row(self._replica, space, seq, raw)
            else:
                arrivals.append(self._admit_envelope(seq, kind, raw))
        return arrivals

    def _admit_envelope(self, seq: int, kind: int, raw: bytes) -> Arrival:
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        header = envelope.header
        if header.space != self._space.id:
            raise MalformedEnvelope("header field space: the envelope belongs to another space")
        if header.kind != kind:
            raise MalformedEnvelope("header field kind: not what the log's row says")
        member = self._space.log.member(header.device)
        cover = envelope.cover() if header.kind == Kind.SNAPSHOT else None
        return Arrival(seq, envelope, member.role, header.author, cover=cover)

    def _verify(self, arrivals: Sequence[Arrival]) -> None:
        pairs = [(one.envelope, self._space.log.members[one.author.device].sign) for one in arrivals]
        verified = self._replica.verify_many(pairs)
        for good, (envelope, sign_public) in zip(verified, pairs, strict=True):
            if not good:
                envelope.verify(sign_public)
                raise BadSignature("signature: does not fit the envelope")

    # Chains and contents ----------------------------------------------------------------------------

    def _open(self, arrivals: Sequence[Arrival], incoming: dict[OpaqueId, _Incoming]) -> None:
        """Add what shows now to `incoming`."""
        gathering, waiting = self._gathering, self._space.waiting
        for arrival in arrivals:
            self._envelopes += 1
            try:
                if arrival.cover is None:
                    self._link(arrival)
                opened = self._contents(arrival)
                if opened.payload.group is None and not waiting:
                    bring(incoming, opened)
                    continue
                for shown in gathering.take(opened):
                    bring(incoming, shown)
            except RemoteError as error:
                self._put_aside(arrival, error)
                if waiting:
                    gathering.spoil(arrival.author, arrival.envelope.header.sequence)
        for shown in gathering.finish():
            bring(incoming, shown)

    def _link(self, arrival: Arrival) -> None:
        """Give the update its place in its author's chain. Raises ChainBroken, Equivocation.

        One from before the head is let through: merging it again is harmless, and right if its record
        does not have it.
        """
        space, author, header = self._space, arrival.author, arrival.envelope.header
        head = space.chain(author)
        if header.sequence == head.sequence and arrival.envelope.hash != head.hash:
            raise Equivocation(f"two different updates {header.sequence} of one device")
        if header.sequence <= head.sequence:
            return
        if header.sequence == head.sequence + 1 and header.prev != head.hash:
            raise ChainBroken(f"update {header.sequence} does not follow update {head.sequence}")
        link = self._chains[author] = ChainHead(header.sequence, arrival.envelope.hash)
        space.advance(author, link, own=author == self._replica.author)

    def _contents(self, arrival: Arrival) -> Opened:
        """Decrypt and check everything that can be checked without the record."""
        opened = open_arrival(self._space, arrival)
        if opened.checked is not None:
            self._follow_clock(opened.checked.latest)
        return opened

    def _put_aside(self, arrival: Arrival, error: CrdtSyncError, record_type: str | None = None) -> None:
        """`record_type` where it is the rights to that which are in the way."""
        header = arrival.envelope.header
        if not isinstance(error, TypeNotKnown):  # in which nothing is wrong
            put = QuarantinedEnvelope(arrival.seq, header.device, error.code, error.message)
            self._quarantined.append(put)
        self._replica.db.execute(
            _QUARANTINE,
            (
                self._space.no,
                arrival.seq,
                header.record,
                header.device,
                header.incarnation,
                header.sequence,
                arrival.envelope.hash,
                error.code,
                error.message,
                arrival.envelope.raw,
                self._now_ms,
                record_type,
            ),
        )
        if header.sequence:
            aside = self._space.unmerged.setdefault(header.record, set())
            aside.add((arrival.author, header.sequence))

    # Merging ----------------------------------------------------------------------------------------

    def _merge(self, incoming: dict[OpaqueId, _Incoming]) -> Materialised:
        replica, space = self._replica, self._space
        materialiser = Materialiser(replica, "remote")
        merged: list[OpenRecord] = []
        for schemas in (True, False):
            for opaque, coming in incoming.items():
                if (coming.record_type == SCHEMA_TYPE) is not schemas:
                    continue
                found = self._merge_record(opaque, coming)
                if found is not None:
                    record, state, differs = found
                    if differs:
                        materialiser.take(record, state=state)
                    merged.append(record)
            if schemas:
                materialiser.take_schemas(space, merged)
                self._sift(incoming)
        result = materialiser.save()
        scoping.sift(replica, space, merged, result, new=self._new)
        if self._group_ends:
            replica.db.many(
                "UPDATE documents SET group_ends = ? WHERE record = ?",
                [(encode_ends(record.group_ends), record.no) for record in self._group_ends],
            )
        for record in merged[-256:]:
            if not record.gone:
                replica.records.keep(record)
        return result

    def merge_again(self, opened: Iterable[Opened]) -> Materialised:
        """Merge what was put aside, and may be merged by now."""
        incoming: dict[OpaqueId, _Incoming] = {}
        for each in opened:
            bring(incoming, each)
        result = self._merge(incoming)
        result.add(self._rescues.save())
        return result

    def _sift(self, incoming: dict[OpaqueId, _Incoming]) -> None:
        """Put aside what its author had no right to write, or nobody can say yet whether he had."""
        arrived = [opened for coming in incoming.values() for opened in coming.opened]
        refused = admission.sift(self._space.record_types, arrived)
        if not refused:
            return
        for opened, error in refused:
            self._put_aside(opened.arrival, error, opened.payload.record_type)
        for coming in incoming.values():
            coming.opened = admission.without(coming.opened, refused)

    def _merge_record(
        self, opaque: OpaqueId, coming: _Incoming
    ) -> tuple[OpenRecord, bytes | None, bool] | None:
        """Merge all that came for a record at once; None when nothing of it is to be merged.

        The record, its state where that is known, and whether it is not what is stored any more: a snapshot
        may have nothing but what is here.
        """
        replica, space = self._replica, self._space
        record = replica.records.find(space, opaque, replica.author)
        no = None
        if record is None and space.absent:
            no = self._coming.revive(opaque)
            known = None if no is not None else absent.find(replica, space, opaque)
            if known is not None:
                scoping.pass_over(replica, space, opaque, known, coming.opened)
                return None
        heads = {} if record is None else dict(record.heads)
        news = self._news(opaque, coming, heads)
        if not news:
            return None
        merged, checked = news[0] if len(news) == 1 else (merge_updates([each for each, _ in news]), None)
        differs = True
        if record is None:
            record = replica.records.new(
                space, coming.record_type, coming.record_id, opaque, replica.author, merged, checked, no=no
            )
            state = merged if len(news) == 1 else None
            self._new.add(record.no)
            if no is not None:
                put_back(replica, space, record)
                state = None
        else:
            if opaque in space.held:
                self._rescues.meet(record, merged)
            differs = record.doc.apply(merged, checked) or heads != record.heads
            state = None
        record.heads = heads
        unmerged.note_waiting(replica, space, record, coming.opened, self._now_ms)
        for opened in coming.opened:
            if opened.payload.group is not None:
                self._note_group(record, opened)
        return record, state, differs

    def _note_group(self, record: OpenRecord, opened: Opened) -> None:
        """The record holds a part of a group, or of several that a snapshot names."""
        ends = opened.ends if opened.ends is not None else {opened.arrival.author: opened.span[1]}
        for author, last in ends.items():
            if record.group_ends.get(author, 0) < last:
                record.group_ends[author] = last
                self._group_ends[record] = None

    def _news(
        self, opaque: OpaqueId, coming: _Incoming, heads: dict[Author, ChainHead]
    ) -> list[tuple[bytes, CheckedUpdate]]:
        """What came for a record and is not in it yet; `heads` are brought to where that brings them."""
        news: list[tuple[bytes, CheckedUpdate]] = []
        aside = self._space.unmerged
        for arrival, payload, checked, *_ in coming.opened:
            sequence = arrival.envelope.header.sequence
            if arrival.cover is not None:
                checked = self._take_cover(arrival, payload, arrival.cover, opaque, heads)
            else:
                known = heads.get(arrival.author)
                if known is None or known.sequence < sequence:
                    heads[arrival.author] = ChainHead(sequence, arrival.envelope.hash)
                elif known.sequence == sequence and known.hash == arrival.envelope.hash:
                    checked = None
            if arrival.seq and (arrival.cover is None or checked is not None):
                self._space.giving.saw(opaque, arrival, payload.update)
            if checked is None:
                self._duplicates += 1
                continue
            if aside and (arrival.author, sequence) in aside.get(opaque, ()):
                self._note_merged(opaque, arrival.author, sequence)
            news.append((payload.update, checked))
        return news

    def _take_cover(
        self,
        arrival: Arrival,
        payload: Payload,
        cover: CoverVector,
        opaque: OpaqueId,
        heads: dict[Author, ChainHead],
    ) -> CheckedUpdate | None:
        """Check a snapshot and add what it covers to `heads`; None when it cannot be merged.

        It is merged also when `heads` have all it covers. They name the newest update of each author; an
        older one may have been pruned at the relay before this device came to its row.
        """
        space = self._space
        news = [
            (author, head)
            for author, head in cover.covered.items()
            if author not in heads or heads[author].sequence < head.sequence
        ]
        aside = space.unmerged.get(opaque, set())
        merged_now = {(author, sequence) for author, sequence in aside if cover.covers(author, sequence)}
        admins_only = payload.record_type == SCHEMA_TYPE

        def role_of(author: Author) -> Role | None:
            role = space.role_of(author.device)
            return None if admins_only and role is not Role.ADMIN else role

        try:
            checked = check_snapshot(payload.update, role_of)
            admission.check_held(space.record_types, payload.record_type, checked)
        except BadUpdate as error:
            self._put_aside(arrival, error)
            return None
        except NotAllowed as error:
            self._put_aside(arrival, error, payload.record_type)
            return None
        self._follow_clock(checked.latest)
        for author, sequence in cover.unmerged - aside:
            if author not in heads or heads[author].sequence < sequence:
                # It reaches past an update that neither its author nor this device has merged.
                unmerged.note(
                    self._replica, space, opaque, author, sequence, unmerged.BY_SNAPSHOT, self._now_ms
                )
        heads.update(news)
        for author, sequence in merged_now:
            self._note_merged(opaque, author, sequence)
        return checked

    def _note_merged(self, opaque: OpaqueId, author: Author, sequence: int) -> None:
        unmerged.forget(self._replica, self._space, opaque, author, sequence)
        self._gathering.drop(author, sequence)

    def _follow_clock(self, latest: Hlc) -> None:
        """Let the local clock follow what it has seen, within reason."""
        if not self._replica.hlc.follow(latest, self._now_ms):
            self._clocks_ahead += 1
