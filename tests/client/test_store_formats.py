"""A store that an earlier version of the program made is opened, kept whole, and has what is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crdt_sync_client.engine import Engine
from crdt_sync_client.store import tables
from crdt_sync_client.store.connection import Database
from tests.client.engine_world import World

FORMAT_1 = {
    "spare_meta": None,
    "spare_spaces": None,
    "waiting": None,
    "preferences": None,
    "history": None,
    "spaces": "catching_up promised gives_back",
    "documents": "group_ends",
    "outbox": "tied clock",
    "outbox_past": None,
    "sealed": "until priority last_error clock",
    "refused": None,
    "chains": "settled",
    "records": "parent absent wanted",
    "scopes": None,
    "picks": None,
    "leaving": None,
    "quarantine": "type",
    "types": None,
    "leases": None,
    "checkouts": None,
    "at_relay": None,
}
"""What a store of format 1 lacks: whole tables (None), or columns."""


def layout(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """The columns of every table (name, type, whether NOT NULL, default), and the indexes and triggers."""
    names = [name for (name,) in db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: [tuple(row[1:5]) for row in db.rows(f"PRAGMA table_info({name})")] for name in names}
    others = db.rows(
        "SELECT name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql NOT NULL"
    )
    return {**found, "indexes and triggers": sorted(others)}


def to_format_1(db: Database) -> None:
    """Take away what has come since."""
    for (trigger,) in db.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        db.execute(f"DROP TRIGGER {trigger}")
    for index in ("records_by_parent", "records_absent", "records_unshown", "outbox_by_record"):
        db.execute(f"DROP INDEX {index}")
    for table, column in FORMAT_1.items():
        if column is None:
            db.execute(f"DROP TABLE {table}")
        for each in (column or "").split():
            db.execute(f"ALTER TABLE {table} DROP COLUMN {each}")
    db.execute("PRAGMA user_version = 1")


def test_a_store_of_the_first_format_is_upgraded_and_keeps_its_work(tmp_path: Path) -> None:
    world = World(tmp_path)
    office = world.office
    id = office.create({"title": "Pump"})
    now = layout(office.engine._replica.db)
    to_format_1(office.engine._replica.db)
    office.engine.close()
    db = Database.open(office.path, office.key)
    office.engine = Engine.open(db, clock=world.clock, entropy=office.entropy)
    assert layout(db) == now
    assert db.value("PRAGMA user_version") == tables.STORE_VERSION
    assert office.values(id)["title"] == "Pump"
    assert office.set(id, status="busy").changed
    anna = world.join("anna")
    world.settle()
    assert anna.values(id)["status"] == "busy"
    office.reopen()
    world.close()
