"""Dependencies point one way: the core imports nobody, client and server never each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPURE = {
    "asyncio", "socket", "threading", "time", "random", "secrets", "os", "pathlib", "subprocess", "tempfile",
    "sqlite3", "logging", "aiosqlite", "websockets", "starlette", "uvicorn", "sqlcipher3", "keyring", "uuid",
}  # fmt: skip
"""`uuid` because uuid4 draws its own randomness and uuid1 reads the clock."""


def imported_by(package: Path) -> dict[str, set[str]]:
    """First parts of every module imported anywhere in the package, also inside functions."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("crdt_sync", IMPURE | {"crdt_sync_client", "crdt_sync_server", "crdt_sync_sim"}),
        ("client/crdt_sync_client", {"crdt_sync_server", "crdt_sync_sim"}),
        ("server/crdt_sync_server", {"crdt_sync_client", "crdt_sync_sim"}),
    ],
)
def test_imports_point_one_way(package: str, forbidden: set[str]) -> None:
    found = imported_by(ROOT / package)
    assert found, f"nothing found in {package}: is the folder still there?"
    wrong = {name: places for name, places in found.items() if name in forbidden}
    assert wrong == {}


def test_files_stay_small() -> None:
    """A file past 500 lines holds more than one concept."""
    sizes = {
        str(path.relative_to(ROOT)): path.read_text().count("\n")
        for folder in ("crdt_sync", "client", "server", "simulations", "benchmarks", "demo", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: size for name, size in sizes.items() if size > 500} == {}
