"""Part of `Engine`: how a session begins, and what a relay has, was promised, or has lost."""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sync.ids import Incarnation, OpaqueId, RecordId, RelayId, SpaceId
from crdt_sync_client.engine import confirming, forks, giving_back, joining, retrying, sending
from crdt_sync_client.engine.model import SessionStart, Welcomed
from crdt_sync_client.engine.replica import Replica
from crdt_sync_client.engine.waiting import FIRST


class SessionCalls:
    """See the module."""

    _replica: Replica

    def before_session(self, space: SpaceId) -> tuple[str, bool]:
        """The address of the relay, and whether the space had its first sync. Asks nothing of the store."""
        found = self._replica.space(space)
        return found.relay_url, found.catching_up != FIRST

    def session_start(self, space: SpaceId) -> SessionStart:
        """What to say hello with. Call it when the relay is there to hear it."""
        replica = self._replica
        found = replica.space(space)
        retrying.retry_due(replica, found)
        author = found.session.author = sending.session_author(replica, found)
        revives, found.giving.revives = found.giving.revives, False
        return SessionStart(
            space=found.id,
            relay_url=found.relay_url,
            device=replica.device_id,
            incarnation=author.incarnation,
            cursor=found.cursor,
            relay_seen=found.relay_seen,
            sign=replica.keys.sign,
            promised=found.giving.promised,
            acked=giving_back.acknowledged(replica, found, author),
            revive=found.log.entries if revives else (),
        )

    def confirm_taken(self, space: SpaceId) -> None:
        """The relay has welcomed this device: it has the genesis or join that was handed over, if one was."""
        found = self._replica.space(space)
        if found.stage != "active":
            joining.confirm(self._replica, found)

    def welcome(
        self,
        space: SpaceId,
        relay: RelayId,
        own_sequence: int,
        own_hash: bytes,
        head: int,
        cursor: int | None = None,
    ) -> Welcomed:
        """Compare with what the relay has of this device's chain. Call it first in every session.

        `cursor` is where delivery begins; without it, where that relay is known to stand.
        """
        found = self._replica.space(space)
        return sending.welcome(self._replica, found, relay, own_sequence, own_hash, head, cursor)

    def acked(
        self, space: SpaceId, incarnation: Incarnation, sequence: int, head: int = 0
    ) -> list[tuple[str, RecordId]]:
        """Everything of that chain up to `sequence` is durable at the relay; the records now synced.

        The relay's log ended at `head` then.
        """
        return sending.acked(self._replica, self._replica.space(space), incarnation, sequence, head)

    def confirm_snapshot(self, space: SpaceId, snapshot: bytes, rest: Sequence[bytes]) -> str:
        """Whether another device's snapshot holds what it covers: `same`, `differs` or `unable`.

        `rest` are the updates of the record that it does not cover. Raises MalformedEnvelope.
        """
        return confirming.judge(self._replica, self._replica.space(space), snapshot, rest)

    # A relay that has lost something

    def lost_entries(self, space: SpaceId, members_head: bytes) -> tuple[bytes, ...]:
        """Membership entries that a relay lacks whose log ends with the entry of that hash."""
        return tuple(giving_back.lost_entries(self._replica.space(space), members_head))

    def revive(self, space: SpaceId, *, wanted: bool) -> bool:
        """The relay does not know the space, or not us. Whether the next session gives it the log back."""
        found = self._replica.space(space)
        found.giving.revives = wanted and found.stage == "active"
        return found.giving.revives

    def take_branch(self, space: SpaceId, common: int, entries: Sequence[bytes]) -> None:
        """The relay's membership log goes on with these behind the first `common`: make one of both.

        The next session gives it to the relay. Raises BadMembership, ForkedLog.
        """
        found = self._replica.space(space)
        with self._replica.transaction(durable=True):
            forks.take_branch(self._replica, found, common, entries)
        found.giving.revives, found.giving.carries = True, False

    def gives_back(self, space: SpaceId) -> bool:
        """Whether there may be something that the relay has lost, and all of its log was seen."""
        return self._replica.space(space).giving.gives

    def give_back(self, space: SpaceId, *, max_bytes: int, again: bool = False) -> list[bytes]:
        """The next snapshots that the relay lacks; empty when there are none, or enough on their way.

        `again`: something has changed since, so records that could not be given back are looked at anew.
        """
        found = self._replica.space(space)
        if again:
            found.giving.look_again()
        return giving_back.next_snapshots(self._replica, found, max_bytes)

    def looks_on(self, space: SpaceId) -> bool:
        """Whether the last `give_back` found nothing only as far as it went: call it again."""
        return self._replica.space(space).giving.looks_on

    def gave_back(self, space: SpaceId, record: OpaqueId, code: str) -> None:
        """The relay's answer to one of them."""
        giving_back.answered(self._replica, self._replica.space(space), record, code)
