"""The network: ordered streams of messages between nodes, over links that fail the way links fail.

A connection stands for a WebSocket over TCP, so what can happen to its messages is what TCP lets happen:

- *Loss, delay, jitter, bandwidth.* A lost segment is sent again after a timeout that doubles (RFC 6298: at
  least one second at first, 200 ms in Linux); until then everything behind it waits. Applications see
  stalls, never gaps.
- *Cuts and partitions.* What is sent into a cut waits in the kernel. A heal delivers it, in order, at the
  next retransmission. A cut may be one-way. If it lasts, keepalive closes each end by itself, each at its
  own time.
- *Half-open sockets.* A node that loses power says nothing; its peer believes in the connection until
  keepalive does. A crashed process is different: its kernel resets the connection and the peer hears of it.
- *Corruption* of a bit that no checksum caught, on a link without TLS.

*Duplicated, reordered and replayed* messages inside one connection cannot come from TCP: they come from a
hostile or broken relay, or from something between that speaks WebSocket. They are `Mischief`, drawn apart
from the rest, and the product must survive them (rule 5 of `checks.INVARIANTS`).

A link is directed: (sender, receiver). What this module does not know: what is in a message, and what a
node does when its connection closes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple

from crdt_sync_sim.world import Timer, World, seconds

RETRANSMIT_US: Final = 200_000
"""Linux's smallest retransmission timeout; doubles with every try."""
MAX_RETRANSMITS: Final = 7
"""In a row, which take 25 s. Linux has 15 (`tcp_retries2`), and keepalive is quicker than the last of them:
here the message gets through instead, since nobody waits for a quarter of an hour on a link that works."""
KEEPALIVE_US: Final = seconds(20)
"""Pings go out this often, and a pong may take as long: the defaults of websockets and uvicorn."""
CONNECT_TIMEOUT_US: Final = seconds(10)
"""How long opening a connection may take: the default of websockets."""
ABNORMAL: Final = 1006
"""The close code of a connection that ended without a close frame (RFC 6455, 7.1.5)."""
HEADER_BYTES: Final = 66
"""Ethernet, IP, TCP with timestamps and a WebSocket header, per message; for bandwidth and byte counts."""


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """How a directed link behaves while it is not cut. `loss` is per message, from 0 to below 1."""

    delay_us: int = 20_000
    jitter_us: int = 5_000
    loss: float = 0.0
    bytes_per_s: int = 0
    """0: unlimited."""
    corruption: float = 0.0


@dataclass(frozen=True, slots=True)
class Mischief:
    """What a hostile relay or a broken middlebox does to messages. Probabilities per message."""

    duplicate: float = 0.0
    reorder: float = 0.0
    replay: float = 0.0
    """An older message of the same direction and connection is sent once more, later."""


@dataclass(slots=True)
class Tally:
    """What the network did in a run."""

    messages: int = 0
    bytes: int = 0
    retransmitted: int = 0
    corrupted: int = 0
    duplicated: int = 0
    reordered: int = 0
    replayed: int = 0
    connections: int = 0
    resets: int = 0
    timed_out: int = 0
    refused: int = 0
    peak_in_flight_bytes: int = 0
    by_node: dict[str, int] = field(default_factory=dict)
    """Bytes sent per node."""


OnMessage = Callable[[bytes], None]
OnClose = Callable[[int], None]


class Endpoint:
    """One end of a connection. Set `on_message` and `on_close`; `on_close` is called at most once.

    After `close` or `vanish` neither is called any more.
    """

    def __init__(self, node: str, peer: str) -> None:
        self.node = node
        self.peer = peer
        self.link = (node, peer)
        """The directed link over which this end sends."""
        self.on_message: OnMessage = _ignore_message
        self.on_close: OnClose = _ignore_close
        self.open = True
        self.connection: Connection | None = None
        """None again once it is over."""

    def send(self, message: bytes) -> None:
        """Hand over to the kernel. Nothing is known about arrival; sending on a closed end is ignored."""
        if self.open and self.connection is not None:
            self.connection.transmit(self, message)

    def close(self, code: int = 1000) -> None:
        """Close in order: the peer hears after everything sent before, if the link lets it."""
        if self.open and self.connection is not None:
            self.shut()
            self.connection.transmit_close(self, code)

    def reset(self) -> None:
        """The process died: its kernel resets the connection."""
        self.close(ABNORMAL)

    def vanish(self) -> None:
        """Power went: the peer hears nothing."""
        if self.open and self.connection is not None:
            self.shut()
            self.connection.vanished(self)

    def deliver_close(self, code: int) -> None:
        if self.open:
            on_close = self.on_close
            self.shut()
            on_close(code)

    def shut(self) -> None:
        """Nothing comes here any more, and who was to hear of it is let go of."""
        self.open = False
        self.on_message, self.on_close = _ignore_message, _ignore_close


