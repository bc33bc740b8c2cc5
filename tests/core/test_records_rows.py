"""Rows, and rows in rows: their fields have every rule, and each level lives and dies by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdt_sync.errors import CrdtSyncError, ValidationError
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.schemas import load_schema
from tests.core.record_replicas import EDIT_WINS, Replica, meet

PIECE = ("boxes", "A", "pieces", "P")
BOX = {"label": "blue", "pieces": {"P": {"serial": "S1", "reading": 5, "used": 2, "marks": ["x"]}}}


def pair() -> tuple[Replica, Replica]:
    one, two = Replica(0), Replica(1)
    one.create({"boxes": {"A": BOX}})
    meet(one, two)
    return one, two


def boxes(*replicas: Replica) -> Any:
    """What all of them show, which is the same."""
    meet(*replicas)
    values = [replica.view().values["boxes"] for replica in replicas]
    assert all(value == values[0] for value in values)
    return values[0]


def conflicts(replica: Replica) -> list[str]:
    return [f"{each.kind} {'.'.join(each.path)}" for each in replica.view().conflicts]


def test_a_field_deep_in_rows_merges_by_its_own_rule() -> None:
    one, two = pair()
    one.set(
        {
            (*PIECE, "reading"): 9,
            (*PIECE, "used"): Increment(1),
            (*PIECE, "marks"): AddElement("y"),
            "boxes.A.label": "red",
        }
    )
    two.set(
        {
            (*PIECE, "reading"): 7,
            (*PIECE, "used"): Increment(3),
            (*PIECE, "marks"): RemoveElement("x"),
            "boxes.A.pieces.Q.reading": 1,
        }
    )
    assert boxes(one, two) == {
        "A": {
            "label": "red",
            "pieces": {
                "P": {"serial": "S1", "reading": 9, "used": 6, "marks": ["y"]},
                "Q": {"reading": 1, "used": 0, "marks": []},
            },
        }
    }
    assert conflicts(one) == ["auto boxes.A.pieces.P.reading"]


def test_filling_a_deep_field_once_apart_is_an_open_conflict() -> None:
    one, two = pair()
    one.set({"boxes.A.pieces.Q.serial": "S2"})
    two.set({"boxes.A.pieces.Q.serial": "S3"})
    meet(one, two)
    assert conflicts(one) == conflicts(two) == ["open boxes.A.pieces.Q.serial"]
    one.resolve("boxes.A.pieces.Q.serial", "S3")
    assert boxes(one, two)["A"]["pieces"]["Q"]["serial"] == "S3"
    assert conflicts(two) == []


def test_an_edit_deep_inside_brings_back_the_outer_row_whole() -> None:
    one, two = pair()
    one.set({"boxes.A": None})
    two.set({(*PIECE, "reading"): 8})
    assert boxes(one, two) == {
        "A": {"label": "blue", "pieces": {"P": {"serial": "S1", "reading": 8, "used": 2, "marks": ["x"]}}}
    }
    assert conflicts(one) == ["auto boxes.A.$deleted"]
    two.set({(*PIECE, "reading"): 9})
    assert boxes(one, two)["A"]["label"] == "blue"
    assert conflicts(one) == conflicts(two) == []


def test_an_edit_of_the_outer_row_leaves_an_inner_one_removed() -> None:
    one, two = pair()
    one.set({PIECE: None})
    two.set({"boxes.A.label": "red"})
    assert boxes(one, two) == {"A": {"label": "red", "pieces": {}}}
    assert conflicts(one) == []


def test_an_inner_row_made_again_starts_afresh() -> None:
    one, two = pair()
    one.set({PIECE: None})
    one.set({(*PIECE, "reading"): 1})
    assert boxes(one, two)["A"]["pieces"] == {"P": {"reading": 1, "used": 0, "marks": []}}
    one.set({"boxes.A": None})
    one.set({(*PIECE, "serial"): "S9"})
    assert boxes(one, two) == {"A": {"pieces": {"P": {"serial": "S9", "used": 0, "marks": []}}}}


def test_an_outer_row_removed_by_both_stays_away() -> None:
    one, two = pair()
    one.set({"boxes.A": None})
    two.set({"boxes.A": None})
    assert boxes(one, two) == {}
    assert conflicts(one) == []


def test_all_inner_rows_are_removed_at_once() -> None:
    one, two = pair()
    two.set({"boxes.A.pieces.Q.reading": 2})
    one.set({"boxes.A.pieces": None})
    assert boxes(one, two)["A"]["pieces"] == {"Q": {"reading": 2, "used": 0, "marks": []}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("boxes.A.pieces.P.reading=6", {"reading": 6}),
        ('boxes.A.pieces."P".reading=6', {"reading": 6}),
        ("boxes.A.pieces.P.used+=4", {"used": 6}),
        ("boxes.A.pieces.P.used=+4", {"used": 6}),
        ("boxes.A.pieces.P.marks+=y", {"marks": ["x", "y"]}),
        ("boxes.A.pieces.P.marks-=x", {"marks": []}),
        ('boxes.A.pieces.P={"reading": 6, "used": 1}', {"reading": 6, "used": 1}),
        ('boxes.A={"pieces": {"P": {"reading": 6}}}', {"reading": 6}),
        ('boxes={"A": {"pieces": {"P": {"marks": ["z"]}}}}', {"marks": ["z"]}),
    ],
)
def test_assignments_reach_rows_in_rows(text: str, shown: dict[str, Any]) -> None:
    one, _ = pair()
    path, value = EDIT_WINS.parse_assignment(text)
    one.set({path: value})
    piece = one.view().values["boxes"]["A"]["pieces"]["P"]
    assert piece == {"serial": "S1", "reading": 5, "used": 2, "marks": ["x"], **shown}


def test_an_assignment_takes_an_inner_row_away() -> None:
    one, _ = pair()
    path, value = EDIT_WINS.parse_assignment("boxes.A.pieces.P=null")
    one.set({path: value})
    assert one.view().values["boxes"]["A"]["pieces"] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boxes.A.pieces.P.reeding=6",
         "boxes.A.pieces.P.reeding: there is no such field; did you mean 'reading'?"),
        ("boxes.A.pieces.P.reading=much", "boxes.A.pieces.P.reading: takes a number, got text ('much')"),
        ("boxes.A.pieces.P.marks.x=1", "boxes.A.pieces.P.marks.x: is an element of a set"),
        ("boxes.A.pieces.P.reading.a=1",
         "boxes.A.pieces.P.reading.a: boxes.A.pieces.P.reading has no fields of its own"),
        ("boxes.A.pieces.$x.reading=1",
         "boxes.A.pieces: cannot have the row key '$x': keys that begin with $ are reserved"),
    ],
)  # fmt: skip
def test_what_is_wrong_deep_inside_is_said_with_its_whole_path(text: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EDIT_WINS.parse_assignment(text)
    assert str(caught.value) == message


def test_json_with_rows_in_rows_has_its_bytes_read() -> None:
    schema = load_schema(
        """\
