"""The format is open: Yjs in Node, with the module of docs/record-format.md, reads and writes records."""

from __future__ import annotations

import base64
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import BadUpdate
from crdt_sync.ids import Author
from crdt_sync.records.changes import AddElement, Increment
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.update_check import check_snapshot, check_update
from crdt_sync.roles import Role
from crdt_sync.schemas import load_schema
from tests.core.record_replicas import Replica, author_of, meet
from tests.interop.node_packages import HERE, installed, run

DOCUMENT = HERE.parents[1] / "docs" / "record-format.md"
NOON_MS = 1_800_000_000_000
SCHEMA = load_schema(
    """\
x-type: job
properties:
  status: {type: string}
  cause: {x-merge: manual}
  planned: {x-merge: server_wins}
  actual: {type: string}
  photo: {type: string, contentEncoding: base64}
  tags: {type: array, items: {type: string}, x-merge: set}
  hours: {type: number, x-merge: counter}
  story: {type: string, x-merge: text}
  parts:
    type: object
    x-merge: rows
    additionalProperties: {type: object, properties: {qty: {type: number}, note: {type: string}}}
""",
    source="job.yaml",
)

pytestmark = pytest.mark.xdist_group("interop")


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """The program, beside the module as the documentation has it."""
    with tempfile.TemporaryDirectory(dir=installed()) as place:
        (module,) = re.findall(
            r"^```js\n// record.mjs\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
        )
        Path(place, "record.mjs").write_text(module, encoding="utf-8")
        yield Path(shutil.copy(HERE / "talk.mjs", place))


def talk(program: Path, updates: list[bytes], **asked: Any) -> dict[str, Any]:
    """What Yjs sees in these updates, and what it makes of them."""
    given = {"updates": [base64.b64encode(update).decode() for update in updates], **asked}
    answer: dict[str, Any] = json.loads(run(program, json.dumps(given)))
    answer["updates"] = [base64.b64decode(update) for update in answer["updates"]]
    answer["state"] = base64.b64decode(answer["state"])
    return answer


def busy_record() -> list[Replica]:
    """Three devices that wrote all kinds of things, some of them apart."""
    devices = [Replica(number, SCHEMA) for number in range(3)]
    one, two, three = devices
    one.create(
        {"status": "open", "story": "Seal worn.", "parts": {"A": {"qty": 2, "note": "grün"}}, "hours": 1}
    )
    meet(*devices)
    one.set({"cause": 2**53 - 1, "planned": {"b": [1, 1.5, None, True], "a": "x"}})
    one.set({"tags": AddElement("urgent"), "photo": b"\x00\xff"})
    two.set({"cause": 0.1, "hours": Increment(0.5), "story": "Seal worn. Leaks."})
    three.set({"cause": -(2**40), "story": "The seal worn.", "parts.A": None, "parts.B.note": "\U0001f600"})
    two.set({"parts.A.qty": 3})
    meet(one, two)
    two.delete()
    return devices


def said(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (each["author"], each["raw"], tuple(each["path"]), each["time"], each["role"])
        for each in answer["seen"]
    ]


def held(doc: RecordDocument) -> list[tuple[Any, ...]]:
    return [
        (
            author.array_name,
            base64.b64encode(write.encode()).decode(),
            write.path,
            write.hlc,
            int(write.role),
        )
        for author in sorted(doc.arrays(), key=lambda author: author.array_name)
        for _, write in doc.placed(author)
    ]


def me(author: Author, role: Role) -> dict[str, Any]:
    return {"author": author.array_name, "role": int(role)}


@pytest.mark.parametrize("whole", [True, False], ids=["document", "updates"])
def test_yjs_sees_the_writes_that_were_made_here(program: Path, whole: bool) -> None:
    devices = busy_record()
    meet(*devices)
    here = devices[0]
    updates = [here.doc.state()] if whole else [update for device in devices for update in device.updates]
    answer = talk(program, updates, texts=[["story"]])
    assert said(answer) == held(here.doc)
    values = {tuple(each["path"]): each["value"] for each in answer["seen"]}
    assert values["planned",] == {"a": "x", "b": [1, 1.5, None, True]}
    assert values["parts", "A", "note"] == "grün"
    assert values["tags", '"urgent"'] == "urgent"
    causes = [each["value"] for each in answer["seen"] if each["path"] == ["cause"]]
    assert causes == [2**53 - 1, 0.1, -(2**40)]
    assert values["photo",] == {"bytes": "AP8="}
    assert answer["texts"] == [here.view().values["story"]]


