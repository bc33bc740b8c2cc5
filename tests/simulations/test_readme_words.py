"""What simulations/README.md says that a scenario can say is what it can say."""

from __future__ import annotations

import re

import pytest

from crdt_sync_sim import commands
from crdt_sync_sim.actions import ACTIONS, ActionSpec
from crdt_sync_sim.scenario import FAULTS

FOLDER = commands.scenario_folder()
README = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
NOT_WRITTEN = {"work", "rescope", "spoil"}
"""Made by a workload and by faults; nobody writes them."""


def part(title: str) -> str:
    return README[README.index(f"## {title}") :].split("\n## ")[0]


def row(name: str, spec: ActionSpec) -> str:
    arguments = ", ".join(f"`{a}`" if spec.arguments[a].required else f"[`{a}`]" for a in spec.arguments)
    return f"| `{name}` | {arguments} | {spec.what} |"


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_every_action_is_in_the_table(name: str) -> None:
    spec, words = ACTIONS[name], part("What a scenario can say")
    if spec.not_yet:
        assert f"`{name}`" in words
    elif name not in NOT_WRITTEN:
        assert row(name, spec) in words


def test_every_fault_is_in_the_table() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", part("What a scenario can say"), re.MULTILINE)
    named = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert named >= set(FAULTS)


def test_every_scenario_that_is_named_ships() -> None:
    words = part("The scenarios that ship")
    cells = re.findall(r"^\|[^|]+\|([^|]+)\|$", words[: words.index("Not simulated")], re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named
    assert named <= {path.stem for path in FOLDER.glob("*.toml")}
