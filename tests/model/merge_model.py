"""What merging must come to, in plain Python: a second account of docs/merge-rules.md, shared with nobody.

It knows operations, and of each operation which others its author had seen. There are no arrays here, no
contexts and no tombstones, and it imports nothing of the product. What a person did is a list of *atoms*,
each at a path:

    value     a field was given a value           element   an element was put into a set
    total     an author's running count           text      words were put into a text, or taken out
    mark      the row, or the record, is there    gone      it was removed

An atom *stands* in what a device has seen unless an operation in there, whose author had seen the atom,
replaced it. Everything else is said about the standing atoms: which value is shown, what is a conflict, what
is deleted.

Sets of seen operations are closed: with an operation, everything its author had seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str, ...]
Who: TypeAlias = tuple[bytes, int]
"""Device and life of its store."""
Seen: TypeAlias = "frozenset[Op]"

GONE = "$deleted"
ROW = "$row"
RECORD = "$record"
MARKS = frozenset({ROW, RECORD})


@dataclass(frozen=True)
class Field:
    """A field's rule. `words` are the roles or values that its option names, `row` the fields of its rows."""

    rule: str
    option: str = ""
    words: tuple[str, ...] = ()
    row: dict[str, Field] | None = None


@dataclass(eq=False)
class Atom:
    op: Op
    kind: str
    path: Path
    value: Any
    time: int = 0
    replaced_by: list[Op] = field(default_factory=list)

    @property
    def id(self) -> tuple[Who, int]:
        return (self.op.who, self.time)

    @property
    def clock(self) -> tuple[int, Who]:
        return (self.time, self.op.who)


@dataclass(eq=False)
class Op:
    """What one person did at once, having seen `seen`."""

    number: int
    who: Who
    role: str
    seen: Seen
    atoms: list[Atom] = field(default_factory=list)
    anew: list[Path] = field(default_factory=list)
    """Rows (or the record) that were gone and begin again here: nothing that was seen of them stays."""
    outlived: list[Path] = field(default_factory=list)
    """Rows, elements (or the record) that this goes on with against removals it had seen."""
    emptied: list[Path] = field(default_factory=list)
    """Elements that were taken out, counters that were cleared."""
    refused: bool = False

    def __bool__(self) -> bool:
        return bool(self.atoms or self.emptied)

    def add(self, kind: str, path: Path, value: Any = None) -> None:
        self.atoms.append(Atom(self, kind, path, value))

    def replaces(self, atom: Atom) -> bool:
        """Of an atom that was seen: whether it ends here."""
        if any(atom.path[: len(prefix)] == prefix for prefix in self.anew) or atom.path in self.emptied:
            return True
        if atom.kind == "gone" and atom.path[:-1] in self.outlived:
            return True
        return any(
            own.path == atom.path and (atom.kind != "total" or atom.op.who == self.who) for own in self.atoms
        )

    def done(self) -> None:
        """Tell every atom that this replaces."""
        for op in self.seen:
            for atom in op.atoms:
                if self.replaces(atom):
                    atom.replaced_by.append(self)


@dataclass(frozen=True)
class Clash:
    """A conflict as the model sees it."""

    path: Path
    kind: str
    alternatives: frozenset[tuple[Who, int]]
    winner: tuple[Who, int]


