"""Which of the product's rare points are on in a world, and how often each fired.

A point is switched on by an event, with a share of the times it is asked; chance comes from a stream of its
own, so that leaving one point out does not shift the others. When everything heals all are off: how fast
devices converge then is what production does.
"""

from __future__ import annotations

from collections import Counter

from crdt_sync.rare import Point
from crdt_sync_sim.world import World


class RarePoints:
    """Decides for `crdt_sync.rare`. Everything that fires is noted, and so is part of the digest."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.shares: dict[Point, float] = {}
        """Of those that are on."""
        self.fired: Counter[Point] = Counter()

    def switch(self, point: Point, share: float) -> None:
        """Let it fire in that share of the times it is asked; 0 is off."""
        if share > 0:
            self.shares[point] = share
        else:
            self.shares.pop(point, None)

    def all_off(self) -> None:
        self.shares.clear()

    def decide(self, point: Point) -> bool:
        """Whether a point that is on fires now."""
        if self._world.streams[f"rare/{point}"].random() >= self.shares[point]:
            return False
        self.fired[point] += 1
        self._world.note("rare", "", point)
        return True
