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
from collections.abc import Iterable, Iterator
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
