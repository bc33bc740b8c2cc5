"""The bookkeeping of one edit: what each wish asks of the paths under it.

A `Planner` collects wishes and turns them into writes at the end, so that two wishes about one path
cost one write, the last one counts, and what stands there already costs none. It works on the visible
writes of one record and changes nothing.

Rows have a life of their own. Writing under a row that is gone, or never was, makes a new row: what is
left of the old one goes in the same transaction. Writing under a row that came back against a removal
takes the mark of that removal away, because the writer has seen both and goes on with the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias, cast

from crdt_sync.errors import ValidationError
from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author
from crdt_sync.records.changes import AddElement, Increment, RemoveElement, Value
from crdt_sync.records.conflicts import differ
from crdt_sync.records.view import row_rule, shown_elements, writes_under
from crdt_sync.records.writes import DELETED, ROW_MARK, DocWrites, Path, Write, element_key, same_value
from crdt_sync.roles import Role
from crdt_sync.rules.base import ValueRule
from crdt_sync.rules.collections import Rows, SetRule
from crdt_sync.rules.counter import Counter
from crdt_sync.rules.deletion import context_of, is_gone
from crdt_sync.rules.once import Once
from crdt_sync.rules.text import Text
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync.schemas.sentences import listed, shown
from crdt_sync.schemas.transitions import check_transition
from crdt_sync.schemas.values import MAX_INT, MIN_INT

Tick: TypeAlias = Callable[[], Hlc]
"""Gives the time of the next write, each later than the one before."""

_CHANGES: Final = (Increment, AddElement, RemoveElement)


class Planner:
    """Wishes in, writes out. `fresh` starts from nothing: what is visible will all be removed."""

    def __init__(
        self,
        schema: RecordSchema,
        doc_writes: DocWrites,
        author: Author,
        role: Role,
        *,
        fresh: bool,
        typing_since: int = 0,
    ) -> None:
        self._schema = schema
        self._writes = doc_writes
        self._author = author
        self._role = role
        self._typing_since = typing_since
        self._values: dict[Path, Value] = {}
        """What to write, by path, in the order of the wishes."""
        self._forced: set[Path] = set()
        """Paths to write even when they hold that value alone."""
        self._cut: set[Path] = set()
        """Paths to empty."""
        self._totals: set[Path] = set()
        """Counters among the values: only the own total is replaced."""
        self._texts: set[Path] = set()
        """Texts among the values: what stands side by side there is no conflict."""
        self._decided: Path | None = None
        """The path of an open conflict that these wishes decide."""
        self._fresh: list[Path] = [()] if fresh and doc_writes else []
        self._new_rows: set[Path] = set()
        self._asked_rows: set[Path] = set()
        """Rows to make even when nothing is written in them."""
        self._removals: dict[Path, Value] = {}
        """Of rows that an earlier wish removed and a later one began anew: the removal."""
        self._alive: dict[Path, tuple[Write, ...]] = {}
        """Rows (and the record) that are written under and stand, with the deletion marks they outlived."""

    # Wishes -----------------------------------------------------------------------------------------

    def assign(self, path: Path, value: Any) -> None:
        """Whatever stands at `path` shall be `value`, or change by it. Raises ValidationError."""
        spec = self._schema.field_at(path[:1])
        depth = 1
        while len(path) > depth:
            if spec.shape != "rows":
                raise ValidationError(".".join(path), f"{'.'.join(path[:depth])} has no fields of its own")
            key = spec.check_row_key(path[depth], ".".join(path[:depth]))
            row = (*path[:depth], key)
            depth += 1
            if len(path) == depth:
                self._assign_row(spec, row, value)
                break
            self._enter_row(spec, row)
            spec = spec.subfield(path[depth], ".".join(row))
            depth += 1
        else:
            self._assign_field(spec, path, value)
        self._ask_for_rows(path)

    def outlive(self, prefix: Path, marks: tuple[Write, ...]) -> None:
        """The record or row stands against these deletions; a write under it takes their marks away."""
        self._alive[prefix] = marks

    def write(self, path: Path, value: Value) -> None:
        """Write a mark, whatever stands there."""
        self._values[path] = value
        self._forced.add(path)

    def decide(self, path: Path, value: Any) -> None:
        """As `assign` for a single field, but a write even when the value wins already."""
        self._decided = path
        self.assign(path, value)
        if path in self._values:
            self._forced.add(path)

    def settle(self, mark: Path, marks: tuple[Write, ...], *, gone: bool) -> None:
        """Decide between a row or set element and its removal at `mark`, which met concurrent writes."""
        path = mark[:-1]
        under = list(self._under(path))
        if gone:
            if self._schema.field_at(path).shape == "set":
                self._cut.add(path)
            self.write(mark, context_of(marks, under))
        else:
            self._cut.add(mark)
            here = self._visible(path)
            self.write(path, here[0].value) if here else self.write((*path, ROW_MARK), True)

    def _assign_field(self, spec: FieldSpec, path: Path, value: Any) -> None:
        rule, shape = spec.rule, spec.rule.shape
        if shape == "set":
            self._assign_set(spec, cast(SetRule, rule), path, value)
        elif shape == "counter":
            self._count(spec, cast(Counter, rule), path, value)
        elif isinstance(value, _CHANGES):
            raise ValidationError(
                ".".join(path), f"merges by {rule.name}; only sets and counters can be changed by a part"
            )
        elif shape == "rows":
            self._assign_rows(spec, path, value)
        else:
            field = ".".join(path)
            checked = spec.check(value, field)
            if isinstance(rule, Text):
                self._type(rule, path, cast("str | None", checked))
                return
            if isinstance(rule, Once) and path != self._decided:
                self._check_unfilled(rule, path, field, checked)
            if spec.transitions is not None:
                self._check_step(spec, path, field, checked)
            self._values[path] = checked

    def _type(self, rule: Text, path: Path, text: str | None) -> None:
        """What stands there side by side and shows this text already can stay as it is."""
        visible = self._visible(path)
        if visible and rule.value_of(visible) == text:
            self._values.pop(path, None)
        else:
            self._values[path] = rule.edited(visible, text, self._author, self._typing_since)
            self._texts.add(path)

    def _check_unfilled(self, rule: Once, path: Path, field: str, value: Value) -> None:
        """Raises ValidationError when something else stands there and this role may not correct it."""
        visible = self._visible(path)
        standing = rule.choose(visible).value if visible else None
        if standing is None or self._role in rule.correct:
            return
        if differ(visible):
            raise ValidationError(
                field, "is written once and has an open conflict", hint="decide the conflict"
            )
        if same_value(standing, value):
            return
        roles = listed([role.text for role in rule.correct]) if rule.correct else ""
        raise ValidationError(
            field,
            f"is written once, and it is {shown(standing)} already",
            hint=f"a device with role {roles} may correct it"
            if roles
            else "its schema names no role that may correct it (option correct of rule once)",
        )

    def _check_step(self, spec: FieldSpec, path: Path, field: str, value: Value) -> None:
        """A step from the value that is shown, or the choice of another that stands beside it."""
        visible = self._visible(path)
        if not visible or any(same_value(write.value, value) for write in visible):
            return
        check_transition(spec, field, cast(ValueRule, spec.rule).choose(visible).value, value)

    # Sets and counters ------------------------------------------------------------------------------

    def _assign_set(self, spec: FieldSpec, rule: SetRule, path: Path, value: Any) -> None:
        field = ".".join(path)
        shown = self._shown_set(rule, path)
        if isinstance(value, AddElement):
            wanted = {**shown, **_by_key([spec.check_element(value.element, field)])}
        elif isinstance(value, RemoveElement):
            gone = _by_key([spec.check_element(value.element, field)])
            wanted = {key: element for key, element in shown.items() if key not in gone}
        elif isinstance(value, Increment):
            raise ValidationError(field, "is a set; elements are added and removed")
        else:
            wanted = _by_key(cast(list[Value], spec.check(value, field) or []))
        for key, element in wanted.items():
            if key not in shown:
                self._put_element((*path, key), element)
        for key in shown:
            if key not in wanted:
                self._drop_element(rule, (*path, key))

    def _put_element(self, path: Path, element: Value) -> None:
        self.write(path, element)
        self._cut.discard(path)
        mark = (*path, DELETED)
        self._values.pop(mark, None)
        if mark in self._writes:
            self._cut.add(mark)

    def _drop_element(self, rule: SetRule, path: Path) -> None:
        self._values.pop(path, None)
        adds = self._visible(path)
        if adds:
            self._cut.add(path)
        if rule.remove_wins and adds:
            mark = (*path, DELETED)
            self._cut.discard(mark)
            self.write(mark, context_of(self._visible(mark), adds))

    def _shown_set(self, rule: SetRule, path: Path) -> dict[str, Any]:
        """The elements of a set after the wishes so far, by the path element that names them."""
        depth = len(path)
        visible = {each: self._visible(each) for each in self._writes if each[:depth] == path}
        standing = {each: writes for each, writes in visible.items() if writes and each not in self._cut}
        shown = shown_elements(rule, standing, path, standing)
        for each, value in self._values.items():
            if each[:depth] != path:
                continue
            if each[-1] == DELETED:
                shown.pop(each[depth], None)
            else:
                shown[each[depth]] = value
        return shown

    def _count(self, spec: FieldSpec, rule: Counter, path: Path, value: Any) -> None:
        field = ".".join(path)
        if isinstance(value, (AddElement, RemoveElement)):
            raise ValidationError(field, "is a counter; it is changed by an amount")
        visible = self._visible(path)
        if value is None:
            spec.check(None, field)
            self._values.pop(path, None)
            self._cut.add(path)
            return
        if path in self._cut:
            visible = ()
        others = [write for write in visible if write.author != self._author]
        own = [write for write in visible if write.author == self._author]
        mine: Any = self._values.get(path, rule.total(own))
        shown: Any = rule.total(others) + mine
        if isinstance(value, Increment):
            amount: Any = spec.check(value.amount, field)
            if amount is None:
                raise ValidationError(field, "cannot count by null")
        else:
            amount = cast(Any, spec.check(value, field)) - shown
        if amount or (not visible and path not in self._values):
            total = mine + amount
            if isinstance(total, int) and not MIN_INT <= total <= MAX_INT:
                raise ValidationError(field, "would count beyond 64 bits")
            self._values[path] = total
            self._totals.add(path)

    # Rows -------------------------------------------------------------------------------------------

    def _assign_rows(self, spec: FieldSpec, path: Path, value: Any) -> None:
        if value is None:
            spec.check(None, ".".join(path))
            for row in sorted(self._rows_of(path)):
                self._remove_row(spec, row)
            return
        if not isinstance(value, Mapping):
            spec.check(value, ".".join(path))
        for key, row_value in value.items():
            key = spec.check_row_key(key, ".".join(path))
            self._assign_row(spec, (*path, key), row_value)

    def _assign_row(self, spec: FieldSpec, row: Path, value: Any) -> None:
        if value is None:
            self._remove_row(spec, row)
            return
        if not isinstance(value, Mapping):
            spec.check_row(value, ".".join(row))
        self._enter_row(spec, row)
        self._asked_rows.add(row)
        for name, part in value.items():
            self._assign_field(spec.subfield(name, ".".join(row)), (*row, name), part)

    def _enter_row(self, spec: FieldSpec, row: Path) -> None:
        if row in self._new_rows or row in self._alive:
            return
        marks = self._visible((*row, DELETED))
        under = list(self._under(row))
        removed_here = (*row, DELETED) in self._values
        if under and not removed_here and not is_gone(row_rule(cast(Rows, spec.rule)), marks, under):
            self._alive[row] = marks
            return
        self._new_rows.add(row)
        if removed_here:
            self._removals[row] = self._values.pop((*row, DELETED))
        if under or marks:
            self._fresh.append(row)

    def _ask_for_rows(self, path: Path) -> None:
        """Whoever writes something in a row wants the row; whoever clears something there does not."""
        passed = self._new_rows - self._asked_rows if self._new_rows else ()
        if not passed:
            return
        written = [each for each, value in self._values.items() if value is not None]
        for row in passed:
            if path[: len(row)] == row and any(
                each[: len(row)] == row for each in (*written, *self._asked_rows)
            ):
                self._asked_rows.add(row)

    def _remove_row(self, spec: FieldSpec, row: Path) -> None:
        depth = len(row)
        for path in [path for path in self._values if path[:depth] == row]:
            del self._values[path]
        # What earlier wishes of this edit made of the row, and of rows in it, is undone.
        self._new_rows = {each for each in self._new_rows if each[:depth] != row}
        self._asked_rows = {each for each in self._asked_rows if each[:depth] != row}
        self._alive = {each: marks for each, marks in self._alive.items() if each[:depth] != row}
        self._fresh = [each for each in self._fresh if each[:depth] != row]
        marks = self._visible((*row, DELETED))
        under = list(self._under(row))
        if under and not is_gone(row_rule(cast(Rows, spec.rule)), marks, under):
            self.write((*row, DELETED), context_of(marks, under))

    def _rows_of(self, path: Path) -> set[Path]:
        depth = len(path) + 1
        written = {
            each[:depth]
            for each in (*self._writes, *self._values)
            if len(each) > depth and each[: depth - 1] == path
        }
        return written | {
            row[:depth] for row in self._new_rows if len(row) >= depth and row[: depth - 1] == path
        }

    # What stands ------------------------------------------------------------------------------------

    def _visible(self, path: Path) -> tuple[Write, ...]:
        for prefix in self._fresh:
            if path[: len(prefix)] == prefix:
                return ()
        return self._writes.get(path, ())

    def _under(self, prefix: Path) -> Iterator[Write]:
        visible = {path: self._visible(path) for path in self._writes if path[: len(prefix)] == prefix}
        yield from writes_under(visible, prefix, visible)

    # Writes out -------------------------------------------------------------------------------------

    def finish(self, tick: Tick, *, mark: Path | None = None) -> tuple[list[Write], list[Write], list[Path]]:
        """What to remove, what to add, and the paths whose conflict that ends.

        `mark` is written when the record has no single-value field of its own that would last.
        """
        self._leave_rows()
        self._mark_rows()
        if mark is not None and not self._lasts(()):
            self.write(mark, True)
        remove: dict[int, Write] = {}
        resolves: list[Path] = []
        changed: list[Path] = []
        for prefix in self._fresh:
            _take(
                remove,
                (w for p, writes in self._writes.items() if p[: len(prefix)] == prefix for w in writes),
            )
        for path in self._cut:
            visible = self._visible(path)
            _take(remove, visible)
            if visible:
                changed.append(path)
        adds: list[tuple[Path, Value]] = []
        for path, value in self._values.items():
            visible = self._visible(path)
            if path not in self._forced and path not in self._totals and _stands(visible, value):
                continue
            if path in self._totals:
                _take(remove, (write for write in visible if write.author == self._author))
            else:
                _take(remove, visible)
                apart = len(visible) > 1 and path[-1] != DELETED and path not in self._texts
                if apart and differ(visible):
                    resolves.append(path)
            adds.append((path, value))
            changed.append(path)
        for prefix, marks in self._alive.items():
            if marks and any(path[: len(prefix)] == prefix for path in changed):
                _take(remove, marks)
                resolves.append((*prefix, DELETED))
        add = [Write(path, value, tick(), self._role, self._author) for path, value in adds]
        return list(remove.values()), add, resolves

    def _leave_rows(self) -> None:
        """Rows that were only passed through, to clear what is not there, are not made."""
        for row in self._new_rows - self._asked_rows:
            depth = len(row)
            for path in [path for path in self._values if path[:depth] == row]:
                del self._values[path]
            self._cut = {path for path in self._cut if path[:depth] != row}
            self._fresh = [each for each in self._fresh if each != row]
            if row in self._removals:
                self.write((*row, DELETED), self._removals[row])
        self._new_rows &= self._asked_rows

    def _mark_rows(self) -> None:
        """A new row in which nothing else would last gets a mark."""
        for row in sorted(self._new_rows):
            if not self._lasts(row):
                self.write((*row, ROW_MARK), True)

    def _lasts(self, prefix: Path) -> bool:
        """Whether a single-value field is written there: sets, rows and counters can become empty again."""
        depth = len(prefix) + 1
        return any(
            len(path) == depth and path[:-1] == prefix and value is not None and path not in self._totals
            for path, value in self._values.items()
        )


def _take(remove: dict[int, Write], writes: Iterable[Write]) -> None:
    for write in writes:
        remove[id(write)] = write


def _stands(visible: tuple[Write, ...], value: Value) -> bool:
    """Whether nothing need be written: the value stands there alone, or nothing does and none is wanted."""
    if not visible:
        return value is None
    return len(visible) == 1 and same_value(visible[0].value, value)


def _by_key(elements: Iterable[Value]) -> dict[str, Value]:
    return {element_key(element): element for element in elements}