def _ignore_message(_: bytes) -> None:
    return None


def _ignore_close(_: int) -> None:
    return None


class Network:
    """All links and connections of a world. Listeners accept; everyone may connect."""

    def __init__(self, world: World, profile: LinkProfile | None = None) -> None:
        self.world = world
        self.stream = world.streams["network"]
        self.tally = Tally()
        self.mischief: Mischief | None = None
        self.tap: Callable[[str, str, bytes], object] | None = None
        """Sees (sender, receiver, message) of everything that is sent."""
        self._default = profile or LinkProfile()
        self._profiles: dict[tuple[str, str], LinkProfile] = {}
        self.cuts: dict[tuple[str, str], int] = {}
        """Directed links that are cut, and how often."""
        self._busy_until_us: dict[tuple[str, str], int] = {}
        self._listeners: dict[str, Callable[[Endpoint], None]] = {}
        self._connections: dict[int, Connection] = {}
        self._next_id = 0

    # Shape of the network

    def set_profile(self, profile: LinkProfile, pairs: Iterable[tuple[str, str]] | None = None) -> None:
        """Give directed links a profile; without `pairs`, all of them."""
        if pairs is None:
            self._default = profile
            self._profiles.clear()
        else:
            for pair in pairs:
                self._profiles[pair] = profile

    def profile(self, pair: tuple[str, str]) -> LinkProfile:
        return self._profiles.get(pair, self._default)

    def adjust(self, pairs: Iterable[tuple[str, str]], **changes: Any) -> None:
        """Change some properties of some directed links, named as in `LinkProfile`."""
        for pair in pairs:
            self._profiles[pair] = replace(self.profile(pair), **changes)

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Cut directed links. Cuts are counted: a link works again when each of them was mended."""
        for pair in pairs:
            self.cuts[pair] = self.cuts.get(pair, 0) + 1
            if self.cuts[pair] == 1:
                for connection in self._over(pair):
                    connection.path_lost(pair)

    def mend(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Undo one cut of each of these links."""
        for pair in pairs:
            left = self.cuts.get(pair, 0) - 1
            if left > 0:
                self.cuts[pair] = left
            elif self.cuts.pop(pair, None) is not None:
                for connection in self._over(pair):
                    connection.path_found(pair)

    def mend_all(self) -> None:
        pairs = sorted(self.cuts)
        for pair in pairs:
            self.cuts[pair] = 1
        self.mend(pairs)

    def is_cut(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) in self.cuts

    def reachable(self, one: str, other: str) -> bool:
        return (one, other) not in self.cuts and (other, one) not in self.cuts

    # Connections

    def listen(self, node: str, accept: Callable[[Endpoint], None]) -> None:
        self._listeners[node] = accept

    def unlisten(self, node: str) -> None:
        """Connection attempts are refused from now on."""
        self._listeners.pop(node, None)

    def connect(
        self, node: str, peer: str, connected: Callable[[Endpoint], None], failed: Callable[[str], None]
    ) -> Timer:
        """Open a connection; exactly one of the callbacks is called, later. Cancel the timer to give up."""
        if not self.reachable(node, peer):
            # SYNs vanish; a heal in the meantime is found by the application's next try.
            return self.world.after(CONNECT_TIMEOUT_US, partial(self._fail, failed, "timed out"))
        there, back = self.profile((node, peer)), self.profile((peer, node))
        # TCP and WebSocket handshakes: three crossings before the client may speak.
        delay_us = self._flight_us(there) * 2 + self._flight_us(back)

        def opened() -> None:
            accept = self._listeners.get(peer)
            if not self.reachable(node, peer):
                self._fail(failed, "timed out")
            elif accept is None:
                self._fail(failed, "refused")
            else:
                self._open(node, peer, connected, accept)

        return self.world.after(delay_us, opened)

    def _open(
        self, node: str, peer: str, connected: Callable[[Endpoint], None], accept: Callable[[Endpoint], None]
    ) -> None:
        client, server = Endpoint(node, peer), Endpoint(peer, node)
        self._next_id += 1
        connection = Connection(self, self._next_id, client, server)
        self._connections[self._next_id] = connection
        self.tally.connections += 1
        self.world.note("connect", node, peer)
        connected(client)
        accept(server)

    def _fail(self, failed: Callable[[str], None], why: str) -> None:
        self.tally.refused += 1
        failed(why)

    def _flight_us(self, profile: LinkProfile) -> int:
        flight_us = profile.delay_us
        if profile.jitter_us:
            flight_us += self.stream.below(profile.jitter_us + 1)
        if profile.loss:
            flight_us += self._retransmission_us(profile.loss)
        return flight_us

    def _retransmission_us(self, loss: float) -> int:
        waited, timeout_us = 0, RETRANSMIT_US
        for _ in range(MAX_RETRANSMITS):
            if self.stream.random() >= loss:
                break
            waited += timeout_us
            timeout_us *= 2
            self.tally.retransmitted += 1
        return waited

    def arrival_us(self, pair: tuple[str, str], size_bytes: int) -> int:
        """When a message sent now arrives over this link, were it alone on its connection."""
        profile = self._profiles.get(pair, self._default)
        start_us = self.world.now_us
        if profile.bytes_per_s:
            start_us = max(start_us, self._busy_until_us.get(pair, 0))
            start_us += size_bytes * 1_000_000 // profile.bytes_per_s
            self._busy_until_us[pair] = start_us
        return start_us + self._flight_us(profile)

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection.number, None)

    def vanish(self) -> None:
        """Nothing that is connected is any more, and nobody is told."""
        for connection in list(self._connections.values()):
            connection.client.shut()
            connection.server.shut()
            connection.end()

    def _over(self, pair: tuple[str, str]) -> Sequence[Connection]:
        ends = set(pair)
        return [c for c in self._connections.values() if {c.client.node, c.server.node} == ends]


