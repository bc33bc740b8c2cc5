"""Leases as they travel, and tokens that only grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.errors import MalformedFrame
from crdt_sync.hlc import EPOCH_MS
from crdt_sync.ids import DeviceId, OpaqueId
from crdt_sync.protocol.leases import (
    TOKEN_AHEAD_MS,
    Lease,
    LeaseState,
    decode_lease,
    encode_lease,
    next_token,
)

NOW_MS = EPOCH_MS + 200_000_000_000
LEASE = Lease(OpaqueId(b"r" * 16), DeviceId(b"d" * 16), 7, 1_000, 2_000, LeaseState.HELD)


def test_a_lease_is_in_force_until_it_runs_out_or_ends() -> None:
    assert [LEASE.held(now_ms) for now_ms in (0, 1_999, 2_000)] == [True, True, False]
    for state in (LeaseState.RETURNED, LeaseState.BROKEN):
        assert not Lease(LEASE.record, LEASE.device, 7, 1_000, 2_000, state).held(1_500)
    assert decode_lease(encode_lease(LEASE)) == LEASE


@given(st.binary(max_size=60))
def test_noise_is_no_lease(noise: bytes) -> None:
    try:
        lease = decode_lease(noise)
    except MalformedFrame:
        return
    assert decode_lease(encode_lease(lease)) == lease


times = st.integers(EPOCH_MS, EPOCH_MS + 2**40)


@given(st.lists(st.tuples(times, st.integers(0, 2**53)), min_size=2, max_size=9))
def test_tokens_of_one_relay_only_grow_whatever_its_clock_does_and_devices_say(
    asked: list[tuple[int, int]],
) -> None:
    last = 0
    for now_ms, seen in asked:
        token = next_token(last, seen, now_ms)
        assert token > last
        last = token


@given(times, st.integers(0, 1000), st.integers(0, 10**9))
def test_a_relay_that_lost_its_database_goes_on_beyond_what_it_gave(
    now_ms: int, grants: int, later_ms: int
) -> None:
    given_before = 0
    for _ in range(grants):
        given_before = next_token(given_before, 0, now_ms)
    assert next_token(0, 0, now_ms + 1 + later_ms) > given_before


@pytest.mark.parametrize("back_ms", [1, 60_000, TOKEN_AHEAD_MS])
def test_what_a_device_has_seen_counts_where_the_clock_was_set_back_too(back_ms: int) -> None:
    seen = next_token(0, 0, NOW_MS)
    assert next_token(0, seen, NOW_MS - back_ms) == seen + 1


def test_no_device_uses_tokens_up_by_saying_it_has_seen_the_last() -> None:
    assert next_token(0, 2**63 - 1, NOW_MS) == next_token(0, 0, NOW_MS)
