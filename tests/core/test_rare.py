"""Rare points are off in production, and the table of them is the truth."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from crdt_sync.rare import POINTS, Point, decided_by, rare

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("crdt_sync", "client/crdt_sync_client", "server/crdt_sync_server")


def asked_in(path: Path) -> list[str]:
    """The points that a module asks at."""
    return [
        str(node.args[0].value)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "rare"
        and isinstance(node.args[0], ast.Constant)
    ]


def test_nothing_rare_happens_by_itself() -> None:
    assert not any(rare(point) for point in POINTS)


def test_a_simulator_decides_as_long_as_it_runs() -> None:
    asked: list[str] = []

    def decide(point: Point) -> bool:
        asked.append(point)
        return point == "ring_dropped"

    points: list[Point] = ["ring_dropped", "push_of_one"]
    with decided_by(decide, points):
        assert rare("ring_dropped")
        assert not rare("push_of_one")
        assert not rare("got_early")
        points.append("got_early")
        assert not rare("got_early")
    assert asked == ["ring_dropped", "push_of_one", "got_early"]
    assert not rare("ring_dropped")


def test_one_world_at_a_time_and_none_after_an_error() -> None:
    with decided_by(lambda point: True, POINTS):
        with (
            pytest.raises(RuntimeError, match="another simulated world"),
            decided_by(lambda point: True, POINTS),
        ):
            pass
        assert rare("push_of_one")
    with pytest.raises(ZeroDivisionError), decided_by(lambda point: True, POINTS):
        raise ZeroDivisionError
    assert not rare("push_of_one")


def test_every_point_is_in_the_code_once_and_in_the_table() -> None:
    found = [
        point for part in PRODUCT for path in sorted((ROOT / part).rglob("*.py")) for point in asked_in(path)
    ]
    assert sorted(found) == sorted(POINTS) == sorted(get_args(Point))


def test_nobody_but_a_simulator_switches_points_on() -> None:
    users = [
        str(path.relative_to(ROOT))
        for part in PRODUCT
        for path in (ROOT / part).rglob("*.py")
        if "decided_by" in path.read_text() and path.name != "rare.py"
    ]
    assert users == []
