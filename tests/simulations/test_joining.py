"""Joining over a network that breaks in the middle: the device gets in with the link it has, and only once.

The exchange is cut, or the device or the relay dies, at each message between them. A short cut heals before
anybody gives up; one of half a minute is noticed by one side only, so that what was sent into it arrives
after the device has begun anew; a long one by both.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from unittest.mock import patch

import pytest

from crdt_sync_client.engine.model import MemberInfo
from crdt_sync_sim.run import Outcome, Simulation, run_out
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.scenario_file import read_scenario
from crdt_sync_sim.world import seconds

STORY = """
duration_s = 300
[devices]
office = "admin"
[records.wo1]
values = {title = "Pump"}
[network]
delay_ms = 20
jitter_ms = 5
[[at]]
s = 10
do = "join"
device = "tablet"
role = "field"
"""
LINKS = [("tablet", RELAY), (RELAY, "tablet")]
MESSAGES = 8
"""Challenge, hello, welcome, log, entry, its answer; then the first of the session."""


class Joined:
    """A run in which something happens at one of the messages between tablet and relay."""

    def __init__(self, at_message: int, happens: Callable[[Simulation], None], seed: int = 1) -> None:
        sim = Simulation(read_scenario(STORY, source="joining.toml"), seed, keep_trace=True)
        self.messages = 0
        self.members: list[MemberInfo] = []
        see, discard, numbers = sim.network.tap, sim.discard, count(1)
        assert see is not None

        def tap(sender: str, receiver: str, message: bytes) -> None:
            see(sender, receiver, message)
            if "tablet" in (sender, receiver):
                self.messages = next(numbers)
                if self.messages == at_message:
                    happens(sim)

        def look_and_discard() -> None:
            self.members = sim.devices["office"].engine.members(sim.devices["office"].space)
            discard()

        sim.network.tap = tap
        with patch.object(sim, "discard", look_and_discard):
            self.outcome: Outcome = run_out(sim)

    def noted(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.outcome.trace)

    def assert_in_once(self) -> None:
        outcome = self.outcome
        assert outcome.verdict == "pass", [*map(str, outcome.violations), outcome.error]
        assert [member.name for member in self.members] == ["office", "tablet"]
        assert self.noted("joined") == 1
        assert self.noted("invited") == 1  # nobody had to ask for another link


def cut(duration_s: float, links: list[tuple[str, str]]) -> Callable[[Simulation], None]:
    def happens(sim: Simulation) -> None:
        sim.network.cut(links)
        sim.world.after(seconds(duration_s), lambda: sim.network.mend(links))

    return happens


def test_undisturbed() -> None:
    joined = Joined(0, lambda sim: None)
    joined.assert_in_once()
    assert joined.messages > MESSAGES


@pytest.mark.parametrize("duration_s", [3.0, 25.0, 31.0, 90.0])
@pytest.mark.parametrize("links", [LINKS, LINKS[:1], LINKS[1:]], ids=["both", "from tablet", "to tablet"])
def test_cut(duration_s: float, links: list[tuple[str, str]]) -> None:
    for message in range(1, MESSAGES + 1):
        for seed in (1, 2):
            Joined(message, cut(duration_s, links), seed).assert_in_once()


@pytest.mark.parametrize("node", ["tablet", RELAY])
@pytest.mark.parametrize("dies", ["crash", "cut_power"])
def test_died(node: str, dies: str) -> None:
    def happens(sim: Simulation) -> None:
        dying = sim.relay if node == RELAY else sim.devices["tablet"]
        sim.world.after(0, getattr(dying, dies))
        sim.world.after(seconds(2), dying.start)

    for message in range(1, MESSAGES + 1):
        Joined(message, happens).assert_in_once()
