"""Conditions and orders as SQL over the materialised JSON.

Every value is a parameter. So is every path, but for the top-level fields of the schema, whose names are
letters, digits and `_` by the rules for schemas and checked here again: SQLite only uses an index on an
expression that stands in the query as it stands in the index.

In SQLite's order no value comes first, then numbers, then text. A comparison is between numbers or between
texts only, so `>` with a number has an upper end: the smallest text, ''.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine.checking import Checked, is_moment, json_path
from crdt_sync_client.engine.filters import AllOf, AnyOf, Filter, Not, Path

_PLAIN_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LIKE_A_DATE: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
"""SQLite reads 'now' as a time, too, which no index may depend on."""
_LAST_CHARACTER: Final = 0x10FFFF


class Sql(NamedTuple):
    """A piece of SQL and the values of its question marks."""

    text: str
    params: tuple[Any, ...] = ()


def literal(text: str) -> str:
    """A text in a statement."""
    return "'" + text.replace("'", "''") + "'"


def value_of(path: Path) -> Sql:
    """The value at a path."""
    if len(path) == 1 and _PLAIN_NAME.fullmatch(path[0]):
        return Sql(f"json_extract(json, {literal(json_path(path))})")
    return Sql("json_extract(json, ?)", (json_path(path),))


def key_of(path: Path, *, moment: bool) -> Sql:
    """What a field is compared and ordered by: its value, or for a moment SQLite's number of it."""
    value = value_of(path)
    if not moment:
        return value
    text = f"CASE WHEN {value.text} GLOB '{_LIKE_A_DATE}' THEN julianday(upper({value.text})) END"
    return Sql(text, value.params * 2)


def key_of_field(schema: RecordSchema, path: Path) -> Sql:
    """As `key_of`, by the schema."""
    return key_of(path, moment=is_moment(schema.field_at(path)))


NEVER: Final = Sql("1=0")
"""Holds for no row. A plain 0, like an empty IN, makes SQLite give up a query that names its index."""


def condition(node: Filter) -> Sql:
    """Of a checked condition. It is NULL or 0 where the condition does not hold."""
    if isinstance(node, Checked):
        return _comparison(node)
    if isinstance(node, Not):
        inner = condition(node.part)
        return Sql(f"(({inner.text}) IS NOT TRUE)", inner.params)
    if isinstance(node, AllOf):
        return joined(" AND ", [condition(part) for part in node.parts]) if node.parts else Sql("1")
    if isinstance(node, AnyOf):
        return joined(" OR ", [condition(part) for part in node.parts]) if node.parts else NEVER
    raise TypeError(f"no checked condition: {type(node).__name__}")


def joined(word: str, pieces: list[Sql]) -> Sql:
    """The pieces in parentheses with a word between them."""
    text = word.join(f"({piece.text})" for piece in pieces)
    return Sql(text, tuple(value for piece in pieces for value in piece.params))


def _comparison(node: Checked) -> Sql:
    if node.op == "contains":
        return _contains(node.path, node.value)
    if node.op == "all":
        return _exactly(node.path, node.value)
    if node.value is None:
        value = value_of(node.path)
        return Sql(f"{value.text} IS NULL", value.params)
    key = key_of(node.path, moment=node.moment)
    if node.op == "prefix":
        return _between(key, node.value)
    mark = "julianday(upper(?))" if node.moment else "?"
    if node.op == "in" and not node.value:
        return NEVER
    if node.op == "in":
        marks = ", ".join([mark] * len(node.value))
        return Sql(f"{key.text} IN ({marks})", key.params + node.value)
    if node.op not in ("=", "<", "<=", ">", ">="):
        raise TypeError(f"no comparison: {node.op}")
    text, params = f"{key.text} {node.op} {mark}", (*key.params, node.value)
    if isinstance(node.value, str) and not node.moment and node.op in ("<", "<="):
        return Sql(f"{text} AND {key.text} >= ''", params + key.params)
    if not isinstance(node.value, str) and node.op in (">", ">="):
        return Sql(f"{text} AND {key.text} < ''", params + key.params)
    return Sql(text, params)


def _between(key: Sql, prefix: str) -> Sql:
    """Texts that begin with the prefix: those up to the first that comes after all of them."""
    text, params = f"{key.text} >= ?", (*key.params, prefix)
    after = prefix.rstrip(chr(_LAST_CHARACTER))
    if not after:
        # Nothing comes after; compare the beginnings instead. The empty prefix is that of every text.
        start = Sql(f"{text} AND substr({key.text}, 1, ?) = ?", params + key.params)
        return Sql(start.text, (*start.params, len(prefix), prefix))
    following = ord(after[-1]) + 1
    if 0xD800 <= following <= 0xDFFF:  # halves of surrogate pairs are no characters
        following = 0xE000
    return Sql(f"{text} AND {key.text} < ?", (*params, *key.params, after[:-1] + chr(following)))


def _contains(path: Path, element: Any) -> Sql:
    where = json_path(path)
    return Sql(
        "json_type(json, ?) = 'array' AND"
        " EXISTS (SELECT 1 FROM json_each(records.json, ?) AS e WHERE e.value = ?)",
        (where, where, element),
    )


def _exactly(path: Path, elements: tuple[Any, ...]) -> Sql:
    """A set with these elements and no others."""
    count = Sql("json_array_length(json, ?) = ?", (json_path(path), len(elements)))
    is_list = Sql("json_type(json, ?) = 'array'", (json_path(path),))
    return joined(" AND ", [is_list, count, *(_contains(path, element) for element in elements)])
