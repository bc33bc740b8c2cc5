"""The guide in simulations/README.md works as it is written, from nothing."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from crdt_sync_client.cli.main import cli
from crdt_sync_sim import commands

README = commands.scenario_folder().parent / "README.md"


def guide() -> dict[str, list[str]]:
    """The blocks of the five-minute guide by language."""
    text = README.read_text(encoding="utf-8")
    text = text[text.index("## Your own record type") : text.index("## What a scenario can say")]
    found: dict[str, list[str]] = {}
    for language, block in re.findall(r"^ *```(\w+)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        found.setdefault(language, []).append(textwrap.dedent(block))
    return found


def command(line: str) -> list[str]:
    """A line of a console block as arguments."""
    assert line.startswith("$ crdt-sync ")
    return line.removeprefix("$ crdt-sync ").split()


def test_the_five_minute_guide_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = guide()
    (schema,), (scenario, top, end) = blocks["yaml"], blocks["toml"]
    first, many = (command(block.strip()) for block in blocks["console"])
    Path("my_form.yaml").write_text(schema)
    Path("two_people.toml").write_text(scenario)
    runner = CliRunner()
    checked = runner.invoke(cli, ["schema", "check", "my_form.yaml"])
    assert checked.exit_code == 0, checked.output
    ran = runner.invoke(cli, first)
    assert ran.exit_code == 0, ran.output
    assert "Two people fill in one form, seed 1: PASS" in ran.output
    assert Path("two_people.svg").read_text().startswith("<svg")

    swarm = scenario[: scenario.index("[[expect.field]]")].replace(
        "duration_s = 300\n", f"duration_s = 300\n{top}"
    )
    Path("two_people.toml").write_text(swarm + end)
    assert many[many.index("--seeds") + 1] == "1..500"
    many[many.index("--seeds") + 1] = "1..4"
    swarmed = runner.invoke(cli, many)
    # What random work finds is not this test's matter; that the scenario can be run is.
    assert swarmed.exit_code in (0, 10, 11, 12), swarmed.output
    assert "4 runs in " in swarmed.output
