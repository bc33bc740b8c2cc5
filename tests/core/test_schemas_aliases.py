"""A field that was renamed: what was written under its old name, before and since, counts as its own."""

from __future__ import annotations

import pytest

from crdt_sync.errors import SchemaError, ValidationError
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.editing import plan_edit
from crdt_sync.records.view import view
from crdt_sync.roles import Role
from crdt_sync.schemas import RecordSchema, load_schema
from tests.core.record_replicas import RECORD_ID, Replica, meet


def load(properties: str, version: int) -> RecordSchema:
    return load_schema(f"x-type: pump\nx-version: {version}\nproperties:\n{properties}", source="pump.yaml")


OLD = load(
    """\
  state: {type: string, x-merge: manual}
  note: {type: string}
  marks: {type: array, items: {type: string}, x-merge: set}
  run: {type: number, x-merge: counter}
  pieces:
    type: object
    x-merge: rows
    additionalProperties: {type: object, properties: {qty: {type: number}, note: {type: string}}}
""",
    1,
)
NEW = load(
    """\
  note: {type: string}
  status: {type: string, x-merge: manual, x-aliases: [condition, state]}
  tags: {type: array, items: {type: string}, x-merge: set, x-aliases: [marks]}
  hours: {type: number, x-merge: counter, x-aliases: [run]}
  parts:
    type: object
    x-merge: rows
    x-aliases: [pieces]
    additionalProperties:
      type: object
      properties:
        quantity: {type: number, x-aliases: [qty]}
        note: {type: string}
""",
    2,
)
FILLED = {"state": "open", "note": "x", "marks": ["a"], "run": 2, "pieces": {"A": {"qty": 1, "note": "n"}}}


def pair() -> tuple[Replica, Replica]:
    """A device with the older schema, which made the record, and one with the newer."""
    old, new = Replica(0, OLD, Role.FIELD), Replica(1, NEW, Role.OFFICE)
    old.create(FILLED)
    meet(old, new)
    return old, new


def test_what_was_written_before_is_the_fields_own() -> None:
    _, new = pair()
    assert new.values == {
        "status": "open",
        "note": "x",
        "tags": ["a"],
        "hours": 2,
        "parts": {"A": {"quantity": 1, "note": "n"}},
    }
    assert new.view().conflicts == ()


def test_writing_the_field_takes_the_old_names_writes_away() -> None:
    _, new = pair()
    new.set({"status": "done", "parts.A.quantity": 5, "hours": Increment(3)})
    new.set({"tags": AddElement("b")})
    new.set({"tags": RemoveElement("a")})
    assert new.values["status"] == "done"
    assert new.values["parts"] == {"A": {"quantity": 5, "note": "n"}}
    assert new.values["hours"] == 5
    assert new.values["tags"] == ["b"]
    assert {path for path in new.doc.writes() if path[0] in ("state", "marks")} == set()
    assert ("pieces", "A", "qty") not in new.doc.writes()


def test_a_device_that_was_not_upgraded_goes_on_writing_under_the_old_name() -> None:
    old, new = pair()
    old.set({"state": "broken"})
    new.set({"note": "y"})
    meet(old, new)
    assert new.values["status"] == "broken"
    assert new.view().conflicts == ()


def test_writes_made_apart_under_both_names_are_one_conflict() -> None:
    old, new = pair()
    old.set({"state": "broken"})
    new.set({"status": "done"})
    meet(old, new)
    (conflict,) = new.view().conflicts
    assert (conflict.path, conflict.kind) == (("status",), "open")
    assert sorted(str(write.value) for write in conflict.alternatives) == ["broken", "done"]
    new.resolve(conflict.path, "broken")
    assert new.view().conflicts == ()
    assert new.values["status"] == "broken"


def test_a_conflict_from_before_the_upgrade_can_be_decided_after_it() -> None:
    old, other, new = Replica(0, OLD), Replica(2, OLD), Replica(1, NEW)
    old.create(FILLED)
    other.take(old.updates)
    old.set({"state": "one"})
    other.set({"state": "two"})
    meet(old, other, new)
    assert [conflict.path for conflict in new.view().conflicts] == [("status",)]
    new.resolve("state", "two")
    assert new.values["status"] == "two"
    assert new.view().conflicts == ()


