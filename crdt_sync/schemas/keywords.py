"""Which keywords may stand where in a schema, and what is wrong with those that may not.

JSON Schema tells validators to ignore keywords they do not know. Here an unknown one is a problem: a
misspelt `maxLenght` that silently checks nothing is worse than an error with its line. References are
not supported, so a schema is one self-contained text and loading it never opens a socket or a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from crdt_sync.schemas.sentences import FORMAT_WORDS, TYPE_WORDS
from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync.schemas.yaml_nodes import ListNode, MapNode, Node, Problems, ScalarNode

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

NOTES: Final = frozenset({"title", "description", "$comment", "examples", "deprecated"})
ROOT: Final = frozenset(
    {
        "$schema", "$id", "$comment", "title", "description", "examples", "type", "required",
        "properties", "additionalProperties", "x-type", "x-version", "x-delete", "x-write", "x-parent",
        "x-history", "x-indexes", "x-priority", "x-closed",
    }
)  # fmt: skip
SUBSCHEMA: Final = NOTES | {
    "type", "enum", "const", "format", "pattern", "minLength", "maxLength",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "items", "prefixItems", "contains", "minContains", "maxContains", "minItems", "maxItems", "uniqueItems",
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames",
    "minProperties", "maxProperties", "dependentRequired",
    "allOf", "anyOf", "oneOf", "not", "if", "then", "else",
}  # fmt: skip
FIELD: Final = NOTES | {"type", "default", "x-merge", "x-transitions", "x-aliases", "x-priority"}
"""What every field may have, whatever its shape."""
BY_SHAPE: Final[Mapping[str, frozenset[str]]] = {
    "value": FIELD | SUBSCHEMA | {"contentEncoding", "contentMediaType"},
    "counter": FIELD | {"multipleOf"},
    "text": FIELD | {"minLength", "maxLength"},
    "set": FIELD | {"items", "uniqueItems"},
    "rows": FIELD | {"additionalProperties", "propertyNames"},
}
BYTES: Final = FIELD | {"contentEncoding", "contentMediaType"}
ROW: Final = NOTES | {"type", "properties", "additionalProperties"}

_WHY_NOT: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("$ref", "$defs", "definitions", "$anchor", "$dynamicRef", "$dynamicAnchor"),
        "references are not supported; write it out",
    ),
    **dict.fromkeys(
        ("unevaluatedProperties", "unevaluatedItems", "dependentSchemas", "contentSchema", "$vocabulary"),
        "it is not supported",
    ),
    "x-merge": "a rule belongs to a field, not to a part of its value; use rows to merge the parts",
    "x-transitions": "transitions belong to a field, not to a part of its value",
    "x-aliases": "only a field has a name to be found under",
    "x-priority": "a priority belongs to a field, not to a part of its value",
}
_WHY_NOT_ON: Final[Mapping[str, str]] = {
    "counter": "devices that are apart add to it, so only the type of each amount can be checked",
    "text": "devices that are apart write into it, so only its length can be checked",
    "set": "devices that are apart add to it, so only each element can be checked (under items)",
    "rows": "devices that are apart add rows, so only each row can be checked (under additionalProperties)",
    "bytes": "only the encoding of bytes can be declared",
    "row": "its fields are written one by one",
}

_ONE_SCHEMA: Final = (
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
)
_SCHEMA_LISTS: Final = ("prefixItems", "allOf", "anyOf", "oneOf")
_SCHEMA_MAPS: Final = ("properties", "patternProperties")
_STANDARD: Final = SUBSCHEMA | BY_SHAPE["value"] | ROOT


def check_names(node: MapNode, allowed: frozenset[str], what: str, problems: Problems) -> None:
    """A problem for every keyword that may not stand in `node`; `what` is a key of the reasons or ''."""
    for name, (key, _) in node.entries.items():
        if name in allowed:
            continue
        if name in _STANDARD and what in _WHY_NOT_ON:
            problems.add(key, f"{name} cannot stand here: {_WHY_NOT_ON[what]}")
        elif name in _WHY_NOT:
            problems.add(key, f"{name} cannot stand here: {_WHY_NOT[name]}")
        elif name in ROOT and allowed is not ROOT:
            problems.add(key, f"{name} cannot stand here: it belongs to the record type")
        elif name in _STANDARD:
            problems.add(key, f"{name} cannot stand here: it belongs to a field")
        else:
            # What is nearest of all and may not stand here is no help either.
            near = did_you_mean(name, _STANDARD | allowed)
            meant = near and near == did_you_mean(name, allowed)
            problems.add(key, f"unknown keyword {name!r}{near if meant else ''}")


def check_subschemas(node: MapNode, problems: Problems) -> None:
    """Check the keywords, types and formats of everything inside a field's value."""
    for subschema in _inside(node):
        check_names(subschema, SUBSCHEMA, "", problems)
        read_types(subschema, problems)
        check_format(subschema, problems)
        check_enum(subschema, problems)


def _inside(root: MapNode) -> Iterator[MapNode]:
    waiting: list[MapNode] = [root]
    while waiting:
        node = waiting.pop()
        below: list[Node | None] = [node.get(name) for name in _ONE_SCHEMA]
        for name in _SCHEMA_LISTS:
            members = node.get(name)
            below += members.items if isinstance(members, ListNode) else []
        for name in _SCHEMA_MAPS:
            named = node.get(name)
            below += [value for _, value in named.entries.values()] if isinstance(named, MapNode) else []
        found = [each for each in below if isinstance(each, MapNode)]
        yield from found
        waiting += found


def read_types(node: MapNode, problems: Problems) -> tuple[str, ...]:
    """The JSON types `node` declares; unknown ones are problems and left out."""
    declared = node.get("type")
    if declared is None:
        return ()
    found: list[str] = []
    for member in declared.items if isinstance(declared, ListNode) else [declared]:
        name = member.value if isinstance(member, ScalarNode) else None
        name = "null" if isinstance(member, ScalarNode) and name is None else name
        if isinstance(name, str) and name in TYPE_WORDS:
            found.append(name)
        else:
            near = did_you_mean(name, TYPE_WORDS) if isinstance(name, str) else ""
            said = f"unknown type {name!r}" if isinstance(member, ScalarNode) else "a type must be a word"
            problems.add(member, f"{said}{near or '; the types are ' + ', '.join(TYPE_WORDS)}")
    if isinstance(declared, ListNode) and not declared.items:
        problems.add(declared, "the list of types is empty")
    return tuple(dict.fromkeys(found))


def check_format(node: MapNode, problems: Problems) -> None:
    """A misspelt format would check nothing."""
    declared = node.get("format")
    if isinstance(declared, ScalarNode) and declared.value not in FORMAT_WORDS:
        name = declared.value
        near = did_you_mean(name, FORMAT_WORDS) if isinstance(name, str) else ""
        near = near or f"; the formats are {', '.join(FORMAT_WORDS)}"
        problems.add(declared, f"unknown format {name!r}{near}")


def check_enum(node: MapNode, problems: Problems) -> None:
    """An empty enum allows no value at all; one that says a value twice has a typing error in it."""
    declared = node.get("enum")
    if not isinstance(declared, ListNode):
        return
    if not declared.items:
        problems.add(declared, "the enum is empty, so no value would be allowed")
    seen: set[tuple[type, object]] = set()
    for item in declared.items:
        if isinstance(item, ScalarNode):
            identity = (type(item.value), item.value)
            if identity in seen:
                problems.add(item, f"{item.value!r} stands twice in the enum")
            seen.add(identity)
