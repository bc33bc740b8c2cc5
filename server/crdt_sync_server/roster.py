"""Who is connected, as the engine knows it: peers by space, and how many connections each device has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from crdt_sync.ids import DeviceId, SpaceId
from crdt_sync_server.effects import Peer


class Roster:
    """See the module. Holds spaces to which somebody is connected, in the order in which that began."""

    def __init__(self) -> None:
        self._peers: dict[SpaceId, dict[Peer, None]] = {}
        self._devices: Counter[DeviceId] = Counter()

    def add(self, peer: Peer, space: SpaceId) -> None:
        """The peer, who is known by now, is in the space."""
        self._peers.setdefault(space, {})[peer] = None
        if peer.author is not None:
            self._devices[peer.author.device] += 1

    def remove(self, peer: Peer) -> bool:
        """Whether it was there."""
        assert peer.space is not None
        peers = self._peers.get(peer.space)
        if peers is None or peer not in peers:
            return False
        del peers[peer]
        if not peers:
            del self._peers[peer.space]
        if peer.author is not None:
            self._devices[peer.author.device] -= 1
            if not self._devices[peer.author.device]:
                del self._devices[peer.author.device]
        return True

    def of(self, space: SpaceId) -> Iterable[Peer]:
        """Who is in the space."""
        return self._peers.get(space, {})

    def connections_of(self, device: DeviceId) -> int:
        """In all spaces together."""
        return self._devices.get(device, 0)

    def __contains__(self, space: SpaceId) -> bool:
        return space in self._peers

    def __iter__(self) -> Iterator[SpaceId]:
        return iter(self._peers)

    def __len__(self) -> int:
        return len(self._peers)
