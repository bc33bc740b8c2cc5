"""Whether the urgent goes first: what people asked for, held against what a device seals.

The ledger has, for what waits on a device, how urgent people said that it is: a record's is that of the most
urgent write to it, and what was written together is as urgent as the most urgent of it. So much is promised.
Whenever envelopes were sealed, none may be less urgent than one that follows it, or than what waited and was
left; and the writes of a record go in their order.

Where something waits that people did not give a priority, or that was made again after a refusal, nobody can
say from outside how urgent it is: it is not held against anything. Nor is what an earlier life left, nor
anything while others have records checked out, or while an earlier life's work that waited for that is passed
over: what is held back does not go however urgent it is.

What is set aside when it is written, behind refused work of its record or of one that it was written together
with, makes nothing more urgent: it is not sent before it is released, and then it is made again. What of
its records was written before goes on as urgent as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from crdt_sync.crypto.envelope import Header, parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.ids import Author, Incarnation, RecordId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine.model import Operation, Outcome, Transaction, TransactionResult, WriteResult

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode
    from crdt_sync_sim.oracle import RecordName

Place = tuple[Incarnation, "RecordName"]
KEPT: Final = 10
"""Of what was found; one is enough to know."""
_LEAST: Final = 99
_MOST: Final = 0
_LAST: Final = 2**63
"""Of an author of whom nothing is known."""
_LEFT: Final = (
    "SELECT DISTINCT incarnation, type, id FROM outbox JOIN records r ON r.no = record WHERE error IS NULL"
)
_ROWS: Final = (
    "SELECT count(*) FROM outbox JOIN records r ON r.no = record"
    " WHERE type = ? AND id = ? AND incarnation = ?"
)
_TIED: Final = "SELECT tied FROM outbox WHERE clock >= ? AND tied IS NOT NULL LIMIT 1"
_TIES: Final = "SELECT DISTINCT tied FROM outbox WHERE tied IS NOT NULL"
_ASIDE: Final = f"{_ROWS} AND error IS NOT NULL AND clock >= ?"


class Urgency:
    """Of one device; it outlives the device's processes, as the outbox does."""

    def __init__(self) -> None:
        self.broken: list[tuple[str, RecordName]] = []
        self.asked = False
        """Whether there was something to hold against something."""
        self._asked: dict[Place, int | None] = {}
        """What waits, and how urgent it was said to be; None: nobody can say."""
        self._together: list[tuple[int | None, tuple[Place, ...]]] = []
        """By what ties it in the outbox, as long as it is there."""
        self._sealed: dict[Incarnation, int] = {}
        self._ends: dict[Place, int] = {}
        """Up to where in its author's array of the record everything was sealed."""

    def forget(self) -> None:
        """The device's store is another one from now on: what waits there the ledger does not know."""
        self._asked, self._together, self._sealed, self._ends = {}, [], {}, {}

    def wrote(
        self, device: DeviceNode, work: Sequence[Operation | Transaction], outcomes: Sequence[Outcome]
    ) -> None:
        """People wrote this; before anything of it is said to be sealed."""
        for each, outcome in zip(work, outcomes, strict=True):
            if isinstance(each, Transaction) and isinstance(outcome, TransactionResult):
                told = [op.priority or each.priority for op in each.ops]
                self._note(device, list(zip(outcome.results, told, strict=True)))
            elif isinstance(outcome, WriteResult):
                self._note(device, [(outcome, each.priority)])

    def _note(self, device: DeviceNode, results: Sequence[tuple[WriteResult, int | None]]) -> None:
        if not self._sealed and all(priority is None for _, priority in results):
            return
        incarnation = device.engine.incarnation
        self._sealed.setdefault(incarnation, _chain(device, incarnation))
        names = [
            (name, priority)
            for result, priority in results
            for name in ((result.type, result.id), *result.below)
            if result.changed
        ]
        since = min((result.first for result, _ in results if result.changed), default=0)
        if any(device.database.value(_ASIDE, (*name, incarnation, since)) for name, _ in names):
            return
        here = Counter(name for name, _ in names)
        together: dict[Place, None] = {}
        for name, priority in names:
            place = incarnation, name
            known = self._asked.get(place, _LEAST)
            if place not in self._asked and device.database.value(_ROWS, (*name, incarnation)) > here[name]:
                known = None  # something waits that the ledger does not know
            self._asked[place] = None if known is None or priority is None else min(known, priority)
            together[place] = None
        if len(together) > 1:
            self._together.append((device.database.value(_TIED, (since,)), tuple(together)))

    def sealed(self, device: DeviceNode, envelopes: Sequence[bytes]) -> None:
        """These were handed out; what waits now was left."""
        if not self._sealed:
            return  # nobody has said how urgent anything is
        headers = [Header.unpack(raw) for raw in envelopes]
        fresh = [
            (header, raw)
            for header, raw in zip(headers, envelopes, strict=True)
            if header.sequence > self._sealed.get(header.incarnation, _LAST)
            and header.incarnation == device.engine.incarnation
        ]
        replica = device.engine._replica
        space = replica.space(device.space)
        rows = device.database.rows(_LEFT)
        left = {(Incarnation(number), (kind, RecordId(id))) for number, kind, id in rows}
        gone = [((header.incarnation, _name(device, header)), raw) for header, raw in fresh]
        if gone and not (space.leases.rows or space.session.skipped):
            self._compare(device, [place for place, _ in gone], left)
        for place, raw in gone:
            self._in_order(device, place, raw)
        for header, _ in fresh:
            # What was sealed with these and did not fit is handed out later, whatever is written meanwhile.
            self._sealed[header.incarnation] = _chain(device, header.incarnation)
        self._untie({tied for (tied,) in device.database.rows(_TIES)})
        self._asked = {place: asked for place, asked in self._asked.items() if place in left}

    def _untie(self, ties: set[int]) -> None:
        """Only what these tie waits together. What else waits of the others' records stays as urgent."""
        levels = self._levels(_LEAST)
        for tied, places in self._together:
            if tied not in ties:
                known = all(self._asked.get(place, _LEAST) is not None for place in places)
                waits = [place for place in places if place in self._asked]
                self._asked.update({place: levels[place] if known else None for place in waits})
        self._together = [each for each in self._together if each[0] in ties]

    def _compare(self, device: DeviceNode, gone: Sequence[Place], left: set[Place]) -> None:
        at_most, at_least = self._levels(_LEAST), self._levels(_MOST)
        for index, place in enumerate(gone):
            least = at_least.get(place, _MOST)
            later = {*gone[index + 1 :], *(each for each in left if each[0] == place[0])}
            for other in sorted(later - {place}):
                most = at_most.get(other, _LEAST)
                self.asked |= least != _MOST and most != _LEAST
                if other in self._asked and most < least and len(self.broken) < KEPT:
                    what = (
                        f"sent {_words(place)} of priority {least} before {_words(other)} of priority {most}"
                    )
                    self.broken.append((what, other[1]))
                    device.world.note("unurgent", device.name, what)

    def _levels(self, unknown: int) -> dict[Place, int]:
        """How urgent each is with what it was written together with."""
        levels = {place: unknown if asked is None else asked for place, asked in self._asked.items()}
        settled = False
        while not settled:
            settled = True
            for _, together in self._together:
                most = min(levels.get(place, unknown) for place in together)
                for place in together:
                    if place in levels and levels[place] > most:
                        levels[place] = most
                        settled = False
        return levels

    def _in_order(self, device: DeviceNode, place: Place, raw: bytes) -> None:
        """No update of an author begins before one ended that was sent."""
        replica = device.engine._replica
        keys = replica.space(device.space).keys
        envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
        opened = Payload.decode(envelope.open(keys.envelope_key(envelope.header.epoch)))
        client = Author(replica.device_id, place[0]).client_id
        for blocks in parse_update(opened.update).blocks:
            if blocks.client != client:
                continue
            if blocks.start < self._ends.get(place, 0) and len(self.broken) < KEPT:
                what = f"sent an update of {_words(place)} before one that was made earlier"
                self.broken.append((what, place[1]))
            self._ends[place] = blocks.end


def _chain(device: DeviceNode, incarnation: Incarnation) -> int:
    """The last sequence number that is sealed."""
    replica = device.engine._replica
    return replica.space(device.space).chain(Author(replica.device_id, incarnation)).sequence


def _name(device: DeviceNode, header: Header) -> RecordName:
    rows = device.database.rows("SELECT type, id FROM records WHERE opaque = ?", (header.record,))
    return (rows[0][0], RecordId(rows[0][1])) if rows else ("", RecordId(""))


def _words(place: Place) -> str:
    return f"{place[1][0]} {place[1][1]}"
