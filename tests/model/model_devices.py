"""Devices that edit one record with the product, and beside each what the model says it has seen."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from crdt_sync.errors import CrdtSyncError
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.records.document import RecordDocument, merge_updates
from crdt_sync.records.editing import Edit
from crdt_sync.records.update_check import check_snapshot, check_update
from crdt_sync.records.view import RecordView
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from tests.core.record_replicas import Replica, author_of
from tests.model.merge_model import GONE, Clash, Field, Op, Path, Seen, Who
from tests.model.model_acts import Count, Doing, Model, Put, Take, Words

FIELDS: dict[str, Field] = {
    "status": Field("register"),
    "phase": Field("register", "order", ("draft", "done")),
    "owner": Field("register", "prefer", ("supervisor", "office")),
    "actual": Field("client_wins"),
    "planned": Field("server_wins"),
    "cause": Field("manual"),
    "tags": Field("set"),
    "banned": Field("set", "remove_wins"),
    "hours": Field("counter"),
    "reading": Field("max"),
    "since": Field("min"),
    "ticket": Field("once", "correct", ("supervisor",)),
    "story": Field("text"),
    "parts": Field(
        "rows",
        row={
            "qty": Field("client_wins"),
            "note": Field("manual"),
            "labels": Field("set"),
            "used": Field("counter"),
            "story": Field("text"),
        },
    ),
    "crew": Field(
        "rows", "remove_wins", row={"task": Field("register"), "banned": Field("set", "remove_wins")}
    ),
    "boxes": Field(
        "rows",
        row={
            "label": Field("register"),
            "pieces": Field(
                "rows",
                row={
                    "serial": Field("once"),
                    "reading": Field("max"),
                    "used": Field("counter"),
                    "marks": Field("set"),
                },
            ),
        },
    ),
}
TYPES: dict[str, dict[str, Any]] = {
    "set": {"type": "array", "items": {"type": "string"}},
    "counter": {"type": "number"},
    "max": {"type": "number"},
    "min": {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]},
    "once": {"type": "string"},
    "text": {"type": "string"},
}
ROLES = (Role.FIELD, Role.FIELD, Role.OFFICE, Role.SUPERVISOR, Role.ADMIN)
WEEK_START_MS = 1_700_000_000_000


def schema_text(fields: dict[str, Field], delete_rule: str) -> str:
    """The schema that says the same as a table of the model's."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Every rule",
        "x-type": "sample",
        "x-version": 1,
        "x-delete": {"rule": delete_rule},
        "type": "object",
        "properties": _properties(fields),
    }
    return json.dumps(schema)