class _Segment(NamedTuple):
    """A message, or the code of a close, in its place in what one end sent."""

    number: int
    content: bytes | int
    mischief: bool


class Connection:
    """Two ends and, per direction, an ordered queue of what is in flight."""

    def __init__(self, network: Network, number: int, client: Endpoint, server: Endpoint) -> None:
        self.network = network
        self.number = number
        self.client = client
        self.server = server
        client.connection = server.connection = self
        self._last_arrival_us = {client: 0, server: 0}
        self._held: dict[Endpoint, list[_Segment]] = {client: [], server: []}
        self._sent = 0
        self._history: dict[Endpoint, list[bytes]] = {client: [], server: []}
        self._in_flight_bytes = 0
        self._keepalive: Timer | None = None

    def _other(self, end: Endpoint) -> Endpoint:
        return self.server if end is self.client else self.client

    def transmit(self, sender: Endpoint, message: bytes) -> None:
        network, tally = self.network, self.network.tally
        size_bytes = len(message) + HEADER_BYTES
        tally.messages += 1
        tally.bytes += size_bytes
        tally.by_node[sender.node] = tally.by_node.get(sender.node, 0) + size_bytes
        if network.tap is not None:
            network.tap(sender.node, sender.peer, message)
        self._in_flight_bytes += len(message)
        if self._in_flight_bytes > tally.peak_in_flight_bytes:
            tally.peak_in_flight_bytes = self._in_flight_bytes
        if network.mischief is None:
            self._queue(sender, message, 0)
        else:
            for copy, extra_us in self._with_mischief(sender, message, network.mischief):
                self._queue(sender, copy, extra_us)

    def transmit_close(self, sender: Endpoint, code: int) -> None:
        self.network.world.note("close", sender.node, f"{sender.peer} {code}")
        if not self._other(sender).open:
            self.end()
        self._queue(sender, code, 0)

    def vanished(self, end: Endpoint) -> None:
        self._held[end].clear()
        if self._other(end).open:
            self._expect_death()
        else:
            self.end()

    def path_lost(self, pair: tuple[str, str]) -> None:
        del pair  # either direction stops pings or pongs
        self._expect_death()

    def path_found(self, pair: tuple[str, str]) -> None:
        """What waited is retransmitted; keepalive is content unless an end is really gone."""
        both_open = self.client.open and self.server.open
        path_whole = self.network.reachable(self.client.node, self.server.node)
        if self._keepalive is not None and both_open and path_whole:
            self._keepalive.cancel()
            self._keepalive = None
        sender = self.client if self.client.node == pair[0] else self.server
        held, self._held[sender] = self._held[sender], []
        # What was in flight when the cut came is older than what was sent into it.
        held.sort(key=lambda segment: segment.number)
        resume_us = self.network.stream.below(RETRANSMIT_US * 8)
        for segment in held:
            self._schedule(sender, segment, resume_us)

    def _with_mischief(self, sender: Endpoint, message: bytes, mischief: Mischief) -> list[tuple[bytes, int]]:
        stream, tally = self.network.stream, self.network.tally
        history = self._history[sender]
        copies = [(message, 0)]
        if mischief.reorder and stream.random() < mischief.reorder:
            copies = [(message, 1 + stream.below(300_000))]
            tally.reordered += 1
        if mischief.duplicate and stream.random() < mischief.duplicate:
            copies.append((message, 1 + stream.below(300_000)))
            tally.duplicated += 1
        if history and mischief.replay and stream.random() < mischief.replay:
            copies.append((stream.choice(history), 1 + stream.below(300_000)))
            tally.replayed += 1
        history.append(message)
        del history[:-8]
        return copies

    def _queue(self, sender: Endpoint, content: bytes | int, extra_us: int) -> None:
        self._sent += 1
        segment = _Segment(self._sent, content, extra_us > 0)
        if sender.link in self.network.cuts:
            self._held[sender].append(segment)
        else:
            self._schedule(sender, segment, extra_us)

    def _schedule(self, sender: Endpoint, segment: _Segment, extra_us: int) -> None:
        network, content = self.network, segment.content
        size_bytes = HEADER_BYTES + (0 if isinstance(content, int) else len(content))
        arrival_us = network.arrival_us(sender.link, size_bytes) + extra_us
        if not segment.mischief:
            # Never before what was sent earlier.
            arrival_us = max(arrival_us, self._last_arrival_us[sender])
            self._last_arrival_us[sender] = arrival_us
        network.world.at(arrival_us, partial(self._arrive, sender, segment))

    def _arrive(self, sender: Endpoint, segment: _Segment) -> None:
        network, content = self.network, segment.content
        if sender.link in network.cuts:
            self._held[sender].append(segment)
            return
        receiver = self._other(sender)
        if isinstance(content, int):
            self.end()
            receiver.deliver_close(content)
            return
        self._in_flight_bytes -= len(content)
        if receiver.open:
            corruption = network.profile(sender.link).corruption
            if corruption and content and network.stream.random() < corruption:
                content = self._corrupted(sender, content)
            receiver.on_message(content)

    def _corrupted(self, sender: Endpoint, message: bytes) -> bytes:
        self.network.tally.corrupted += 1
        bit = self.network.stream.below(len(message) * 8)
        broken = bytearray(message)
        broken[bit // 8] ^= 1 << bit % 8
        self.network.world.note("corrupt", sender.node, f"bit {bit}")
        return bytes(broken)

    def _expect_death(self) -> None:
        """Pings stop being answered: each open end notices between one and two keepalive periods from now."""
        if self._keepalive is None or not self._keepalive.waiting:
            stream, world = self.network.stream, self.network.world
            delays = {end: KEEPALIVE_US + stream.below(KEEPALIVE_US) for end in (self.client, self.server)}
            first, last = sorted(delays, key=lambda end: delays[end])
            self._keepalive = world.after(
                delays[first], partial(self._give_up, first, last, delays[last] - delays[first])
            )

    def _give_up(self, end: Endpoint, then: Endpoint | None, delay_us: int) -> None:
        if end.open:
            self.network.tally.timed_out += 1
            self.network.world.note("timeout", end.node, end.peer)
            end.deliver_close(ABNORMAL)
        self._held[end].clear()
        if then is None:
            self.end()
        else:
            self._keepalive = self.network.world.after(delay_us, partial(self._give_up, then, None, 0))

    def end(self) -> None:
        """Neither end takes or sends anything any more; what is on its way finds that out."""
        if self._keepalive is not None and not self.client.open and not self.server.open:
            self._keepalive.cancel()
        self.network.forget(self)
        self.client.connection = self.server.connection = None


def between(groups: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """All directed links between members of different groups: what a partition of that shape cuts."""
    return [
        (one, other)
        for index, group in enumerate(groups)
        for position, rest in enumerate(groups)
        if index != position
        for one in group
        for other in rest
    ]
