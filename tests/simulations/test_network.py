"""Connections: what TCP does to messages, and what only a hostile relay does."""

from __future__ import annotations

from crdt_sync_sim.network import KEEPALIVE_US, Endpoint, LinkProfile, Mischief, Network, between
from crdt_sync_sim.world import World, seconds


class Wire:
    """A client "c" connected to a server "s", and what each of them heard."""

    def __init__(self, seed: int = 1, profile: LinkProfile | None = None) -> None:
        self.world = World(seed)
        self.network = Network(self.world, profile)
        self.heard: dict[str, list[bytes]] = {"c": [], "s": []}
        self.closed: dict[str, tuple[int, int]] = {}
        self.ends: dict[str, Endpoint] = {}
        self.network.listen("s", self._take)
        self.network.connect("c", "s", self._take, self._failed)
        self.world.run(seconds(30), stop=lambda: len(self.ends) == 2)

    def _take(self, end: Endpoint) -> None:
        self.ends[end.node] = end
        end.on_message = self.heard[end.node].append
        end.on_close = lambda code: self.closed.__setitem__(end.node, (code, self.world.now_us))

    def _failed(self, why: str) -> None:
        raise AssertionError(why)


def messages(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_loss_and_jitter_stall_messages_but_keep_their_order() -> None:
    wire = Wire(profile=LinkProfile(delay_us=10_000, jitter_us=50_000, loss=0.3))
    for message in messages(100):
        wire.ends["c"].send(message)
    wire.world.run(seconds(600))
    assert wire.heard["s"] == messages(100)
    assert wire.network.tally.retransmitted > 10


def test_no_message_stays_away_for_longer_than_a_dead_connection_would() -> None:
    """Found by seed 600029 of a swarm: losses in a row, and half an hour of silence on a link that worked."""
    wire = Wire()
    wire.network.set_profile(LinkProfile(loss=1.0))
    start_us = wire.world.now_us
    wire.ends["c"].send(b"late")
    wire.world.run(start_us + 2 * KEEPALIVE_US)
    assert wire.heard["s"] == [b"late"]


def test_bandwidth_is_shared_by_what_is_sent() -> None:
    wire = Wire(profile=LinkProfile(delay_us=0, jitter_us=0, bytes_per_s=1000))
    start_us = wire.world.now_us
    for _ in range(10):
        wire.ends["c"].send(bytes(1000 - 66))
    wire.world.run(start_us + seconds(9.5))
    assert len(wire.heard["s"]) == 9


def test_a_short_cut_delays_and_a_long_one_ends_both_ends_at_their_own_time() -> None:
    wire = Wire()
    cut = between([["c"], ["s"]])
    for message in messages(10):
        wire.ends["c"].send(message)
    wire.network.cut(cut)
    for message in messages(20)[10:]:
        wire.ends["c"].send(message)
    wire.world.run(wire.world.now_us + KEEPALIVE_US // 2)
    assert wire.heard["s"] == []
    wire.network.mend(cut)
    for message in messages(30)[20:]:
        wire.ends["c"].send(message)
    wire.world.run(wire.world.now_us + seconds(5))
    assert wire.heard["s"] == messages(30)
    assert wire.closed == {}

    wire.network.cut(cut)
    cut_us = wire.world.now_us
    wire.world.run(cut_us + seconds(120))
    assert {code for code, _ in wire.closed.values()} == {1006}
    (_, client_us), (_, server_us) = wire.closed["c"], wire.closed["s"]
    assert client_us != server_us
    assert all(KEEPALIVE_US <= at_us - cut_us <= 2 * KEEPALIVE_US for at_us in (client_us, server_us))


def test_a_one_way_cut_lets_the_other_direction_through() -> None:
    wire = Wire()
    wire.network.cut([("s", "c")])
    wire.ends["c"].send(b"to the server")
    wire.ends["s"].send(b"to the client")
    wire.world.run(wire.world.now_us + seconds(5))
    assert wire.heard == {"s": [b"to the server"], "c": []}


def test_a_crash_is_heard_and_a_power_cut_leaves_the_other_end_half_open() -> None:
    crashed = Wire()
    crashed.ends["c"].reset()
    crashed.world.run(crashed.world.now_us + seconds(1))
    assert crashed.closed["s"][0] == 1006

    dark = Wire()
    dark.ends["c"].vanish()
    dark.world.run(dark.world.now_us + KEEPALIVE_US - 1)
    assert "s" not in dark.closed
    dark.world.run(dark.world.now_us + KEEPALIVE_US + 1)
    assert dark.closed["s"][0] == 1006


def test_connecting_over_a_cut_times_out_and_to_nobody_is_refused() -> None:
    world = World(1)
    network, failures = Network(world), list[str]()

    def connected(_: Endpoint) -> None:
        raise AssertionError("connected")

    network.connect("c", "s", connected, failures.append)
    world.run(seconds(30))
    network.cut([("s", "c")])
    network.connect("c", "s", connected, failures.append)
    world.run(seconds(60))
    assert failures == ["refused", "timed out"]


def test_cuts_are_counted() -> None:
    network = Network(World(1))
    network.cut([("a", "b")])
    network.cut([("a", "b")])
    network.mend([("a", "b")])
    assert network.is_cut("a", "b")
    network.mend_all()
    assert network.reachable("a", "b")


def test_only_mischief_duplicates_reorders_and_replays() -> None:
    wire = Wire()
    wire.network.mischief = Mischief(duplicate=0.3, reorder=0.3, replay=0.3)
    for message in messages(100):
        wire.ends["c"].send(message)
    wire.world.run(seconds(60))
    assert set(wire.heard["s"]) == set(messages(100))
    assert len(wire.heard["s"]) > 130
    assert wire.heard["s"] != sorted(wire.heard["s"], key=int)


def test_corruption_flips_one_bit() -> None:
    wire = Wire(profile=LinkProfile(corruption=1.0))
    wire.ends["c"].send(bytes(100))
    wire.world.run(seconds(5))
    assert sum(byte.bit_count() for byte in wire.heard["s"][0]) == 1


def test_the_shape_of_a_partition() -> None:
    assert between([["a", "b"], ["c"]]) == [("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")]


def test_closing_is_heard_after_everything_sent_before() -> None:
    wire = Wire(profile=LinkProfile(loss=0.4))
    for message in messages(20):
        wire.ends["c"].send(message)
    wire.ends["c"].close(1001)
    wire.world.run(seconds(600))
    assert wire.heard["s"] == messages(20)
    assert wire.closed["s"][0] == 1001