def _properties(fields: dict[str, Field]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, spec in fields.items():
        option = True if spec.option == "remove_wins" else list(spec.words)
        merge: dict[str, Any] = {"rule": spec.rule, **({spec.option: option} if spec.option else {})}
        found[name] = {**TYPES.get(spec.rule, {}), "x-merge": merge}
        if spec.row is not None:
            row = {"type": "object", "properties": _properties(spec.row)}
            found[name] |= {"type": "object", "additionalProperties": row}
    return found


class Device(Replica):
    """One device: its document, and the operations that reached it."""

    def __init__(self, number: int, schema: RecordSchema, role: Role) -> None:
        super().__init__(number, schema, role)
        self.now_ms = WEEK_START_MS
        self.seen: Seen = frozenset()

    @property
    def who(self) -> Who:
        return (bytes(self.author.device), int(self.author.incarnation))

    def reopen(self) -> None:
        """The document is written to disk and read again."""
        self.doc = RecordDocument(self.doc.state(), author=self.author)
        self._seen = None

    def begin_again(self, state: bytes, seen: Seen) -> None:
        """Another life of the device, with what somebody else had."""
        self.author = author_of(self.number, self.author.incarnation + 1)
        self.doc = RecordDocument(state, author=self.author)
        self.seen = seen
        self._seen = None


class Team:
    """Devices and the model, which must agree at every moment."""

    def __init__(self, count: int, delete_rule: str) -> None:
        self.schema = load_schema(schema_text(FIELDS, delete_rule), source="test")
        self.model = Model(FIELDS, delete_rule)
        self.devices = [Device(number, self.schema, ROLES[number]) for number in range(count)]
        self.updates: dict[Op, bytes] = {}
        self.roles: dict[Any, Role] = {}
        self.conflict_ids: dict[tuple[Path, Any], str] = {}
        """By path and alternatives: whoever sees the same conflict must name it the same."""
        self.typist = Typist()

    # Doing ------------------------------------------------------------------------------------------

    def edit(self, device: Device, changes: list[tuple[Path, Any]]) -> None:
        asked, meant = self.typist.real(device.view().values, device.seen, changes)
        self._do(device, lambda doing: doing.edit(meant), "set", asked)

    def create(self, device: Device, values: dict[str, Any]) -> None:
        self._do(device, lambda doing: doing.create(values), "create", values)

    def delete(self, device: Device) -> None:
        self._do(device, Doing.delete, "delete")

    def restore(self, device: Device) -> None:
        self._do(device, Doing.restore, "restore")

    def resolve(self, device: Device, which: int, keep: int, own: Any) -> None:
        """Decide one of the conflicts that are shown, for an alternative or something else."""
        conflicts = device.view().conflicts
        if not conflicts:
            return
        conflict = conflicts[which % len(conflicts)]
        choices = [write.value for write in conflict.alternatives]
        rule = conflict.rule
        if conflict.path[-1] != GONE and rule not in ("max", "min"):
            choices.append(own)
        value = choices[keep % len(choices)]
        gone = conflict.path[-1] == GONE and conflict.alternatives[keep % len(choices)].path == conflict.path
        if conflict.path[-1] == GONE and not gone:
            value = None  # an edit may be a removal, in a row, with the value of this one
        path = conflict.path
        self._do(device, lambda doing: doing.resolve(path, value, gone=gone), "resolve", path, value)
        assert conflict.id not in {each.id for each in device.view().conflicts}

    def _do(self, device: Device, act: Any, action: str, *arguments: Any) -> None:
        op = self.model.do(device.who, device.role.text, device.seen, act)
        try:
            edit: Edit = getattr(device, action)(*arguments)
        except CrdtSyncError:
            assert op.refused, f"{action} {arguments} was refused"
            return
        assert not op.refused, f"{action} {arguments} should be refused"
        written = sorted(write.path for write in edit.add)
        assert written == sorted(atom.path for atom in op.atoms), f"{action} {arguments}"
        assert bool(op) == bool(edit)
        if edit:
            self.model.settle(op, {write.path: int(write.hlc) for write in edit.add})
            self.updates[op] = device.updates[-1]
            self.roles[device.author] = device.role
            device.seen |= {op}
        self.check(device)

    # Exchange ---------------------------------------------------------------------------------------

    def deliver(self, to: Device, origin: Device, part: int, chance: random.Random) -> None:
        """Some of what the other has, with all it builds on, in any order, some of it twice."""
        missing = sorted(origin.seen - to.seen, key=lambda op: op.number)
        if part and missing:
            missing = sorted(
                self.model.closed(chance.sample(missing, min(part, len(missing)))) - to.seen,
                key=lambda op: op.number,
            )
        known = sorted(to.seen, key=lambda op: op.number)
        batch = [
            *missing,
            *chance.sample(missing, len(missing) // 3),
            *chance.choices(known, k=2 * bool(known)),
        ]
        chance.shuffle(batch)
        while batch:
            size = chance.choice([1, 1, 3])
            ops, batch = batch[:size], batch[size:]
            self._receive(to, ops)
            if chance.random() < 0.1:
                to.reopen()
        assert not to.doc.pending
        to.seen |= frozenset(missing)
        self.check(to)

    def _receive(self, to: Device, ops: list[Op]) -> None:
        if len(ops) > 1:
            to.doc.apply(merge_updates([self.updates[op] for op in ops]))
        else:
            (op,) = ops
            author = author_of(op.who[0][0] - 1, op.who[1])
            update = self.updates[op]
            to.doc.apply(update, check_update(update, author, self.roles[author]))

    def hand_over(self, to: Device, origin: Device) -> None:
        """A snapshot: the whole document as it is there."""
        state = origin.doc.state()
        to.doc.apply(state, check_snapshot(state, self.roles.get))
        to.seen |= origin.seen
        self.check(to)

    def meet(self) -> None:
        """Everybody gets everything."""
        everything = sorted(
            frozenset().union(*(each.seen for each in self.devices)), key=lambda op: op.number
        )
        for device in self.devices:
            for op in everything:
                if op not in device.seen:
                    self._receive(device, [op])
            device.seen = frozenset(everything)

    # Comparing --------------------------------------------------------------------------------------

    def check(self, device: Device) -> None:
        """What the device shows is what the model says: values, deletion, conflicts, and every write."""
        sight = self.model.sight(device.seen)
        shown = device.view()
        there = {
            (path, (bytes(write.author.device), int(write.author.incarnation)), int(write.hlc))
            for path, writes in device.doc.writes().items()
            for write in writes
        }
        assert there == {(path, *atom.id) for path, atoms in sight.at.items() for atom in atoms}
        assert shown.exists == sight.exists
        assert shown.deleted == sight.deleted
        assert exactly(shown_values(self.model.fields, shown.values)) == exactly(sight.values())
        assert {clash_of(conflict) for conflict in shown.conflicts} == sight.clashes()
        assert len(shown.conflicts) == len(sight.clashes())
        assert set(shown.provisional) == {clash.path for clash in sight.clashes() if clash.kind == "open"}
        self._check_ids(shown)

    def _check_ids(self, shown: RecordView) -> None:
        for conflict in shown.conflicts:
            key = (conflict.path, clash_of(conflict).alternatives)
            assert self.conflict_ids.setdefault(key, conflict.id) == conflict.id
        assert len(set(self.conflict_ids.values())) == len(self.conflict_ids)

    def check_all(self) -> None:
        """Everybody has everything, so everybody shows the same, and hearing it again changes nothing."""
        self.meet()
        first = self.devices[0]
        for device in self.devices:
            self.check(device)
            assert device.view() == first.view()
            assert device.doc.content_hash() == first.doc.content_hash()
            assert not device.doc.pending
            state = device.doc.state()
            for op in self.model.ops:
                if op in device.seen:
                    device.doc.apply(self.updates[op])
            device.doc.apply(state)
            assert device.doc.state() == state
            assert device.view() == first.view()


class Typing:
    """A word of its own put into a text, or one taken out, at some place.

    Or, where nobody is known to have typed before, a first line, which others may begin with too.
    """

    def __init__(self, place: int, removes: bool, line: str | None = None) -> None:
        self.place = place
        self.removes = removes
        self.line = line

    def __repr__(self) -> str:
        return f"Typing({self.place}, {self.removes}, {self.line!r})"


class Typist:
    """Makes words of their own, and of changes what the product is asked and what that is to the model."""

    def __init__(self) -> None:
        self.next_word = 0

    def real(
        self, values: dict[str, Any], seen: Seen, changes: list[tuple[Path, Any]]
    ) -> tuple[list[tuple[Path, Any]], list[tuple[Path, Any]]]:
        asked, meant = [], []
        for path, change in changes:
            if isinstance(change, Typing):
                typed = self._typed(values, seen, path, change)
                if typed is not None:
                    asked.append((path, typed[0]))
                    meant.append((path, typed[1]))
            else:
                asked.append((path, _asked(change)))
                meant.append((path, change))
        return asked, meant

    def _typed(
        self, values: dict[str, Any], seen: Seen, path: Path, change: Typing
    ) -> tuple[str, Words] | None:
        """What becomes of the text that is there; None where nothing can be done."""
        if change.line is not None:
            began = any(atom.path == path for op in seen for atom in op.atoms)
            return None if began else (change.line, Words(new=frozenset(change.line.split())))
        shown: Any = values
        for name in path:
            shown = shown.get(name) if isinstance(shown, dict) else None
        words = (shown or "").split()
        if change.removes:
            if not words:
                return None
            gone = words.pop(change.place % len(words))
            return "".join(word + " " for word in words), Words(taken=frozenset([gone]))
        self.next_word += 1
        new = f"{self.next_word}."
        words.insert(change.place % (len(words) + 1), new)
        return "".join(word + " " for word in words), Words(new=frozenset([new]))


def _asked(change: Any) -> Any:
    """A change in the product's words."""
    match change:
        case Count(by):
            return Increment(by)
        case Put(element):
            return AddElement(element)
        case Take(element):
            return RemoveElement(element)
        case _:
            return change


def clash_of(conflict: Any) -> Clash:
    def of(write: Any) -> tuple[Who, int]:
        return ((bytes(write.author.device), int(write.author.incarnation)), int(write.hlc))

    return Clash(conflict.path, conflict.kind, frozenset(map(of, conflict.alternatives)), of(conflict.winner))


def shown_values(fields: dict[str, Field], values: dict[str, Any]) -> dict[str, Any]:
    """What a device shows, with texts as their words. No word may be there twice."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        spec = fields[name]
        if spec.rule == "text" and value is not None:
            words = value.split()
            assert len(set(words)) == len(words), words
            value = frozenset(words)
        elif spec.row is not None:
            value = {key: shown_values(spec.row, row) for key, row in value.items()}
        found[name] = value
    return found


def exactly(value: Any) -> Iterable[Any]:
    """Something that is equal only for equal values of equal types."""
    if isinstance(value, dict):
        return [(key, exactly(item)) for key, item in value.items()]
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list):
        return [exactly(item) for item in value]
    return (type(value).__name__, value)
