"""The hybrid logical clock: strictly growing, readable by JavaScript, not dragged along by wrong clocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.hlc import MAX_AHEAD_MS, MAX_HLC, Hlc, HybridClock, hlc_from_ms, hlc_to_ms

NOW = 1_790_000_000_000


@given(st.lists(st.integers(0, 4_000_000_000_000), min_size=2, max_size=50))
def test_times_strictly_grow_whatever_the_wall_clock_does(wall: list[int]) -> None:
    clock = HybridClock()
    times = [clock.tick(now) for now in wall]
    assert times == sorted(set(times))


def test_a_time_fits_a_javascript_number_until_2089() -> None:
    assert hlc_from_ms(3_776_000_000_000) <= MAX_HLC == 2**53 - 1


@given(st.integers(1_577_836_800_000, 3_700_000_000_000))
def test_a_time_says_its_millisecond(now: int) -> None:
    assert hlc_to_ms(hlc_from_ms(now)) == now


def test_a_write_after_a_received_one_is_later_even_on_a_slow_clock() -> None:
    clock = HybridClock()
    received = hlc_from_ms(NOW + 60_000)
    assert clock.follow(received, NOW)
    assert clock.tick(NOW) > received


def test_a_time_from_the_future_is_not_followed() -> None:
    clock = HybridClock(hlc_from_ms(NOW))
    assert not clock.follow(hlc_from_ms(NOW + MAX_AHEAD_MS + 1_000), NOW)
    assert hlc_to_ms(clock.tick(NOW)) == NOW


def test_more_writes_than_the_counter_holds_in_one_millisecond_still_grow() -> None:
    clock = HybridClock()
    times = [clock.tick(NOW) for _ in range(5_000)]
    assert len(set(times)) == 5_000
    assert hlc_to_ms(times[-1]) - NOW <= 1


def test_a_clock_before_2020_still_works() -> None:
    clock = HybridClock()
    assert clock.tick(0) > Hlc(0)