def test_what_yjs_writes_is_read_here(program: Path) -> None:
    devices = busy_record()
    meet(*devices)
    here = devices[0]
    here.set({"status": "looked at", "parts.A.note": "looked at"})
    author, role = author_of(7), Role.OFFICE
    edits: list[dict[str, Any]] = [
        {"path": ["status"], "value": "done"},
        {"path": ["cause"], "value": "all of them"},
        {"path": ["planned"], "value": {"z": 1, "a": {"c": 2.5, "b": None}}},
        {"path": ["status"], "value": "closed"},
        {"path": ["actual"], "value": None},
        {"path": ["photo"], "bytes": "/wA="},
        {"path": ["tags", '"new"'], "value": "new"},
        {"path": ["story"], "append": " Done \U0001f600."},
        {"path": ["story"], "append": " Really."},
        {"path": ["hours"], "value": 4},
    ]
    edits = [{"me": me(author, role), "at_ms": NOON_MS, **each} for each in edits]
    before = here.view().values
    answer = talk(program, [here.doc.state()], edits=edits, texts=[["story"]])
    for update in answer["updates"]:
        here.doc.apply(update, check_update(update, author, role))
    assert said(answer) == held(here.doc)
    shown = here.view().values
    assert shown["status"] == "closed"
    assert shown["cause"] == "all of them"
    assert shown["planned"] == {"a": {"b": None, "c": 2.5}, "z": 1}
    assert shown["photo"] == b"\xff\x00"
    assert shown["tags"] == ["new", "urgent"]
    assert shown["story"] == before["story"] + " Done \U0001f600. Really." == answer["texts"][0]
    assert not here.view().conflicts

    # The document that Yjs keeps says the same, and passes as a snapshot.
    roles = {device.author: device.role for device in devices} | {author: role}
    checked = check_snapshot(answer["state"], roles.get)
    assert RecordDocument(answer["state"], checked=checked).writes() == here.doc.writes()
    assert RecordDocument(answer["state"]).content_hash() == here.doc.content_hash()

    # And work goes on, on both sides.
    one = devices[1]
    meet(here, one)
    one.take(answer["updates"])
    one.set({"status": "again", "story": "Rewritten."})
    again = talk(program, [answer["state"], *one.updates, *here.updates], texts=[["story"]])
    here.take(one.updates)
    assert said(again) == held(here.doc)
    assert again["texts"] == ["Rewritten."] == [here.view().values["story"]]


def test_writes_made_apart_on_both_sides_are_a_conflict(program: Path) -> None:
    here = Replica(0, SCHEMA)
    here.create({"cause": "?", "story": "Seal worn."})
    author, role = author_of(8), Role.FIELD
    edits = [
        {"me": me(author, role), "at_ms": NOON_MS, "path": ["cause"], "value": "cavitation"},
        {"me": me(author, role), "at_ms": NOON_MS, "path": ["story"], "append": " Leaks."},
    ]
    answer = talk(program, [here.doc.state()], edits=edits)
    here.set({"cause": "worn seal", "story": "The seal worn."})
    here.take(answer["updates"])
    (conflict,) = here.view().conflicts
    assert {write.value for write in conflict.alternatives} == {"cavitation", "worn seal"}
    assert conflict.winner.author == author
    assert here.view().values["story"] == "The seal worn. Leaks."
    both = talk(program, [answer["state"], *here.updates], texts=[["story"]])
    assert said(both) == held(here.doc)
    assert both["texts"] == ["The seal worn. Leaks."]


def test_what_yjs_writes_in_another_name_is_refused(program: Path) -> None:
    here = Replica(0, SCHEMA)
    here.create({"status": "x"})
    edits = [{"me": me(author_of(8), Role.FIELD), "path": ["status"], "value": "y"}]
    answer = talk(program, [here.doc.state()], edits=edits)
    with pytest.raises(BadUpdate, match="under a client id that is not its author's"):
        check_update(answer["updates"][0], author_of(9), Role.FIELD)
    with pytest.raises(BadUpdate, match="claims the role field"):
        check_update(answer["updates"][0], author_of(8), Role.ADMIN)
