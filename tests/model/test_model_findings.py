"""The smallest cases in which the product once did something else than the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crdt_sync.records.changes import Increment, RemoveElement
from crdt_sync_client.engine.model import CreateOp, DeleteOp, ResolveOp, RestoreVersionOp, UpdateOp
from tests.client.engine_world import World
from tests.core.record_replicas import EVERY_RULE, Replica, meet


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (("parts", "A", "note"), None),
        (("parts", "A", "labels"), RemoveElement("x")),
        (("parts", "A", "labels"), []),
        (("parts", "A", "used"), None),
        (("boxes", "A", "pieces", "P"), None),
        (("boxes", "A", "pieces", "P", "serial"), None),
        (("boxes", "A", "pieces"), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("removed", [False, True], ids=["never there", "removed"])
def test_clearing_something_in_a_row_that_is_not_there_does_not_make_the_row(
    path: Any, change: Any, removed: bool
) -> None:
    device = Replica(0)
    device.create({"status": "x"})
    if removed:
        row = path[:2]
        device.set({(*row, "note" if row[0] == "parts" else "label"): "old"})
        device.set({row: None})
    assert not device.set({path: change})
    assert device.values == {"status": "x"}


def test_clearing_a_field_of_a_row_does_not_bring_it_back_against_its_removal() -> None:
    one, other = Replica(0), Replica(1)
    one.create({"status": "x", "parts": {"A": {"qty": 2}}})
    meet(one, other)
    one.set({"parts.A": None})
    one.set({"parts.A.qty": None})
    meet(one, other)
    assert other.values == {"status": "x"}
    assert not other.view().conflicts


def test_what_is_typed_into_a_text_after_its_record_was_made_anew_takes_nothing_along() -> None:
    """The new record has no text, and an edit made apart brings back an older state of the old one."""
    one, two, three, four = (Replica(number) for number in range(4))
    one.create({"status": "x", "story": "base "})
    meet(one, two, three, four)
    two.set({"story": "base two "})
    one.set({"story": "base one "})
    three.take(one.updates)
    four.take(one.updates)
    three.set({"story": "base one three "})
    four.delete()
    four.create({"status": "new"})
    one.take(four.updates)
    one.take(two.updates)
    one.set({"story": "base two again "})
    meet(one, two, three, four)
    stories = [replica.view().values["story"] for replica in (one, two, three, four)]
    assert sorted(stories[0].split()) == ["again", "base", "one", "three", "two"]
    assert stories == [stories[0]] * 4


def test_a_row_that_is_asked_for_is_made_without_a_field() -> None:
    device = Replica(0)
    device.create({"status": "x"})
    device.set({"parts.A": {}, "parts.B": {"note": None}, "boxes.C.pieces.P": {}})
    assert list(device.view().values["parts"]) == ["A", "B"]
    assert list(device.view().values["boxes"]["C"]["pieces"]) == ["P"]
    device.set({"parts.D.used": Increment(0)})
    assert device.view().values["parts"]["D"]["used"] == 0


@pytest.mark.parametrize("choice", ["alternative", "version"])
def test_keeping_the_removal_of_a_row_does_not_delete_the_record_around_it(
    tmp_path: Path, choice: str
) -> None:
    """Both removals had seen the same, and so have the same value."""
    world = World(tmp_path, schemas=(EVERY_RULE % "manual",))
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.write(CreateOp("sample", {"status": "x", "boxes": {"B": {"label": "y"}}}))[0].id
    world.settle()
    anna.write(UpdateOp("sample", id, {"boxes.B": None}))
    ben.write(DeleteOp("sample", id))
    world.settle()
    (conflict,) = ben.engine.conflicts()
    (kept,) = [index for index, each in enumerate(conflict.alternatives) if not each.deletes]
    ben.write(
        RestoreVersionOp(conflict.id, kept)
        if choice == "version"
        else ResolveOp(conflict.id, alternative=kept)
    )
    assert ben.get(id, "sample").values["boxes"] == {}
    assert not ben.engine.conflicts()
    world.close()


def test_what_two_lives_of_one_store_typed_into_one_text_is_all_there(tmp_path: Path) -> None:
    world = World(tmp_path, schemas=(EVERY_RULE % "edit_wins",))
    anna, ben = world.join("anna"), world.join("ben")
    id = anna.write(CreateOp("sample", {"status": "x", "story": "base "}))[0].id
    anna.write(UpdateOp("sample", id, {"story": "base one "}))
    world.settle()
    anna.engine.close()
    copy = anna.path.read_bytes()
    anna._open()
    anna.write(UpdateOp("sample", id, {"story": "base one first "}))
    anna.sync()
    anna.engine.close()
    anna.path.write_bytes(copy)
    anna._open()
    anna.write(UpdateOp("sample", id, {"story": "base one second "}))
    world.settle()
    world.assert_converged()
    assert sorted(ben.get(id, "sample").values["story"].split()) == ["base", "first", "one", "second"]
    world.close()
