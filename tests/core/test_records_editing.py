"""What an app gets when it creates, changes, deletes, restores and decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.errors import (
    LocalError,
    PermissionDenied,
    RecordDeleted,
    RecordNotFound,
    TransitionError,
    ValidationError,
)
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.writes import Write, check_write
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from tests.core.record_replicas import DELETE_WINS, EDIT_WINS, Replica, check_state, meet

STRICT = load_schema(
    """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Strict
x-type: strict
x-version: 1
x-delete: {roles: [office]}
type: object
required: [title]
properties:
  title: {type: string}
  status:
    type: string
    enum: [draft, open, done]
    default: draft
    x-transitions: {draft: [open], open: [done]}
  hours: {type: integer, x-merge: counter}
  photo: {type: string, contentEncoding: base64}
  parts:
    type: object
    x-merge: rows
    additionalProperties:
      type: object
      properties:
        qty: {type: number}
""",
    source="test",
)


def pair(schema: RecordSchema = EDIT_WINS, **values: Any) -> tuple[Replica, Replica]:
    """Two devices that both have the record."""
    one, other = Replica(0, schema), Replica(1, schema)
    one.create(values)
    other.take(one.updates)
    return one, other


# Values ---------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def typed(value: Any) -> Any:
    """The value with its types beside it: `1 == True == 1.0` must not count as surviving."""
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return (type(value), repr(value))


@given(PLAIN)
def test_values_keep_their_type_through_a_document(value: Any) -> None:
    one, other = pair(status="x")
    one.set({"planned": value})
    other.take(one.updates)
    reopened = RecordDocument(other.doc.state())
    for writes in (other.doc.writes(), reopened.writes()):
        found = writes.get(("planned",))
        assert typed(None if found is None else found[0].value) == typed(value)


def test_bytes_stay_bytes() -> None:
    _, other = pair(STRICT, title="x", photo=b"\x00\xff")
    assert other.view().values["photo"] == b"\x00\xff"


@given(PLAIN)
def test_a_write_is_its_own_canonical_encoding(value: Any) -> None:
    author = Replica(0).author
    write = Write(("planned",), value, Replica(0).tick(), Role.FIELD, author)
    assert typed(check_write(write.encode(), author).value) == typed(value)
    assert check_write(write.encode(), author) == write


def test_one_true_and_a_float_are_three_values() -> None:
    one, other = pair(status="x")
    one.set({"planned": 1})
    other.set({"planned": True})
    meet(one, other)
    assert [conflict.path for conflict in one.view().conflicts] == [("planned",)]
    assert one.set({"planned": 1.0}).resolves == [("planned",)]
    assert type(one.view().values["planned"]) is float


# Plain edits ----------------------------------------------------------------------------------------


def test_one_place_can_be_named_in_three_ways() -> None:
    one, _ = pair(status="x")
    one.set({"parts": {"A": {"qty": 1}}})
    one.set({"parts.A.qty": 2})
    one.set({("parts", "B.2", "qty"): 3})
    assert one.values["parts"]["A"]["qty"] == 2
    assert one.values["parts"]["B.2"]["qty"] == 3


def test_writing_what_stands_there_writes_nothing() -> None:
    one, _ = pair(status="x", tags=["a"])
    before = one.doc.state()
    assert not one.set({"status": "x", "tags": ["a"]})
    assert not one.set({"actual": None, "tags": RemoveElement("b"), "parts": {"A": None}})
    assert not one.set([("status", "y"), ("status", "x")])
    assert one.doc.state() == before


def test_a_field_changed_twice_in_one_edit_takes_the_last_and_costs_one_write() -> None:
    one, _ = pair(status="x")
    edit = one.set([("status", "a"), ("status", "b"), ("tags", AddElement("p")), ("tags", AddElement("q"))])
    assert [write.path for write in edit.add] == [("status",), ("tags", '"p"'), ("tags", '"q"')]
    assert one.values["status"] == "b"


def test_clearing() -> None:
    one, _ = pair(status="x", tags=["a", "b"], hours=3, parts={"A": {"qty": 1}})
    one.set({"status": None, "tags": None, "hours": None, "parts": None})
    values = one.view().values
    assert (values["status"], values["tags"], values["hours"], values["parts"]) == (None, [], 0, {})


def test_a_list_makes_a_set_exactly_that() -> None:
    one, other = pair(tags=["a", "b"])
    one.set({"tags": ["b", "c"]})
    other.set({"tags": AddElement("d")})
    meet(one, other)
    assert one.values["tags"] == ["b", "c", "d"]


def test_counters_take_increments_and_plain_numbers() -> None:
    one, other = pair(hours=10)
    one.set([("hours", Increment(2)), ("hours", Increment(3))])
    other.set({"hours": 11})
    meet(one, other)
    assert one.values["hours"] == 16
    assert type(one.values["hours"]) is int
    one.set({"hours": Increment(0.5)})
    assert one.values["hours"] == 16.5


def test_an_increment_to_a_total_that_another_device_also_has_counts() -> None:
    one, other = pair(status="x")
    one.set({"hours": Increment(1)})
    other.take(one.updates)
    other.set({"hours": Increment(1)})
    meet(one, other)
    assert one.values["hours"] == other.values["hours"] == 2


def test_a_plain_write_says_which_conflict_it_resolved() -> None:
    one, other = pair(cause="a")
    one.set({"cause": "b"})
    other.set({"cause": "c"})
    meet(one, other)
    assert one.view().provisional == (("cause",),)
    assert one.set({"cause": one.values["cause"]}).resolves == [("cause",)]
    assert one.view().conflicts == ()


# What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"status": 5}, "status"),
        ({"nothing": 1}, "nothing"),
        ({"status.deep": 1}, "status.deep"),
        ({"status": Increment(1)}, "status"),
        ({"tags": Increment(1)}, "tags"),
        ({"hours": AddElement(1)}, "hours"),
        ({"hours": "many"}, "hours"),
        ({"hours": Increment(True)}, "hours"),
        ({"hours": Increment(float("nan"))}, "hours"),
        ({"hours": Increment(2**64)}, "hours"),
        ({"parts": 5}, "parts"),
        ({"parts": {"A": 5}}, "parts.A"),
        ({"parts": {"A": {"size": 5}}}, "parts.A.size"),
        ({"parts": {"$A": {"qty": 5}}}, "parts"),
        ({"planned": object()}, "planned"),
        ({"": 1}, "(no field)"),
    ],
)
def test_a_wrong_value_names_its_field_and_changes_nothing(changes: Any, field: str) -> None:
    one, _ = pair(status="x")
    before = one.doc.state()
    with pytest.raises(ValidationError) as caught:
        one.set({"cause": "would be fine", **changes})
    assert caught.value.field == field
    assert one.doc.state() == before


def test_required_fields_defaults_and_transitions() -> None:
    one = Replica(1, STRICT)
    with pytest.raises(ValidationError, match="title"):
        one.create({})
    one.create({"title": "x"})
    assert one.values["status"] == "draft"
    with pytest.raises(TransitionError, match="may not"):
        one.set({"status": "done"})
    with pytest.raises(ValidationError, match="title"):
        one.set({"title": None})
    one.set({"hours": Increment(2.0)})
    assert type(one.values["hours"]) is int
    with pytest.raises(ValidationError, match="hours"):
        one.set({"hours": Increment(0.5)})
    with pytest.raises(ValidationError, match="64 bits"):
        one.set({"hours": Increment(2**63 - 1)})


def test_choosing_an_alternative_is_no_transition() -> None:
    """Both went on to open while apart, and one of them further, to done."""
    one, other = pair(STRICT, title="x")
    other.now_ms += 60_000
    one.set({"status": "open"})
    one.set({"status": "done"})
    other.set({"status": "open"})
    meet(one, other)
    (conflict,) = one.view().conflicts
    assert one.values["status"] == "open"
    one.resolve("status", "done")
    assert one.values["status"] == "done"
    with pytest.raises(TransitionError, match="final"):
        one.set({"status": "open"})
    assert {write.value for write in conflict.alternatives} == {"open", "done"}


def test_roles() -> None:
    one, other = pair(STRICT, title="x")
    with pytest.raises(PermissionDenied, match="may not delete"):
        one.delete()
    assert other.delete()
    with pytest.raises(PermissionDenied):
        Replica(0, STRICT, Role.READER).create({"title": "x"})


def test_existence() -> None:
    one = Replica(0)
    with pytest.raises(RecordNotFound):
        one.set({"status": "x"})
    with pytest.raises(RecordNotFound):
        one.restore()
    assert not one.delete()
    one.create()
    assert one.view().exists
    with pytest.raises(LocalError, match="exists already"):
        one.create()
    one.delete()
    with pytest.raises(RecordDeleted):
        one.set({"status": "x"})
    assert not one.delete()


# Deletion -------------------------------------------------------------------------------------------


def test_a_deleted_record_comes_back_whole_with_an_edit_it_had_not_seen() -> None:
    one, other = pair(status="x", cause="y", parts={"A": {"qty": 1}})
    one.delete()
    other.set({"status": "z"})
    meet(one, other)
    assert one.values["cause"] == "y"
    assert one.values["parts"]["A"]["qty"] == 1
    (conflict,) = one.view().conflicts
    assert (conflict.path, conflict.kind, conflict.winner.value) == (("$deleted",), "auto", "z")
    assert one.set({"cause": "w"}).resolves == [("$deleted",)]
    meet(one, other)
    assert other.view().conflicts == ()


def test_a_record_created_again_starts_afresh() -> None:
    one, other = pair(status="x", cause="y", hours=3)
    one.delete()
    other.take(one.updates)
    other.create({"status": "new"})
    one.take(other.updates)
    assert one.values == {"status": "new"}


def test_a_restoration_outlives_a_deletion_it_had_not_seen() -> None:
    one, other = pair(status="x")
    third = Replica(2)
    third.take(one.updates)
    one.delete()
    third.delete()
    other.take(one.updates)
    other.restore()
    meet(one, other, third)
    assert {replica.view().deleted for replica in (one, other, third)} == {False}


def test_a_second_deletion_keeps_what_the_first_had_seen() -> None:
    """The second deleter has not got everything the first had; late arrivals must not revive the record."""
    one, other = pair(status="x")
    third = Replica(2)
    other.set({"cause": "late"})
    one.take(other.updates)
    one.delete()
    third.take([one.updates[0]])
    third.set({"status": "y"})
    third.take(one.updates)  # the deletion, but not what it had seen of `other`
    assert not third.view().deleted
    third.delete()
    assert third.view().deleted
    third.take(other.updates)
    assert third.view().deleted


def test_a_removed_row_does_not_come_back_because_its_last_edit_was_undone() -> None:
    one, other = pair(parts={"A": {"qty": 1, "labels": ["a"]}})
    one.set({"parts": {"A": None}})
    other.set({"parts.A.labels": AddElement("b")})
    meet(one, other)
    assert one.values["parts"]["A"]["labels"] == ["a", "b"]
    one.set({"parts.A.labels": RemoveElement("b")})  # an editor who sees the row goes on with it
    meet(one, other)
    assert other.values["parts"]["A"] == {"qty": 1, "labels": ["a"], "used": 0}


def test_a_row_created_again_starts_afresh_and_an_empty_row_is_there() -> None:
    one, other = pair(parts={"A": {"qty": 1, "note": "old"}})
    one.set({"parts": {"A": None}})
    one.set({"parts": {"A": {"qty": 2}, "B": {}}})
    other.take(one.updates)
    assert other.view().values["parts"]["A"].get("note") is None
    assert set(other.view().values["parts"]) == {"A", "B"}


def test_removing_wins_where_the_schema_says_so() -> None:
    one, other = pair(banned=["x"], crew={"A": {"task": "drive"}})
    one.set({"banned": RemoveElement("x"), "crew": {"A": None}})
    other.set([("banned", RemoveElement("x")), ("banned", AddElement("x")), ("crew.A.task", "cook")])
    meet(one, other)
    assert "banned" not in one.values
    assert "crew" not in one.values
    assert [conflict.path[-1] for conflict in one.view().conflicts] == ["$deleted", "$deleted"]
    one.set({"banned": AddElement("x"), "crew.A.task": "sleep"})
    meet(one, other)
    assert other.values["banned"] == ["x"]
    assert other.values["crew"] == {"A": {"task": "sleep"}}
    assert other.view().conflicts == ()


@pytest.mark.parametrize("schema", [EDIT_WINS, DELETE_WINS], ids=["edit_wins", "delete_wins"])
@pytest.mark.parametrize("keep", ["deletion", "edit"])
def test_a_deletion_against_an_edit_can_be_decided_either_way(schema: RecordSchema, keep: str) -> None:
    one, other = pair(schema, status="x")
    one.delete()
    other.set({"status": "z"})
    meet(one, other)
    (conflict,) = one.view().conflicts
    chosen = next(w for w in conflict.alternatives if (w.path == ("$deleted",)) == (keep == "deletion"))
    assert one.resolve(conflict.path, chosen.value).resolves == [("$deleted",)]
    meet(one, other)
    for replica in (one, other):
        assert replica.view().deleted == (keep == "deletion")
        assert replica.view().conflicts == ()
    check_state(one)


@pytest.mark.parametrize(
    ("field", "key", "change"), [("parts", "A", ("parts.A.qty", 9)), ("crew", "A", ("crew.A.task", "z"))]
)
@pytest.mark.parametrize("gone", [True, False])
def test_a_removed_row_against_an_edit_can_be_decided_either_way(
    field: str, key: str, change: tuple[str, Any], gone: bool
) -> None:
    one, other = pair(parts={"A": {"qty": 1}}, crew={"A": {"task": "x"}})
    one.set({field: {key: None}})
    other.set([change])
    meet(one, other)
    (conflict,) = one.view().conflicts
    assert conflict.path == (field, key, "$deleted")
    chosen = next(w for w in conflict.alternatives if (w.path[-1] == "$deleted") == gone)
    other.resolve(conflict.path, chosen.value)
    meet(one, other)
    assert (key not in one.view().values[field]) == gone
    assert one.view().conflicts == ()


# Conflicts ------------------------------------------------------------------------------------------


def test_conflict_ids_agree_and_change_with_their_writes() -> None:
    one, other = pair(cause="a")
    one.set({"cause": "b"})
    other.set({"cause": "c"})
    meet(one, other)
    (first,), (same,) = one.view().conflicts, other.view().conflicts
    assert first == same
    assert len(first.id) == 32
    one.resolve("cause", "b")
    other.resolve("cause", "c")
    meet(one, other)
    (again,) = one.view().conflicts
    assert again.kind == "open"
    assert again.id != first.id


def test_the_same_value_written_apart_is_no_conflict() -> None:
    one, other = pair(cause="a")
    one.set({"cause": "b"})
    other.set({"cause": "b"})
    meet(one, other)
    assert one.view().conflicts == ()
    assert one.values["cause"] == "b"


def test_the_loser_of_a_settled_conflict_can_be_restored() -> None:
    one, other = pair(status="a")
    one.set({"status": "b"})
    other.set({"status": "c"})
    meet(one, other)
    (conflict,) = one.view().conflicts
    loser = next(write for write in conflict.alternatives if write is not conflict.winner)
    one.resolve(conflict.path, loser.value)
    meet(one, other)
    assert other.values["status"] == loser.value
    with pytest.raises(ValidationError):
        one.resolve("tags", ["a"])


def test_fields_of_a_newer_schema_are_kept_and_shown() -> None:
    one, other = pair(status="a", cause="b", tags=["x"], parts={"A": {"qty": 1}})
    other.set({"cause": "c"})
    one.take(other.updates)
    older = load_schema(
        "$schema: https://json-schema.org/draft/2020-12/schema\ntitle: Old\nx-type: sample\nx-version: 1\n"
        "type: object\nproperties: {status: {type: string}}\n",
        source="test",
    )
    device = Replica(2, older)
    device.take([*one.updates, *other.updates])
    assert device.values == {"status": "a", "cause": "c", "parts": {"A": {"qty": 1}}, "tags": {'"x"': "x"}}
    device.set({"status": "z"})
    one.take(device.updates)
    assert one.values["status"] == "z"
    assert one.values["tags"] == ["x"]
