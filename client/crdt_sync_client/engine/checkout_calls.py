"""Part of `Engine`: who has checked out which record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from crdt_sync.errors import ValidationError
from crdt_sync.ids import OpaqueId, RecordId, RelayId, SpaceId
from crdt_sync.protocol.frames import CheckedOut, CheckoutResult
from crdt_sync.protocol.leases import Promised
from crdt_sync_client.engine import checkouts, holders, holding_back, sending
from crdt_sync_client.engine.checkouts import CheckoutOutcome, Chosen
from crdt_sync_client.engine.holders import Checkout
from crdt_sync_client.engine.model import RecordChange
from crdt_sync_client.engine.queries import Where
from crdt_sync_client.engine.replica import Replica

LOOK_AGAIN_S: Final = 60.0
"""A device's clock may be set while it waits for a lease to end: then it notices after so long."""


class CheckoutCalls:
    """See the module."""

    _replica: Replica

    def choose_records(
        self,
        type: str,
        ids: Sequence[str] = (),
        where: Where = None,
        *,
        children: bool = False,
        space: SpaceId | None = None,
    ) -> list[Chosen]:
        """Records to check out: those with these ids, or for which `where` holds, and those below them.

        Raises UnknownType, ValidationError, and RecordNotFound for an id that is not here.
        """
        found = self._replica.space(space)
        return checkouts.choose(self._replica, found, type, ids, where, children=children)

    def chosen_record(self, type: str, id: str, *, space: SpaceId | None = None) -> Chosen:
        """One record by name, whether it is here or not. Raises UnknownType."""
        found = self._replica.space(space)
        found.schema(type)
        return checkouts.chosen_record(found, type, RecordId(id))

    def with_checked_out_below(self, space: SpaceId, chosen: Sequence[Chosen]) -> list[Chosen]:
        """These, and what belongs to them and is checked out, here or elsewhere, as far as is known."""
        found = self._replica.space(space)
        held = {lease.record for lease in found.leases.in_force(self._replica.now_ms())} | set(
            found.leases.own
        )
        if not held:
            return list(chosen)
        below = checkouts.below(self._replica, found, chosen, deleted=True)
        return [*chosen, *(each for each in below if each.opaque in held)]

    def checked_out_by(self, holder: str, *, space: SpaceId | None = None) -> list[Chosen]:
        """Everything that the device of that name, or hex id, has to itself now, known here or not.

        Raises ValidationError when that is nothing.
        """
        found = self._replica.space(space)
        leases = [
            lease
            for lease in found.leases.in_force(self._replica.now_ms())
            if holder in (found.device_name(lease.device), lease.device.hex())
        ]
        if not leases:
            said = f"no device {holder!r} has anything checked out"
            raise ValidationError("holder", said, hint="`crdt-sync checkouts ls` shows who has what")
        unknown = ("", RecordId(""))
        names = [holders.name_of(self._replica, found, lease.record) or unknown for lease in leases]
        return [Chosen(*name, lease.record) for name, lease in zip(names, leases, strict=True)]

    def own_checkouts(self, space: SpaceId, *, in_force: bool = False) -> list[Chosen]:
        """What is checked out here and not checked in yet; with `in_force` only what did not end."""
        leases, now_ms = self._replica.space(space).leases, self._replica.now_ms()
        return [
            Chosen(own.type, own.id, record)
            for record, own in leases.own.items()
            if not in_force or leases.holds(self._replica.device_id, record, now_ms)
        ]

    def newest_token(self, space: SpaceId) -> int:
        """The greatest token that this device knows of."""
        return self._replica.space(space).leases.newest_token

    def promised_checkouts(self, space: SpaceId) -> list[tuple[Chosen, Promised]]:
        """What was checked out here and the relay may have forgotten: it is asked again, before any push."""
        leases = self._replica.space(space).leases
        return [
            (Chosen(leases.own[record].type, leases.own[record].id, record), promised)
            for record, promised in leases.promised(self._replica.device_id).items()
        ]

    def checkout_answered(
        self,
        space: SpaceId,
        asked: Mapping[OpaqueId, Chosen],
        results: Sequence[CheckoutResult],
        ttl_ms: int | None,
    ) -> tuple[list[CheckoutOutcome], list[RecordChange]]:
        """Keep what the relay answered to `CheckOut` or `CheckIn`: what came of each, and what that changed.

        Without `ttl_ms` it was asked again for what a relay had promised before, see `promised_checkouts`.
        """
        with self._replica.transaction(durable=True):
            return checkouts.answered(self._replica, self._replica.space(space), asked, results, ttl_ms)

    def forget_checkouts(self, space: SpaceId, records: Iterable[OpaqueId]) -> None:
        """What was checked out here is checked in, or lost, and that has been told."""
        with self._replica.transaction(durable=True):
            checkouts.given_back(self._replica, self._replica.space(space), records)

    def push_checked_out(self, space: SpaceId, frame: CheckedOut) -> list[RecordChange]:
        """The relay refused a push, because another device has a record of it."""
        found = self._replica.space(space)
        until = holders.utc_text(frame.lease.expires_ms - found.leases.relay_ahead_ms)
        reason = f"checked out by {found.device_name(frame.lease.device)} until {until}"
        return checkouts.refused(self._replica, found, frame, reason)

    def begin_leases(self, space: SpaceId, relay: RelayId, cursor: int, relay_ms: int) -> None:
        """A session begins: what the relay's clock shows, and from where on its log may be another."""
        found, now_ms = self._replica.space(space), self._replica.now_ms()
        leases = found.leases
        known = relay in (found.relay_seen, found.session.relay)
        behind = bool(leases.rows) and (not known or cursor < found.cursor)
        if not behind and not leases.has_another_clock(relay_ms, now_ms):
            return
        with self._replica.transaction(durable=False):
            leases.hear_clock(self._replica.db, relay_ms, now_ms)
            if behind:
                leases.forget_behind(self._replica.db, cursor)

    def checkouts(self, space: SpaceId | None = None) -> list[Checkout]:
        """Everything that somebody has, this device's first; what ended here stays until it is checked in."""
        chosen = [self._replica.space(space)] if space is not None else self._replica.spaces.values()
        return [each for found in chosen for each in holders.all_shown(self._replica, found)]

    def checkout_of(self, type: str, id: str, *, space: SpaceId | None = None) -> Checkout | None:
        """The newest checkout of a record that this device knows of, ended or not."""
        found = self._replica.space(space)
        opaque = OpaqueId(found.keys.opaque_id(type, id))
        return holders.shown(self._replica, found, opaque)

    def held_elsewhere(self, type: str, id: str, *, space: SpaceId | None = None) -> Checkout | None:
        """Who else has the record now, so that what is written here waits; None: nobody we know of."""
        return holders.holder(self._replica, self._replica.space(space), type, id)

    def lease_rest_s(self, space: SpaceId) -> float | None:
        """Seconds until something that is held back may go, or to look again; None: nothing is held back."""
        end_ms = self.next_lease_end_ms(space)
        return None if end_ms is None else min(max(0, end_ms - self._replica.now_ms()) / 1000, LOOK_AGAIN_S)

    def passed_over_is_due(self, space: SpaceId) -> bool:
        """Whether an earlier life's work, passed over because it was held back, may go in another session."""
        found = self._replica.space(space)
        return found.session.author == self._replica.author and sending.session_over(self._replica, found)

    def hear_relay_clock(self, space: SpaceId, relay_ms: int) -> None:
        """What the relay's clock shows now: ours may have been set since we heard it last."""
        leases = self._replica.space(space).leases
        if leases.rows:
            with self._replica.transaction(durable=False):
                leases.hear_clock(self._replica.db, relay_ms, self._replica.now_ms())

    def next_lease_end_ms(self, space: SpaceId) -> int | None:
        """When (Unix ms of this device) something that is held back may go; None: nothing is."""
        return holding_back.next_end_ms(self._replica, self._replica.space(space))
