"""The rule `text`: what people type apart is all there, and no bytes of a peer can do harm."""

from __future__ import annotations

import random
import re
import zlib
from typing import Any

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.errors import ValidationError
from crdt_sync.hlc import Hlc
from crdt_sync.records.writes import Write, check_write
from crdt_sync.roles import Role
from crdt_sync.rules.text import Text, differences
from crdt_sync.rules.text_state import check_state
from crdt_sync.schemas import load_schema
from tests.core.record_replicas import Replica, author_of, meet

SCHEMA = load_schema(
    """\
x-type: job
properties:
  notes: {type: string, maxLength: 2000, x-merge: text}
  title: {type: string}
  steps:
    type: object
    x-merge: rows
    additionalProperties: {type: object, properties: {done: {type: string, x-merge: text}}}
""",
    source="job.yaml",
)
SMILE = "\U0001f600"


def pair(notes: str | None = "Seal worn. Pump leaks.") -> tuple[Replica, Replica]:
    one, two = Replica(0, SCHEMA), Replica(1, SCHEMA)
    one.create({"title": "x"} if notes is None else {"notes": notes})
    meet(one, two)
    return one, two


def notes_of(*replicas: Replica) -> Any:
    """What all of them show, which is the same."""
    meet(*replicas)
    seen = [replica.view() for replica in replicas]
    assert all(each.conflicts == () for each in seen)
    values = [each.values.get("notes") for each in seen]
    assert all(value == values[0] for value in values)
    return values[0]


def test_words_typed_apart_are_all_there() -> None:
    one, two = pair()
    one.set({"notes": "Seal worn out. Pump leaks."})
    two.set({"notes": "Seal worn. Pump leaks badly."})
    assert notes_of(one, two) == "Seal worn out. Pump leaks badly."


def test_one_save_may_change_several_places() -> None:
    one, two = pair("one two three four five six")
    one.set({"notes": "one 2 three four 5 six"})
    two.set({"notes": "one two three, four five six seven"})
    assert notes_of(one, two) == "one 2 three, four 5 six seven"


def test_characters_beyond_the_first_plane_keep_their_places() -> None:
    one, two = pair(f"a {SMILE} b é c")
    one.set({"notes": f"a {SMILE}{SMILE} b é c"})
    two.set({"notes": f"a {SMILE} b é c {SMILE}"})
    assert notes_of(one, two) == f"a {SMILE}{SMILE} b é c {SMILE}"


def test_a_word_taken_out_apart_stays_out() -> None:
    one, two = pair("one two three")
    one.set({"notes": "one three"})
    two.set({"notes": "one two"})
    assert notes_of(one, two) == "one "


def test_the_same_text_begun_apart_is_one_text() -> None:
    one, two = pair(None)
    one.set({"notes": "Imported line"})
    two.set({"notes": "Imported line"})
    assert notes_of(one, two) == "Imported line"
    one.set({"notes": "Imported line A"})
    two.set({"notes": "B Imported line"})
    assert notes_of(one, two) == "B Imported line A"


def test_different_texts_begun_apart_stand_one_after_the_other() -> None:
    one, two = pair(None)
    one.set({"notes": "Seal worn."})
    two.set({"notes": "Pump leaks."})
    assert sorted(notes_of(one, two).replace(".", ". ").split()) == ["Pump", "Seal", "leaks.", "worn."]


def test_different_texts_of_one_length_begun_apart_are_both_there() -> None:
    one, two = pair(None)
    one.set({"notes": "abc"})
    two.set({"notes": "xyz"})
    assert notes_of(one, two) in ("abcxyz", "xyzabc")


def test_what_is_typed_after_a_record_was_made_anew_never_stands_for_what_was_typed_before() -> None:
    """One types on after a new beginning, with an old edit before it that shows only part of its own past."""
    one, two = pair("abc")
    three = Replica(2, SCHEMA)
    one.set({"notes": "abc one"})
    meet(one, two)
    one.set({"notes": "abc one two"})
    meet(one, three)
    two.set({"notes": "abc one B"})
    three.set({"notes": "abc one two C"})
    one.delete()
    one.create({"notes": "fresh"})
    one.take(two.updates)
    one.set({"notes": one.view().values["notes"] + " ZZZZ"})
    text = notes_of(one, two, three)
    assert {"fresh", "two", "ZZZZ", "B", "C"} <= set(re.findall("fresh|two|Z+|B|C", text))


def test_clearing_and_emptying() -> None:
    one, two = pair("abc")
    one.set({"notes": ""})
    assert notes_of(one, two) == ""
    one.set({"notes": None})
    assert notes_of(one, two) is None
    two.set({"notes": "new"})
    assert notes_of(one, two) == "new"
    fresh, _ = pair(None)
    fresh.set({"notes": None})
    assert "notes" not in fresh.view().values


def test_a_clearing_leaves_what_its_author_had_not_seen() -> None:
    one, two = pair("abc")
    one.set({"notes": None})
    two.set({"notes": "abc def"})
    assert notes_of(one, two) == " def"
    one.set({"notes": None})
    two.set({"notes": None})
    assert notes_of(one, two) is None


