"""What one device may take from a relay: refusals are typed, nothing is lost, and the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.ids import DeviceId, Incarnation
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Ack, Append, Appended, Frame, Push, Refuse
from crdt_sync.protocol.limits import Limits
from crdt_sync_server.effects import Arrival, Close, Peer, Send
from crdt_sync_server.limits import RelayLimits
from crdt_sync_server.rates import Rates
from tests.server.engine_kit import NONCE, Relay
from tests.server.relay_kit import TestSpace, record

Opener = Callable[..., Relay]


@pytest.fixture
def open_relay(tmp_path: Path) -> Iterator[Opener]:
    opened: list[Relay] = []

    def make(**limits: Any) -> Relay:
        opened.append(Relay(tmp_path / "relay.sqlite3", RelayLimits(**limits)))
        return opened[-1]

    yield make
    for relay in opened:
        relay.close()


def answers(relay: Relay, peer: Peer, envelopes: list[bytes], at_ms: int) -> list[Frame]:
    effects = relay.engine.process([Arrival(peer, Push(envelopes))], 1_000, at_ms)
    return [effect.frame for effect in effects if isinstance(effect, Send)]


def test_beyond_the_rate_the_rest_is_refused_and_taken_a_little_later(open_relay: Opener) -> None:
    relay = open_relay(updates_per_s=10, updates_burst=3)
    space = TestSpace(1)
    relay.create(space)
    peer = relay.connect(space.founder)
    envelopes = [space.founder.update(record(n)) for n in range(5)]
    ack, refuse = answers(relay, peer, envelopes, 5_000)
    assert isinstance(ack, Ack)
    assert ack.sequence == 3, "what is within the burst is taken"
    assert isinstance(refuse, Refuse)
    assert (refuse.sequence, refuse.code) == (4, "rate_limited")
    assert refuse.reason.endswith("go on in 1 s")
    (again,) = answers(relay, peer, envelopes[3:], 5_050)
    assert isinstance(again, Refuse), "50 ms of ten a second are half an update"
    assert again.code == "rate_limited"
    ack, refuse = answers(relay, peer, envelopes[3:], 5_100)
    assert isinstance(ack, Ack)
    assert ack.sequence == 4
    assert isinstance(refuse, Refuse)
    assert refuse.sequence == 5
    (ack,) = answers(relay, peer, envelopes[4:], 5_200)
    assert isinstance(ack, Ack)
    assert ack.sequence == 5


def test_how_long_it_is_best_to_wait_is_told(open_relay: Opener) -> None:
    """Until there is a second's worth again, also of bytes that one large update took in advance."""
    relay = open_relay(updates_per_s=10, updates_burst=1000, bytes_per_s=10_000, bytes_burst=10_000)
    space = TestSpace(1)
    relay.create(space)
    peer = relay.connect(space.founder)
    large, next_one = space.founder.update(record(1), bytes(60_000)), space.founder.update(record(2))
    _, refuse = answers(relay, peer, [large, next_one], 0)
    assert isinstance(refuse, Refuse)
    wait_s = len(large) // 10_000 + 1
    assert refuse.reason.endswith(f"go on in {wait_s} s")
    (ack,) = answers(relay, peer, [next_one], wait_s * 1000)
    assert isinstance(ack, Ack)


def test_what_was_sent_on_behind_a_refused_update_waits_for_the_same_reason(open_relay: Opener) -> None:
    relay = open_relay(updates_per_s=10, updates_burst=1)
    space = TestSpace(1)
    relay.create(space)
    peer = relay.connect(space.founder)
    envelopes = [space.founder.update(record(n)) for n in range(4)]
    answers(relay, peer, envelopes[:2], 0)
    (late,) = answers(relay, peer, envelopes[2:], 1_000)
    assert isinstance(late, Refuse), "there are tokens again, but the one before is missing"
    assert (late.sequence, late.code) == (3, "rate_limited")
    assert isinstance(answers(relay, peer, envelopes[1:2], 2_000)[0], Ack)


def test_the_rate_holds_over_reconnecting_and_for_each_device_by_itself(open_relay: Opener) -> None:
    relay = open_relay(updates_per_s=1, updates_burst=2)
    space = TestSpace(1)
    tablet = space.member()
    relay.create(space)
    envelopes = [space.founder.update(record(n)) for n in range(3)]
    answers(relay, relay.connect(space.founder), envelopes[:2], 0)
    (refuse,) = answers(relay, relay.connect(space.founder), envelopes[2:], 10)
    assert isinstance(refuse, Refuse)
    other = relay.connect(tablet)
    assert isinstance(answers(relay, other, [tablet.update(record(1))], 10)[0], Ack)


def test_bytes_are_a_rate_of_their_own_and_a_clock_that_goes_back_stands_still() -> None:
    device = DeviceId(bytes(16))
    rates = Rates(RelayLimits(updates_per_s=None, bytes_per_s=1000, bytes_burst=500))
    assert rates.admit(device, [400, 400, 400], 1_000) == 2, "the last may go into debt"
    assert rates.admit(device, [1], 1_200) == 0
    assert rates.admit(device, [1], 0) == 0
    assert rates.admit(device, [1], 1_301) == 1
    assert Rates(RelayLimits(updates_per_s=None, bytes_per_s=None)).admit(device, [9] * 9, 0) == 9


