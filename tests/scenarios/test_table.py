"""docs/scenarios.md names tests that exist, and every client scenario is named in it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
SHORT = dict(re.findall(r"`(\w+)` is `(tests/\S+\.py)`", TABLE))


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")
    }


def named() -> list[tuple[str, str]]:
    """File (or `sim`) and name of each test in the table."""
    found = re.findall(r"`([\w/.]+)::(\w+)`", TABLE)
    return [(SHORT.get(where, where), name) for where, name in found]


def test_every_test_in_the_table_exists() -> None:
    assert set(SHORT) == {"client", "rules", "net", "kills"}
    assert len(named()) > 50
    for where, name in named():
        if where == "sim":
            assert (ROOT / "simulations" / "scenarios" / f"{name}.toml").exists(), name
        else:
            assert name in names_in(where), f"{where}::{name}"


def test_every_client_scenario_is_in_the_table() -> None:
    assert names_in(SHORT["client"]) <= {name for _, name in named()}


def test_each_row_says_what_shows_it_or_that_it_is_not_built() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ") and "shown by" not in line]
    assert len(rows) >= 40
    for row in rows:
        shown = row.split("|")[2]
        assert "::" in shown or "not built yet" in shown or "as 1.5" in shown, row
