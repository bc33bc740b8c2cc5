"""`x-closed`: when a record is done with, and how long devices keep it then.

    x-closed: {field: status, values: [closed, cancelled], keep_days: 90}

A record whose field has had one of these values for that many days leaves the devices by itself, not the
space: who opens it fetches it again. Without `keep_days` it is 90; 0 is for good. A record that is deleted
goes like one that is closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync.schemas.yaml_nodes import ListNode, MapNode, Node, Problems, ScalarNode

if TYPE_CHECKING:
    from crdt_sync.schemas.model import FieldSpec

    Fields = Mapping[str, FieldSpec]

KEEP_DAYS: Final = 90
"""As the maintenance app keeps closed work orders on a tablet."""
MAX_KEEP_DAYS: Final = 36_500
_HOW: Final = "x-closed is a mapping such as {field: status, values: [closed], keep_days: 90}"


@dataclass(frozen=True, slots=True)
class Closed:
    """The field that says so, and its values that do; days until devices let the record go, 0 for never."""

    field: str
    values: tuple[str | int | bool, ...]
    keep_days: int = KEEP_DAYS


def read_closed(root: MapNode, fields: Fields, problems: Problems) -> Closed | None:
    """What `x-closed` says; None without it."""
    node = root.get("x-closed")
    if node is None:
        return None
    if not isinstance(node, MapNode):
        problems.add(node, _HOW)
        return None
    for name, (key, _) in node.entries.items():
        if name not in ("field", "values", "keep_days"):
            near = did_you_mean(name, ("field", "values", "keep_days"))
            problems.add(key, f"x-closed has no {name!r}{near}")
    field = _field(node, node.get("field"), fields, problems)
    values = _values(node, node.get("values"), fields[field], problems) if field else ()
    days = node.get("keep_days")
    keep_days = KEEP_DAYS
    if days is not None:
        if isinstance(days, ScalarNode) and type(days.value) is int and 0 <= days.value <= MAX_KEEP_DAYS:
            keep_days = days.value
        else:
            problems.add(days, f"keep_days is a whole number from 0, which is for good, to {MAX_KEEP_DAYS}")
    return Closed(field, values, keep_days) if field else None


def _field(node: MapNode, given: Node | None, fields: Fields, problems: Problems) -> str:
    name = given.value if isinstance(given, ScalarNode) else None
    if not isinstance(name, str):
        problems.add(given or node, f"the field that says a record is closed is missing; {_HOW}")
    elif name not in fields:
        near = did_you_mean(name, fields)
        problems.add(given or node, f"x-closed names {name!r}, which is not in properties{near}")
    elif fields[name].shape != "value":
        problems.add(given or node, f"{name} has no single value, so it cannot say that a record is closed")
    else:
        return name
    return ""


def _values(
    node: MapNode, given: Node | None, field: FieldSpec, problems: Problems
) -> tuple[str | int | bool, ...]:
    if not isinstance(given, ListNode) or not given.items:
        problems.add(given or node, f"the values by which a record is closed are missing; {_HOW}")
        return ()
    found: list[str | int | bool] = []
    known = field.json_schema.get("enum")
    for item in given.items:
        value = item.value if isinstance(item, ScalarNode) else None
        if not isinstance(value, (str, int)):
            problems.add(item, "a value by which a record is closed is a text, a whole number, true or false")
        elif isinstance(known, list) and value not in known:
            near = did_you_mean(value, known) if isinstance(value, str) else ""
            problems.add(item, f"x-closed names {value!r}, which is not in the enum{near}")
        else:
            found.append(value)
    return tuple(found)
