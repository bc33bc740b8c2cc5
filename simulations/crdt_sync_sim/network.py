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

    def __bool__(self) -> bool:
        return bool(self.duplicate or self.reorder or self.replay)


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
        self.on_message: OnMessage = _ignore_message
        self.on_close: OnClose = _ignore_close
        self.open = True
        self.connection: Connection

    def send(self, message: bytes) -> None:
        """Hand over to the kernel. Nothing is known about arrival; sending on a closed end is ignored."""
        if self.open:
            self.connection.transmit(self, message)

    def close(self, code: int = 1000) -> None:
        """Close in order: the peer hears after everything sent before, if the link lets it."""
        if self.open:
            self.open = False
            self.connection.transmit_close(self, code)

    def reset(self) -> None:
        """The process died: its kernel resets the connection."""
        self.close(ABNORMAL)

    def vanish(self) -> None:
        """Power went: the peer hears nothing."""
        if self.open:
            self.open = False
            self.connection.vanished(self)

    def deliver_close(self, code: int) -> None:
        if self.open:
            self.open = False
            self.on_close(code)


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
        self.mischief = Mischief()
        self.tap: Callable[[str, str, bytes], object] | None = None
        """Sees (sender, receiver, message) of everything that is sent."""
        self._default = profile or LinkProfile()
        self._profiles: dict[tuple[str, str], LinkProfile] = {}
        self._cuts: dict[tuple[str, str], int] = {}
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

    def profile(self, sender: str, receiver: str) -> LinkProfile:
        return self._profiles.get((sender, receiver), self._default)

    def adjust(self, pairs: Iterable[tuple[str, str]], **changes: Any) -> None:
        """Change some properties of some directed links, named as in `LinkProfile`."""
        for pair in pairs:
            self._profiles[pair] = replace(self.profile(*pair), **changes)

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Cut directed links. Cuts are counted: a link works again when each of them was mended."""
        for pair in pairs:
            self._cuts[pair] = self._cuts.get(pair, 0) + 1
            if self._cuts[pair] == 1:
                for connection in self._over(pair):
                    connection.path_lost(pair)

    def mend(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Undo one cut of each of these links."""
        for pair in pairs:
            left = self._cuts.get(pair, 0) - 1
            if left > 0:
                self._cuts[pair] = left
            elif self._cuts.pop(pair, None) is not None:
                for connection in self._over(pair):
                    connection.path_found(pair)

    def mend_all(self) -> None:
        pairs = sorted(self._cuts)
        for pair in pairs:
            self._cuts[pair] = 1
        self.mend(pairs)

    def is_cut(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) in self._cuts

    def reachable(self, one: str, other: str) -> bool:
        return not (self.is_cut(one, other) or self.is_cut(other, one))

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
        if self.is_cut(node, peer) or self.is_cut(peer, node):
            # SYNs vanish; a heal in the meantime is found by the application's next try.
            return self.world.after(CONNECT_TIMEOUT_US, lambda: self._fail(failed, "timed out"))
        there, back = self.profile(node, peer), self.profile(peer, node)
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
        stream = self.stream
        jitter = stream.randrange(profile.jitter_us + 1) if profile.jitter_us else 0
        return profile.delay_us + jitter + self._retransmission_us(profile)

    def _retransmission_us(self, profile: LinkProfile) -> int:
        waited, timeout_us = 0, RETRANSMIT_US
        if profile.loss:
            for _ in range(MAX_RETRANSMITS):
                if self.stream.random() >= profile.loss:
                    break
                waited += timeout_us
                timeout_us *= 2
                self.tally.retransmitted += 1
        return waited

    def arrival_us(self, pair: tuple[str, str], size_bytes: int) -> int:
        """When a message sent now arrives over this link, were it alone on its connection."""
        profile = self.profile(*pair)
        start_us = self.world.now_us
        if profile.bytes_per_s:
            start_us = max(start_us, self._busy_until_us.get(pair, 0))
            start_us += size_bytes * 1_000_000 // profile.bytes_per_s
            self._busy_until_us[pair] = start_us
        return start_us + self._flight_us(profile)

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection.number, None)

    def _over(self, pair: tuple[str, str]) -> Sequence[Connection]:
        ends = set(pair)
        return [c for c in self._connections.values() if {c.client.node, c.server.node} == ends]


