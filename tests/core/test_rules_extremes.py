"""`max` and `min`: what is greater, whatever it is written as."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.hlc import Hlc
from crdt_sync.records.writes import Write
from crdt_sync.roles import Role
from crdt_sync.rules.extremes import Max, Min
from tests.core.record_replicas import author_of

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=3),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.dates().map(lambda day: day.isoformat()),
)


def write(value: Any, time: int = 1, author: int = 0) -> Write:
    return Write(("a",), value, Hlc(time), Role.FIELD, author_of(author))


def greatest(*values: Any) -> Any:
    """The choice of `max`, which no order of the writes may change."""
    writes = [write(value, time) for time, value in enumerate(values, start=1)]
    chosen = {id(Max().choose(order)) for order in itertools.permutations(writes)}
    assert len(chosen) == 1
    return Max().choose(writes).value


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (1, 2),
        (-1, 0.5),
        (2**53, 2**53 + 1),  # which floats could not tell apart
        (2.5, 3),
        ("2026-11-05", "2026-11-06"),
        ("2026-11-05", "2026-11-05T00:00:01Z"),
        ("2026-11-04T23:59:59Z", "2026-11-05"),
        ("2026-11-05T11:30:00+01:00", "2026-11-05T10:45:00Z"),
        ("2026-11-05T10:45:00Z", "2026-11-05T06:45:01-04:00"),
        ("2026-11-05T10:45:00.45Z", "2026-11-05T10:45:00.5Z"),
        ("2026-11-05T10:45:00.123456789Z", "2026-11-05T10:45:00.1234567891Z"),
        ("2026-11-05T10:45:00z", "2026-11-05t10:45:01Z"),
        ("1999-12-31", "2000-01-01"),
    ],
)
def test_what_is_greater(less: Any, more: Any) -> None:
    assert greatest(less, more) == greatest(more, less) == more
    for writes in ([write(less, 1), write(more, 2)], [write(more, 1), write(less, 2)]):
        assert Min().choose(writes).value == less


def test_numbers_win_against_dates_of_an_older_schema() -> None:
    assert greatest("2026-11-05", 0) == 0
    assert Min().choose([write("2026-11-05"), write(10**9, 2)]).value == 10**9


@pytest.mark.parametrize("rule", [Max(), Min()])
def test_what_is_no_measure_never_wins_against_one(rule: Max | Min) -> None:
    for nothing in (None, "text", True, [1], {"a": 1}, b"x", float("nan"), "2026-02-30"):
        assert rule.choose([write(nothing, 9), write(3, 1)]).value == 3
        assert rule.choose([write("other", 1), write(nothing, 9)]).hlc == 9


@pytest.mark.parametrize("rule", [Max(), Min()])
def test_of_equal_moments_the_later_write_is_shown(rule: Max | Min) -> None:
    same = ["2026-11-05T10:45:00Z", "2026-11-05T11:45:00.00+01:00", "2026-11-05T10:45:00.000Z"]
    for first, second in itertools.permutations(same, 2):
        assert rule.choose([write(first, 1), write(second, 2)]).value == second
    assert rule.choose([write(1, 5, 0), write(1, 5, 1)]).author == author_of(1)


@pytest.mark.parametrize("rule", [Max(), Min()])
@given(st.lists(VALUES, min_size=1, max_size=5))
def test_the_order_of_the_writes_changes_nothing(rule: Max | Min, values: list[Any]) -> None:
    writes = [write(value, time) for time, value in enumerate(values, start=1)]
    assert rule.choose(writes) is rule.choose(writes[::-1])
