"""What holds for every file: imports point one way, it is small, and a check that is off says why."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("crdt_sync", "client", "server", "simulations", "benchmarks", "demo", "tests")
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
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: size for name, size in sizes.items() if size > 500} == {}


IGNORE = re.compile(
    r"#\s*(noqa|type:\s*ignore|pragma)\b:?\s*(\[[^]]*\]|[A-Z]+[0-9]+(,\s*[A-Z]+[0-9]+)*|no cover)?"
)


def unexplained(source: str) -> list[str]:
    """Comments that switch a check off without a reason: behind it, or in a comment on the line above."""
    found, above = [], -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        text = token.string
        alone = not token.line[: token.start[1]].strip()
        if IGNORE.match(text):
            reason = IGNORE.sub("", text).strip(" #-()")
            if not reason and above != token.start[0] - 1:
                found.append(f"{token.start[0]}: {text}")
        elif alone:
            above = token.start[0]
    return found


def test_a_check_that_is_switched_off_says_why() -> None:
    assert unexplained("a = 1  # noqa: E501\nb = 2  # type: ignore[misc]\n") == [
        "1: # noqa: E501",
        "2: # type: ignore[misc]",
    ]
    assert unexplained("# It is long.\na = 1  # noqa: E501\nb = 2  # type: ignore[misc]  # because\n") == []
    wrong = {
        str(path.relative_to(ROOT)): lines
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := unexplained(path.read_text()))
    }
    assert wrong == {}
