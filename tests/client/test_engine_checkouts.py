"""What a device does when another has checked out a record: it says so, and holds its own work back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.crypto.envelope import parse
from crdt_sync.ids import RecordId, RelayId
from crdt_sync.protocol.frames import CheckedOut, CheckoutResult, RowKind
from crdt_sync.protocol.leases import Lease, LeaseState, encode_lease
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_client.engine.model import CreateOp, Transaction, TransactionResult, UpdateOp
from tests.client.engine_world import Peer, World
from tests.client.test_engine_refusals import refuse_record

HOUR_MS = 3_600_000
NEW_RELAY = RelayId(b"n" * 16)


class Site(World):
    """An office and two tablets, with two jobs that all have; leases are put into the log by hand."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.token = 0
        self.mine, self.other = self.join("tablet"), self.join("other")
        self.one, self.two = (self.office.create({"title": title}) for title in ("One", "Two"))
        self.settle()

    def lease(
        self, holder: Peer, id: RecordId, state: LeaseState = LeaseState.HELD, expires_ms: int | None = None
    ) -> tuple[int, Lease]:
        """The relay says so in its log."""
        self.token += 1
        end_ms = self.now_ms + HOUR_MS if expires_ms is None else expires_ms
        lease = Lease(holder.opaque(id), holder.engine.device_id, self.token, self.now_ms, end_ms, state)
        row = self.relay._add(RowKind.LEASE, encode_lease(lease), None, None, 0)
        return row, lease


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def pending(peer: Peer) -> list[str]:
    return [item.id for item in peer.engine.outbox()]


def test_what_is_written_to_a_record_of_another_waits_and_the_rest_goes(site: Site) -> None:
    site.lease(site.other, site.one)
    site.mine.sync()
    site.mine.set(site.one, status="busy")
    site.mine.set(site.two, status="done")
    site.mine.sync()
    assert pending(site.mine) == [site.one]
    site.lease(site.other, site.one, LeaseState.RETURNED)
    site.mine.sync()
    site.mine.sync()
    assert pending(site.mine) == []
    site.settle()
    site.assert_converged()
    assert site.other.values(site.one)["status"] == "busy"


