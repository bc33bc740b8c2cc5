"""What this device knows of checkouts: who has which record, and what it has itself.

`Leases` is a copy of the tables `leases` and `checkouts` of one space. The first holds what the relay said,
in rows of the log (see `crdt_sync.protocol.leases`), the newest of each record; the second what was checked
out here, until it is checked in, so that a device which is offline for a day still knows what it holds and
until when.

Leases are judged by the relay's clock. `relay_ahead_ms` is how far that was ahead of ours when we last heard
it. Where that has changed since, the relay corrects us: it refuses, and the next session hears the time anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.ids import DeviceId, OpaqueId, RecordId, SpaceId
from crdt_sync.protocol.leases import Lease, LeaseState, Promised, decode_lease, encode_lease

if TYPE_CHECKING:
    from crdt_sync_client.store.connection import Database

_CLOCK_STEP_MS: Final = 1_000
"""Smaller changes of the relay's clock are not worth a write."""


@dataclass(frozen=True, slots=True)
class OwnCheckout:
    """A record that was checked out here. `token`: of the lease that was granted. `sent`: updates since."""

    type: str
    id: RecordId
    token: int
    ttl_ms: int
    at_ms: int
    sent: int = 0


class Leases:
    """See the module. Changed inside the transaction that changes the tables."""

    def __init__(self, space_no: int, space: SpaceId) -> None:
        self._no = space_no
        self._clock_name = f"relay_ahead:{space.hex()}"
        self.rows: dict[OpaqueId, tuple[int, Lease]] = {}
        """By record: the row of the log that told it, 0 if that is lost (see `promised`), and the lease."""
        self.own: dict[OpaqueId, OwnCheckout] = {}
        self.relay_ahead_ms = 0

    def load(self, db: Database, meta: Mapping[str, Any]) -> None:
        """`meta`: what the store's table of that name holds."""
        for opaque, row, lease in db.rows(
            "SELECT opaque, row, lease FROM leases WHERE space = ?", (self._no,)
        ):
            self.rows[OpaqueId(opaque)] = (row, decode_lease(lease))
        for opaque, *columns in db.rows(
            "SELECT opaque, type, id, token, ttl_ms, at_ms, sent FROM checkouts WHERE space = ?"
            " ORDER BY at_ms, opaque",
            (self._no,),
        ):
            self.own[OpaqueId(opaque)] = OwnCheckout(*columns)
        self.relay_ahead_ms = meta.get(self._clock_name) or 0

    # What is known

    def of(self, record: OpaqueId) -> Lease | None:
        """The newest lease of a record that was heard of."""
        known = self.rows.get(record)
        return None if known is None else known[1]

    def in_force(self, now_ms: int) -> Iterator[Lease]:
        """Those that hold others off, as far as a relay has said. `now_ms` is this device's clock."""
        relay_ms = now_ms + self.relay_ahead_ms
        for row, lease in self.rows.values():
            if row and lease.held(relay_ms):
                yield lease

    def foreign(self, device: DeviceId, now_ms: int) -> Iterator[Lease]:
        """Those of them that others than this device hold."""
        return (lease for lease in self.in_force(now_ms) if lease.device != device)

    def holds(self, device: DeviceId, record: OpaqueId, now_ms: int) -> bool:
        """Whether this device has the record."""
        lease = self.of(record)
        own = self.own.get(record)
        return (
            lease is not None
            and own is not None
            and (lease.device, lease.token) == (device, own.token)
            and lease.held(now_ms + self.relay_ahead_ms)
        )

    def promised(self, device: DeviceId) -> dict[OpaqueId, Promised]:
        """What was checked out here and not checked in, and the relay may know nothing of any more."""
        asked: dict[OpaqueId, Promised] = {}
        for record, own in self.own.items():
            row, lease = self.rows.get(record, (0, None))
            if row or lease is None:
                continue
            if lease.device != device:
                asked[record] = Promised(own.token, lease.since_ms)
            elif lease.state is not LeaseState.RETURNED:
                asked[record] = Promised(lease.token, lease.expires_ms)
        return asked

    @property
    def newest_token(self) -> int:
        """The greatest this device knows of."""
        tokens = [each.token for each in self.own.values()]
        return max([*tokens, *(lease.token for _, lease in self.rows.values())], default=0)

    # What changes it, inside a transaction

    def take(self, db: Database, row: int, lease: Lease) -> bool:
        """The relay said so in that row of its log; whether that is news."""
        known = self.rows.get(lease.record)
        if known is not None and known[0] >= row:
            return False
        db.execute(
            "INSERT OR REPLACE INTO leases (space, opaque, row, lease) VALUES (?, ?, ?, ?)",
            (self._no, lease.record, row, encode_lease(lease)),
        )
        self.rows[lease.record] = (row, lease)
        return known is None or known[1] != lease

    def forget_behind(self, db: Database, cursor: int) -> None:
        """The log goes on differently behind that row: what we know from there is not so, or will come again.

        Of records that were checked out here the lease is kept, as of row 0, until the relay has said how it
        stands there: see `promised`.
        """
        for record, (row, lease) in list(self.rows.items()):
            if row <= cursor:
                continue
            if record in self.own:
                self.rows[record] = (0, lease)
                db.execute("UPDATE leases SET row = 0 WHERE space = ? AND opaque = ?", (self._no, record))
            else:
                del self.rows[record]
                db.execute("DELETE FROM leases WHERE space = ? AND opaque = ?", (self._no, record))

    def has_another_clock(self, relay_ms: int, now_ms: int) -> bool:
        """Whether it is worth keeping that the relay's clock shows `relay_ms` when ours shows `now_ms`."""
        return abs(relay_ms - now_ms - self.relay_ahead_ms) >= _CLOCK_STEP_MS

    def hear_clock(self, db: Database, relay_ms: int, now_ms: int) -> None:
        """The relay's clock shows `relay_ms` when ours shows `now_ms`."""
        if self.has_another_clock(relay_ms, now_ms):
            self.relay_ahead_ms = ahead_ms = relay_ms - now_ms
            db.execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (self._clock_name, ahead_ms)
            )

    def keep_own(self, db: Database, record: OpaqueId, own: OwnCheckout, *, goes_on: bool = False) -> None:
        """This device has the record now, or for longer. `goes_on`: again, for a relay had forgotten it."""
        known = self.own.get(record)
        if known is not None and goes_on:
            own = replace(known, token=own.token)
        elif known is not None and known.token == own.token:
            own = replace(known, ttl_ms=own.ttl_ms)
        self.own[record] = own
        values: tuple[Any, ...] = (own.type, own.id, own.token, own.ttl_ms, own.at_ms, own.sent)
        db.execute(
            "INSERT OR REPLACE INTO checkouts (space, opaque, type, id, token, ttl_ms, at_ms, sent)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self._no, record, *values),
        )

    def drop_own(self, db: Database, record: OpaqueId) -> None:
        """It was checked in, whatever became of the lease."""
        if self.own.pop(record, None) is not None:
            db.execute("DELETE FROM checkouts WHERE space = ? AND opaque = ?", (self._no, record))

    def count_sent(self, db: Database, record: OpaqueId, updates: int) -> None:
        """The relay has taken so many updates of a record that was checked out here."""
        own = self.own.get(record)
        if own is not None:
            self.own[record] = replace(own, sent=own.sent + updates)
            db.execute(
                "UPDATE checkouts SET sent = sent + ? WHERE space = ? AND opaque = ?",
                (updates, self._no, record),
            )
