"""Which records to have compacted, and by whom.

The relay cannot merge, so it asks devices. A record is due when its *tail*, the updates that no snapshot
covers, is long and nobody is writing to it just now, or when it is so long that it cannot wait. A device is
asked for one frame of records at a time; one that declines, or does not answer in time, is passed over for a
while, for those records only.

The planner is plain memory about one space. It knows neither the log nor what a snapshot is, forgets
everything when the relay stops, and is told the lengths again when the space is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.limits import MAX_COMPACT_RECORDS
from crdt_sync.rare import rare

SHORT_TAIL: Final = 4
"""Below this a snapshot saves a reader nothing: it is about as long as the updates it stands for."""
LONG_TAIL: Final = 64
"""From here on a record under constant change is compacted all the same: some 25 KiB of small updates."""
IDLE_MS: Final = 2_000
"""A record is left alone this long, so that one burst of edits leads to one snapshot."""
ANSWER_MS: Final = 30_000
"""A device that takes longer is gone or busy; another one is asked."""
SILENT_MS: Final = 300_000
"""For how long it is then passed over, for those records."""
DECLINED_MS: Final = 2_000
"""A decline usually means own updates on their way; those arrive soon."""
NEVER_MS: Final = 2**63 - 1
"""When nothing is due at all."""
_AT_ONCE_MS: Final = 0
_REMEMBERED: Final = 65_536
"""Records whose short tails are remembered; beyond, they are counted again when they next grow."""

PeerT = TypeVar("PeerT")


class _Tail(Generic[PeerT]):
    __slots__ = ("asked", "length", "passed", "rest_ms", "waits")

    def __init__(self, length: int, rest_ms: int) -> None:
        self.length = length
        self.rest_ms = rest_ms
        """From when on nobody is writing to the record, unless it grows again."""
        self.asked = False
        self.waits = False
        """A snapshot is there that covers the tail; a second device has to say whether it is sound."""
        self.passed: dict[PeerT, int] = {}
        """Until when a device is not asked for this record again."""


class _Asked:
    __slots__ = ("at_ms", "records")

    def __init__(self, records: Iterable[OpaqueId], at_ms: int) -> None:
        self.records = set(records)
        self.at_ms = at_ms


class CompactionPlanner(Generic[PeerT]):
    """See the module. `count` gives the length of a record's tail in the log."""

    def __init__(
        self, count: Callable[[OpaqueId], int], known: Iterable[tuple[OpaqueId, int]], now_ms: int
    ) -> None:
        self._count = count
        self._short: dict[OpaqueId, int] = {}
        self._long: dict[OpaqueId, _Tail[PeerT]] = {
            record: _Tail(length, now_ms + IDLE_MS) for record, length in known if length >= SHORT_TAIL
        }
        self._asked: dict[PeerT, _Asked] = {}
        self.urgent = False
        """A tail has become very long, or a device free again: plan now, not at the next tick."""
        self.due_ms = now_ms if self._long else NEVER_MS
        """Before this time `plan` has nothing to say, whoever there is."""

    def grew(self, record: OpaqueId, now_ms: int) -> None:
        """One more update of the record is in the log. Call it when the log already has it, or will."""
        tail = self._long.get(record)
        if tail is None:
            known = self._short.get(record)
            length = known + 1 if known is not None else self._count(record) + 1
            if length < SHORT_TAIL:
                if len(self._short) >= _REMEMBERED:
                    self._short.clear()
                self._short[record] = length
                return
            self._short.pop(record, None)
            tail = self._long[record] = _Tail(length, 0)
        else:
            tail.length += 1
            if tail.length == LONG_TAIL:
                self.urgent = True
        tail.rest_ms = now_ms if rare("compaction_early") else now_ms + IDLE_MS
        self.due_ms = min(self.due_ms, now_ms if self.urgent else tail.rest_ms)

    def compacted(self, record: OpaqueId, remaining: int) -> None:
        """A snapshot was stored; that many updates are not covered by it."""
        tail = self._long.pop(record, None)
        if remaining >= SHORT_TAIL:
            kept = self._long[record] = _Tail(remaining, tail.rest_ms if tail else 0)
            kept.asked = tail is not None and tail.asked
            self.due_ms = _AT_ONCE_MS
        else:
            self._short[record] = remaining

    def waits(self, record: OpaqueId, waits: bool) -> None:
        """Whether a snapshot of the record waits for a second device's word; no other is asked for then."""
        tail = self._long.get(record)
        if tail is not None:
            tail.waits = waits
            self.due_ms = _AT_ONCE_MS

    def distrusts(self, peers: Iterable[PeerT], record: OpaqueId, now_ms: int) -> None:
        """A snapshot of the record by these was not sound: others are asked first."""
        for peer in peers:
            self._pass_over(peer, record, now_ms, now_ms + SILENT_MS)

    def answered(self, peer: PeerT, record: OpaqueId, now_ms: int) -> None:
        """The device sent a snapshot of the record, good or not. A bad one counts as declining."""
        self._passes(peer, [record], now_ms)

    def declined(self, peer: PeerT, records: Sequence[OpaqueId], now_ms: int) -> None:
        """The device cannot compact these now."""
        self._passes(peer, records, now_ms)

    def gone(self, peer: PeerT) -> None:
        """The device's connection has ended."""
        asked = self._asked.pop(peer, None)
        if asked is not None:
            self.due_ms = _AT_ONCE_MS
            self._release(asked.records)

    def _passes(self, peer: PeerT, records: Sequence[OpaqueId], now_ms: int) -> None:
        asked = self._asked.get(peer)
        if asked is None:
            return
        for record in asked.records.intersection(records):
            asked.records.discard(record)
            self._pass_over(peer, record, now_ms, now_ms + DECLINED_MS)
        self.due_ms = _AT_ONCE_MS
        if not asked.records:
            del self._asked[peer]
            self.urgent = True

    def _pass_over(self, peer: PeerT, record: OpaqueId, now_ms: int, until_ms: int) -> None:
        tail = self._long.get(record)
        if tail is not None:
            tail.asked = False
            tail.passed = {other: until for other, until in tail.passed.items() if until > now_ms}
            tail.passed[peer] = until_ms

    def _release(self, records: Iterable[OpaqueId]) -> None:
        for record in records:
            tail = self._long.get(record)
            if tail is not None:
                tail.asked = False

    def plan(self, peers: Iterable[PeerT], now_ms: int) -> list[tuple[PeerT, list[OpaqueId]]]:
        """Whom to ask for what, now. `peers` are devices that have everything and may write."""
        self.urgent = False
        for peer, asked in list(self._asked.items()):
            if now_ms - asked.at_ms >= ANSWER_MS:
                for record in asked.records:
                    self._pass_over(peer, record, now_ms, now_ms + SILENT_MS)
                del self._asked[peer]
        requests: list[tuple[PeerT, list[OpaqueId]]] = [
            (peer, []) for peer in peers if peer not in self._asked
        ]
        due_ms = self._distribute(requests, now_ms)
        requests = [(peer, records) for peer, records in requests if records]
        for peer, records in requests:
            self._asked[peer] = _Asked(records, now_ms)
        self.due_ms = min([due_ms, *(asked.at_ms + ANSWER_MS for asked in self._asked.values())])
        return requests

    def _distribute(self, requests: list[tuple[PeerT, list[OpaqueId]]], now_ms: int) -> int:
        """Give each device that is free its records, and say when some are due that were not given."""
        room = len(requests) * MAX_COMPACT_RECORDS
        if not room and self._long:
            return now_ms
        due_ms = NEVER_MS
        for record, tail in self._long.items():
            if tail.asked or tail.waits:
                continue
            if tail.length < LONG_TAIL and now_ms < tail.rest_ms:
                due_ms = min(due_ms, tail.rest_ms)
                continue
            taker = self._taker(requests, tail, now_ms)
            if taker is None:
                due_ms = now_ms
                continue
            tail.asked = True
            taker.append(record)
            room -= 1
            if not room:
                return now_ms
        return due_ms

    @staticmethod
    def _taker(
        requests: list[tuple[PeerT, list[OpaqueId]]], tail: _Tail[PeerT], now_ms: int
    ) -> list[OpaqueId] | None:
        for peer, records in requests:
            if len(records) < MAX_COMPACT_RECORDS and tail.passed.get(peer, 0) <= now_ms:
                return records
        return None