def test_it_goes_by_itself_when_the_lease_has_run_out_by_the_relays_clock(site: Site) -> None:
    site.lease(site.other, site.one, expires_ms=site.now_ms + HOUR_MS)
    site.mine.sync()
    site.mine.set(site.one, status="busy")
    site.mine.sync()
    end_ms = site.mine.engine.next_lease_end_ms(site.space)
    assert end_ms is not None
    assert abs(end_ms - (site.now_ms + HOUR_MS)) < 1_000
    # The relay's clock is half an hour ahead of ours.
    site.mine.engine.begin_leases(site.space, site.relay.id, 10**9, site.now_ms + HOUR_MS // 2)
    sooner_ms = site.mine.engine.next_lease_end_ms(site.space)
    assert sooner_ms is not None
    assert abs(sooner_ms - (end_ms - HOUR_MS // 2)) < 1_000
    site.now_ms += HOUR_MS // 2
    site.mine.sync()
    assert pending(site.mine) == []
    assert site.mine.engine.next_lease_end_ms(site.space) is None


def test_the_holder_sends_as_ever_and_everyone_sees_who_has_it(site: Site) -> None:
    _, lease = site.lease(site.mine, site.one)
    for peer in site.peers:
        peer.sync()
        shown = peer.engine.checkout_of("job", site.one)
        assert shown is not None
        assert (shown.device, shown.state, shown.own) == ("tablet", "held", peer is site.mine)
        assert abs(shown.until_at - lease.expires_ms) < 1_000
    site.mine.set(site.one, status="busy")
    site.mine.sync()
    assert pending(site.mine) == []
    assert site.mine.engine.held_elsewhere("job", site.one) is None
    assert site.other.engine.held_elsewhere("job", site.one) is not None
    site.other.reopen()
    assert site.other.engine.held_elsewhere("job", site.one) is not None


def test_a_transaction_waits_whole_with_all_that_follows_in_its_records(site: Site) -> None:
    three = site.mine.create({"title": "Three"})
    site.settle()
    site.lease(site.other, site.one)
    site.mine.sync()
    both = Transaction(
        (UpdateOp("job", site.one, {"status": "busy"}), UpdateOp("job", site.two, {"count": 2}))
    )
    (result,) = site.mine.engine.write([both])
    assert isinstance(result, TransactionResult)
    site.mine.set(site.two, status="done")
    site.mine.set(three, status="done")
    site.mine.sync()
    assert sorted(set(pending(site.mine))) == sorted([site.one, site.two])
    site.lease(site.other, site.one, LeaseState.BROKEN)
    site.mine.sync()
    site.mine.sync()
    site.settle()
    site.assert_converged()
    assert site.other.values(site.two)["status"] == "done"


def pushed(peer: Peer) -> list[bytes]:
    """What goes out now; the relay does not answer."""
    return peer.engine.next_push(peer.space, max_count=50, max_bytes=1_000_000)


def refuse(site: Site, sent: list[bytes], of: RecordId, holder: Peer) -> None:
    """As the relay answers a push whose record was checked out a moment before."""
    row, lease = site.lease(holder, of)
    opaque = holder.opaque(of)
    headers = [parse(raw, max_bytes=MAX_ENVELOPE_BYTES).header for raw in sent]
    header = next(header for header in headers if header.record == opaque)
    frame = CheckedOut(header.incarnation, header.sequence, headers[0].sequence - 1, row, lease)
    site.mine.engine.push_checked_out(site.space, frame)


@pytest.mark.parametrize("how", ["nothing", "reopen", "crash"])
def test_what_was_on_its_way_when_the_record_was_checked_out_waits_and_the_rest_goes(
    site: Site, how: str
) -> None:
    site.mine.connect()
    site.mine.set(site.one, status="busy")
    site.mine.set(site.two, status="done")
    three = site.mine.create({"title": "Three"})
    refuse(site, pushed(site.mine), site.one, site.other)
    if how != "nothing":
        getattr(site.mine, how)()
    site.mine.set(site.one, count=5)
    site.mine.sync()
    assert set(pending(site.mine)) == {site.one}
    # Trying again by itself comes long before the lease ends, and is of no use before that.
    site.now_ms += HOUR_MS // 2
    updates = len(site.relay.updates())
    site.mine.sync()
    site.mine.sync()
    assert set(pending(site.mine)) == {site.one}
    assert len(site.relay.updates()) == updates
    site.lease(site.other, site.one, LeaseState.RETURNED)
    for _ in range(3):
        site.mine.sync()
    site.settle()
    site.assert_converged()
    assert [site.other.values(site.one)[field] for field in ("status", "count")] == ["busy", 5]
    assert site.other.values(site.two)["status"] == "done"
    assert site.other.values(three)["title"] == "Three"
    assert site.mine.engine.outbox() == []


def test_what_an_earlier_life_wrote_waits_and_this_life_goes_on(site: Site) -> None:
    site.lease(site.other, site.one)
    site.mine.sync()
    site.mine.set(site.one, status="busy")
    site.mine.crash()
    site.mine.set(site.two, status="done")
    site.mine.set(site.one, count=5)
    site.mine.sync()
    assert set(pending(site.mine)) == {site.one}
    site.lease(site.other, site.one, LeaseState.RETURNED)
    site.mine.sync()
    site.mine.sync()
    assert pending(site.mine) == []
    site.settle()
    site.assert_converged()
    assert [site.other.values(site.one)[field] for field in ("status", "count")] == ["busy", 5]


def test_what_was_checked_out_here_is_remembered_until_it_is_checked_in(site: Site) -> None:
    engine = site.mine.engine
    chosen = engine.choose_records("job", where={"title": "One"})
    assert [each.id for each in chosen] == [site.one]
    row, lease = site.lease(site.mine, site.one)
    outcomes, changes = engine.checkout_answered(
        site.space,
        {each.opaque: each for each in chosen},
        [CheckoutResult(lease.record, "granted", row, lease)],
        5,
    )
    assert [(outcome.id, outcome.code) for outcome in outcomes] == [(site.one, "granted")]
    assert [change.id for change in changes] == [site.one]
    site.mine.set(site.one, status="busy")
    site.mine.set(site.one, count=3)
    site.mine.sync()
    site.mine.crash()
    engine = site.mine.engine
    (held,) = engine.checkouts()
    assert (held.id, held.own, held.state, held.sent) == (site.one, True, "held", 2)
    assert [each.id for each in engine.own_checkouts(site.space, in_force=True)] == [site.one]
    site.now_ms += 2 * HOUR_MS
    (held,) = engine.checkouts()
    assert held.state == "expired"
    assert engine.own_checkouts(site.space, in_force=True) == []
    site.lease(site.other, site.one)
    site.mine.sync()
    assert [each.state for each in engine.checkouts()] == ["taken"]
    engine.forget_checkouts(site.space, [lease.record])
    assert [each.device for each in engine.checkouts()] == ["other"]


def test_a_record_changes_for_whoever_watches_it_when_it_is_checked_out(site: Site) -> None:
    site.lease(site.other, site.one)
    site.mine.connect()
    received = site.mine.pull()
    assert [(change.id, change.fields) for change in received.changes] == [(site.one, ())]


def test_children_come_along(tmp_path: Path) -> None:
    child = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Step
x-type: step
x-version: 1
x-parent: {type: job, field: job_id}
type: object
properties:
  job_id: {type: string}
  label: {type: string}
"""
    from tests.client.engine_world import JOB

    world = World(tmp_path, schemas=(JOB, child))
    job = world.office.create({"title": "One"})
    steps = [
        world.office.write(CreateOp("step", {"job_id": job, "label": label}))[0].id for label in ("a", "b")
    ]
    world.office.write(CreateOp("step", {"job_id": "elsewhere", "label": "c"}))
    engine = world.office.engine
    alone = engine.choose_records("job", [job])
    together = engine.choose_records("job", [job], children=True)
    assert [(each.type, each.id) for each in alone] == [("job", job)]
    assert [each.id for each in together] == [job, *steps]
    world.close()


def passed_over(site: Site) -> None:
    """An earlier life's change waits for another's lease to end, while this life's work has gone."""
    site.lease(site.other, site.one, expires_ms=site.now_ms + HOUR_MS)
    site.mine.sync()
    site.mine.set(site.one, status="busy")
    site.mine.crash()
    site.mine.set(site.two, status="done")
    site.mine.sync()
    assert not site.mine.engine.passed_over_is_due(site.space)


def goes_when_the_lease_has_run_out(site: Site, but: Sequence[RecordId] = ()) -> None:
    site.now_ms += HOUR_MS
    assert site.mine.engine.passed_over_is_due(site.space)
    site.mine.sync()
    assert set(pending(site.mine)) == set(but)


def test_an_earlier_lifes_work_is_due_when_the_lease_has_run_out_though_nothing_comes(site: Site) -> None:
    passed_over(site)
    site.mine.engine._replica.reload()  # as after a write that failed
    goes_when_the_lease_has_run_out(site)


def test_an_earlier_lifes_work_is_due_also_in_a_session_that_did_not_pass_it_over(site: Site) -> None:
    """Found by seed 610605 of a swarm: it began with what came first, and the rest lay for good."""
    passed_over(site)
    site.mine.engine._replica.space(site.space).session.skipped = frozenset()
    assert not site.mine.engine.passed_over_is_due(site.space)
    goes_when_the_lease_has_run_out(site)


def test_an_earlier_lifes_work_is_due_also_when_work_of_this_life_is_set_aside(site: Site) -> None:
    """Found by seed 740005 of a swarm: what waits for a person was taken for something that is to be sent."""
    passed_over(site)
    site.mine.set(site.two, count=1)
    refuse_record(site.mine, site.two)
    site.mine.set(site.two, count=2)  # behind it
    site.mine.connect()
    site.mine.engine._replica.space(site.space).session.skipped = frozenset()
    goes_when_the_lease_has_run_out(site, but=[site.two])


def test_an_earlier_lifes_work_goes_first_also_when_the_relay_loses_the_checkout_it_waits_for(
    site: Site,
) -> None:
    """Found by seed 741967 of a swarm: what was built on it reached others alone, and hung there for good."""
    passed_over(site)
    site.mine.set(site.one, status="done")
    engine = site.mine.engine
    start = engine.session_start(site.space)
    assert start.incarnation == engine.author.incarnation  # the other life waits for a checkout
    engine.begin_leases(site.space, NEW_RELAY, 0, site.now_ms)
    acked = start.acked
    engine.welcome(site.space, NEW_RELAY, acked.sequence, acked.hash, site.relay.head, 0)
    assert pushed(site.mine) == []
    assert engine.passed_over_is_due(site.space)
    site.relay.id = NEW_RELAY
    site.relay.rows = [row for row in site.relay.rows if row[1] != RowKind.LEASE]
    for _ in range(2):
        site.mine.sync()
    assert pending(site.mine) == []
    site.other.sync()
    assert site.other.values(site.one)["status"] == "done"


def test_every_record_shown_says_who_has_it_now(site: Site) -> None:
    _, lease = site.lease(site.other, site.one)
    site.mine.connect()
    (told,) = site.mine.pull().changes
    read = (site.mine.get(site.one), site.mine.engine.query("job", where={"title": "One"})[0], told.record)
    for record in read:
        assert record.checkout is not None
        assert (record.checkout.device, record.checkout.own) == ("other", False)
        assert abs(record.checkout.until_at - lease.expires_ms) < 1_000
    assert site.mine.get(site.two).checkout is None
    site.other.sync()
    held = site.other.get(site.one).checkout
    assert held is not None
    assert held.own
    written = site.mine.set(site.one, status="busy").change
    assert written is not None
    assert written.record.checkout is not None
    site.now_ms += HOUR_MS
    assert site.mine.get(site.one).checkout is None


def test_the_store_is_not_asked_who_has_each_record_that_is_shown(site: Site) -> None:
    for id in (site.one, site.two):
        site.lease(site.other, id)
    site.mine.sync()
    asked: list[str] = []
    connection: Any = site.mine.engine._replica.db._connection
    connection.set_trace_callback(asked.append)
    records = site.mine.engine.query("job")
    assert [record.checkout is not None for record in records] == [True, True]
    assert len(asked) == 1


def test_a_write_says_whose_checkout_it_waits_for_and_so_does_the_outbox(site: Site) -> None:
    _, lease = site.lease(site.other, site.one)
    site.mine.sync()
    for _ in range(2):
        written = site.mine.set(site.one, count=site.now_ms % 1_000_003)
        assert written.waits_for is not None
        assert (written.waits_for.device, written.late) == ("other", False)
        assert abs(written.waits_for.until_at - lease.expires_ms) < 1_000
    assert site.mine.set(site.two, status="done").waits_for is None
    both = Transaction(
        (UpdateOp("job", site.two, {"count": 2}), UpdateOp("job", site.one, {"status": "busy"}))
    )
    (together,) = site.mine.engine.write([both])
    assert isinstance(together, TransactionResult)
    assert [result.waits_for is not None for result in together.results] == [True, True]
    waiting = {item.id: item.waits_for for item in site.mine.engine.outbox()}
    assert {id: held and held.device for id, held in waiting.items()} == {
        site.one: "other", site.two: "other",
    }  # fmt: skip
    # What was so already is no write, and waits for nothing.
    assert site.mine.set(site.one, status="busy").waits_for is None
    site.now_ms += HOUR_MS
    assert site.mine.set(site.one, status="open").waits_for is None
    assert [item.waits_for for item in site.mine.engine.outbox()] == [None, None]


def test_a_write_says_that_this_devices_own_checkout_has_ended(site: Site) -> None:
    engine, chosen = site.mine.engine, site.mine.engine.chosen_record("job", site.one)
    row, lease = site.lease(site.mine, site.one)
    result = CheckoutResult(lease.record, "granted", row, lease)
    engine.checkout_answered(site.space, {chosen.opaque: chosen}, [result], HOUR_MS)
    assert not site.mine.set(site.one, count=1).late
    site.now_ms += 2 * HOUR_MS
    late = site.mine.set(site.one, count=2)
    assert (late.late, late.waits_for) == (True, None)
    site.lease(site.other, site.one)
    site.mine.sync()
    lost = site.mine.set(site.one, count=3)
    assert lost.late
    assert lost.waits_for is not None
    engine.forget_checkouts(site.space, [lease.record])
    assert not site.mine.set(site.one, count=4).late
