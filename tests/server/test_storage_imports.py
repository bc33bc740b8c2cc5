"""Nothing above the storage port knows which database there is, but those who open one."""

from __future__ import annotations

import ast
from pathlib import Path

SERVER = Path(__file__).parents[2] / "server" / "crdt_sync_server"
COMMANDS = {"operating/asking.py", "operating/backup.py", "operating/restoring.py"}
OPENERS = {"serve.py", "database_thread.py"} | COMMANDS
"""The composition root, the operator's commands on a stopped relay, and the thread that owns a connection."""
DATABASES = ("sqlite3", "apsw", "aiosqlite", "crdt_sync_server.storage.sqlite")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_only_the_adapter_and_who_opens_it_know_the_database() -> None:
    knows = {
        str(path.relative_to(SERVER))
        for path in SERVER.rglob("*.py")
        if any(name.startswith(DATABASES) for name in imported(path))
    }
    above = {name for name in knows if not name.startswith("storage/sqlite")}
    assert above <= OPENERS
    assert "storage/port.py" not in knows
