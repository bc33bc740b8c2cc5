"""Devices that are apart, meet in any way, and decide; against an independent model of every rule.

After every step the device that did something shows what the model says it should, from what that device has
seen; in the end everybody has everything, shows the same, and hearing it all again changes nothing.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.merge_model import Path
from tests.model.model_acts import Count, Put, Take
from tests.model.model_devices import Device, Team, Typing

KEYS = st.sampled_from("AB")
VALUES = st.sampled_from(["draft", "done", "x", "y"])
TEXT = VALUES | st.none()
PUT_OR_TAKE = st.one_of(
    st.builds(Put, VALUES), st.builds(Take, VALUES), st.lists(VALUES, max_size=2, unique=True)
)
AMOUNTS = st.sampled_from([1, 2, -1, 0.5, 0])
COUNTING = st.one_of(st.builds(Count, AMOUNTS), st.builds(Count, AMOUNTS), st.sampled_from([7, None]))
TYPING = st.one_of(
    st.builds(Typing, st.integers(0, 9), st.booleans()),
    st.builds(Typing, st.integers(0, 9), st.just(False)),
    st.builds(Typing, st.just(0), st.just(False), st.sampled_from(["one two ", "alpha beta "])),
    st.none(),
)
MOMENTS = st.sampled_from(
    ["2026-11-05", "2026-11-05T00:30:00+01:00", "2026-11-05T00:00:00Z", "2026-11-04T23:00:00-01:00", None]
)
IN_PART = {"qty": st.integers(0, 2), "note": TEXT, "labels": PUT_OR_TAKE, "used": COUNTING, "story": TYPING}
IN_CREW = {"task": TEXT, "banned": PUT_OR_TAKE}
IN_PIECE = {"serial": TEXT, "reading": st.integers(0, 2), "used": COUNTING, "marks": PUT_OR_TAKE}
MADE_OR_REMOVED: st.SearchStrategy[Any] = st.sampled_from([None, None, {}])


def at(
    rows: str, path: st.SearchStrategy[Any], inside: dict[str, st.SearchStrategy[Any]]
) -> dict[str, tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]]:
    """Per field in there: where it is, and what can be done to it."""

    def field(name: str) -> st.SearchStrategy[Any]:
        return path.map(lambda place: (*place, name))

    return {rows + name: (field(name), change) for name, change in inside.items()}


BOX = st.tuples(st.just("boxes"), KEYS)
PIECE = st.tuples(st.just("boxes"), KEYS, st.just("pieces"), KEYS)
PART = st.tuples(st.just("parts"), KEYS)
CREW = st.tuples(st.just("crew"), KEYS)
SIMPLE = {
    "status": TEXT,
    "phase": TEXT,
    "owner": TEXT,
    "actual": TEXT,
    "planned": st.sampled_from(["x", 1, True, 1.0, None]),
    "cause": TEXT,
    "tags": PUT_OR_TAKE,
    "banned": PUT_OR_TAKE,
    "hours": COUNTING,
    "reading": st.sampled_from([1, 2.5, 2, None]),
    "since": MOMENTS,
    "ticket": TEXT,
    "story": TYPING,
}
PLACES = {
    **at("", st.just(()), SIMPLE),
    **at("parts.", PART, IN_PART),
    **at("crew.", CREW, IN_CREW),
    **at("boxes.", BOX, {"label": TEXT}),
    **at("boxes.pieces.", PIECE, IN_PIECE),
    "parts": (PART, MADE_OR_REMOVED),
    "crew": (CREW, MADE_OR_REMOVED),
    "boxes": (BOX, MADE_OR_REMOVED),
    "boxes.pieces": (PIECE, MADE_OR_REMOVED),
}


@st.composite
def some_place(draw: st.DrawFn) -> tuple[Path, st.SearchStrategy[Any]]:
    """Where something is done, and what can be done there. Each team has a few places that it works at."""
    busy = draw(st.runner()).busy
    path, change = PLACES[draw(st.sampled_from(busy))]
    return draw(path), change


@st.composite
def some_change(draw: st.DrawFn) -> tuple[Path, Any]:
    """Something done at some place."""
    path, change = draw(some_place())
    return path, draw(change)


@st.composite
def some_edit(draw: st.DrawFn) -> list[tuple[Path, Any]]:
    """What one save of a form changes: at most one thing in each field of the record."""
    changes = draw(st.lists(some_change(), min_size=1, max_size=3))
    return list({path[0]: (path, change) for path, change in changes}.values())


@st.composite
def at_one_place(draw: st.DrawFn) -> tuple[Path, list[Any]]:
    """Several things done at one place."""
    path, change = draw(some_place())
    return path, draw(st.lists(change, min_size=2, max_size=4))


WHO = st.integers(0, 4)
ROW = st.one_of(PART, CREW, BOX, PIECE)
ACT = st.one_of(
    *[some_edit()] * 6,
    st.sampled_from(["delete", "restore", "restore it", "make it anew", {}, {"status": "new"}]),
)
MEETING = st.sampled_from(["part", "part", "both", "both", "document", "another life", "reopened"])
SEED = st.integers(0, 2**32 - 1)
DRIFT_MS = st.sampled_from([0, 0, 0, 1, 60_000, -60_000, 7_200_000, -7_200_000])


class MergeMachine(RuleBasedStateMachine):
    """Two to five devices and one record in which every rule has a field."""

    team: Team
    busy: list[str]
    only: tuple[str, ...] = ()
    """Work at these places alone, to find something sooner."""

    @initialize(
        count=st.integers(2, 5),
        delete_rule=st.sampled_from(["edit_wins", "delete_wins", "manual"]),
        busy=st.lists(st.sampled_from(sorted(PLACES)), min_size=2, max_size=6, unique=True),
    )
    def begin(self, count: int, delete_rule: str, busy: list[str]) -> None:
        self.team = Team(count, delete_rule)
        self.busy = list(self.only) or busy
        self.team.create(self.team.devices[0], {"status": "draft"})
        self.team.meet()

    def device(self, who: int) -> Device:
        return self.team.devices[who % len(self.team.devices)]

    def act(self, device: Device, action: Any) -> None:
        """Something a person does. What is deleted does not stay so for long, or nothing would happen."""
        team = self.team
        if action == "delete":
            team.delete(device)
        elif action == "restore":
            team.restore(device)
        elif device.view().deleted and action in ("restore it", "make it anew"):
            team.restore(device) if action == "restore it" else team.create(device, {"status": "new"})
        elif isinstance(action, dict):
            team.create(device, action)
        elif isinstance(action, list):
            team.edit(device, action)

    @rule(acts=st.lists(st.tuples(WHO, DRIFT_MS, ACT), min_size=3, max_size=8))
    def work(self, acts: list[Any]) -> None:
        """Everybody works, apart."""
        for who, drift_ms, action in acts:
            device = self.device(who)
            device.now_ms += drift_ms
            self.act(device, action)

    @rule(path_and_changes=at_one_place(), who=WHO, drift_ms=DRIFT_MS, removes=st.none() | ROW | st.just(()))
    def clash(self, path_and_changes: Any, who: int, drift_ms: int, removes: Any) -> None:
        """Several people do something at one place unawares; one may remove what it is in."""
        path, changes = path_and_changes
        now_ms = max(device.now_ms for device in self.team.devices) + 1
        for step, change in enumerate(changes):
            device = self.device(who + step)
            device.now_ms = now_ms + drift_ms * (step % 2)
            self.team.edit(device, [(path, change)])
        if removes:
            self.team.edit(self.device(who + 4), [(removes, None)])
        elif removes is not None:
            self.team.delete(self.device(who + 4))

    @rule(who=WHO, which=st.integers(0, 5), keep=st.integers(0, 5), own=VALUES)
    def decide(self, who: int, which: int, keep: int, own: str) -> None:
        self.team.resolve(self.device(who), which, keep, own)

    @rule(
        meetings=st.lists(st.tuples(WHO, WHO, MEETING, st.integers(0, 3)), min_size=1, max_size=6), seed=SEED
    )
    def meet(self, meetings: list[Any], seed: int) -> None:
        """Some of them hear from some others: parts, everything, the whole document, or after a new start."""
        chance = random.Random(seed)
        for who, other, how, part in meetings:
            device, origin = self.device(who), self.device(other)
            if how == "part":
                self.team.deliver(device, origin, part, chance)
            elif how == "both":
                self.team.deliver(device, origin, 0, chance)
                self.team.deliver(origin, device, 0, chance)
            elif how == "document":
                self.team.hand_over(device, origin)
            elif how == "another life":
                device.begin_again(origin.doc.state(), origin.seen)
                self.team.check(device)
            else:
                device.reopen()
                self.team.check(device)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None and hasattr(self, "team"):
            self.team.check_all()


TestMerging = MergeMachine.TestCase
TestMerging.settings = settings(
    max_examples=140,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