def test_a_full_space_refuses_updates_and_takes_entries_replays_and_snapshots(open_relay: Opener) -> None:
    space = TestSpace(1)
    tablet = space.member()
    relay = open_relay(space_bytes=6_000)
    relay.create(space)
    founder, peer = relay.connect(space.founder), relay.connect(tablet)
    kept: list[bytes] = []
    for _ in range(40):
        envelope = tablet.update(record(1), b"x" * 200)
        (answer,) = relay.push(peer, envelope)
        if isinstance(answer, Refuse):
            break
        kept.append(envelope)
    assert isinstance(answer, Refuse)
    assert answer.code == "over_quota"
    assert "of 6,000 bytes" in answer.reason
    assert len(kept) > 4
    before = relay.dump()
    assert isinstance(relay.push(peer, envelope)[0], Refuse)
    assert relay.dump() == before
    assert isinstance(relay.push(peer, *kept)[0], Ack), "what is there already is acknowledged again"
    relay.answer(founder, Append(space.invite(space.log.members[tablet.author.device].role)[0]), Appended)
    assert relay.snapshot(founder, space.founder.snapshot(record(1), kept)) == "stored"
    assert isinstance(relay.push(peer, envelope)[0], Ack), "the snapshot made room"


def test_the_quota_counts_what_was_there_before_a_restart(open_relay: Opener) -> None:
    space = TestSpace(1)
    relay = open_relay(space_bytes=3_000)
    relay.create(space)
    taken = 0
    while isinstance(relay.push(relay.connect(space.founder), space.founder.update(record(taken)))[0], Ack):
        taken += 1
        relay.restart()
    assert 0 < taken < 8


def test_a_record_has_a_quota_and_the_others_go_on(open_relay: Opener) -> None:
    space = TestSpace(1)
    tablet = space.member()
    relay = open_relay(record_bytes=1_000)
    relay.create(space)
    peer, other = relay.connect(space.founder), relay.connect(tablet)
    batch = [space.founder.update(record(1), b"y" * 100) for _ in range(4)]
    ack, refuse = relay.push(peer, *batch)
    assert isinstance(ack, Ack)
    assert isinstance(refuse, Refuse)
    assert refuse.code == "record_over_quota"
    assert "the record has" in refuse.reason
    assert isinstance(relay.push(other, tablet.update(record(2)))[0], Ack)
    assert relay.snapshot(other, tablet.snapshot(record(1), batch[: ack.sequence])) == "stored"
    assert isinstance(relay.push(peer, batch[ack.sequence])[0], Ack)


def test_an_envelope_above_the_limit_is_refused_by_itself(open_relay: Opener) -> None:
    space = TestSpace(1)
    relay = open_relay(wire=Limits(max_envelope_bytes=1_000))
    relay.create(space)
    peer = relay.connect(space.founder)
    small, large = space.founder.update(record(1)), space.founder.update(record(1), b"z" * 2_000)
    ack, refuse = relay.push(peer, small, large)
    assert isinstance(ack, Ack)
    assert isinstance(refuse, Refuse)
    assert (refuse.sequence, refuse.code) == (2, "too_large")
    assert (
        relay.snapshot(peer, space.founder.snapshot(record(1), [small], payload=b"z" * 2_000)) == "too_large"
    )


def test_a_device_has_so_many_connections_and_another_is_not_touched(open_relay: Opener) -> None:
    relay = open_relay(device_connections=2)
    spaces = [TestSpace(seed) for seed in (1, 2, 3)]
    for number, space in enumerate(spaces):
        relay.create(space)
        space.founder.author = space.founder.author._replace(incarnation=Incarnation(number + 1))
    one = spaces[0].founder
    first, second = relay.connect(one), Peer(NONCE)
    one.author = one.author._replace(incarnation=Incarnation(8))
    relay.do((second, one.hello(NONCE, relay.engine.relay_id)))
    one.author = one.author._replace(incarnation=Incarnation(9))
    third = Peer(NONCE)
    (closed,) = relay.do((third, one.hello(NONCE, relay.engine.relay_id)))
    assert isinstance(closed, Close)
    assert (closed.bye.code, closed.bye.error) == (CloseCode.RATE, "too_many_connections")
    relay.connect(spaces[1].founder)
    relay.do((first, None))
    relay.connect(one)


def test_the_books_tell_who_came_and_what_was_refused(open_relay: Opener) -> None:
    space = TestSpace(1)
    relay = open_relay(updates_per_s=1, updates_burst=2)
    relay.create(space)
    key = relay.storage.spaces()[0].key
    relay.now_ms = 70_000
    peer = relay.connect(space.founder)
    answers(relay, peer, [space.founder.update(record(n)) for n in range(3)], 0)
    answers(relay, peer, [space.founder.update(record(9))], 0)
    peer.cursor, peer.synced = 3, True
    relay.now_ms = 75_000
    relay.do((peer, None))
    (device,) = relay.storage.books.devices(key)
    assert (device.first_seen_ms, device.last_seen_ms, device.last_sync_ms) == (1_000, 75_000, 75_000)
    assert (device.agent, device.cursor) == ("test", 3)
    events = [
        (row.event.event, json.loads(row.event.detail)) for row in relay.storage.books.audit(key, 0, 99)
    ]
    names = ["space_created", "connected", "disconnected", "connected", "refused", "disconnected"]
    assert [name for name, _ in events] == names
    assert events[4][1] == {"code": "rate_limited", "sequence": 3}
    assert events[5][1] == {"pushed": 2, "after_ms": 5_000}
