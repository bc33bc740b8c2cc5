"""Conditions on fields: made by `field`, joined with `&`, `|` and `~`, plain values without behaviour.

    field("status") == "assigned"
    (field("cost") > 100) & ~field("tags").contains("pm")
    field("scheduled_start").between(monday, friday) | field("scheduled_start").is_null()
    field("parts_used", "seal 1.2", "qty") >= 2

A condition holds or does not hold; there is no third state. A field without a value is less than nothing and
greater than nothing, so `field("cost") < 100` leaves records without a cost out, and `~(field("cost") < 100)`
takes them in. Whether fields exist and values fit them is checked when a query is made of a condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Op = Literal["=", "<", "<=", ">", ">=", "in", "prefix", "contains"]
Path = tuple[str, ...]


class Filter:
    """A condition on one record."""

    __slots__ = ()

    def __and__(self, other: Filter) -> Filter:
        return AllOf((*_parts(AllOf, self), *_parts(AllOf, other)))

    def __or__(self, other: Filter) -> Filter:
        return AnyOf((*_parts(AnyOf, self), *_parts(AnyOf, other)))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError("join conditions with &, | and ~, each in parentheses, not with and, or, not")


@dataclass(frozen=True, slots=True)
class Compare(Filter):
    """A field against a value: for `in` a tuple of values, for `=` with None whether it has no value."""

    path: Path
    op: Op
    value: Any


@dataclass(frozen=True, slots=True)
class AllOf(Filter):
    """All hold; with no parts it always holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf(Filter):
    """One holds at least; with no parts it never holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """It does not hold."""

    part: Filter


ALWAYS: Final = AllOf(())
nothing: Final = AnyOf(())
"""A condition that holds for no record."""


class Field:
    """A field to compare; made by `field`. Each comparison makes a condition, `==` and `!=` too.

    Those two say `Any`, since a type checker wants a bool of them, as `object` has it.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __eq__(self, value: object) -> Any:
        return Compare(self._path, "=", value)

    def __ne__(self, value: object) -> Any:
        return Not(Compare(self._path, "=", value))

    def __lt__(self, value: Any) -> Filter:
        return Compare(self._path, "<", value)

    def __le__(self, value: Any) -> Filter:
        return Compare(self._path, "<=", value)

    def __gt__(self, value: Any) -> Filter:
        return Compare(self._path, ">", value)

    def __ge__(self, value: Any) -> Filter:
        return Compare(self._path, ">=", value)

    def between(self, lowest: Any, highest: Any) -> Filter:
        """Both ends belong to it."""
        return AllOf((Compare(self._path, ">=", lowest), Compare(self._path, "<=", highest)))

    def one_of(self, *values: Any) -> Filter:
        """Equal to one of the values, which are not None."""
        return Compare(self._path, "in", values)

    def is_null(self) -> Filter:
        """The field has no value."""
        return Compare(self._path, "=", None)

    def contains(self, element: Any) -> Filter:
        """For sets and lists: the element is in it."""
        return Compare(self._path, "contains", element)

    def starts_with(self, prefix: str) -> Filter:
        """For text, large and small letters as they are."""
        return Compare(self._path, "prefix", prefix)


def field(*path: str) -> Field:
    """A field by name or dotted path, or by the steps of its path where a row's key has a dot in it."""
    return Field(path_of(path[0] if len(path) == 1 else path))


def path_of(name: str | Path) -> Path:
    """A dotted path as its steps; steps as they are."""
    return tuple(name.split(".")) if isinstance(name, str) else tuple(name)


def filter_of(where: Filter | Mapping[Any, Any] | None) -> Filter:
    """A condition; of a mapping that each field equals its value, or, for sets, contains it."""
    if where is None:
        return ALWAYS
    if isinstance(where, Filter):
        return where
    return AllOf(tuple(Compare(path_of(name), "=", value) for name, value in where.items()))


def comparisons(condition: Filter) -> Iterator[Compare]:
    """Every comparison in a condition."""
    waiting: list[Filter] = [condition]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Compare):
            yield node
        elif isinstance(node, Not):
            waiting.append(node.part)
        elif isinstance(node, (AllOf, AnyOf)):
            waiting += node.parts


def _parts(kind: type[AllOf] | type[AnyOf], condition: Filter) -> Iterable[Filter]:
    if not isinstance(condition, Filter):
        raise TypeError(f"a condition can only be joined with another, not with {type(condition).__name__}")
    return condition.parts if isinstance(condition, kind) else (condition,)