def test_writing_what_is_shown_writes_nothing() -> None:
    one, two = pair()
    assert not one.set({"notes": "Seal worn. Pump leaks."})
    one.set({"notes": "Seal worn out. Pump leaks."})
    two.set({"notes": "Seal worn. Pump leaks badly."})
    meet(one, two)
    assert not one.set({"notes": "Seal worn out. Pump leaks badly."})
    assert not one.set([("notes", "something"), ("notes", "Seal worn out. Pump leaks badly.")])


def test_editing_concurrent_texts_ends_nothing_that_was_a_conflict() -> None:
    one, two = pair()
    one.set({"notes": "1"})
    two.set({"notes": "2"})
    meet(one, two)
    assert one.set({"notes": "3"}).resolves == []
    assert notes_of(one, two) == "3"


def test_a_limit_of_length_holds_for_who_writes() -> None:
    one, two = pair("")
    with pytest.raises(ValidationError) as caught:
        one.set({"notes": "x" * 2001})
    assert str(caught.value) == "notes: has 2,001 characters, at most 2,000 are allowed"
    one.set({"notes": "x" * 1500})
    two.set({"notes": "y" * 1500})
    assert len(notes_of(one, two)) == 3000


def test_a_text_has_no_alternatives_to_choose_from() -> None:
    one, _ = pair()
    with pytest.raises(ValidationError) as caught:
        one.resolve("notes", "x")
    assert str(caught.value) == "notes: has no alternatives to choose from"


def test_texts_in_rows() -> None:
    one, two = pair("x")
    one.set({"steps.A.done": "cleaned pump"})
    meet(one, two)
    one.set({"steps.A.done": "cleaned the pump"})
    two.set({"steps.A.done": "cleaned pump and filter"})
    meet(one, two)
    assert one.values["steps"] == two.values["steps"] == {"A": {"done": "cleaned the pump and filter"}}


def test_a_deletion_that_met_the_edit_of_a_text_shows_the_text() -> None:
    one, two = pair("abc")
    two.set({"notes": "abc def", "title": "t"})
    one.delete()
    meet(one, two)
    (conflict,) = one.view().conflicts
    assert conflict.path == ("$deleted",)
    shown = {write.path: write.value for write in conflict.alternatives if write.path != ("$deleted",)}
    assert shown == {("notes",): "abc def", ("title",): "t"}
    assert conflict.winner.value in ("abc def", "t")
    one.resolve("$deleted", "abc def")
    assert notes_of(one, two) == "abc def"


def test_a_record_made_anew_against_an_edit_shows_both_and_every_device_the_same() -> None:
    one, two = pair("abc")
    one.set({"notes": "abc def"})
    one.delete()
    one.create({"notes": "new"})
    two.set({"notes": "abc ghi"})
    meet(one, two)
    assert one.view().values["notes"] == two.view().values["notes"]
    assert "new" in one.view().values["notes"]
    assert "ghi" in one.view().values["notes"]
    one.set({"notes": "agreed"})
    assert notes_of(one, two) == "agreed"


def test_a_text_that_two_people_change_five_hundred_times_stays_small() -> None:
    one, two = pair("word " * 300)
    chance = random.Random(4)
    for step in range(500):
        if not step % 5:
            meet(one, two)
            one.updates.clear()
            two.updates.clear()
        here = (one, two)[step % 2]
        words = here.view().values["notes"].split(" ")
        words[chance.randrange(len(words))] = f"w{step % 10}"
        here.set({"notes": " ".join(words)})
    text = notes_of(one, two)
    assert len(text) < 1500
    one.set({"notes": text + " end"})
    state = one.doc.state()
    assert len(state) < 20_000
    assert len(zlib.compress(state)) < 6_000


# Bytes from a peer ----------------------------------------------------------------------------------


def write(value: Any, time: int = 1, author: int = 0) -> Write:
    """As it arrives: through the checks of every write."""
    made = Write(("notes",), value, Hlc(time), Role.FIELD, author_of(author))
    return check_write(made.encode(), made.author)


def state_of(*edits: tuple[int, int, str]) -> bytes:
    doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=7)
    text = doc.get("text", type=pycrdt.Text)
    for start, end, typed in edits:
        del text[start:end]
        text.insert(start, typed)
    state: bytes = doc.get_update()
    return state


GOOD = state_of((0, 0, "hello"), (1, 3, "EL"), (0, 0, SMILE))


def value(state: bytes) -> dict[str, Any]:
    return {"client": 9, "state": state}


def test_a_state_made_by_the_bindings_is_read() -> None:
    check_state(GOOD)
    assert Text().value_of([write(value(GOOD))]) == f"{SMILE}hELlo"


def map_state() -> bytes:
    doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=7)
    doc.get("text", type=pycrdt.Map)["a"] = "b"
    return bytes(doc.get_update())


def other_root() -> bytes:
    doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=7)
    doc.get("texts", type=pycrdt.Text).insert(0, "a")
    return bytes(doc.get_update())


def formatted() -> bytes:
    doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=7)
    doc.get("text", type=pycrdt.Text).insert(0, "a", {"bold": True})
    return bytes(doc.get_update())