class _Segment(NamedTuple):
    """A message, or with None a close, in its place in what one end sent."""

    number: int
    message: bytes | None
    code: int
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
        tally = self.network.tally
        size_bytes = len(message) + HEADER_BYTES
        tally.messages += 1
        tally.bytes += size_bytes
        tally.by_node[sender.node] = tally.by_node.get(sender.node, 0) + size_bytes
        if self.network.tap is not None:
            self.network.tap(sender.node, sender.peer, message)
        self._in_flight_bytes += len(message)
        tally.peak_in_flight_bytes = max(tally.peak_in_flight_bytes, self._in_flight_bytes)
        for copy, extra_us in self._with_mischief(sender, message):
            self._queue(sender, self._segment(copy, 0, mischief=extra_us > 0), extra_us)

    def transmit_close(self, sender: Endpoint, code: int) -> None:
        self.network.world.note("close", sender.node, f"{sender.peer} {code}")
        if not self._other(sender).open:
            self._end()
        self._queue(sender, self._segment(None, code), 0)

    def vanished(self, end: Endpoint) -> None:
        self._held[end].clear()
        if self._other(end).open:
            self._expect_death()
        else:
            self._end()

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
        resume_us = self.network.stream.randrange(RETRANSMIT_US * 8)
        for segment in held:
            self._schedule(sender, segment, resume_us)

    def _segment(self, message: bytes | None, code: int, *, mischief: bool = False) -> _Segment:
        self._sent += 1
        return _Segment(self._sent, message, code, mischief)

    def _with_mischief(self, sender: Endpoint, message: bytes) -> list[tuple[bytes, int]]:
        mischief = self.network.mischief
        if not mischief:
            return [(message, 0)]
        stream, tally = self.network.stream, self.network.tally
        history = self._history[sender]
        copies = [(message, 0)]
        if mischief.reorder and stream.random() < mischief.reorder:
            copies = [(message, 1 + stream.randrange(300_000))]
            tally.reordered += 1
        if mischief.duplicate and stream.random() < mischief.duplicate:
            copies.append((message, 1 + stream.randrange(300_000)))
            tally.duplicated += 1
        if history and mischief.replay and stream.random() < mischief.replay:
            copies.append((stream.choice(history), 1 + stream.randrange(300_000)))
            tally.replayed += 1
        history.append(message)
        del history[:-8]
        return copies

    def _queue(self, sender: Endpoint, segment: _Segment, extra_us: int) -> None:
        if self.network.is_cut(sender.node, sender.peer):
            self._held[sender].append(segment)
        else:
            self._schedule(sender, segment, extra_us)

    def _schedule(self, sender: Endpoint, segment: _Segment, extra_us: int) -> None:
        pair = (sender.node, sender.peer)
        arrival_us = self.network.arrival_us(pair, HEADER_BYTES + len(segment.message or b"")) + extra_us
        if not segment.mischief:
            # Never before what was sent earlier.
            arrival_us = max(arrival_us, self._last_arrival_us[sender])
            self._last_arrival_us[sender] = arrival_us
        self.network.world.at(arrival_us, lambda: self._arrive(sender, segment))

    def _arrive(self, sender: Endpoint, segment: _Segment) -> None:
        if self.network.is_cut(sender.node, sender.peer):
            self._held[sender].append(segment)
            return
        receiver, message, code = self._other(sender), segment.message, segment.code
        if message is None:
            self._end()
            receiver.deliver_close(code)
            return
        self._in_flight_bytes -= len(message)
        if receiver.open:
            receiver.on_message(self._perhaps_corrupted(sender, message))

    def _perhaps_corrupted(self, sender: Endpoint, message: bytes) -> bytes:
        rate = self.network.profile(sender.node, sender.peer).corruption
        if not rate or not message or self.network.stream.random() >= rate:
            return message
        self.network.tally.corrupted += 1
        bit = self.network.stream.randrange(len(message) * 8)
        broken = bytearray(message)
        broken[bit // 8] ^= 1 << bit % 8
        self.network.world.note("corrupt", sender.node, f"bit {bit}")
        return bytes(broken)

    def _expect_death(self) -> None:
        """Pings stop being answered: each open end notices between one and two keepalive periods from now."""
        if self._keepalive is None or not self._keepalive.waiting:
            stream, world = self.network.stream, self.network.world
            delays = {
                end: KEEPALIVE_US + stream.randrange(KEEPALIVE_US) for end in (self.client, self.server)
            }
            first, last = sorted(delays, key=lambda end: delays[end])
            self._keepalive = world.after(
                delays[first], lambda: self._give_up(first, last, delays[last] - delays[first])
            )

    def _give_up(self, end: Endpoint, then: Endpoint | None, delay_us: int) -> None:
        if end.open:
            self.network.tally.timed_out += 1
            self.network.world.note("timeout", end.node, end.peer)
            end.deliver_close(ABNORMAL)
        self._held[end].clear()
        if then is None:
            self._end()
        else:
            self._keepalive = self.network.world.after(delay_us, lambda: self._give_up(then, None, 0))

    def _end(self) -> None:
        if self._keepalive is not None and not self.client.open and not self.server.open:
            self._keepalive.cancel()
        self.network.forget(self)


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
