"""What a device does about its checkouts when it meets a relay that has lost them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.ids import RecordId, RelayId
from crdt_sync.protocol.frames import CheckoutResult
from crdt_sync.protocol.leases import Lease, LeaseState, Promised
from crdt_sync_client.engine.checkouts import CheckoutOutcome
from tests.client.engine_world import Peer
from tests.client.test_engine_checkouts import HOUR_MS, NEW_RELAY, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def granted(site: Site, id: RecordId) -> Lease:
    """The tablet asked for the record, and has it."""
    chosen = site.mine.engine.chosen_record("job", id)
    row, lease = site.lease(site.mine, id)
    result = CheckoutResult(lease.record, "granted", row, lease)
    site.mine.engine.checkout_answered(site.space, {chosen.opaque: chosen}, [result], HOUR_MS)
    site.mine.sync()
    return lease


def lost(site: Site, relay: RelayId = NEW_RELAY, cursor: int = 0) -> list[tuple[str, Promised]]:
    """The relay begins anew; what the tablet asks it for."""
    engine = site.mine.engine
    engine.begin_leases(site.space, relay, cursor, site.now_ms)
    return [(chosen.id, promised) for chosen, promised in engine.promised_checkouts(site.space)]


def answered(site: Site, code: str, lease: Lease | None, row: int = 3) -> list[CheckoutOutcome]:
    engine = site.mine.engine
    chosen = [chosen for chosen, _ in engine.promised_checkouts(site.space)]
    results = [CheckoutResult(each.opaque, code, row if lease else 0, lease) for each in chosen]
    asked = {each.opaque: each for each in chosen}
    outcomes, _ = engine.checkout_answered(site.space, asked, results, None)
    return outcomes


def held_by(site: Site, peer: Peer, token: int) -> Lease:
    return Lease(
        site.mine.opaque(site.one), peer.engine.device_id, token, site.now_ms, site.now_ms + HOUR_MS,
        LeaseState.HELD,
    )  # fmt: skip


def states(site: Site) -> list[tuple[str | None, str, str]]:
    return [(each.id, each.device, each.state) for each in site.mine.engine.checkouts()]


def test_it_asks_again_for_its_own_and_forgets_those_of_others(site: Site) -> None:
    site.lease(site.other, site.two)
    lease = granted(site, site.one)
    assert site.mine.engine.promised_checkouts(site.space) == []
    assert lost(site) == [(site.one, Promised(lease.token, lease.expires_ms))]
    assert states(site) == [(site.one, "tablet", "held")]
    # Also after a restart, until the relay has answered.
    site.mine.crash()
    assert [chosen.id for chosen, _ in site.mine.engine.promised_checkouts(site.space)] == [site.one]


def test_what_is_granted_again_goes_on_with_the_work_done_since_it_was_checked_out(site: Site) -> None:
    granted(site, site.one)
    site.mine.set(site.one, status="busy")
    site.mine.sync()
    lost(site)
    (outcome,) = answered(site, "granted", held_by(site, site.mine, 77))
    assert (outcome.code, outcome.checkout and outcome.checkout.token) == ("granted", 77)
    for _ in range(2):
        (held,) = site.mine.engine.checkouts()
        assert (held.state, held.token, held.sent) == ("held", 77, 1)
        assert site.mine.engine.own_checkouts(site.space, in_force=True) != []
        assert site.mine.engine.promised_checkouts(site.space) == []
        site.mine.reopen()


def test_what_another_device_got_since_is_lost_and_shown_until_it_is_checked_in(site: Site) -> None:
    granted(site, site.one)
    lost(site)
    (outcome,) = answered(site, "checked_out", held_by(site, site.other, 77))
    assert outcome.code == "checked_out"
    assert states(site) == [(site.one, "other", "taken")]
    site.mine.set(site.one, status="busy")
    assert site.mine.push() == []
    assert site.mine.engine.promised_checkouts(site.space) == []
    # That relay is lost in its turn: nothing is held back for what it had lent, and it stays lost to us.
    (asked,) = lost(site, RelayId(b"m" * 16))
    assert asked[1].expires_ms < site.now_ms
    assert states(site) == [(site.one, "other", "taken")]
    assert site.mine.engine.held_elsewhere("job", site.one) is None
    assert len(site.mine.push()) == 1


@pytest.mark.parametrize(
    ("state", "asks"), [(LeaseState.RETURNED, False), (LeaseState.BROKEN, True), (LeaseState.HELD, True)]
)
def test_what_had_ended_is_only_mentioned_unless_it_was_given_back(
    site: Site, state: LeaseState, asks: bool
) -> None:
    granted(site, site.one)
    site.token -= 1
    site.lease(site.mine, site.one, state, expires_ms=site.now_ms)
    site.mine.sync()
    asked = lost(site)
    assert bool(asked) is asks
    assert all(promised.expires_ms < site.now_ms for _, promised in asked)


def test_a_relay_that_only_restarted_is_not_asked(site: Site) -> None:
    granted(site, site.one)
    assert lost(site, cursor=site.relay.head) == []
    # What it answered last may not be in the log that this device has read, nor in the relay's.
    chosen = site.mine.engine.chosen_record("job", site.two)
    row, lease = site.lease(site.mine, site.two)
    result = CheckoutResult(lease.record, "granted", row, lease)
    site.mine.engine.checkout_answered(site.space, {chosen.opaque: chosen}, [result], HOUR_MS)
    assert [id for id, _ in lost(site, cursor=row - 1)] == [site.two]