def without_its_beginning() -> bytes:
    doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=7)
    doc.get("text", type=pycrdt.Text).insert(0, "a")
    seen = doc.get_state()
    doc.get("text", type=pycrdt.Text).insert(1, "b")
    return bytes(doc.get_update(seen))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"", "the text is cut short"),
        (GOOD[:-1], "the text is cut short"),
        (GOOD + b"\0", "the text has bytes after its end"),
        (map_state(), "the text has content that is no text"),
        (other_root(), "the text has a part that is elsewhere"),
        (formatted(), "the text has content that is no text"),
        (without_its_beginning(), "the text has a group that does not begin at the beginning"),
        (b"\x01\x01\x07\x00\x84\x09\x00\x01a\x00", "the text refers to what it does not have"),
        (b"\x01\x01\x07\x00\x84\x07\x00\x01a\x00", "the text refers to what it does not have"),
        (b"\x02\x01\x07\x00\x84\x08\x00\x01a\x01\x08\x00\x84\x07\x00\x01a\x00",
         "the text goes round in a circle"),
        (b"\x01\x01\x07\x00\x04\x01\x04text\x01\xff\x00", "the text is not UTF-8"),
        (b"\x01\x01\x07\x00\x04\x01\x04text\x00\x00", "the text has a part of an impossible length"),
        (b"\x01\x01\x07\x00\x01\x01\x04text\xff\xff\xff\xff\xff\x01\x00",
         "the text has a part of an impossible length"),
        (b"\x00\x01\x07\x01\x00\x01", "the text deletes what it does not have"),
        (b"\x01\x01\x07\x00\x04\x01\x04text\x01a\x02\x07\x01\x00\x01\x07\x01\x00\x01",
         "the text has two delete sets of one client"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "the text has a number that is too large"),
        (b"\x00" * (1024 * 1024 + 1), "the text is too large"),
    ],
)  # fmt: skip
def test_a_state_that_is_no_text_is_refused_and_counts_as_none(state: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_state(state)
    assert Text().value_of([write(value(state))]) is None
    assert Text().value_of([write(value(state)), write("there", 2, 1)]) == "there"
    assert Text().edited([write(value(state))], "mended", author_of(0)) == "mended"


@pytest.mark.parametrize(
    "broken",
    [
        7,
        True,
        [],
        {"state": GOOD},
        {"client": "x", "state": GOOD},
        {"client": 9, "state": "y"},
        b"x",
    ],
)
def test_a_value_that_is_no_text_counts_as_none(broken: Any) -> None:
    assert Text().value_of([write(broken)]) is None
    assert Text().value_of([write(broken), write(value(GOOD), 2, 1)]) == f"{SMILE}hELlo"


@settings(max_examples=400)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=3), st.integers(0, 2))
def test_what_the_reader_lets_through_the_bindings_can_take(at: int, piece: bytes, gone: int) -> None:
    damaged = value(GOOD[:at] + piece + GOOD[at + gone :])
    one, two = write(damaged), write(value(GOOD), 2, 1)
    both = Text().value_of([one, two])
    assert both is not None
    edited = Text().edited([one, two], "wanted", author_of(2))
    assert Text().value_of([write(edited, 3, 2)]) == "wanted"


@given(st.text(alphabet=f"ab {SMILE}é\n", max_size=40), st.text(alphabet=f"ab {SMILE}é\n", max_size=40))
def test_differences_lead_from_one_text_to_the_other(before: str, after: str) -> None:
    text, moved = before, 0
    last = 0
    for start, end, typed in differences(before, after):
        assert last <= start <= end
        last = end
        text = text[: start + moved] + typed + text[end + moved :]
        moved += len(typed) - (end - start)
    assert text == after


def test_differences_of_very_long_texts_are_one_piece() -> None:
    before, after = "a " * 5000 + "end", "b " * 5000 + "end"
    assert differences(before, after) == [(0, 9999, "b " * 4999 + "b")]


# Any number of people, any interleaving -------------------------------------------------------------

WORDS = st.sampled_from(["", "a", "b ", "c d", SMILE, "e\n"])
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["type", "type", "cut", "clear", "meet", "meet", "anew"]),
        st.integers(0, 30),
        WORDS,
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_devices_show_the_same_text_and_an_edit_shows_what_was_asked(steps: list[Any]) -> None:
    replicas = [Replica(number, SCHEMA, Role.ADMIN) for number in range(3)]
    replicas[0].create({"notes": "a b c"})
    meet(*replicas)
    for place, action, at, typed in steps:
        replica = replicas[place]
        shown = replica.view().values.get("notes") or ""
        at = min(at, len(shown))
        if action == "meet":
            replica.take(replicas[(place + 1) % 3].updates)
            continue
        if action == "anew":
            replica.delete()
            replica.create({"notes": typed})
            wanted: str | None = typed
        else:
            wanted = {"type": shown[:at] + typed + shown[at:], "cut": shown[:at], "clear": None}[action]
            replica.set({"notes": wanted})
        assert replica.view().values["notes"] == wanted
    meet(*replicas)
    assert replicas[0].view() == replicas[1].view() == replicas[2].view()
