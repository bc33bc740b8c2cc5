"""How far the devices of a space are, for those that wait to hear it (`AwaitDelivery`).

A device has what it has confirmed, not what was sent to it. A connected one confirms when it suits, which can
be long after; while somebody waits it is asked to (`ConfirmCursor`), and its confirmations pass through the
engine. Of one that is away the books know what it confirmed last. Nothing is kept or counted in a space in
which nobody waits.

Questions end with their connections and are asked anew in the next.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from crdt_sync.ids import DeviceId, SpaceId
from crdt_sync.protocol.deliveries import AwaitDelivery, ConfirmCursor, Delivered
from crdt_sync.protocol.frames import Frame, Got
from crdt_sync_server.effects import Effect, Peer, Send
from crdt_sync_server.spaces import Space
from crdt_sync_server.storage.port import Storage


@dataclass(slots=True)
class _Waits:
    """Those of one space."""

    confirmed: dict[DeviceId, int]
    """By every device that was ever here."""
    rows: dict[Peer, list[int]] = field(default_factory=dict)
    told: dict[Peer, Frame] = field(default_factory=dict)
    asked: dict[Peer, int] = field(default_factory=dict)
    """Up to where a connected device was asked to confirm."""


class Awaiting:
    """See the module. On the storage's thread, as the engine."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._spaces: dict[SpaceId, _Waits] = {}

    def heard(self, space: Space, peer: Peer, frame: AwaitDelivery | Got) -> None:
        """The peer's question, or that it has confirmed something; `look` has what follows."""
        if isinstance(frame, Got):
            return
        waits = self._spaces.get(space.id)
        if waits is None:
            known = {seen.device: seen.cursor for seen in self._storage.books.devices(space.key)}
            waits = self._spaces[space.id] = _Waits(known)
        waits.rows[peer] = frame.rows
        waits.told.pop(peer, None)

    def gone(self, space: SpaceId, peer: Peer) -> None:
        """Its connection has ended."""
        waits = self._spaces.get(space)
        if waits is None:
            return
        if peer.author is not None:
            waits.confirmed[peer.author.device] = peer.confirmed
        for of in (waits.rows, waits.told, waits.asked):
            of.pop(peer, None)
        if not waits.rows:
            del self._spaces[space]

    def look(self, space: Space, peers: Iterable[Peer]) -> list[Effect]:
        """What to tell whom now; `peers` are in the space, in the order in which they came."""
        waits = self._spaces.get(space.id)
        if waits is None:
            return []
        peers = list(peers)
        for peer in peers:
            if peer.author is not None:
                waits.confirmed[peer.author.device] = peer.confirmed
        members = [device for device, each in space.members.members.items() if each.revoked_at is None]
        effects: list[Effect] = []
        for peer, rows in list(waits.rows.items()):
            assert peer.author is not None
            others = sorted(waits.confirmed.get(each, 0) for each in members if each != peer.author.device)
            reached = [len(others) - bisect_left(others, row) for row in rows]
            answer = Delivered(rows, reached, len(others))
            if waits.told.get(peer) != answer:
                waits.told[peer] = answer
                effects.append(Send(peer, answer))
            if not rows:
                del waits.rows[peer], waits.told[peer]
        return effects + self._ask_to_confirm(space, waits, peers)

    def _ask_to_confirm(self, space: Space, waits: _Waits, peers: Iterable[Peer]) -> list[Effect]:
        effects: list[Effect] = []
        for peer in peers:
            if peer.author is None:
                continue
            device = peer.author.device
            wanted = [
                row
                for waiting, rows in waits.rows.items()
                if waiting.author is not None and waiting.author.device != device
                for row in rows
                if peer.confirmed < row <= space.head
            ]
            peer.awaited = bool(wanted)
            if wanted and waits.asked.get(peer) != min(wanted):
                waits.asked[peer] = min(wanted)
                effects.append(Send(peer, ConfirmCursor(min(wanted))))
        if not waits.rows:
            del self._spaces[space.id]
        return effects
