"""What devices and the relay have in common: a process that lives, dies and stands still, and a wall clock.

A node's lives are counted. Whatever was scheduled in one life does not happen in the next, and what falls due
while the process is paused happens when it goes on, in the same order. A node's clock shows what its owner's
clock would show, right or wrong; the world's time is never shown to the product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from crdt_sync_sim.network import Endpoint, Network
from crdt_sync_sim.storage import Storage
from crdt_sync_sim.world import START_UNIX_MS, Action, Timer, World


class NodeClock:
    """A wall clock that may be off, drift and jump. `now_ms` is in the shape the product wants."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.offset_ms = 0
        self.drift_ppm = 0.0
        self._since_us = 0

    def now_ms(self) -> int:
        now_us = self._world.now_us
        shown_ms = START_UNIX_MS + now_us // 1000 + self.offset_ms
        if self.drift_ppm:
            drifted_us = (now_us - self._since_us) * self.drift_ppm / 1_000_000
            shown_ms += int(drifted_us) // 1000
        return shown_ms if shown_ms > 0 else 0

    def set(self, offset_ms: int, drift_ppm: float) -> None:
        """Jump to being off by that much, and drift from there on."""
        self.offset_ms, self.drift_ppm, self._since_us = offset_ms, drift_ppm, self._world.now_us


class Node(ABC):
    """One process on one machine with one storage. Subclasses say what starting and stopping mean."""

    def __init__(self, name: str, world: World, network: Network, storage: Storage) -> None:
        self.name = name
        self.world = world
        self.network = network
        self.storage = storage
        self.clock = NodeClock(world)
        self.up = False
        self.life = 0
        self.backup: dict[str, bytes] | None = None
        self._paused_until_us = 0
        self._held: deque[Action] = deque()
        """What fell due in this life while it was paused."""
        self._ends: dict[Endpoint, None] = {}

    # Time as this process sees it

    def later(self, delay_us: int, action: Callable[..., object], *given: Any) -> Timer:
        """Do it in this life, that much later, or not at all. `given` is what the action is called with."""
        return self.world.after(delay_us, partial(self._do, self.life, action, *given))

    def _do(self, life: int, action: Callable[..., object], *given: Any) -> None:
        if life == self.life:
            self.now(action, *given)

    def now(self, action: Callable[..., object], *given: Any) -> None:
        """Do it now, or when the pause is over."""
        if not self.up:
            return
        if self._held or self._paused_until_us > self.world.now_us:
            self._held.append(partial(action, *given))
        else:
            action(*given)

    @property
    def paused(self) -> bool:
        return self.world.now_us < self._paused_until_us

    def _go_on(self) -> None:
        """The pause is over: what waited happens, in its order."""
        while self._held and not self.paused:
            self._held.popleft()()

    def adopt(self, end: Endpoint) -> None:
        """Remember an end of a connection as this process's."""
        self._ends[end] = None

    def release(self, end: Endpoint) -> None:
        self._ends.pop(end, None)

    # Lives

    def start(self) -> None:
        """The process starts."""
        self.life += 1
        self.up = True
        self.on_start()

    @property
    def in_use(self) -> bool:
        """Whether its owner wants it to run."""
        return True

    @abstractmethod
    def on_start(self) -> None:
        """Open what the storage has, and begin."""

    @abstractmethod
    def on_stop(self) -> None:
        """The process is gone; forget everything that was in memory."""

    def crash(self) -> None:
        """The process dies. Its kernel resets its connections."""
        if self.up:
            self.world.note("crash", self.name)
            self._stop(lambda end: end.reset())
            self.storage.crash()

    def cut_power(self) -> None:
        """The machine goes dark. Nobody is told."""
        if self.up:
            self.world.note("power_cut", self.name)
            self._stop(lambda end: end.vanish())
        self.storage.cut_power()

    def pause(self, duration_us: int) -> None:
        """The process stands still; its kernel goes on receiving."""
        self.world.note("pause", self.name, f"{duration_us}")
        self._paused_until_us = max(self._paused_until_us, self.world.now_us + duration_us)
        self.world.at(self._paused_until_us, self._go_on)

    def resume(self) -> None:
        """End a pause early."""
        self._paused_until_us = min(self._paused_until_us, self.world.now_us)
        self._go_on()

    def _stop(self, leave: Callable[[Endpoint], object]) -> None:
        self.up = False
        self.life += 1
        for end in list(self._ends):
            leave(end)
        self._ends.clear()
        self._held.clear()
        self._paused_until_us = 0
        self.on_stop()

    def take_backup(self) -> None:
        self.world.note("backup", self.name)
        self.backup = self.storage.image()

    def restore_backup(self) -> None:
        """Put the last backup in place of what is there, and start from it."""
        if self.backup is not None:
            self.crash()
            self.world.note("restore_backup", self.name)
            self.storage.restore(self.backup)
            self.start()
