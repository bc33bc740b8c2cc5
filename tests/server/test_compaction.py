"""Whom the relay asks to compact what, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.limits import MAX_COMPACT_RECORDS
from crdt_sync_server.compaction import (
    ANSWER_MS,
    DECLINED_MS,
    IDLE_MS,
    LONG_TAIL,
    NEVER_MS,
    SHORT_TAIL,
    SILENT_MS,
    CompactionPlanner,
)
from tests.server.relay_kit import record

R1, R2 = record(1), record(2)


def planner(*known: tuple[OpaqueId, int]) -> CompactionPlanner[str]:
    return CompactionPlanner(lambda of: 0, known, 0)


def grown(plan: CompactionPlanner[str], of: OpaqueId, count: int, now_ms: int = 0) -> None:
    for _ in range(count):
        plan.grew(of, now_ms)


def test_a_short_tail_is_left_alone() -> None:
    plan = planner()
    grown(plan, R1, SHORT_TAIL - 1)
    assert plan.plan(["a"], 10 * IDLE_MS) == []


def test_a_tail_is_due_when_nobody_has_written_for_a_while() -> None:
    plan = planner()
    grown(plan, R1, SHORT_TAIL, now_ms=1_000)
    assert plan.plan(["a"], 1_000 + IDLE_MS - 1) == []
    grown(plan, R1, 1, now_ms=2_000)
    assert plan.plan(["a"], 1_000 + IDLE_MS) == []
    assert plan.plan(["a"], 2_000 + IDLE_MS) == [("a", [R1])]


def test_a_very_long_tail_does_not_wait() -> None:
    plan = planner()
    grown(plan, R1, LONG_TAIL - 1)
    assert plan.plan(["a"], 0) == []
    grown(plan, R1, 1)
    assert plan.urgent
    assert plan.plan(["a"], 0) == [("a", [R1])]


def test_tails_from_before_a_restart_count() -> None:
    assert planner((R1, SHORT_TAIL), (R2, SHORT_TAIL - 1)).plan(["a"], IDLE_MS) == [("a", [R1])]
    plan: CompactionPlanner[str] = CompactionPlanner(lambda of: SHORT_TAIL - 1, [], 0)
    plan.grew(R2, 0)
    assert plan.plan(["a"], IDLE_MS) == [("a", [R2])]


def test_one_device_is_asked_for_a_record_and_it_for_one_frame_of_them() -> None:
    records = [record(number) for number in range(2 * MAX_COMPACT_RECORDS + 5)]
    plan = planner(*[(of, SHORT_TAIL) for of in records])
    first = plan.plan(["a"], IDLE_MS)
    assert [len(asked) for _, asked in first] == [MAX_COMPACT_RECORDS]
    assert plan.plan(["a"], IDLE_MS) == []
    ((peer, second),) = plan.plan(["a", "b"], IDLE_MS)
    assert peer == "b"
    assert not set(second) & set(first[0][1])


def test_the_next_frame_goes_out_when_the_last_one_is_answered() -> None:
    plan = planner((R1, SHORT_TAIL))
    assert plan.plan(["a"], IDLE_MS) == [("a", [R1])]
    grown(plan, R2, LONG_TAIL, IDLE_MS)
    plan.plan(["a"], IDLE_MS)
    plan.compacted(R1, 0)
    plan.answered("a", R1, IDLE_MS)
    assert plan.urgent
    assert plan.plan(["a"], IDLE_MS) == [("a", [R2])]


def test_a_device_that_declines_is_passed_over_for_a_moment() -> None:
    plan = planner((R1, SHORT_TAIL))
    plan.plan(["a"], IDLE_MS)
    plan.declined("a", [R1], IDLE_MS)
    assert plan.plan(["a"], IDLE_MS) == []
    assert plan.plan(["a", "b"], IDLE_MS) == [("b", [R1])]
    plan.declined("b", [R1], IDLE_MS)
    assert plan.plan(["a", "b"], IDLE_MS + DECLINED_MS) == [("a", [R1])]


def test_a_device_that_stays_silent_is_passed_over_for_longer() -> None:
    plan = planner((R1, SHORT_TAIL))
    plan.plan(["a"], IDLE_MS)
    late = IDLE_MS + ANSWER_MS
    assert plan.plan(["a", "b"], late - 1) == []
    assert plan.plan(["a", "b"], late) == [("b", [R1])]
    plan.gone("b")
    assert plan.plan(["a"], late + DECLINED_MS) == []
    assert plan.plan(["a"], late + SILENT_MS) == [("a", [R1])]


def test_a_device_that_goes_away_leaves_its_records_to_others() -> None:
    plan = planner((R1, SHORT_TAIL))
    plan.plan(["a"], IDLE_MS)
    plan.gone("a")
    assert plan.due_ms <= IDLE_MS
    assert plan.plan(["b"], IDLE_MS) == [("b", [R1])]


def test_what_a_snapshot_left_uncovered_is_looked_at_again() -> None:
    plan = planner()
    grown(plan, R1, LONG_TAIL)
    plan.plan([], 0)
    plan.compacted(R1, SHORT_TAIL)
    assert plan.plan(["a"], 0) == []
    assert plan.due_ms == IDLE_MS


def test_what_came_meanwhile_counts_on() -> None:
    plan = planner((R1, SHORT_TAIL))
    plan.plan(["a"], IDLE_MS)
    plan.compacted(R1, 2)
    plan.answered("a", R1, IDLE_MS)
    grown(plan, R1, SHORT_TAIL - 3, IDLE_MS)
    assert plan.plan(["a"], 10 * IDLE_MS) == []
    grown(plan, R1, 1, IDLE_MS)
    assert plan.plan(["a"], 10 * IDLE_MS) == [("a", [R1])]


def test_declining_what_was_not_asked_is_nothing() -> None:
    plan = planner((R1, SHORT_TAIL))
    plan.declined("a", [R1], 0)
    assert plan.plan(["a"], IDLE_MS) == [("a", [R1])]


def test_it_says_when_something_is_due() -> None:
    plan = planner()
    assert plan.due_ms == NEVER_MS
    grown(plan, R1, SHORT_TAIL, now_ms=1_000)
    assert plan.due_ms == 1_000 + IDLE_MS
    grown(plan, R1, 1, now_ms=2_000)
    assert plan.plan(["a"], plan.due_ms) == []
    assert plan.due_ms == 2_000 + IDLE_MS
    asked_ms = plan.due_ms + 5
    assert plan.plan([], asked_ms) == []
    assert plan.due_ms <= asked_ms, "as soon as there is a device"
    assert plan.plan(["a"], asked_ms) == [("a", [R1])]
    assert plan.due_ms == asked_ms + ANSWER_MS
    plan.compacted(R1, 0)
    plan.answered("a", R1, asked_ms)
    assert plan.plan(["a"], asked_ms) == []
    assert plan.due_ms == NEVER_MS


STEPS = st.one_of(
    st.tuples(st.just("grow"), st.integers(0, 2), st.integers(1, LONG_TAIL)),
    st.tuples(st.just("compact"), st.integers(0, 2), st.integers(0, SHORT_TAIL + 1)),
    st.tuples(st.just("decline"), st.integers(0, 2), st.sampled_from("ab")),
    st.tuples(st.just("gone"), st.just(0), st.sampled_from("ab")),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from([100, IDLE_MS, ANSWER_MS, SILENT_MS])),
    st.tuples(st.just("plan"), st.just(0), st.sampled_from([("a",), ("a", "b"), ("b",)])),
)


@given(st.lists(STEPS, max_size=40))
def test_nobody_is_asked_before_something_is_due(steps: list[tuple[str, int, object]]) -> None:
    plan, now_ms = planner((record(9), SHORT_TAIL)), 0
    for what, number, extra in steps:
        match what, extra:
            case "grow", int(count):
                grown(plan, record(number), count, now_ms)
            case "compact", int(remaining):
                plan.compacted(record(number), remaining)
            case "decline", str(peer):
                plan.declined(peer, [record(number), record(9)], now_ms)
            case "gone", str(peer):
                plan.gone(peer)
            case "wait", int(passed_ms):
                now_ms += passed_ms
            case "plan", tuple(peers):
                due = plan.due_ms <= now_ms
                assert not plan.plan(peers, now_ms) or due
