"""Checkouts at the relay: one holder per record, tokens that only grow, pushes of others refused whole."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pytest

from crdt_sync.errors import MalformedFrame
from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    CheckedOut,
    CheckIn,
    CheckOut,
    CheckoutAnswer,
    CheckoutResult,
    Deliver,
    Push,
    RowKind,
    decode_from_device,
    encode,
)
from crdt_sync.protocol.leases import Lease, LeaseState, Promised, decode_lease, next_token
from crdt_sync.protocol.limits import DEFAULT_LEASE_MS, MAX_LEASE_MS, MAX_LEASE_NOTES, MIN_LEASE_MS
from crdt_sync.roles import Role
from crdt_sync_server.checkouts import FORGET_ENDED_MS, FORGET_MS
from crdt_sync_server.effects import Grown, Peer
from tests.server.engine_kit import Relay
from tests.server.relay_kit import RelayProcess, TestDevice, TestSpace, create, raw_client, record

R1, R2, R3 = record(1), record(2), record(3)
HOUR_MS = 3_600_000


class Site:
    """A relay with a space, two tablets and an office."""

    def __init__(self, relay: Relay) -> None:
        self.space = TestSpace(5)
        self.tablet, self.other = self.space.member(), self.space.member()
        self.office = self.space.founder  # an admin
        self.reader = self.space.member(Role.READER)
        self.relay = relay
        relay.now_ms = 1_700_000_000_000
        relay.create(self.space)
        self.peers: dict[int, Peer] = {}

    def peer(self, device: TestDevice) -> Peer:
        if id(device) not in self.peers:
            self.peers[id(device)] = self.relay.connect(device)
        return self.peers[id(device)]

    def out(
        self, device: TestDevice, *records: OpaqueId, ttl_ms: int = 0, seen: int = 0
    ) -> list[CheckoutResult]:
        asked = CheckOut(list(records), ttl_ms, seen)
        return self.relay.answer(self.peer(device), asked, CheckoutAnswer).results

    def back(self, device: TestDevice, *records: OpaqueId, breaks: bool = False) -> list[CheckoutResult]:
        asked = CheckIn(list(records), breaks)
        return self.relay.answer(self.peer(device), asked, CheckoutAnswer).results

    def lease(self, of: bytes) -> Lease:
        rows = [row for row in self.relay.rows(self.peer(self.office)) if row.kind is RowKind.LEASE]
        (lease,) = [lease for lease in map(decode_lease, (row.payload for row in rows)) if lease.record == of]
        return lease

    def push(self, device: TestDevice, *updates: bytes) -> Ack | CheckedOut:
        (answer,) = self.relay.push(self.peer(device), *updates)
        assert isinstance(answer, Ack | CheckedOut), answer
        return answer

    def restart(self) -> None:
        self.relay.restart()
        self.peers = {}


@pytest.fixture
def site(engine: Relay) -> Site:
    return Site(engine)


def codes(results: list[CheckoutResult]) -> list[str]:
    return [result.code for result in results]


def test_each_record_is_granted_or_refused_by_itself_naming_the_holder(site: Site) -> None:
    now_ms = site.relay.now_ms
    assert codes(site.out(site.tablet, R1, R2)) == ["granted", "granted"]
    refused, granted = site.out(site.other, R2, R3, ttl_ms=HOUR_MS)
    assert (refused.code, granted.code) == ("checked_out", "granted")
    assert refused.lease is not None
    assert refused.lease.device == site.tablet.author.device
    assert refused.lease.expires_ms == now_ms + DEFAULT_LEASE_MS
    assert granted.lease is not None
    assert granted.lease.expires_ms == now_ms + HOUR_MS
    assert granted.lease.token > refused.lease.token


def test_every_member_reads_in_the_log_who_has_what_one_row_per_record(site: Site) -> None:
    effects = site.relay.do((site.peer(site.tablet), CheckOut([R1], HOUR_MS, 0)))
    (grown,) = [effect for effect in effects if isinstance(effect, Grown)]
    assert [live.row.kind for live in grown.rows] == [RowKind.LEASE]
    (result,) = site.out(site.tablet, R1, ttl_ms=2 * HOUR_MS)
    rows = [row for row in site.relay.rows(site.peer(site.other)) if row.kind is RowKind.LEASE]
    assert [(row.sequence, decode_lease(row.payload)) for row in rows] == [(result.sequence, result.lease)]


def test_who_has_a_record_renews_it_and_never_shortens_it(site: Site) -> None:
    (first,) = site.out(site.tablet, R1, ttl_ms=2 * HOUR_MS)
    site.relay.now_ms += HOUR_MS
    (shorter,) = site.out(site.tablet, R1, ttl_ms=1)
    (longer,) = site.out(site.tablet, R1, ttl_ms=3 * HOUR_MS)
    assert first.lease is not None
    assert shorter.lease == first.lease
    assert (longer.code, longer.lease and longer.lease.token) == ("renewed", first.lease.token)
    assert longer.lease is not None
    assert longer.lease.expires_ms == site.relay.now_ms + 3 * HOUR_MS


@pytest.mark.parametrize(("asked_ms", "given_ms"), [(1, MIN_LEASE_MS), (2**53 - 1, MAX_LEASE_MS)])
def test_how_long_it_lasts_is_bounded(site: Site, asked_ms: int, given_ms: int) -> None:
    (result,) = site.out(site.tablet, R1, ttl_ms=asked_ms)
    assert result.lease is not None
    assert result.lease.expires_ms - result.lease.since_ms == given_ms


def test_it_runs_out_by_itself(site: Site) -> None:
    (first,) = site.out(site.tablet, R1, ttl_ms=HOUR_MS)
    site.relay.now_ms += HOUR_MS - 1
    assert codes(site.out(site.other, R1)) == ["checked_out"]
    site.relay.now_ms += 1
    (result,) = site.out(site.other, R1)
    assert result.code == "granted"
    assert first.lease is not None
    assert result.lease is not None
    assert result.lease.token > first.lease.token
    assert [former.device for former in result.lease.former] == [site.tablet.author.device]


def test_it_is_given_back_record_by_record(site: Site) -> None:
    site.out(site.tablet, R1)
    site.out(site.other, R2)
    results = site.back(site.tablet, R1, R2, R3)
    assert codes(results) == ["returned", "checked_out", "not_held"]
    assert codes(site.back(site.tablet, R1)) == ["not_held"]
    assert site.lease(R1).state is LeaseState.RETURNED
    assert codes(site.out(site.other, R1)) == ["granted"]


def test_only_an_admin_breaks_what_another_device_has(site: Site) -> None:
    site.out(site.tablet, R1)
    assert codes(site.back(site.other, R1, breaks=True)) == ["permission"]
    assert site.lease(R1).state is LeaseState.HELD
    (broken,) = site.back(site.office, R1, breaks=True)
    assert broken.code == "broken"
    assert broken.lease is not None
    assert (broken.lease.device, broken.lease.expires_ms) == (site.tablet.author.device, site.relay.now_ms)
    assert codes(site.back(site.office, R2, breaks=True)) == ["not_held"]
    assert codes(site.out(site.other, R1)) == ["granted"]


def test_a_reader_checks_nothing_out(site: Site) -> None:
    assert codes(site.out(site.reader, R1)) == ["permission"]
    assert codes(site.out(site.tablet, R1)) == ["granted"]


def test_a_push_to_what_another_device_has_is_refused_whole_and_taken_when_the_lease_ends(site: Site) -> None:
    (granted,) = site.out(site.tablet, R2, ttl_ms=HOUR_MS)
    free, taken = site.other.update(R1), site.other.update(R2)
    before = site.relay.dump()
    refused = site.push(site.other, free, taken)
    assert granted.lease is not None
    assert refused == CheckedOut(site.other.author.incarnation, 2, 0, granted.sequence, granted.lease)
    assert site.relay.dump() == before
    assert isinstance(site.push(site.other, free), Ack)
    assert isinstance(site.push(site.tablet, site.tablet.update(R2)), Ack)
    site.relay.now_ms += HOUR_MS
    assert isinstance(site.push(site.other, taken), Ack)


def test_what_the_log_has_is_acknowledged_again_whoever_has_the_record_now(site: Site) -> None:
    update = site.other.update(R1)
    site.push(site.other, update)
    site.out(site.tablet, R1)
    assert isinstance(site.push(site.other, update), Ack)


def test_snapshots_and_membership_are_not_held_up(site: Site) -> None:
    updates = [site.other.update(R1) for _ in range(3)]
    site.push(site.other, *updates)
    site.out(site.tablet, R1)
    assert site.relay.snapshot(site.peer(site.other), site.other.snapshot(R1, updates)) == "stored"


def test_work_that_comes_after_its_lease_has_run_out_is_taken_and_marked(site: Site) -> None:
    site.out(site.tablet, R1, ttl_ms=HOUR_MS)
    in_time = site.push(site.tablet, site.tablet.update(R1))
    assert isinstance(in_time, Ack)
    assert site.lease(R1).late == ()
    ended_ms = site.relay.now_ms + HOUR_MS
    site.relay.now_ms += 5 * HOUR_MS
    updates = [site.tablet.update(R1), site.tablet.update(R2), site.tablet.update(R1)]
    assert isinstance(site.push(site.tablet, *updates), Ack)
    (late,) = site.lease(R1).late
    assert (late.device, late.ended_ms, late.first, late.last, late.at_ms) == (
        site.tablet.author.device, ended_ms, 2, 4, site.relay.now_ms,
    )  # fmt: skip
    # Sent again it is nothing new, and others' work is never late.
    rows = site.relay.rows(site.peer(site.office))
    site.push(site.tablet, *updates)
    site.push(site.other, site.other.update(R1))
    assert len(site.relay.rows(site.peer(site.office))) == len(rows) + 1
    site.back(site.tablet, R1)
    site.push(site.tablet, site.tablet.update(R1))
    assert site.lease(R1).late == (late,)


@pytest.mark.parametrize("how", ["ran out", "broken"])
def test_it_is_marked_also_when_somebody_else_had_the_record_meanwhile(site: Site, how: str) -> None:
    site.out(site.tablet, R1, ttl_ms=HOUR_MS)
    if how == "broken":
        site.back(site.office, R1, breaks=True)
    else:
        site.relay.now_ms += HOUR_MS
    site.out(site.other, R1)
    update = site.tablet.update(R1)
    assert isinstance(site.push(site.tablet, update), CheckedOut)
    site.back(site.other, R1)
    assert isinstance(site.push(site.tablet, update), Ack)
    assert [late.device for late in site.lease(R1).late] == [site.tablet.author.device]
    # Checked in at last: from now on it is not late any more.
    assert codes(site.back(site.tablet, R1)) == ["not_held"]
    assert site.lease(R1).former == ()
    site.push(site.tablet, site.tablet.update(R1))
    assert [late.last for late in site.lease(R1).late] == [1]


def test_what_is_told_of_former_holders_and_late_work_is_bounded(engine: Relay) -> None:
    site = Site(engine)
    tablets = [site.space.member() for _ in range(MAX_LEASE_NOTES + 3)]
    engine.now_ms = 1_700_000_000_000
    for entry in site.space.entries[-2 * len(tablets) :]:
        engine.do((site.peer(site.office), Append(entry)))
    for tablet in tablets:
        assert codes(site.out(tablet, R1, ttl_ms=HOUR_MS)) == ["granted"]
        engine.now_ms += HOUR_MS
    assert len(site.lease(R1).former) == MAX_LEASE_NOTES
    for tablet in tablets:
        site.push(tablet, tablet.update(R1))
    assert len(site.lease(R1).late) == MAX_LEASE_NOTES


def test_leases_and_tokens_outlive_the_relay(site: Site) -> None:
    (first,) = site.out(site.tablet, R1)
    site.restart()
    refused, granted = site.out(site.other, R1, R2)
    assert refused.code == "checked_out"
    assert refused.lease == first.lease
    assert first.lease is not None
    assert granted.lease is not None
    assert granted.lease.token > first.lease.token


def test_tokens_only_grow_when_the_clock_is_set_back_and_when_the_relay_lost_them(
    site: Site, tmp_path: Path
) -> None:
    (first,) = site.out(site.tablet, R1)
    site.relay.now_ms -= 30 * 24 * HOUR_MS
    (second,) = site.out(site.tablet, R2)
    assert first.lease is not None
    assert second.lease is not None
    assert second.lease.token == first.lease.token + 1
    new = Relay(tmp_path / "new.sqlite3")
    new.now_ms = site.relay.now_ms + 30 * 24 * HOUR_MS + 5
    new.create(site.space)
    asked = CheckOut([R1], 0, 0)
    (third,) = new.answer(new.connect(site.other), asked, CheckoutAnswer).results
    assert third.lease is not None
    assert third.lease.token > second.lease.token
    # Its clock behind as well: what the asking device knows of still counts.
    old = Relay(tmp_path / "old.sqlite3")
    old.now_ms = new.now_ms - 2 * HOUR_MS
    old.create(site.space)
    asked = CheckOut([R1], 0, third.lease.token)
    (fourth,) = old.answer(old.connect(site.other), asked, CheckoutAnswer).results
    assert fourth.lease is not None
    assert fourth.lease.token == third.lease.token + 1
    new.close()
    old.close()


def test_what_was_given_back_long_ago_is_forgotten_but_never_the_end_of_the_log(site: Site) -> None:
    site.out(site.tablet, R1, R2, R3)
    site.back(site.tablet, R1, R3)
    end = site.relay.rows(site.peer(site.office))[-1].sequence
    site.relay.now_ms += FORGET_ENDED_MS + 1
    assert codes(site.out(site.other, record(4))) == ["granted"]
    left = [lease.record for lease in leases(site)]
    assert left == [R2, R3, record(4)]  # R3 was the last row when it was looked at
    assert site.relay.rows(site.peer(site.office))[-1].sequence == end + 1
    site.relay.now_ms += FORGET_MS
    site.out(site.other, record(5))
    assert [lease.record for lease in leases(site)] == [record(4), record(5)]


def leases(site: Site) -> list[Lease]:
    rows = site.relay.rows(site.peer(site.office))
    return [decode_lease(row.payload) for row in rows if row.kind is RowKind.LEASE]


def test_an_empty_space_pays_nothing_for_it(site: Site) -> None:
    update = site.tablet.update(R1)
    answers = site.relay.answers(site.peer(site.tablet), Push([update]))
    assert [type(answer) for answer in answers] == [Ack]
    assert leases(site) == []


async def test_over_a_socket_and_through_kill_and_restart(tmp_path: Path) -> None:
    space = TestSpace(8)
    tablet, other = space.member(), space.member()
    with RelayProcess(tmp_path / "relay") as relay:
        await create(relay.url, relay.setup_token or "", space)
        async with raw_client(relay.url) as mine, raw_client(relay.url) as theirs:
            await mine.hello(tablet)
            await theirs.hello(other)
            await theirs.caught_up()
            await mine.send(CheckOut([R1, R2], 60_000, 0))
            granted = await mine.expect(CheckoutAnswer)
            assert codes(granted.results) == ["granted", "granted"]
            delivered = await theirs.expect(Deliver)
            told = [decode_lease(row.payload) for row in delivered.rows if row.kind is RowKind.LEASE]
            assert told[0] == granted.results[0].lease
        relay.kill()
    with RelayProcess(tmp_path / "relay") as relay:
        async with raw_client(relay.url) as theirs:
            await theirs.hello(other)
            await theirs.send(Push([other.update(R1)]))
            refused = await theirs.expect(CheckedOut)
            assert refused.lease == granted.results[0].lease
            await theirs.send(CheckOut([R1], 0, 0))
            answer = await theirs.expect(CheckoutAnswer)
            assert codes(answer.results) == ["checked_out"]


# After the relay has lost something


def again(site: Site, device: TestDevice, of: OpaqueId, held: Promised) -> CheckoutResult:
    """The device asks for what it was promised before this relay lost its memory."""
    asked = CheckOut([of], 0, held.token, [held])
    (result,) = site.relay.answer(site.peer(device), asked, CheckoutAnswer).results
    return result


def promised(site: Site, ms: int) -> Promised:
    """A token of a while ago, and an end in so many milliseconds."""
    return Promised(next_token(0, 0, site.relay.now_ms - HOUR_MS), site.relay.now_ms + ms)


def test_who_asks_again_gets_what_is_left_of_it_with_a_new_token(site: Site) -> None:
    held = promised(site, 2 * HOUR_MS)
    result = again(site, site.tablet, R1, held)
    assert result.code == "granted"
    assert result.lease is not None
    assert result.lease.token > held.token
    assert (result.lease.since_ms, result.lease.expires_ms) == (site.relay.now_ms, held.expires_ms)
    # A relay that has not forgotten it says so, and writes nothing.
    before = site.relay.dump()
    mine = Promised(result.lease.token, result.lease.expires_ms)
    assert again(site, site.tablet, R1, mine) == CheckoutResult(R1, "renewed", result.sequence, result.lease)
    assert site.relay.dump() == before
    assert again(site, site.other, R2, promised(site, 365 * 24 * HOUR_MS)).lease == site.lease(R2)
    assert site.lease(R2).expires_ms == site.relay.now_ms + MAX_LEASE_MS


def test_who_asks_again_too_late_is_told_and_its_work_is_marked(site: Site) -> None:
    site.out(site.other, R1, ttl_ms=HOUR_MS)
    held = promised(site, 5 * HOUR_MS)
    result = again(site, site.tablet, R1, held)
    assert result.code == "checked_out"
    assert result.lease is not None
    assert result.lease.device == site.other.author.device
    update = site.tablet.update(R1)
    assert isinstance(site.push(site.tablet, update), CheckedOut)
    site.relay.now_ms += HOUR_MS
    assert isinstance(site.push(site.tablet, update), Ack)
    (late,) = site.lease(R1).late
    assert (late.device, late.token, late.ended_ms) == (
        site.tablet.author.device, held.token, site.relay.now_ms - HOUR_MS,
    )  # fmt: skip


def test_what_had_run_out_before_the_loss_is_noted_and_not_granted(site: Site) -> None:
    held = promised(site, -HOUR_MS // 2)
    assert again(site, site.tablet, R1, held).code == "not_held"
    (granted,) = site.out(site.other, R1)
    assert granted.lease is not None
    assert granted.lease.token > held.token
    assert [(each.device, each.ended_ms) for each in granted.lease.former] == [
        (site.tablet.author.device, held.expires_ms)
    ]
    before = site.relay.dump()
    assert again(site, site.tablet, R1, held).code == "checked_out"
    assert site.relay.dump() == before


@pytest.mark.parametrize("how", ["broken", "given back", "taken by another since"])
def test_what_this_relay_ended_does_not_come_back(site: Site, how: str) -> None:
    (first,) = site.out(site.tablet, R1)
    assert first.lease is not None
    site.back(site.office if how == "broken" else site.tablet, R1, breaks=how == "broken")
    if how == "taken by another since":
        site.out(site.tablet, R1)
        site.back(site.office, R1, breaks=True)
        site.out(site.other, R1)
        site.back(site.other, R1)
    before = site.relay.dump()
    held = Promised(first.lease.token, first.lease.expires_ms)
    assert again(site, site.tablet, R1, held).code == "not_held"
    assert site.relay.dump() == before


def test_a_promise_that_no_relay_gave_leaves_no_trace_and_a_reader_gets_nothing(site: Site) -> None:
    before = site.relay.dump()
    far = Promised(2**63 - 1, site.relay.now_ms - 1)
    assert again(site, site.tablet, R1, far).code == "not_held"
    assert again(site, site.reader, R1, promised(site, HOUR_MS)).code == "permission"
    assert site.relay.dump() == before
    assert again(site, site.tablet, R1, Promised(2**63 - 1, site.relay.now_ms + HOUR_MS)).code == "granted"
    (next_one,) = site.out(site.other, R2)
    assert next_one.lease is not None
    assert next_one.lease.token < 2**53


def test_promises_stand_beside_their_records() -> None:
    asked = CheckOut([OpaqueId(R1), OpaqueId(R2)], 0, 0, [Promised(1, 2), Promised(3, 4)])
    assert decode_from_device(encode(asked)) == asked
    with pytest.raises(ValueError, match="other records"):
        CheckOut([OpaqueId(R1), OpaqueId(R2)], 0, 0, [Promised(1, 2)])
    bad = encode(asked)[:-4].replace(b"\x92\x03\x04", b"").replace(b"\x92\x92\x01", b"\x91\x92\x01")
    with pytest.raises(MalformedFrame):
        decode_from_device(bad + crc32(bad).to_bytes(4, "big"))
