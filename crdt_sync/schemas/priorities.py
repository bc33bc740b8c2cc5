"""`x-priority`: what of a record type's unsent work goes to the relay first.

    x-priority: 6                       # on the record type: 1 goes first, 10 last; 5 without it
    properties:
      status: {x-priority: {completed: 3}}      # a value that is more urgent than others
      parts_used: {x-priority: 4}               # whatever is written to this field

A write is as urgent as the most urgent of what it assigns; a field or value that says nothing counts as the
record type does. Priorities only order what waits on one device: they never decide a merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from crdt_sync.errors import ValidationError
from crdt_sync.records.writes import Write
from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync.schemas.yaml_nodes import ListNode, MapNode, Node, Problems, ScalarNode, plain

FIRST: Final = 1
LAST: Final = 10
USUAL: Final = 5
"""A standard update of a work order, by the table this comes from."""

_HOW: Final = f"x-priority must be a whole number from {FIRST}, which goes first, to {LAST}"


@dataclass(frozen=True, slots=True)
class Priorities:
    """`record` is that of the type; `fields` those of fields that have one, or one for some values."""

    record: int = USUAL
    fields: Mapping[str, int | Mapping[str, int]] | None = None

    def of(self, writes: Iterable[Write]) -> int:
        """How urgent an edit with these writes is."""
        if self.fields is None:
            return self.record
        urgent = LAST + 1
        for write in writes:
            own = self.fields.get(write.path[0], self.record)
            if not isinstance(own, int):
                own = own.get(write.value, self.record) if type(write.value) is str else self.record
            urgent = min(urgent, own)
        return urgent if urgent <= LAST else self.record


AS_USUAL: Final = Priorities()


def check_priority(priority: Any) -> int:
    """A priority that an app or a person gave. Raises ValidationError."""
    if type(priority) is int and FIRST <= priority <= LAST:
        return priority
    raise ValidationError(
        "priority", f"is a whole number from {FIRST}, which goes first, to {LAST}", hint="5 is the usual one"
    )


def read_priorities(root: MapNode, problems: Problems) -> Priorities:
    """What `x-priority` says on the type and on its fields."""
    node = root.get("x-priority")
    record = USUAL if node is None else _number(node, problems)
    fields: dict[str, int | Mapping[str, int]] = {}
    properties = root.get("properties")
    for name, (_, field) in (properties.entries if isinstance(properties, MapNode) else {}).items():
        if isinstance(field, MapNode):
            own = field.get("x-priority")
            if own is not None:
                fields[name] = (
                    _by_value(field, own, problems) if isinstance(own, MapNode) else _number(own, problems)
                )
            _refuse_in_rows(field, problems)
    return Priorities(record, fields or None)


def _number(node: Node, problems: Problems) -> int:
    if isinstance(node, ScalarNode) and type(node.value) is int and FIRST <= node.value <= LAST:
        return node.value
    problems.add(node, _HOW)
    return USUAL


def _by_value(field: MapNode, node: MapNode, problems: Problems) -> Mapping[str, int]:
    enum = field.get("enum")
    values = [each for each in plain(enum) if isinstance(each, str)] if isinstance(enum, ListNode) else None
    kind = field.get("type")
    if not isinstance(kind, ScalarNode) or kind.value != "string":
        problems.add(node, "only the values of a field of type string can have a priority each")
    found: dict[str, int] = {}
    for value, (key, number) in node.entries.items():
        if values is not None and value not in values:
            problems.add(
                key, f"x-priority names {value!r}, which is not in the enum{did_you_mean(value, values)}"
            )
        found[value] = _number(number, problems)
    return found


def _refuse_in_rows(field: MapNode, problems: Problems) -> None:
    row = field.get("additionalProperties")
    inside = row.get("properties") if isinstance(row, MapNode) else None
    for _, below in (inside.entries if isinstance(inside, MapNode) else {}).values():
        if isinstance(below, MapNode):
            if below.get("x-priority") is not None:
                problems.add(
                    below.key_node("x-priority"),
                    "x-priority cannot stand here: a field of the record has one, not a field of its rows",
                )
            _refuse_in_rows(below, problems)