x-type: a
properties:
  rooms:
    type: object
    x-merge: rows
    additionalProperties:
      type: object
      properties:
        walls:
          type: object
          x-merge: rows
          additionalProperties:
            type: object
            properties: {photo: {type: string, contentEncoding: base64}}
""",
        source="a.yaml",
    )
    values = schema.from_json({"rooms": {"1": {"walls": {"n": {"photo": "AP8="}}}, "2": None}})
    assert values == {"rooms": {"1": {"walls": {"n": {"photo": b"\x00\xff"}}}, "2": None}}
    with pytest.raises(ValidationError) as caught:
        schema.from_json({"rooms": {"1": {"walls": {"n": {"photo": "?"}}}}})
    assert str(caught.value) == "rooms.1.walls.n.photo: is not base64 text"


# Several wishes in one edit -------------------------------------------------------------------------

BOXES = st.tuples(st.just("boxes"), st.sampled_from("AB"))
PIECES = st.builds(lambda box, key: (*box, "pieces", key), BOXES, st.sampled_from("PQ"))
WISHES = st.one_of(
    st.tuples(BOXES, st.sampled_from([None, {}, {"label": "x"}, {"pieces": {"P": {"reading": 1}}}])),
    st.tuples(BOXES.map(lambda box: (*box, "label")), st.sampled_from(["x", "y", None])),
    st.tuples(BOXES.map(lambda box: (*box, "pieces")), st.none()),
    st.tuples(PIECES, st.sampled_from([None, {}, {"reading": 3, "marks": ["m"]}])),
    st.tuples(PIECES.map(lambda piece: (*piece, "reading")), st.sampled_from([1, 2, None])),
    st.tuples(PIECES.map(lambda piece: (*piece, "used")), st.builds(Increment, st.integers(1, 3))),
    st.tuples(
        PIECES.map(lambda piece: (*piece, "marks")),
        st.builds(AddElement, st.sampled_from("mn")) | st.builds(RemoveElement, st.sampled_from("mn")),
    ),
    st.tuples(st.just(("story",)), st.sampled_from(["a", "a b", None])),
    st.tuples(st.just(("crew", "A", "task")), st.sampled_from("xy")),
    st.tuples(st.just(("crew", "A")), st.none()),
)


def filled(value: Any) -> Any:
    """Without what is cleared: a field that was filled and cleared in one edit was never there."""
    if not isinstance(value, dict):
        return value
    return {name: filled(each) for name, each in value.items() if each is not None}


@settings(max_examples=300, deadline=None)
@example(first=[], wishes=[(("boxes", "A", "label"), "x"), (("boxes", "A"), None)])
@example(first=[(("boxes", "A"), {})], wishes=[(("boxes", "A"), None), (("boxes", "A", "pieces"), None)])
@example(first=[], wishes=[(("boxes", "A", "pieces", "P"), {}), (("boxes", "A", "pieces"), None)])
@example(first=[(("boxes", "A", "label"), "x")], wishes=[(("boxes", "A"), None), (("boxes", "A"), {})])
@given(first=st.lists(WISHES, max_size=4), wishes=st.lists(WISHES, max_size=6))
def test_wishes_of_one_edit_come_to_what_they_would_one_after_the_other(
    first: list[Any], wishes: list[Any]
) -> None:
    together, apart = Replica(0), Replica(0)
    for device in (together, apart):
        device.create({"status": "x"})
        for wish in first:
            device.set([wish])
    try:
        together.set(wishes)
    except CrdtSyncError:
        return
    for wish in wishes:
        apart.set([wish])
    assert filled(together.view().values) == filled(apart.view().values)
    assert together.view().conflicts == apart.view().conflicts == ()
