"""The world: virtual time, one queue of events, chance from named streams, and a digest of all that happened.

Rules:

- Time is an integer number of microseconds since the world began. It moves only from event to event; nothing
  reads a wall clock, starts a thread or runs an event loop.
- Events are ordered by (time, sequence): those due at the same microsecond run in the order in which they
  were scheduled. There is no other order, so a run is a function of its seed and its scenario.
- Chance comes from streams. Each has a name and its own generator, seeded from the run's seed and that
  name, so that drawing more from one (another edit in the workload) does not shift another (the network's
  delays).
- Everything observable goes through `note`, which feeds the digest. Two runs that differ anywhere differ
  there.

The anchors are FoundationDB's simulation and TigerBeetle's VOPR. What this world does not know: devices,
relays, links and disks. They stand on top of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Final

import msgspec

MICROSECONDS: Final = 1_000_000
"""In a second."""

START_UNIX_MS: Final = 1_767_225_600_000
"""What the true wall clock shows when a world begins: 2026-01-01T00:00:00Z. Any fixed time would do."""

_HASHED_AT_ONCE: Final = 256
"""Lines of the trace."""

Action = Callable[[], object]
"""Something to do; what it returns is ignored."""


def seconds(value: float) -> int:
    """Seconds as whole microseconds."""
    return round(value * MICROSECONDS)


class Stream(Random):
    """Chance for one purpose."""

    def below(self, bound: int) -> int:
        """As `randrange(bound)`, in a third of the time: nearly all that is drawn are delays."""
        bits = bound.bit_length()
        drawn = self.getrandbits(bits)
        while drawn >= bound:
            drawn = self.getrandbits(bits)
        return drawn

    def between(self, span: tuple[int, int]) -> int:
        """As `randint(*span)`: from and to, both included."""
        low, high = span
        return low + self.below(high - low + 1)


class Streams:
    """Named generators that do not disturb each other."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, Stream] = {}

    def __getitem__(self, name: str) -> Stream:
        stream = self._streams.get(name)
        if stream is None:
            digest = hashlib.sha256(f"crdt-sync/sim/{self.seed}/{name}".encode()).digest()
            number = int.from_bytes(digest, "big")
            stream = self._streams[name] = Stream(number)
        return stream

    def entropy(self, name: str) -> Callable[[int], bytes]:
        """A source of bytes in the shape the product wants, from the stream of that name."""
        return self[name].randbytes


class Timer(msgspec.Struct, order=True):
    """One scheduled event; earlier ones are less. `cancel` may be called at any time, also after it ran."""

    at_us: int
    sequence: int
    """Its place among all that were ever scheduled."""
    action: Action | None
    """None once it ran or was cancelled."""

    @property
    def waiting(self) -> bool:
        return self.action is not None

    def cancel(self) -> None:
        self.action = None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the trace: when, what kind, at which node, and particulars."""

    at_us: int
    kind: str
    node: str
    detail: str

    def __str__(self) -> str:
        return f"{self.at_us / MICROSECONDS:12.6f}  {self.node:<12} {self.kind:<14} {self.detail}"


class Trace:
    """The running digest over all events, and the events themselves if asked to keep them."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.events: list[Event] = []
        self._hash = hashlib.sha256()
        self._unhashed: list[str] = []

    def add(self, at_us: int, kind: str, node: str, detail: str) -> None:
        self._unhashed.append(f"{at_us}|{kind}|{node}|{detail}\n")
        if len(self._unhashed) >= _HASHED_AT_ONCE:
            self._hash_now()
        if self.keep:
            self.events.append(Event(at_us, kind, node, detail))

    def _hash_now(self) -> None:
        self._hash.update("".join(self._unhashed).encode())
        self._unhashed.clear()

    @property
    def digest(self) -> str:
        """Hex SHA-256 over every event so far."""
        self._hash_now()
        return self._hash.hexdigest()


class World:
    """Virtual time and chance. `keep_trace` keeps every event for reports; the digest is always made."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.seed = seed
        self.now_us = 0
        self.streams = Streams(seed)
        self.trace = Trace(keep=keep_trace)
        self.steps = 0
        self._heap: list[Timer] = []
        self._sequence = 0

    @property
    def now_s(self) -> float:
        return self.now_us / MICROSECONDS

    @property
    def next_us(self) -> int | None:
        """When the next event is due; None when nothing is."""
        heap = self._heap
        while heap and heap[0].action is None:
            heappop(heap)
        return heap[0].at_us if heap else None

    def after(self, delay_us: int, action: Action) -> Timer:
        """Run `action` that many microseconds from now; never before what is already due at that time."""
        self._sequence += 1
        timer = Timer(self.now_us + delay_us if delay_us > 0 else self.now_us, self._sequence, action)
        heappush(self._heap, timer)
        return timer

    def at(self, time_us: int, action: Action) -> Timer:
        """Run `action` at that time, which is not in the past."""
        if time_us < self.now_us:
            raise ValueError(f"{time_us} µs is before now, {self.now_us} µs")
        return self.after(time_us - self.now_us, action)

    def note(self, kind: str, node: str, detail: str = "") -> None:
        """Put what just happened on record."""
        self.trace.add(self.now_us, kind, node, detail)

    def forget(self) -> None:
        """Nothing that is scheduled happens any more."""
        for timer in self._heap:
            timer.cancel()
        self._heap.clear()

    def run(self, until_us: int, *, stop: Callable[[], bool] | None = None) -> bool:
        """Run events due up to `until_us`; True when `stop` ended it early.

        `stop` is asked after each event. Without it, time stands at `until_us` afterwards.
        """
        heap = self._heap
        while heap and heap[0].at_us <= until_us:
            timer = heappop(heap)
            action, timer.action = timer.action, None
            if action is None:
                continue
            self.now_us = timer.at_us
            self.steps += 1
            action()
            if stop is not None and stop():
                return True
        self.now_us = max(self.now_us, until_us)
        return False
