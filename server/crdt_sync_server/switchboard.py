"""All connections of a relay, and what effects mean for them, without I/O.

Frames that wait for a commit stand here in the order in which they came; `next_batch` takes as many as one
commit may hold. When it is done, `committed` spreads its effects: answers to their connections, new rows to
the live logs, whose readers are woken. There is one commit at a time, and that is the shell's to keep.

A shell has the sockets, the clock and the thread of the engine: `hub` is the one of asyncio, and the
simulator has another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from crdt_sync.ids import Entropy, RelayId, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Ack, Bye, FromDevice, Got
from crdt_sync.protocol.relay_session import RelaySession
from crdt_sync.rare import rare
from crdt_sync_server.delivery import Delivery
from crdt_sync_server.effects import Admit, Arrival, Close, Created, Effect, Grown, Peer, Replaced, Send
from crdt_sync_server.limits import DEFAULT_RELAY_LIMITS, RelayLimits, TooManyConnections
from crdt_sync_server.live import LiveLog
from crdt_sync_server.reports import LivePeer

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Frames in one commit: it takes some 100 ms at most, and everybody else waits for it."""


def internal_error() -> Bye:
    """The last word when it is our fault."""
    return Bye(CloseCode.INTERNAL, "internal", "the relay could not do its work; connect again")


def going_away() -> Bye:
    """The last word of a relay that stops."""
    return Bye(CloseCode.GOING_AWAY, "going_away", "the relay is shutting down")


def too_many() -> Bye:
    """The last word when the relay has as many connections as it may."""
    reason = "the relay has as many connections as it may; come back later"
    return Bye(CloseCode.RATE, TooManyConnections.code, reason)


class Waiting(NamedTuple):
    """A frame that waits for a commit, or the end of a connection, which has no size."""

    delivery: Delivery
    arrival: Arrival
    size_bytes: int


class Switchboard:
    """See the module."""

    def __init__(self, entropy: Entropy, limits: RelayLimits = DEFAULT_RELAY_LIMITS) -> None:
        self.closing = False
        """No more frames are taken."""
        self._entropy = entropy
        self._limits = limits
        self._connections: dict[Peer, Delivery] = {}
        self._live: dict[SpaceId, LiveLog[Delivery]] = {}
        self._waiting: deque[Waiting] = deque()
        self._late: list[Send] = []
        """Acknowledgements that a simulator holds back until the next effects are spread."""

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    @property
    def waiting(self) -> int:
        """How many frames wait for a commit."""
        return len(self._waiting)

    @property
    def most_lag(self) -> int:
        """Rows that the connection which is behind most has not been given."""
        return max((delivery.lag for delivery in self._connections.values()), default=0)

    def live(self) -> list[LivePeer]:
        """Who is connected and admitted."""
        return [
            LivePeer(
                peer.space,
                None if peer.author is None else peer.author.device,
                delivery.cursor,
                peer.caught_up,
                peer.agent,
                peer.since_ms,
            )
            for peer, delivery in self._connections.items()
            if peer.space is not None and delivery.session.open
        ]

    # Connections

    def opened(self, wake: Callable[[], None]) -> Delivery:
        """A new connection. `greet` it, or close it."""
        session = RelaySession(self._entropy(32), self._limits.wire)
        delivery = Delivery(session, Peer(session.nonce), wake)
        self._connections[delivery.peer] = delivery
        return delivery

    def greet(self, delivery: Delivery, relay_id: RelayId, now_ms: int) -> None:
        """Ask who it is, or say that nobody is served any more. `now_ms` is Unix time."""
        if self.closing:
            delivery.close(going_away())
        elif len(self._connections) > self._limits.connections:
            delivery.close(too_many())
        else:
            delivery.answer(delivery.session.challenge(relay_id, now_ms))

    def arrived(self, delivery: Delivery, frame: FromDevice, size_bytes: int) -> bool:
        """A frame came. True if it waits for a commit now."""
        if self.closing or (isinstance(frame, Got) and not delivery.peer.awaited):
            return False
        delivery.waits(size_bytes)
        self._waiting.append(Waiting(delivery, Arrival(delivery.peer, frame), size_bytes))
        return True

    def ended(self, delivery: Delivery) -> None:
        """A connection is gone. That waits for a commit too."""
        delivery.ended()
        del self._connections[delivery.peer]
        space = delivery.peer.space
        live = None if space is None else self._live.get(space)
        if space is not None and live is not None and not live.readers:
            del self._live[space]
        self._waiting.append(Waiting(delivery, Arrival(delivery.peer, None), 0))

    def close_all(self) -> None:
        """Close every connection because the relay stops."""
        for delivery in self._connections.values():
            delivery.close(going_away())

    # Commits

    def next_batch(self) -> list[Waiting]:
        """What the next commit is about, taken out of what waits. Empty if nothing does."""
        batch: list[Waiting] = []
        size_bytes = 0
        while self._waiting and (not batch or size_bytes + self._waiting[0].size_bytes <= BATCH_BYTES):
            if batch and rare("commit_of_one_frame"):
                break
            waiting = self._waiting.popleft()
            size_bytes += waiting.size_bytes
            batch.append(waiting)
        return batch

    def committed(self, batch: Sequence[Waiting], effects: Sequence[Effect]) -> bool:
        """The batch is durable, with these effects. True if a log has grown."""
        grown = self.spread(effects)
        self._done(batch)
        return grown

    def failed(self, batch: Sequence[Waiting]) -> None:
        """The batch could not be handled.

        Whoever was part of it cannot know what became of it; connecting again tells.
        """
        for waiting in batch:
            waiting.delivery.close(internal_error())
        self._done(batch)

    def _done(self, batch: Sequence[Waiting]) -> None:
        for waiting in batch:
            if waiting.size_bytes:
                waiting.delivery.committed(waiting.size_bytes)

    @property
    def holds_back(self) -> bool:
        """Whether acknowledgements wait for the next `spread`, which they do at a rare point only."""
        return bool(self._late)

    def spread(self, effects: Sequence[Effect]) -> bool:
        """Do what the engine asks for. True if a log has grown."""
        grown = False
        late, self._late = self._late, []
        for acknowledgement in late:
            self._tell(acknowledgement)
        for effect in effects:
            match effect:
                case Send(frame=Ack()) if rare("ack_late"):
                    self._late.append(effect)
                case Grown():
                    grown = True
                    live = self._live.get(effect.space)
                    if live is not None:
                        live.grow(effect.rows)
                        for reader in live.readers:
                            reader.wake()
                case Replaced():
                    live = self._live.get(effect.space)
                    if live is not None:
                        live.replace(effect.row)
                case _:
                    self._tell(effect)
        return grown

    def _tell(self, effect: Send | Admit | Created | Close) -> None:
        delivery = self._connections.get(effect.peer)
        if delivery is None:
            return
        if delivery.closing and not isinstance(effect, Send):
            return  # it sent something bad while its hello was being checked
        match effect:
            case Send():
                delivery.answer(effect.frame)
            case Close():
                delivery.close(effect.bye)
                self._forget_frames(delivery)
            case Created():
                delivery.session.created()
                delivery.answer(effect.frame)
            case Admit():
                live = self._live.get(effect.space)
                if live is None:
                    live = self._live[effect.space] = LiveLog(effect.welcome.head)
                delivery.admitted(effect.mode, effect.welcome, live)

    def _forget_frames(self, delivery: Delivery) -> None:
        """What it sent after a frame that was not taken may build on that, and would be refused for it."""
        self._waiting = deque(
            waiting
            for waiting in self._waiting
            if waiting.delivery is not delivery or waiting.arrival.frame is None
        )
