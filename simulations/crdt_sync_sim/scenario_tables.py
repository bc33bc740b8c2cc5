"""Getting at the values of a scenario's tables, and remembering every mistake with its line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from crdt_sync_sim.toml_lines import LineIndex, Path

T = TypeVar("T")
Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong. Lines count from 1."""

    source: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.message}"


class ScenarioError(Exception):
    """A scenario that cannot be acted out, with everything wrong in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Tables:
    """Each method takes a value out of a table and puts what is wrong with it on the list.

    `at` is where something stands: names of tables and keys, positions in arrays.
    """

    def __init__(self, lines: LineIndex, source: str) -> None:
        self.problems: list[Problem] = []
        self.source = source
        self._lines = lines

    def table(self, parent: Mapping[str, Any], name: str, known: set[str] | None) -> dict[str, Any]:
        table = self.get(parent, name, dict, {})
        if known is not None:
            self.known(table, known, (name,), name)
        return table

    def get(
        self,
        table: Mapping[str, Any],
        name: str,
        kind: type[T],
        default: T,
        at: Path = (),
    ) -> T:
        value = table.get(name, default)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        self.bad((*at, name), f"{name} must be {_KIND_NAMES[kind]}")
        return default

    def number(
        self,
        table: Mapping[str, Any],
        name: str,
        default: float,
        *,
        low: float = 0,
        high: float = 1e9,
        at: Path = (),
    ) -> float:
        value = table.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.bad((*at, name), f"{name} is a number")
        elif not low <= value <= high:
            self.bad((*at, name), f"{name} is from {low:g} to {high:g}, not {value:g}")
        else:
            return float(value)
        return default

    def optional(self, table: Mapping[str, Any], name: str, at: Path) -> float | None:
        return self.number(table, name, 0.0, at=at) if name in table else None

    def choice(
        self,
        table: Mapping[str, Any],
        name: str,
        choices: tuple[Word, ...],
        default: Word,
        at: Path = (),
    ) -> Word:
        value = self.get(table, name, str, default, at)
        for choice in (*choices, default):
            if value == choice:
                return choice
        self.bad((*at, name), f"{name} is one of {', '.join(choices)}, not {value!r}")
        return default

    def known(self, table: Mapping[str, Any], known: Iterable[str], at: Path, what: str) -> None:
        names = sorted(known)
        for name in table:
            if name not in names:
                self.bad((*at, name), f"{what} has no {name!r}{_nearest(name, names)}")

    def no_such(self, what: str, name: str, known: Iterable[str]) -> str:
        return f"there is no {what} {name!r}{_nearest(name, list(known))}"

    def line(self, at: Path) -> int:
        """On which line it stands, counted from 1."""
        return self._lines.line(*at)

    def bad(self, at: Path, message: str, line: int | None = None) -> None:
        self.problems.append(Problem(self.source, line or self._lines.line(*at), message))


_KIND_NAMES: Final[dict[Any, str]] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known) or 'none'}"
