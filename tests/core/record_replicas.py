"""Devices that edit one record, for tests: a document, a clock that may be wrong, and a schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crdt_sync.errors import CrdtSyncError
from crdt_sync.hlc import Hlc, HybridClock
from crdt_sync.ids import Author, DeviceId, Incarnation
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.editing import Edit, plan_create, plan_delete, plan_edit, plan_resolve, plan_restore
from crdt_sync.records.update_check import check_snapshot, check_update
from crdt_sync.records.view import RecordView, view
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema

EVERY_RULE = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Every rule
x-type: sample
x-version: 1
x-delete: {rule: %s}
type: object
properties:
  status: {type: string}
  phase: {type: string, x-merge: {rule: register, order: [draft, done]}}
  owner: {type: string, x-merge: {rule: register, prefer: [supervisor, office]}}
  actual: {type: [string, "null"], x-merge: client_wins}
  planned: {x-merge: server_wins}
  cause: {x-merge: manual}
  tags: {type: array, items: {}, uniqueItems: true, x-merge: set}
  banned: {type: array, items: {type: string}, uniqueItems: true, x-merge: {rule: set, remove_wins: true}}
  hours: {type: number, x-merge: counter}
  reading: {type: number, x-merge: max}
  since: {type: string, anyOf: [{format: date}, {format: date-time}], x-merge: min}
  ticket: {type: string, x-merge: {rule: once, correct: [supervisor]}}
  story: {type: string, x-merge: text}
  parts:
    type: object
    x-merge: rows
    additionalProperties:
      type: object
      properties:
        qty: {type: number, x-merge: client_wins}
        note: {type: string, x-merge: manual}
        labels: {type: array, items: {type: string}, uniqueItems: true, x-merge: set}
        used: {type: integer, x-merge: counter}
  crew:
    type: object
    x-merge: {rule: rows, remove_wins: true}
    additionalProperties: {type: object, properties: {task: {type: string}}}
  boxes:
    type: object
    x-merge: rows
    additionalProperties:
      type: object
      properties:
        label: {type: string}
        story: {type: string, x-merge: text}
        pieces:
          type: object
          x-merge: rows
          additionalProperties:
            type: object
            properties:
              serial: {type: string, x-merge: once}
              reading: {type: number, x-merge: max}
              used: {type: number, x-merge: counter}
              marks: {type: array, items: {type: string}, x-merge: set}
"""

RECORD_ID = "00000000-0000-4000-8000-000000000001"
ROLES = (Role.FIELD, Role.OFFICE, Role.SUPERVISOR, Role.ADMIN, Role.FIELD)


def every_rule(delete: str = "edit_wins") -> RecordSchema:
    return load_schema(EVERY_RULE % delete, source="test")


EDIT_WINS = every_rule()
DELETE_WINS = every_rule("delete_wins")
MANUAL = every_rule("manual")


def author_of(number: int, incarnation: int = 1) -> Author:
    return Author(DeviceId(bytes([number + 1]) * 16), Incarnation(incarnation))


class Replica:
    """One device. Its updates are checked as a peer's would be, and kept in the order it made them."""

    def __init__(self, number: int, schema: RecordSchema = EDIT_WINS, role: Role | None = None) -> None:
        self.number = number
        self.schema = schema
        self.role = ROLES[number] if role is None else role
        self.author = author_of(number)
        self.doc = RecordDocument(author=self.author)
        self.clock = HybridClock()
        self.now_ms = 1_700_000_000_000
        self.updates: list[bytes] = []
        self.made: list[Edit] = []
        self._seen: RecordView | None = None

    def tick(self) -> Hlc:
        return self.clock.tick(self.now_ms)

    def _do(self, edit: Edit) -> Edit:
        if edit:
            update = self.doc.edit(remove=edit.remove, add=edit.add)
            check_update(update, self.author, self.role)
            self.updates.append(update)
            self.made.append(edit)
        return edit

    @property
    def _as(self) -> dict[str, Any]:
        return {"author": self.author, "role": self.role, "tick": self.tick}

    def create(self, values: Any = ()) -> Edit:
        return self._do(plan_create(self.schema, self.doc.writes(), values, **self._as))

    def set(self, changes: Any) -> Edit:
        return self._do(plan_edit(self.schema, self.doc.writes(), changes, **self._as))

    def delete(self) -> Edit:
        return self._do(plan_delete(self.schema, self.doc.writes(), **self._as))

    def restore(self) -> Edit:
        return self._do(plan_restore(self.schema, self.doc.writes(), **self._as))

    def resolve(self, path: Any, value: Any) -> Edit:
        return self._do(plan_resolve(self.schema, self.doc.writes(), path, value, **self._as))

    def take(self, updates: Iterable[bytes]) -> None:
        for update in updates:
            self.doc.apply(update)

    def view(self) -> RecordView:
        """The view, made anew and also from the last one: they must not differ, not even in order."""
        fresh = view(self.schema, self.schema.type, RECORD_ID, self.doc.writes())
        self._seen = view(
            self.schema,
            self.schema.type,
            RECORD_ID,
            self.doc.writes(),
            before=self._seen,
            touched=self.doc.take_touched(),
        )
        assert self._seen == fresh
        assert list(self._seen.values) == list(fresh.values)
        assert self.doc.writes() == RecordDocument(self.doc.state()).writes()
        return fresh

    @property
    def values(self) -> dict[str, Any]:
        """What is shown, without the fields that hold nothing."""
        return {name: value for name, value in self.view().values.items() if value not in ([], {}, 0)}

    def attempt(self, action: str, *arguments: Any) -> Edit:
        """The action, or nothing where the product would refuse it."""
        try:
            edit: Edit = getattr(self, action)(*arguments)
        except CrdtSyncError:
            return Edit()
        return edit


def meet(*replicas: Replica) -> None:
    """Everybody gets everything."""
    for to in replicas:
        for origin in replicas:
            if to is not origin:
                to.take(origin.updates)


def check_state(replica: Replica) -> None:
    """What a fresh device would accept as a snapshot, and see the same in."""
    state = replica.doc.state()
    roles = {author_of(number): role for number, role in enumerate(ROLES)}
    check_snapshot(state, roles.get)
    fresh = RecordDocument(state)
    assert fresh.content_hash() == replica.doc.content_hash()
    assert fresh.writes() == replica.doc.writes()
