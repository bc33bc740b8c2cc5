"""Whether a record that changed can matter to a query: the same conditions, without the database.

A live query asks this of every change, so it must be fast, and it must never say no where the database
would say yes. Where the two could differ (a moment that only one of them can read) it says yes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine.checking import Checked, check_filter, moment_ms, spec_at
from crdt_sync_client.engine.filters import AllOf, AnyOf, Filter, Not, Path, comparisons, filter_of, path_of
from crdt_sync_client.engine.queries import Query

Values = Mapping[str, Any]
Test = Callable[[Values], bool]
_to_json = msgspec.json.Encoder().encode


class _Unsure(Exception):
    """The database may read it otherwise."""


class Matcher:
    """A query's condition and the fields it looks at. Raises ValidationError for what does not fit."""

    def __init__(self, schema: RecordSchema, query: Query) -> None:
        condition = filter_of(query.where)
        self._test = _test(check_filter(schema, condition))
        asked = {each.path[0] for each in comparisons(condition)}
        orders = {path_of(order.field) for order in query.orders}
        for path in orders:
            spec_at(schema, path)
        if "orphaned" in query.states and schema.parent is not None:
            asked.add(schema.parent.field)
        self.deciding: Final = frozenset(asked | {path[0] for path in orders})
        """Fields by which a record comes, goes or moves."""
        self.shown: Final = None if query.fields is None else frozenset(query.fields)
        """Fields that the result shows; None: all."""

    def holds(self, values: Values) -> bool:
        """Whether the condition holds for a record with these values, as the engine has them."""
        try:
            return self._test(values)
        except _Unsure:
            return True


def _test(node: Filter) -> Test:
    if isinstance(node, Checked):
        return _comparison(node)
    if isinstance(node, Not):
        inner = _test(node.part)
        return lambda values: not inner(values)
    assert isinstance(node, (AllOf, AnyOf))
    tests = [_test(part) for part in node.parts]
    if isinstance(node, AllOf):
        return lambda values: all(test(values) for test in tests)
    return lambda values: any(test(values) for test in tests)


def _comparison(node: Checked) -> Test:
    path, op, wanted = node.path, node.op, node.value
    if op in ("contains", "all"):
        elements = (wanted,) if op == "contains" else wanted
        exact = op == "all"

        def contains(values: Values) -> bool:
            found = _at(values, path)
            if not isinstance(found, list) or (exact and len(found) != len(elements)):
                return False
            plain = [_plain(each) for each in found]
            return all(each in plain for each in elements)

        return contains
    if wanted is None:
        return lambda values: _at(values, path) is None
    if node.moment:
        return _moment(node)
    compare = _COMPARE[op]
    of_text = isinstance(wanted, str)

    def holds(values: Values) -> bool:
        found = _plain(_at(values, path))
        if found is None or (op != "in" and isinstance(found, str) != of_text):
            return False
        return compare(found, wanted)

    return holds


def _moment(node: Checked) -> Test:
    path, compare = node.path, _COMPARE[node.op]
    wanted: Any = tuple(moment_ms(each) for each in node.value) if node.op == "in" else None
    if wanted is None and node.op != "prefix":
        wanted = moment_ms(node.value)

    def holds(values: Values) -> bool:
        found = _at(values, path)
        if found is None:
            return False
        try:
            return compare(moment_ms(found), wanted)
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise _Unsure from None

    return holds


_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": lambda a, b: bool(a == b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
    "in": lambda a, b: a in b,
    "prefix": lambda a, b: a.startswith(b) is True,
}


def _at(values: Values, path: Path) -> Any:
    found: Any = values
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _plain(value: Any) -> Any:
    """As SQLite's JSON functions give it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, dict)):
        return _to_json(value).decode()
    return value
