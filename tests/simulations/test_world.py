"""Virtual time: order, independence of the streams, and a digest that tells two runs apart."""

from __future__ import annotations

from functools import partial

import pytest

from crdt_sync_sim.world import World, seconds


def test_events_run_by_time_and_then_in_the_order_they_were_scheduled() -> None:
    world, seen = World(1), list[str]()
    world.at(20, lambda: seen.append("late"))
    world.at(10, lambda: seen.append("first"))
    world.at(10, lambda: world.after(0, lambda: seen.append("third")))
    world.at(10, lambda: seen.append("second"))
    world.run(15)
    assert seen == ["first", "second", "third"]
    assert world.now_us == 15
    world.run(seconds(1))
    assert seen[-1] == "late"


def test_a_cancelled_event_does_not_run_and_the_past_is_refused() -> None:
    world, seen = World(1), list[int]()
    timer = world.at(10, lambda: seen.append(1))
    timer.cancel()
    world.run(100)
    assert seen == []
    with pytest.raises(ValueError, match="before now"):
        world.at(50, lambda: None)


def test_drawing_from_one_stream_leaves_the_others_alone() -> None:
    calm, busy = World(7), World(7)
    for _ in range(100):
        busy.streams["workload"].random()
    assert calm.streams["network"].random() == busy.streams["network"].random()
    assert World(8).streams["network"].random() != World(7).streams["network"].random()


def test_the_digest_covers_time_kind_node_and_detail() -> None:
    def digest(at_us: int, kind: str, node: str, detail: str) -> str:
        world = World(1)
        world.at(at_us, lambda: world.note(kind, node, detail))
        world.run(100)
        return world.trace.digest

    same = digest(1, "edit", "a", "x")
    assert same == digest(1, "edit", "a", "x")
    assert (
        len({same, digest(2, "edit", "a", "x"), digest(1, "get", "a", "x"), digest(1, "edit", "b", "x")}) == 4
    )


def test_run_stops_when_asked() -> None:
    world, seen = World(1), list[int]()
    for at_us in (1, 2, 3):
        world.at(at_us, partial(seen.append, at_us))
    assert world.run(10, stop=lambda: len(seen) == 2)
    assert world.now_us == 2