def test_a_row_removed_under_its_new_name_is_gone_under_both() -> None:
    old, new = pair()
    new.set({"parts.A": None})
    assert new.view().values["parts"] == {}
    old.set({"pieces.A.qty": 3})
    meet(old, new)
    assert new.values["parts"] == {"A": {"quantity": 3, "note": "n"}}
    assert [conflict.path for conflict in new.view().conflicts] == [("parts", "A", "$deleted")]


def test_deleting_and_restoring_sees_what_stands_under_old_names() -> None:
    old, new = pair()
    new.delete()
    meet(old, new)
    assert new.view().deleted
    assert old.view().deleted
    new.restore()
    assert new.values["status"] == "open"


def test_a_view_kept_up_by_what_was_touched_is_the_view_made_anew() -> None:
    old, new = pair()
    assert new.view().values["status"] == "open"  # `Replica.view` compares both
    old.set({"state": "broken", "run": Increment(1), "pieces.A.qty": 9})
    meet(old, new)
    assert new.view().values["status"] == "broken"
    assert new.view().values["hours"] == 3


def test_own_totals_under_both_names_count_once() -> None:
    device = Replica(0, OLD)
    device.create({"run": 2})
    device.schema = NEW
    device.set({"hours": Increment(5)})
    assert device.values["hours"] == 7
    assert [path for path in device.doc.writes() if path[0] in ("run", "hours")] == [("hours",)]


def test_asking_for_the_old_name_says_the_new_one() -> None:
    _, new = pair()
    with pytest.raises(ValidationError) as caught:
        new.set({"state": "x"})
    assert str(caught.value) == "state: a pump has no field 'state'; it is called 'status' now"
    with pytest.raises(ValidationError) as caught:
        new.set({"parts.A.qty": 1})
    assert str(caught.value) == "parts.A.qty: there is no such field; it is called 'quantity' now"


def test_a_schema_without_old_names_looks_at_the_documents_own_writes() -> None:
    doc = RecordDocument(author=Replica(0, OLD).author)
    assert OLD.old_names is None
    assert OLD.current(doc.writes()) is doc.writes()
    written = Replica(0, NEW)
    written.create({"status": "open"})
    assert NEW.current(written.doc.writes()) is written.doc.writes()
    assert view(NEW, "pump", RECORD_ID, written.doc.writes()).values["status"] == "open"
    assert not plan_edit(
        NEW,
        written.doc.writes(),
        {"status": "open"},
        author=written.author,
        role=Role.FIELD,
        tick=written.tick,
    )


NAME = "an old name must be a field's name: letters, digits and _"


@pytest.mark.parametrize(
    ("properties", "line", "column", "message"),
    [
        ("  a: {x-aliases: b}\n", 4, 18, "x-aliases must be a list of old names, such as [old_name]"),
        ("  a: {x-aliases: []}\n", 4, 18, "x-aliases must be a list of old names, such as [old_name]"),
        ("  a: {x-aliases: [3]}\n", 4, 19, NAME),
        ("  a: {x-aliases: ['b c']}\n", 4, 19, NAME),
        ("  a: {x-aliases: [[b]]}\n", 4, 19, NAME),
        ("  a: {x-aliases: [b]}\n  b: {}\n", 4, 19,
         "'b' is the name of a field now, so it cannot be an old name"),
        ("  a: {x-aliases: [b, b]}\n", 4, 22, "'b' is an old name of this field already"),
        ("  a: {x-aliases: [b]}\n  c: {x-aliases: [b]}\n", 5, 19, "'b' is an old name of a already"),
        ("  a: {properties: {b: {x-aliases: [c]}}}\n", 4, 24,
         "x-aliases cannot stand here: only a field has a name to be found under"),
        ("  a: {type: object, x-merge: rows, additionalProperties: "
         "{properties: {b: {x-aliases: [c]}, c: {}}}}\n", 4, 88,
         "'c' is the name of a field now, so it cannot be an old name"),
    ],
)  # fmt: skip
def test_a_problem_of_an_old_name_is_named_where_it_stands(
    properties: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        load(properties, 1)
    assert [(each.line, each.column, each.message) for each in caught.value.problems] == [
        (line, column, message)
    ]
