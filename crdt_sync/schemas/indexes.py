"""`x-indexes`: by which fields devices find records of a type fast.

    x-indexes: [status, [asset_id, scheduled_start]]

Each entry is a field or a list of fields: the first ones for conditions, what follows for the order. An
index costs a little with every write of a record of the type, so none is made that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync.schemas.yaml_nodes import ListNode, MapNode, Node, Problems, ScalarNode

if TYPE_CHECKING:
    from crdt_sync.schemas.model import FieldSpec

Indexes = tuple[tuple[str, ...], ...]

MAX_INDEXES: Final = 16
"""Of one type: each is a few pages more to write with every change of a record."""
MAX_INDEX_FIELDS: Final = 4
_HOW: Final = "x-indexes must be a list of fields or lists of fields, such as [status, [asset_id, due_on]]"
_WHY_NOT: Final[Mapping[str, str]] = {
    "set": "is a set: an index finds records by one value",
    "rows": "has rows: an index finds records by one value",
    "text": "is text that people edit together; index a field with one value",
}


def read_indexes(root: MapNode, fields: Mapping[str, FieldSpec], problems: Problems) -> Indexes:
    """The indexes a schema asks for, each a tuple of field names; none without the keyword."""
    node = root.get("x-indexes")
    if node is None:
        return ()
    if not isinstance(node, ListNode):
        problems.add(node, _HOW)
        return ()
    if len(node.items) > MAX_INDEXES:
        problems.add(node, f"x-indexes may have {MAX_INDEXES} entries, not {len(node.items)}")
    properties = root.get("properties")
    declared: Collection[str] = properties.entries if isinstance(properties, MapNode) else ()
    found: dict[tuple[str, ...], None] = {}
    for item in node.items:
        names = _read_one(item, fields, declared, problems)
        if names and names in found:
            problems.add(item, f"x-indexes has {', '.join(names)} twice")
        found[names] = None
    return tuple(names for names in found if names)


def _read_one(
    item: Node, fields: Mapping[str, FieldSpec], declared: Collection[str], problems: Problems
) -> tuple[str, ...]:
    members = item.items if isinstance(item, ListNode) else [item]
    if not members:
        problems.add(item, "an index needs a field")
    if len(members) > MAX_INDEX_FIELDS:
        problems.add(item, f"an index may have {MAX_INDEX_FIELDS} fields, not {len(members)}")
    names: list[str] = []
    for member in members:
        name = member.value if isinstance(member, ScalarNode) else None
        if not isinstance(name, str):
            problems.add(member, _HOW)
        elif name not in declared:
            near = did_you_mean(name, declared)
            problems.add(member, f"x-indexes names {name!r}, which is not in properties{near}")
        elif name in names:
            problems.add(member, f"{name} stands twice in one index")
        else:
            _check_field(member, name, fields.get(name), problems)
            names.append(name)
    return tuple(names)


def _check_field(node: Node, name: str, spec: FieldSpec | None, problems: Problems) -> None:
    if spec is None:  # its own problem is told where it stands
        return
    if spec.is_bytes:
        problems.add(node, f"{name} holds bytes and cannot be in an index")
    elif spec.shape in _WHY_NOT:
        problems.add(node, f"{name} {_WHY_NOT[spec.shape]}")
    elif spec.types and not set(spec.types) & {"string", "number", "integer", "boolean"}:
        problems.add(node, f"{name} holds no single values and cannot be in an index")