class Sight:
    """What a device that has seen these operations should show."""

    def __init__(self, fields: dict[str, Field], delete_rule: str, seen: Seen) -> None:
        self.fields = fields
        self.delete_rule = delete_rule
        self.seen = seen
        self.at: dict[Path, list[Atom]] = {}
        for op in seen:
            for atom in op.atoms:
                if not any(later in seen for later in atom.replaced_by):
                    self.at.setdefault(atom.path, []).append(atom)

    # What is there ----------------------------------------------------------------------------------

    def standing(self, path: Path) -> list[Atom]:
        return self.at.get(path, [])

    def under(self, prefix: Path) -> list[Atom]:
        own = (*prefix, GONE)
        depth = len(prefix)
        return [a for path, atoms in self.at.items() if path[:depth] == prefix and path != own for a in atoms]

    def unseen(self, prefix: Path) -> list[Atom]:
        """What stands there and was seen by none of the removals that stand against it."""
        removals = self.standing((*prefix, GONE))
        return [a for a in self.under(prefix) if not any(a.op in removal.op.seen for removal in removals)]

    def gone(self, prefix: Path, rule: str) -> bool:
        removals = self.standing((*prefix, GONE))
        if not self.under(prefix):
            return True
        return bool(removals) and (rule == "delete_wins" or not self.unseen(prefix))

    @property
    def exists(self) -> bool:
        return any(path != (GONE,) for path in self.at)

    @property
    def deleted(self) -> bool:
        return bool(self.standing((GONE,))) and self.gone((), self.delete_rule)

    @property
    def disputed(self) -> bool:
        return self.delete_rule == "manual" and bool(self.standing((GONE,))) and not self.deleted

    # Values -----------------------------------------------------------------------------------------

    def values(self) -> dict[str, Any]:
        return self._values((), self.fields)

    def _values(self, prefix: Path, fields: dict[str, Field]) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for name, spec in fields.items():
            path = (*prefix, name)
            if spec.rule == "rows":
                rows = {key: self._values((*path, key), spec.row or {}) for key in self._rows(path, spec)}
                shown[name] = rows
            elif spec.rule == "set":
                shown[name] = sorted(self.elements(path, spec))
            elif spec.rule == "counter":
                shown[name] = sum(atom.value for atom in self.standing(path))
            elif spec.rule == "text":
                if self.standing(path):
                    shown[name] = None if self.is_cleared(path) else self.words(path)
            elif self.standing(path):
                shown[name] = choose(spec, self.standing(path)).value
        return shown

    def _rows(self, path: Path, spec: Field) -> list[str]:
        depth = len(path)
        keys = {each[depth] for each in self.at if len(each) > depth + 1 and each[:depth] == path}
        return sorted(key for key in keys if not self.gone((*path, key), row_rule(spec)))

    def elements(self, path: Path, spec: Field) -> list[str]:
        """Everything that was added and that nobody who had seen it took out."""
        here = {each[-1] for each in self.at if len(each) == len(path) + 1 and each[:-1] == path}
        if spec.option == "remove_wins":
            here = {key for key in here if not self.standing((*path, key, GONE))}
        return [json.loads(key) for key in here]

    def words(self, path: Path) -> frozenset[str]:
        """Every word that somebody put there and nobody took out."""
        texts = [atom.value for atom in self.standing(path)]
        there = frozenset[str]().union(*(known for known, _, _ in texts))
        return there.difference(*(taken for _, taken, _ in texts))

    def is_cleared(self, path: Path) -> bool:
        """Nothing is left of a text because it was cleared: that is not the text without words."""
        return not self.words(path) and all(
            cleared for _, _, cleared in (a.value for a in self.standing(path))
        )

    # Conflicts --------------------------------------------------------------------------------------

    def clashes(self) -> set[Clash]:
        found = [] if self.deleted else list(self._clashes((), self.fields))
        return {*found, *self._removal((), self.delete_rule)}

    def _clashes(self, prefix: Path, fields: dict[str, Field]) -> Iterator[Clash]:
        for name, spec in fields.items():
            path = (*prefix, name)
            depth = len(path)
            if spec.rule == "rows":
                for key in {
                    each[depth] for each in self.at if len(each) > depth + 1 and each[:depth] == path
                }:
                    yield from self._removal((*path, key), row_rule(spec))
                    if not self.gone((*path, key), row_rule(spec)):
                        yield from self._clashes((*path, key), spec.row or {})
            elif spec.rule == "set":
                for each in list(self.at):
                    if len(each) == depth + 1 and each[:-1] == path:
                        yield from self._removal(each, "delete_wins")
            elif spec.rule not in ("counter", "text"):
                atoms = self.standing(path)
                if len({exact(atom.value) for atom in atoms}) > 1:
                    kind = "open" if spec.rule in ("manual", "once") else "auto"
                    yield clash(path, kind, atoms, choose(spec, atoms))

    def _removal(self, prefix: Path, rule: str) -> Iterator[Clash]:
        removals, edits = self.standing((*prefix, GONE)), self.unseen(prefix)
        if removals and edits:
            winner = max(removals if rule == "delete_wins" else edits, key=by_clock)
            kind = "open" if rule == "manual" else "auto"
            yield clash((*prefix, GONE), kind, [*removals, *edits], winner)


def clash(path: Path, kind: str, atoms: Iterable[Atom], winner: Atom) -> Clash:
    return Clash(path, kind, frozenset(atom.id for atom in atoms), winner.id)


def by_clock(atom: Atom) -> Any:
    return atom.clock


def row_rule(spec: Field) -> str:
    return "delete_wins" if spec.option == "remove_wins" else "edit_wins"


def exact(value: Any) -> tuple[str, Any]:
    """`1`, `1.0` and `True` are three values."""
    return (type(value).__name__, value)


# The rules, each as a sentence about a list ----------------------------------------------------------


def choose(spec: Field, atoms: list[Atom]) -> Atom:
    """The one that is shown."""
    by_role: list[tuple[str, ...]] = []
    if spec.rule == "client_wins":
        by_role = [("field",)]
    elif spec.rule == "server_wins":
        by_role = [("office", "supervisor"), ("admin",)]
    elif spec.option == "prefer":
        by_role = [(role,) for role in spec.words]
    for roles in by_role:
        preferred = [atom for atom in atoms if atom.op.role in roles]
        if preferred:
            return max(preferred, key=by_clock)
    if spec.option == "order":
        for value in reversed(spec.words):
            furthest = [atom for atom in atoms if atom.value == value]
            if furthest:
                return max(furthest, key=by_clock)
    if spec.rule == "once":
        return min([atom for atom in atoms if atom.value is not None] or atoms, key=by_clock)
    if spec.rule in ("max", "min"):
        compared = [atom for atom in atoms if atom.value is not None]
        if compared:
            best = (max if spec.rule == "max" else min)(measure(atom.value) for atom in compared)
            return max((atom for atom in compared if measure(atom.value) == best), key=by_clock)
    return max(atoms, key=by_clock)


def measure(value: Any) -> float:
    if not isinstance(value, str):
        return float(value)
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# What people do --------------------------------------------------------------------------------------


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
