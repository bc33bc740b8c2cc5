"""Why a field has its value, rule by rule; and that the reasons are about what is really shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt_sync.errors import ValidationError
from crdt_sync.hlc import hlc_from_ms
from crdt_sync.records.explaining import FieldExplanation, RecordExplanation, duration, explain
from crdt_sync.records.view import view
from crdt_sync.records.writes import Path, Write
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from tests.core.record_replicas import Replica, author_of, every_rule, meet

START_MS = 1_750_000_000_000
FIELD, OFFICE, SUPERVISOR = Role.FIELD, Role.OFFICE, Role.SUPERVISOR


def apart(field: str, *sides: tuple[Role, float, Any]) -> FieldExplanation:
    """One field written by several devices that had not seen each other: role, minutes, value."""
    writes = tuple(
        Write((field,), value, hlc_from_ms(START_MS + int(minutes * 60_000)), role, author_of(number))
        for number, (role, minutes, value) in enumerate(sides, start=1)
    )
    return only(explain(every_rule(), "sample", "r", {(field,): writes}))


def only(found: RecordExplanation) -> FieldExplanation:
    (field,) = found.fields
    return field


def at(found: RecordExplanation, *path: str) -> FieldExplanation:
    (field,) = [each for each in found.fields if each.path == path]
    return field


@pytest.mark.parametrize(
    ("field", "sides", "value", "reason"),
    [
        ("status", [(FIELD, 0, "a"), (OFFICE, 2, "b")], "b", "later by 2 min"),
        ("actual", [(FIELD, 0, "a"), (OFFICE, 2, "b")], "a", "field before office"),
        ("planned", [(FIELD, 9, "a"), (OFFICE, 2, "b")], "b", "office before field"),
        ("owner", [(OFFICE, 9, "a"), (SUPERVISOR, 2, "b"), (FIELD, 99, "c")], "b",
         "supervisor before office"),
        ("phase", [(FIELD, 0, "done"), (OFFICE, 2, "draft")], "done",
         "'done' comes after 'draft' in the order of the schema"),
        ("cause", [(FIELD, 0, "a"), (OFFICE, 180, "b")], "b",
         "a person decides; until then the latest is shown: later by 3 h"),
        ("ticket", [(FIELD, 0, "T1"), (OFFICE, 0.2, "T2")], "T1",
         "a person decides; until then the first is shown: earlier by 12 s"),
        ("reading", [(FIELD, 0, 120), (OFFICE, 2, 80)], 120, "the greatest: 120 against 80"),
        ("since", [(FIELD, 0, "2026-01-02"), (OFFICE, 2, "2026-01-01")], "2026-01-01",
         "the least: '2026-01-01' against '2026-01-02'"),
        ("reading", [(FIELD, 0, 120), (OFFICE, 2, None)], 120,
         "the only kind of value that can be compared"),
        ("status", [(FIELD, 0, "a"), (OFFICE, 2, "a")], "a", "2 devices wrote the same apart: no conflict"),
        ("status", [(FIELD, 0, "a"), (OFFICE, 0, "b")], None,
         "at the very same time; the device's id decides"),
        ("status", [(FIELD, 0, "a")], "a",
         "the only write that stands: whoever made it had seen those before"),
        ("hours", [(FIELD, 0, 2), (OFFICE, 2, 2)], 4, "what each device has counted, added up: 2 + 2"),
    ],
)  # fmt: skip
def test_the_reason_is_the_rules(field: str, sides: list[Any], value: Any, reason: str) -> None:
    found = apart(field, *sides)
    assert found.reason == reason
    assert value is None or found.value == value
    assert len(found.writes) == len(sides)


def test_what_is_shown_and_what_lost_are_told_apart_and_the_conflict_is_named() -> None:
    found = apart("status", (FIELD, 0, "a"), (OFFICE, 2, "b"))
    assert {(each.value, each.part) for each in found.writes} == {("a", "lost"), ("b", "shown")}
    assert found.conflict is not None
    assert (found.conflict.kind, found.rule) == ("auto", "register")
    assert apart("status", (FIELD, 0, "a")).conflict is None


def test_sets_texts_and_rows_say_what_counts() -> None:
    anna, ben = Replica(1), Replica(2)
    anna.create({"tags": ["x"], "story": "It leaks.", "parts": {"A": {"qty": 1}}})
    meet(anna, ben)
    anna.set({"tags": ["x", "y"], "story": "It leaks a lot.", "parts": {"A": {"qty": 2}}})
    ben.set({"story": "Here it leaks.", "parts": {"A": None}})
    meet(anna, ben)
    found = explain(anna.schema, "sample", "r", anna.doc.writes())
    assert {(each.value, each.part) for each in at(found, "tags").writes} == {
        ("x", "counts"),
        ("y", "counts"),
    }
    story = at(found, "story")
    assert (story.value, story.reason) == (
        "Here it leaks a lot.",
        "2 texts that were written apart, woven into one",
    )
    assert {each.value for each in story.writes} == {"It leaks a lot.", "Here it leaks."}
    removal = at(found, "parts", "A", "$deleted")
    assert removal.value is False
    assert removal.reason == "the deletion had not seen 1 edit, so the row is there: an edit wins"
    assert at(found, "parts", "A", "qty").value == 2


@pytest.mark.parametrize(
    ("rule", "gone", "reason"),
    [
        ("edit_wins", False, "the deletion had not seen 1 edit, so the record is there: an edit wins"),
        ("delete_wins", True,
         "the record is deleted although the deletion had not seen 1 edit: a deletion wins"),
        ("manual", False,
         "the deletion had not seen 1 edit, so the record is there until a person decides"),
    ],
)  # fmt: skip
def test_a_deletion_says_what_it_had_not_seen(rule: str, gone: bool, reason: str) -> None:
    anna, ben = Replica(1, every_rule(rule)), Replica(2, every_rule(rule))
    anna.create({"status": "a"})
    meet(anna, ben)
    anna.delete()
    alone = explain(anna.schema, "sample", "r", anna.doc.writes())
    assert alone.deleted
    assert at(alone, "$deleted").reason == "the record is deleted: the deletion had seen every edit"
    ben.set({"status": "b"})
    meet(anna, ben)
    found = explain(anna.schema, "sample", "r", anna.doc.writes())
    deletion = at(found, "$deleted")
    assert (found.deleted, deletion.value, deletion.reason) == (gone, gone, reason)
    assert [each.part for each in deletion.writes] == ["deletes", "unseen"]


def test_one_field_is_explained_with_what_is_under_it() -> None:
    anna = Replica(1)
    anna.create({"status": "a", "parts": {"A": {"qty": 1, "note": "n"}, "B": {"qty": 2}}})
    writes = anna.doc.writes()

    def paths(*field: str) -> list[Path]:
        return [each.path for each in explain(anna.schema, "sample", "r", writes, field).fields]

    assert paths("status") == [("status",)]
    assert paths("parts", "A") == [("parts", "A", "qty"), ("parts", "A", "note")]
    assert paths("owner") == []
    with pytest.raises(ValidationError, match="no field 'statu'"):
        paths("statu")


def test_a_field_of_a_newer_schema_is_explained_by_the_clock() -> None:
    anna = Replica(1)
    anna.create({"status": "a", "parts": {"A": {"qty": 1}}})
    text = "title: T\nx-type: sample\nproperties: {status: {type: string}}\n"
    found = explain(load_schema(text, source="test"), "sample", "r", anna.doc.writes())
    parts = at(found, "parts")
    assert (parts.value, parts.rule) == ({"A": {"qty": 1}}, "newer schema")
    assert "a newer one does" in parts.reason


def test_spans_are_said_in_their_greatest_unit() -> None:
    said = [duration(ms) for ms in (250, 12_000, 119_000, 3 * 3_600_000, 86_400_000, 5 * 86_400_000)]
    assert said == ["250 ms", "12 s", "1 min", "3 h", "1 day", "5 days"]


VALUE_FIELDS = ["status", "phase", "owner", "actual", "planned", "cause", "reading", "ticket"]
one_write = st.tuples(
    st.sampled_from(VALUE_FIELDS),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([FIELD, OFFICE, SUPERVISOR, Role.ADMIN]),
    st.sampled_from([None, "draft", "done", "T1", 1, 7]),
)


@example(
    [
        ("reading", 1, 2, OFFICE, None),
        ("reading", 2, 1, OFFICE, 1),
        ("reading", 3, 0, FIELD, 1),
    ]
)
@given(st.lists(one_write, max_size=12, unique_by=lambda each: each[:2]))
def test_what_is_explained_is_what_is_shown(made: list[tuple[str, int, int, Role, Any]]) -> None:
    writes: dict[Path, tuple[Write, ...]] = {}
    for field, number, ms, role, value in made:
        write = Write((field,), value, hlc_from_ms(START_MS + ms), role, author_of(number))
        writes[(field,)] = (*writes.get((field,), ()), write)
    seen = view(every_rule(), "sample", "r", writes)
    found = explain(every_rule(), "sample", "r", writes)
    assert {each.path[0]: each.value for each in found.fields} == {
        name: value for name, value in seen.values.items() if (name,) in writes
    }
    assert {each.conflict for each in found.fields} - {None} == set(seen.conflicts)
    for each in found.fields:
        assert [part.part for part in each.writes].count("shown") == 1
        lost = [part.value for part in each.writes if part.part == "lost"]
        assert len(lost) == len(each.writes) - 1
        shown = next(part.write for part in each.writes if part.part == "shown")
        rivals = [part.write for part in each.writes if part.part == "lost"]
        if "later by" in each.reason:
            # Of greatest values, only values are compared: what was cleared may be later.
            compared = [rival for rival in rivals if rival.role == shown.role and rival.value is not None]
            assert all(shown.hlc >= rival.hlc for rival in compared)
        if " before " in each.reason:
            assert each.reason.split(" before ")[0].split(" ")[-1] == shown.role.text
