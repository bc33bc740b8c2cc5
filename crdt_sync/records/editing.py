"""From what a person wants to the writes that say it.

Planning is pure: it reads the visible writes and gives back which to remove and which to add; the
document does that in one transaction. Values, status transitions and roles are checked here, where a
device writes, and never when documents merge.

A plain write to a field has seen every alternative that stands there, so it removes them all and ends
their conflict; `Edit.resolves` says so. How deletions and edits meet is told in `rules.deletion`.

All functions raise ValidationError, TransitionError and PermissionDenied, and then nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from crdt_sync.errors import LocalError, PermissionDenied, RecordDeleted, RecordNotFound, ValidationError
from crdt_sync.ids import Author
from crdt_sync.records.planning import Planner, Tick
from crdt_sync.records.view import DELETED_PATH, writes_under
from crdt_sync.records.writes import DELETED, RECORD_MARK, DocWrites, Path, Write, same_value
from crdt_sync.roles import Role
from crdt_sync.rules.deletion import MANUAL, context_of, is_gone
from crdt_sync.schemas.model import RecordSchema

Wishes: TypeAlias = Mapping[str | Path, Any] | Mapping[str, Any] | Iterable[tuple[str | Path, Any]]
"""Field name, dotted path or tuple -> value or `Change`; pairs where one field is changed twice."""

_MARK: Path = (RECORD_MARK,)


@dataclass(frozen=True, slots=True)
class Edit:
    """Writes to remove and to add in one transaction, and the paths whose conflict that ends."""

    remove: list[Write] = field(default_factory=list)
    add: list[Write] = field(default_factory=list)
    resolves: list[Path] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.remove or self.add)


def edited(doc_writes: DocWrites, edit: Edit) -> DocWrites:
    """The visible writes as the edit leaves them, for planning another upon it."""
    by_path = dict(doc_writes)
    for gone in edit.remove:
        left = tuple(write for write in by_path[gone.path] if write != gone)
        if left:
            by_path[gone.path] = left
        else:
            del by_path[gone.path]
    for write in edit.add:
        beside = (*by_path.get(write.path, ()), write)
        by_path[write.path] = tuple(sorted(beside, key=lambda each: (each.author, each.hlc)))
    return by_path


def plan_edit(
    schema: RecordSchema,
    doc_writes: DocWrites,
    changes: Wishes,
    *,
    author: Author,
    role: Role,
    tick: Tick,
    typing_since: int = 0,
) -> Edit:
    """Change fields of a record.

    `{"status": "done", "parts_used": {"A": {"qty": 2}, "B": None}}` changes one field of row A and removes
    row B; `"parts_used.A.qty"` and `("parts_used", "A", "qty")` name one place; a list makes a set exactly
    that; `Increment`, `AddElement` and `RemoveElement` change counters and sets by a part; None clears.
    A value that stands there already is not written again. `typing_since`: what the author wrote before
    may be known to a copy of it, so texts do not go on from that (see `rules.text`).
    """
    schema.require_writer(role)
    doc_writes = schema.current(doc_writes)
    standing = _Standing(schema, doc_writes)
    if not standing.exists:
        raise RecordNotFound("the record does not exist", hint="create it first")
    if standing.deleted:
        raise RecordDeleted("the record is deleted", hint="restore it first if it should come back")
    planner = Planner(schema, doc_writes, author, role, fresh=False, typing_since=typing_since)
    standing.outlived_by(planner)
    for path, value in _pairs(changes):
        planner.assign(path, value)
    return Edit(*planner.finish(tick))


def plan_create(
    schema: RecordSchema, doc_writes: DocWrites, values: Wishes, *, author: Author, role: Role, tick: Tick
) -> Edit:
    """Write a new record with defaults for what is not given. A deleted one of that id starts afresh."""
    schema.require_writer(role)
    doc_writes = schema.current(doc_writes)
    standing = _Standing(schema, doc_writes)
    if standing.exists and not standing.deleted:
        raise LocalError("the record exists already", hint="change it instead of creating it")
    planner = Planner(schema, doc_writes, author, role, fresh=True)
    pairs = _pairs(values)
    given: dict[str, Any] = {}
    for path, value in pairs:
        given[path[0]] = value if len(path) == 1 else given.get(path[0]) or {}
    completed = schema.with_defaults(given)
    schema.check_required(completed)
    for name, value in completed.items():
        if name not in given:
            planner.assign((name,), value)
    for path, value in pairs:
        planner.assign(path, value)
    return Edit(*planner.finish(tick, mark=_MARK))


def plan_delete(
    schema: RecordSchema, doc_writes: DocWrites, *, author: Author, role: Role, tick: Tick
) -> Edit:
    """Delete a record. Of one that is deleted, or never was, nothing is written."""
    _require_deleter(schema, role)
    doc_writes = schema.current(doc_writes)
    standing = _Standing(schema, doc_writes)
    if standing.deleted or not standing.exists:
        return Edit()
    return standing.delete(author, role, tick)


def plan_restore(
    schema: RecordSchema, doc_writes: DocWrites, *, author: Author, role: Role, tick: Tick
) -> Edit:
    """Bring a deleted record back as it was, or keep one whose deletion is an open conflict.

    Of any other record nothing is written.
    """
    schema.require_writer(role)
    doc_writes = schema.current(doc_writes)
    standing = _Standing(schema, doc_writes)
    if not standing.exists:
        raise RecordNotFound("the record does not exist", hint="create it first")
    return standing.restore(author, role, tick) if standing.deleted or standing.disputed else Edit()


def plan_resolve(
    schema: RecordSchema,
    doc_writes: DocWrites,
    path: Path | str,
    value: Any,
    *,
    author: Author,
    role: Role,
    tick: Tick,
) -> Edit:
    """Decide a conflict: `value` stands at `path` alone afterwards, one of the alternatives or another.

    Where a deletion met edits (a path ending in `$deleted`) the value of the deletion deletes for good, and
    None, or any other, brings the record, row or element back.
    """
    return plan_resolve_all(schema, doc_writes, [(path, value)], author=author, role=role, tick=tick)


def plan_resolve_all(
    schema: RecordSchema,
    doc_writes: DocWrites,
    decisions: Iterable[tuple[Path | str, Any]],
    *,
    author: Author,
    role: Role,
    tick: Tick,
) -> Edit:
    """Decide several conflicts of one record in one edit, each as `plan_resolve` does.

    Deleting the record for good makes the other decisions pointless: only that is written then.
    """
    schema.require_writer(role)
    doc_writes = schema.current(doc_writes)
    old_names = schema.old_names
    paths = [(_path(path), value) for path, value in decisions]
    wanted = [(path if old_names is None else old_names.path(path), value) for path, value in paths]
    standing = _Standing(schema, doc_writes)
    whole = [value for path, value in wanted if path == DELETED_PATH]
    inside = [(path, value) for path, value in wanted if path != DELETED_PATH]
    if whole and standing.marks and _deletes(standing.marks, whole[-1]):
        _require_deleter(schema, role)
        return standing.delete(author, role, tick)
    if inside and standing.deleted and not whole:
        raise RecordDeleted("the record is deleted", hint="restore it first if it should come back")
    planner = Planner(schema, doc_writes, author, role, fresh=False)
    if not whole:
        standing.outlived_by(planner)
    settled = [path for path, value in inside if _decide(planner, schema, doc_writes, path, value)]
    remove, add, resolves = planner.finish(tick)
    edit = Edit(remove, add, [*settled, *(path for path in resolves if path not in settled)])
    if not whole or not standing.marks:
        return edit
    kept = standing.restore(author, role, tick)
    return Edit([*kept.remove, *edit.remove], [*edit.add, *kept.add], [*kept.resolves, *edit.resolves])


def _decide(planner: Planner, schema: RecordSchema, doc_writes: DocWrites, path: Path, value: Any) -> bool:
    """Tell the planner one decision inside the record; whether it settles a removal at `path`."""
    visible = doc_writes.get(path, ())
    if path[-1] == DELETED:
        if visible:
            planner.settle(path, visible, gone=_deletes(visible, value))
        return bool(visible)
    if schema.field_at(path).shape != "value":
        raise ValidationError(".".join(path), "has no alternatives to choose from")
    if len(visible) > 1:
        planner.decide(path, value)
    else:
        planner.assign(path, value)
    return False


def _deletes(marks: Iterable[Write], value: Any) -> bool:
    """Whether the value chosen in a conflict about a deletion is that of a deletion."""
    return isinstance(value, dict) and any(same_value(mark.value, value) for mark in marks)


class _Standing:
    """Whether a record exists and is deleted, as the editor sees it."""

    def __init__(self, schema: RecordSchema, doc_writes: DocWrites) -> None:
        self._writes = doc_writes
        self.marks = doc_writes.get(DELETED_PATH, ())
        self.exists = len(doc_writes) > (1 if self.marks else 0)
        self.deleted = bool(self.marks) and is_gone(schema.delete.rule, self.marks, self._under())
        self.disputed = bool(self.marks) and schema.delete.rule == MANUAL and not self.deleted
        """Whether its deletion waits for a person's decision."""

    def outlived_by(self, planner: Planner) -> None:
        """An edit takes away the marks of deletions that the record stands against, unless disputed."""
        planner.outlive((), () if self.disputed else self.marks)

    def delete(self, author: Author, role: Role, tick: Tick) -> Edit:
        context = context_of(self.marks, self._under())
        mark = Write(DELETED_PATH, context, tick(), role, author)
        return Edit(list(self.marks), [mark], [DELETED_PATH] if self.marks else [])

    def restore(self, author: Author, role: Role, tick: Tick) -> Edit:
        """The mark of existence is new to every deletion that happens meanwhile, and so outlives it."""
        mark = Write(_MARK, True, tick(), role, author)
        remove = [*self.marks, *self._writes.get(_MARK, ())]
        return Edit(remove, [mark], [DELETED_PATH] if self.marks else [])

    def _under(self) -> list[Write]:
        return list(writes_under(self._writes, (), self._writes))


def _require_deleter(schema: RecordSchema, role: Role) -> None:
    schema.require_writer(role)
    if not schema.delete.may_delete(role):
        allowed = " or ".join(each.text for each in sorted(schema.delete.roles))
        raise PermissionDenied(
            f"a device with role {role.text} may not delete records of type {schema.type}",
            hint=f"ask a device with role {allowed}",
        )


def _pairs(changes: Wishes) -> list[tuple[Path, Any]]:
    pairs = changes.items() if isinstance(changes, Mapping) else changes
    return [(_path(key), value) for key, value in pairs]


def _path(key: str | Path) -> Path:
    path = tuple(key.split(".")) if isinstance(key, str) else tuple(key)
    if not path or not all(path):
        raise ValidationError(str(key) or "(no field)", "is not the name of a field")
    return path
