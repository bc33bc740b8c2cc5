"""Local writes and reads: what survives, what is refused, and that a failure harms nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import (
    ConflictNotFound,
    PermissionDenied,
    RecordDeleted,
    RecordNotFound,
    RecordTooLarge,
    StoreTooNew,
    UnknownSpace,
    UnknownType,
    ValidationError,
)
from crdt_sync.ids import RecordId, SpaceId
from crdt_sync.roles import Role
from crdt_sync_client.engine import Engine
from crdt_sync_client.engine.model import (
    CreateOp,
    DeleteOp,
    Record,
    ResolveOp,
    RestoreOp,
    UpdateOp,
    WriteResult,
)
from crdt_sync_client.store.connection import Database
from tests.client.engine_world import World, seeded

NOBODY = RecordId("00000000-0000-4000-8000-000000000000")
PUMP = {"title": "Pump", "photo": b"\x00\xff", "tags": ["b", "a"], "parts": {"A": {"qty": 2.5}}, "count": 3}


def titles(records: list[Record]) -> list[str]:
    return [record.values["title"] for record in records]


def test_a_write_survives_a_clean_end_and_a_crash(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    before = device.get(id)
    device.reopen()
    assert device.get(id) == before
    device.set(id, status="busy")
    device.crash()
    assert device.values(id)["status"] == "busy"
    assert device.get(id).sync_state == "pending"


def test_types_survive_the_way_through_the_store(world: World) -> None:
    device = world.office
    values = device.values(device.create(PUMP))
    assert values == {**PUMP, "tags": ["a", "b"], "status": "open", "hours": 0}
    assert type(values["count"]) is int
    assert type(values["parts"]["A"]["qty"]) is float
    assert type(values["photo"]) is bytes


def test_a_crash_begins_a_new_incarnation_and_a_clean_end_does_not(world: World) -> None:
    device = world.office
    first = device.engine.author
    device.reopen()
    assert device.engine.author == first
    device.crash()
    assert device.engine.author != first
    assert device.engine.author.device == first.device


def test_one_failing_operation_does_not_harm_the_others(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    results = device.engine.write(
        [
            UpdateOp("job", id, {"status": "busy"}),
            UpdateOp("job", id, {"status": "nonsense"}),
            UpdateOp("job", NOBODY, {"status": "busy"}),
            CreateOp("job", {"status": "open"}),
            CreateOp("boat", {}),
            CreateOp("job", {"title": "x"}, id=RecordId("not-a-uuid")),
            UpdateOp("job", id, {"count": 4}),
        ]
    )
    kinds = [type(result) for result in results]
    assert kinds == [
        WriteResult,
        ValidationError,
        RecordNotFound,
        ValidationError,
        UnknownType,
        ValidationError,
        WriteResult,
    ]
    assert device.values(id)["status"] == "busy"
    assert device.values(id)["count"] == 4
    assert device.engine.count("job") == 1


def test_operations_of_one_call_see_each_other_and_make_one_change(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    results = device.write(
        UpdateOp("job", id, {"count": 1}),
        UpdateOp("job", id, {"count": 2}),
        DeleteOp("job", id),
        RestoreOp("job", id),
        UpdateOp("job", id, {"status": "done"}),
    )
    assert device.values(id)["count"] == 2
    changes = [result.change for result in results]
    assert changes[:4] == [None] * 4
    assert changes[4] is not None
    assert changes[4].fields == ("status", "count")
    assert changes[4].origin == "local"
    assert changes[4].record.values["status"] == "done"


def test_more_records_in_one_call_than_are_kept_open(world: World) -> None:
    device = world.office
    ids = [device.create({"title": f"Job {n}"}) for n in range(300)]
    ops = [
        UpdateOp("job", id, {name: value}) for name, value in (("count", 2), ("status", "busy")) for id in ids
    ]
    assert len(device.write(*ops)) == 600
    assert {device.values(id)["count"] for id in ids} == {2}
    device.reopen()
    assert device.engine.count("job", {"count": 2, "status": "busy"}) == 300


def test_an_equal_value_is_not_a_write(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    device.sync()
    result = device.set(id, count=3)
    assert not result.changed
    assert result.state == "synced"
    assert device.engine.outbox() == []


def test_creating_a_known_id_updates_it(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    device.write(CreateOp("job", {"title": "Pump 2"}, id=id))
    assert device.values(id)["title"] == "Pump 2"
    assert device.values(id)["count"] == 3
    assert device.engine.count("job") == 1


def test_delete_restore_and_what_a_deleted_record_refuses(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    device.write(DeleteOp("job", id))
    assert device.engine.get("job", id) is None
    assert device.engine.query("job") == []
    deleted = device.engine.get("job", id, deleted=True)
    assert deleted is not None
    assert deleted.deleted
    with pytest.raises(RecordDeleted):
        device.set(id, status="done")
    device.write(RestoreOp("job", id))
    assert device.values(id)["title"] == "Pump"


def test_a_reader_may_not_write(world: World) -> None:
    reader = world.join("auditor", Role.READER)
    with pytest.raises(PermissionDenied):
        reader.create(PUMP)


def test_a_record_that_would_not_fit_an_envelope_is_refused(world: World) -> None:
    device = world.office
    id = device.create(PUMP)
    device.set(id, photo=b"x" * 500_000)
    with pytest.raises(RecordTooLarge):
        device.set(id, notes="y" * 400_000)
    assert "notes" not in device.values(id)
    device.sync()


def test_queries(world: World) -> None:
    device = world.office
    for n in range(10):
        tags = ["even"] if n % 2 == 0 else []
        device.create({"title": f"Job {n}", "count": n, "tags": tags, "parts": {"A": {"qty": n}}})
    engine = device.engine
    assert titles(engine.query("job", {"count": 3})) == ["Job 3"]
    assert titles(engine.query("job", {"tags": "even"}, order_by="-count", limit=2)) == ["Job 8", "Job 6"]
    assert titles(engine.query("job", {"parts.A.qty": 4})) == ["Job 4"]
    assert titles(engine.query("job", order_by="count", limit=2, offset=3)) == ["Job 3", "Job 4"]
    assert engine.count("job", {"notes": None}) == 10
    assert engine.count("job", {"status": "done"}) == 0
    with pytest.raises(ValidationError, match="titel"):
        engine.query("job", {"titel": "x"})
    assert engine.query("job", {'parts.a"b.qty': 1}) == []
    with pytest.raises(UnknownType, match="boat"):
        engine.query("boat")


@pytest.mark.parametrize("text", ["'; DROP TABLE records; --", '"', "$.x", "%", ""])
def test_values_in_queries_are_only_values(world: World, text: str) -> None:
    device = world.office
    id = device.create({"title": text})
    device.create({"title": "other"})
    assert [record.id for record in device.engine.query("job", {"title": text})] == [id]


def test_spaces_are_found_by_name_and_id(world: World) -> None:
    engine = world.office.engine
    assert engine.space().name == "North rig"
    assert engine.space("North rig").id == engine.space(world.space.hex()).id == world.space
    with pytest.raises(UnknownSpace, match="South"):
        engine.space("South rig")
    with pytest.raises(UnknownSpace):
        engine.get("job", NOBODY, space=SpaceId(bytes(16)))


def test_a_device_without_a_space_says_so(tmp_path: Path) -> None:
    db = Database.create(tmp_path / "x.store", bytes(32), salt=b"0" * 16)
    engine = Engine.create(db, name="x", clock=lambda: 1_750_000_000_000, entropy=seeded("x"))
    assert isinstance(engine.write([CreateOp("job", {})])[0], UnknownSpace)
    with pytest.raises(ConflictNotFound):
        engine.conflict("zz")
    assert isinstance(engine.write([ResolveOp("abc", keep="mine")])[0], ConflictNotFound)
    engine.close()
    engine.close()


def test_a_newer_store_is_refused_and_closed(world: World) -> None:
    device = world.office
    device.engine._replica.db.execute("PRAGMA user_version = 99")
    device.engine.close()
    before = device.path.read_bytes()
    db = Database.open(device.path, device.key)
    with pytest.raises(StoreTooNew):
        Engine.open(db, clock=world.clock, entropy=device.entropy)
    assert device.path.read_bytes() == before


def test_nothing_of_a_record_is_readable_on_the_disk(world: World) -> None:
    device = world.office
    device.create({"title": "Centrifugal pump", "notes": "bearing squeals"})
    for file in world.directory.iterdir():
        content = file.read_bytes()
        for text in (b"Centrifugal", b"squeals", b"title", b"North rig", b"localhost", b"office"):
            assert text not in content, (file.name, text)


@pytest.mark.parametrize("table", ["outbox", "documents", "records", "meta"])
def test_a_failure_inside_a_transaction_leaves_memory_and_store_in_agreement(
    world: World, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    device = world.office
    id = device.create(PUMP)
    db: Any = device.engine._replica.db
    for name in ("many", "execute"):
        plain = getattr(db, name)

        def failing(sql: str, *args: Any, _plain: Any = plain) -> Any:
            if f" {table} " in sql and not sql.startswith("SELECT"):
                raise OSError("disk full")
            return _plain(sql, *args)

        monkeypatch.setattr(db, name, failing)
    with pytest.raises(OSError, match="disk full"):
        device.engine.write([UpdateOp("job", id, {"count": 9}), CreateOp("job", {"title": "lost"})])
    monkeypatch.undo()
    assert device.values(id)["count"] == 3
    assert device.engine.count("job") == 1
    digest = device.engine.content_hash("job", id)
    device.set(id, status="done")  # the cached document is not the one that was edited in vain
    assert device.values(id)["count"] == 3
    device.sync()
    other = world.join("anna")
    assert other.values(id) == device.values(id)
    device.reopen()
    assert device.engine.content_hash("job", id) != digest
    world.assert_converged()
