"""What people do to a record, as the model sees it: from a wish to the atoms of an operation.

Whoever does something has seen what stands there, so it replaces that. Whoever writes in a row that is gone
begins it anew. Nothing is written that stands there already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.model.merge_model import (
    GONE,
    RECORD,
    ROW,
    Atom,
    Field,
    Op,
    Path,
    Seen,
    Sight,
    Who,
    choose,
    exact,
    row_rule,
)


@dataclass(frozen=True)
class Count:
    by: float


@dataclass(frozen=True)
class Put:
    element: str


@dataclass(frozen=True)
class Take:
    element: str


@dataclass(frozen=True)
class Words:
    """A text in which these words are new and those are gone."""

    new: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()


class Doing:
    """One operation in the making."""

    def __init__(self, sight: Sight, op: Op) -> None:
        self.sight = sight
        self.op = op
        self.alive: dict[Path, bool] = {}
        """Rows passed through, and whether they were there."""

    def edit(self, changes: Iterable[tuple[Path, Any]]) -> None:
        if not self.sight.exists or self.sight.deleted:
            self.op.refused = True
            return
        for path, change in changes:
            self._change(path, change)
        self._go_on()

    def create(self, values: dict[str, Any]) -> None:
        if self.sight.exists and not self.sight.deleted:
            self.op.refused = True
            return
        self.op.anew.append(())
        for name, value in values.items():
            self.op.add("value", (name,), value)
        if not values:
            self.op.add("mark", (RECORD,), True)

    def delete(self) -> None:
        if self.sight.exists and not self.sight.deleted:
            self.op.add("gone", (GONE,))

    def restore(self) -> None:
        if not self.sight.exists:
            self.op.refused = True
        elif self.sight.deleted or self.sight.disputed:
            self.op.add("mark", (RECORD,), True)
            self.op.outlived.append(())

    def resolve(self, path: Path, value: Any, *, gone: bool) -> None:
        """Decide a conflict: by a value, or whether what was removed and edited is gone."""
        prefix = path[:-1]
        if path[-1] != GONE:
            self._change(path, value, decided=True)
            self._go_on()
        elif path == (GONE,):
            if gone:
                self.op.add("gone", path)
            else:
                self.op.add("mark", (RECORD,), True)
                self.op.outlived.append(())
        elif gone:
            self.op.emptied += [prefix] if self.sight.standing(prefix) else []
            self.op.add("gone", path)
            self._go_on()
        else:
            self.op.outlived.append(prefix)
            adds = self.sight.standing(prefix)
            self.op.add(
                "element" if adds else "mark",
                prefix if adds else (*prefix, ROW),
                adds[0].value if adds else True,
            )
            self._go_on()

    def _go_on(self) -> None:
        """Whoever changes something in what came back against a removal goes on with it, unless disputed."""
        places = [*self.alive] if self.sight.delete_rule == "manual" else [(), *self.alive]
        for prefix in places:
            changed = (*(atom.path for atom in self.op.atoms), *self.op.emptied)
            if any(path[: len(prefix)] == prefix and path != (*prefix, GONE) for path in changed):
                self.op.outlived.append(prefix)

    def _change(self, path: Path, change: Any, *, decided: bool = False) -> None:
        """Go down through the rows. One that is gone begins anew if something comes to be written in it."""
        spec = self.sight.fields[path[0]]
        missing: list[Path] = []
        place = path[:1]
        while len(place) < len(path):
            row = path[: len(place) + 1]
            there = not missing and not self.sight.gone(row, row_rule(spec))
            if row == path and change is None:
                if there:
                    self.op.add("gone", (*row, GONE))
                return
            if there:
                self.alive[row] = True
            else:
                missing.append(row)
            if row == path:
                break
            spec = (spec.row or {})[path[len(row)]]
            place = path[: len(row) + 1]
        before = len(self.op.atoms), len(self.op.emptied)
        if place == path:
            self._leaf(spec, path, change, decided=decided, afresh=bool(missing))
        if place != path or before != (len(self.op.atoms), len(self.op.emptied)):
            self._make(missing)

    def _make(self, missing: list[Path]) -> None:
        self.op.anew += missing
        for row in missing:
            inside = [atom for atom in self.op.atoms if atom.path[:-1] == row]
            if not any(atom.kind in ("value", "text") and atom.value is not None for atom in inside):
                self.op.add("mark", (*row, ROW), True)

    def _leaf(self, spec: Field, path: Path, change: Any, *, decided: bool, afresh: bool) -> None:
        here = [] if afresh else self.sight.standing(path)
        if spec.rule == "set":
            self._change_set(spec, path, change, afresh)
        elif spec.rule == "counter":
            self._count(path, change, here)
        elif spec.rule == "text":
            self._type(path, change, here)
        elif spec.rule == "once" and not (decided and len(here) > 1) and self._is_filled(spec, here, change):
            self.op.refused = True
        elif len(here) > 1 or (exact(here[0].value) != exact(change) if here else change is not None):
            self.op.add("value", path, change)

    def _is_filled(self, spec: Field, here: list[Atom], change: Any) -> bool:
        shown = choose(spec, here).value if here else None
        if shown is None or self.op.role in spec.words:
            return False
        return {exact(atom.value) for atom in here} != {exact(change)}

    def _change_set(self, spec: Field, path: Path, change: Any, afresh: bool) -> None:
        shown = [] if afresh else self.sight.elements(path, spec)
        if isinstance(change, Put):
            wanted = {*shown, change.element}
        elif isinstance(change, Take):
            wanted = {*shown} - {change.element}
        else:
            wanted = {*(change or ())}
        for element in sorted(wanted - {*shown}):
            self.op.add("element", (*path, json.dumps(element)), element)
            self.op.outlived.append((*path, json.dumps(element)))
        for element in sorted({*shown} - wanted):
            self.op.emptied.append((*path, json.dumps(element)))
            if spec.option == "remove_wins":
                self.op.add("gone", (*path, json.dumps(element), GONE))

    def _count(self, path: Path, change: Any, here: list[Atom]) -> None:
        if change is None:
            self.op.emptied += [path] if here else []
            return
        by = change.by if isinstance(change, Count) else change - sum(atom.value for atom in here)
        own = sum(atom.value for atom in here if atom.op.who == self.op.who)
        if by or not here:
            self.op.add("total", path, own + by)

    def _type(self, path: Path, change: Any, here: list[Atom]) -> None:
        cleared = change is None
        if cleared and (not here or self.sight.is_cleared(path)):
            return
        if cleared:
            change = Words(taken=self.sight.words(path))
        known, taken = change.new, change.taken
        if here:
            known = known.union(*(atom.value[0] for atom in here))
            taken = taken.union(*(atom.value[1] for atom in here))
        self.op.add("text", path, (known, taken, cleared))


Act: TypeAlias = Callable[[Doing], None]


class Model:
    """All operations of one record there ever were."""

    def __init__(self, fields: dict[str, Field], delete_rule: str) -> None:
        self.fields = fields
        self.delete_rule = delete_rule
        self.ops: list[Op] = []

    def sight(self, seen: Seen) -> Sight:
        return Sight(self.fields, self.delete_rule, seen)

    def do(self, who: Who, role: str, seen: Seen, act: Act) -> Op:
        """What somebody does who has seen this much. It counts once it is `settled`."""
        op = Op(len(self.ops), who, role, seen)
        act(Doing(self.sight(seen), op))
        if op.refused:
            op.atoms, op.emptied = [], []
        return op

    def settle(self, op: Op, times: dict[Path, int]) -> None:
        """It was done, and its atoms were given these times."""
        for atom in op.atoms:
            atom.time = times[atom.path]
        op.done()
        self.ops.append(op)

    @staticmethod
    def closed(ops: Iterable[Op]) -> Seen:
        """These operations with everything that their authors had seen."""
        return frozenset().union(*(op.seen | {op} for op in ops))
