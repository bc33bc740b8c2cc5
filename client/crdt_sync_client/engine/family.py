"""Parents and children among records: what goes and comes back together, and whose parent is missing.

A schema with `x-parent` names the field that holds the id of a record's parent. Here, at the device where
somebody deletes a parent, its `on_delete` is done: `refuse` refuses while there are children, `cascade`
deletes them too, and theirs. Elsewhere each deletion merges by itself, so a child that was made or edited
apart stays: it is an *orphan*, which every device sees alike, since that follows from the records there are.

All deletions of one cascade carry the same author and the same time as the parent's, which no other deletion
does. By that, whoever restores the parent knows what went with it: the records whose only deletions are of
those cascades, and not what somebody had deleted for its own sake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from crdt_sync.errors import RecordHasChildren
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, RecordId
from crdt_sync.records.editing import plan_delete, plan_restore
from crdt_sync.records.planning import Tick
from crdt_sync.records.view import DELETED_PATH, view
from crdt_sync.records.writes import DocWrites, Write
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import absent
from crdt_sync_client.engine.audit import decode_alternatives
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.presenting import parent_of
from crdt_sync_client.engine.space import Space
from crdt_sync_client.engine.write_plans import Plan, Seen

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

MAX_DEPTH: Final = 16
"""Generations below a record. The deepest tree of the shipped types has five."""
MAX_BELOW: Final = 499
"""Records that go or come back with one: with it, they are as many as one transaction may write."""
_NAMED: Final = 3
"""Children whose ids an error tells."""

_CHILDREN: Final = "SELECT no, opaque, id, deleted FROM records WHERE space = ? AND parent = ? AND type = ?"
_DELETIONS: Final = "SELECT alternatives FROM conflicts WHERE record = ? AND path = ?"
_DELETION_PATH: Final = msgspec.json.encode(DELETED_PATH).decode()

Stamp = tuple[Author, int]
"""Who made a deletion, and when: the same for all of one cascade."""


class _Child(NamedTuple):
    schema: RecordSchema
    no: int
    opaque: OpaqueId
    id: RecordId
    deleted: bool


class _Walk:
    """One walk down a tree: in which role, what was found, and the numbers of records passed."""

    __slots__ = ("found", "passed", "role")

    def __init__(self, role: Role, passed: set[int]) -> None:
        self.role = role
        self.passed = passed
        self.found: list[Plan] = []


class Family:
    """The records below others, as one call of local writes sees them.

    `seen` gives what the call has made of records so far, `find` a record with its document open.
    """

    def __init__(
        self,
        replica: Replica,
        seen: Callable[[], Seen],
        *,
        find: Callable[[Space, OpaqueId], OpenRecord | None],
    ) -> None:
        self._replica = replica
        self._seen = seen
        self._find = find

    def below(self, plan: Plan, tick: Tick) -> tuple[Plan, ...]:
        """What goes or comes back together with a record that is deleted or restored; parents first.

        Raises RecordHasChildren, and PermissionDenied where the role may not delete or write one of them.
        """
        record = plan.record
        role = record.space.role_of(self._replica.device_id)
        if role is None or not record.space.record_types.children_of(record.type):
            return ()
        walk = _Walk(role, {record.no})
        if plan.deleted:
            made = [write for write in plan.edit.add if write.path == DELETED_PATH]
            if made:
                self._gather_going(record, made[0], walk, depth=0)
        else:
            stamps = self._deletions_of(record)
            if stamps:
                self._gather_returning(record, stamps, walk, tick, depth=0)
        return tuple(walk.found)

    def _gather_going(self, record: OpenRecord, mark: Write, walk: _Walk, depth: int) -> None:
        standing = [
            child for child in self._children(record) if not child.deleted and child.no not in walk.passed
        ]
        refusing = [child for child in standing if _on_delete(child) == "refuse"]
        if refusing:
            raise _has_children(record, refusing)
        cascading = [child for child in standing if _on_delete(child) == "cascade"]
        if cascading and (depth >= MAX_DEPTH or len(walk.found) + len(cascading) > MAX_BELOW):
            raise _has_too_many(record)
        walk.passed.update(child.no for child in cascading)
        for child in cascading:
            below = self._open(record.space, child)
            edit = plan_delete(
                child.schema, self._writes(below), author=mark.author, role=walk.role, tick=lambda: mark.hlc
            )
            walk.found.append(Plan(below, child.schema, edit, deleted=True))
            self._gather_going(below, mark, walk, depth + 1)

    def _gather_returning(
        self, record: OpenRecord, stamps: frozenset[Stamp], walk: _Walk, tick: Tick, depth: int
    ) -> None:
        if depth > MAX_DEPTH:
            return
        for child in self._children(record):
            if child.no in walk.passed or _on_delete(child) != "cascade":
                continue
            walk.passed.add(child.no)
            below = self._open(record.space, child)
            writes = self._writes(below)
            if child.deleted:
                own = _stamps(writes.get(DELETED_PATH, ()))
                if not own or not own <= stamps:
                    continue
                if len(walk.found) >= MAX_BELOW:
                    raise _has_too_many(record)
                author = self._replica.author
                edit = plan_restore(child.schema, writes, author=author, role=walk.role, tick=tick)
                walk.found.append(Plan(below, child.schema, edit, deleted=False))
            self._gather_returning(below, stamps, walk, tick, depth + 1)

    def _children(self, record: OpenRecord) -> list[_Child]:
        """The records that name this one as their parent, deleted ones too, in the order they came."""
        space, seen = record.space, self._seen()
        schemas = {schema.type: schema for schema in space.record_types.children_of(record.type)}
        found: dict[int, _Child] = {}
        for schema in schemas.values():
            for no, opaque, id, deleted in self._replica.db.rows(
                _CHILDREN, (space.no, record.id, schema.type)
            ):
                found[no] = _Child(schema, no, OpaqueId(opaque), RecordId(id), bool(deleted))
        for stale in seen.edited() if schemas else ():
            found.pop(stale.no, None)
            schema_of = schemas.get(stale.type) if stale.space is space else None
            if schema_of is not None and self._parent_of(stale, schema_of) == record.id:
                gone = seen.deleted.get(stale.no, stale.deleted)
                found[stale.no] = _Child(schema_of, stale.no, stale.opaque, stale.id, gone)
        return [found[no] for no in sorted(found)]

    def _parent_of(self, record: OpenRecord, schema: RecordSchema) -> str | None:
        """The parent that a record names whose row tells what was before it was edited."""
        known = self._seen().parents
        if record.no not in known:
            values = view(schema, record.type, record.id, self._writes(record)).values
            known[record.no] = parent_of(schema, values)
        return known[record.no]

    def _writes(self, record: OpenRecord) -> DocWrites:
        return self._seen().writes(record)

    def _open(self, space: Space, child: _Child) -> OpenRecord:
        found = self._find(space, child.opaque)
        if found is None:
            raise absent.missing(self._replica, space, child.schema.type, child.id)
        return found

    def _deletions_of(self, record: OpenRecord) -> frozenset[Stamp]:
        """The deletions of a record: those that stand, and those that an edit was stronger than.

        The latter are in the audit trail, also when a later edit has taken their marks away.
        """
        found = set(_stamps(self._writes(record).get(DELETED_PATH, ())))
        for (raw,) in self._replica.db.rows(_DELETIONS, (record.no, _DELETION_PATH)):
            for each in decode_alternatives(raw):
                if each.path == DELETED_PATH:
                    author = Author(DeviceId(each.device), Incarnation(each.incarnation))
                    found.add((author, each.hlc))
        return frozenset(found)


def _stamps(marks: Iterable[Write]) -> frozenset[Stamp]:
    """Who made these deletions, and when."""
    return frozenset((mark.author, int(mark.hlc)) for mark in marks)


def _on_delete(child: _Child) -> str:
    assert child.schema.parent is not None
    return child.schema.parent.on_delete


def _has_children(record: OpenRecord, children: list[_Child]) -> RecordHasChildren:
    by_type: dict[str, list[str]] = {}
    for child in children:
        by_type.setdefault(child.schema.type, []).append(child.id)
    told = []
    for record_type, ids in by_type.items():
        more = len(ids) - _NAMED
        named = ", ".join(ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        told.append(f"{len(ids)} {record_type} ({named})")
    return RecordHasChildren(
        f"{record.type} {record.id} still has {' and '.join(told)}",
        hint="delete them first, or give them another parent",
        children=tuple((child.schema.type, child.id) for child in children),
    )


def _has_too_many(record: OpenRecord) -> RecordHasChildren:
    return RecordHasChildren(
        f"more than {MAX_BELOW} records would go with it, below {record.type} {record.id}",
        hint="delete some of those below first",
    )
