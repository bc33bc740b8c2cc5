"""From the YAML text of a schema to a `RecordSchema`, with every problem by line and column.

A schema is JSON Schema 2020-12 with these keywords of our own, so that editors and validators
understand it:

- on the record type: `x-type` (its name), `x-version`, `x-delete`, `x-write`, `x-parent`,
  `x-history`, `x-indexes`, `x-priority`, `x-closed`;
- on a field: `x-merge` (a rule's name, or `rule:` with its options), `x-transitions`, `x-aliases`,
  `x-priority`.

All problems of a file are collected, not only the first; loading raises `SchemaError` and nothing else.
It knows no files: the caller brings the text and says where it came from.
"""

from __future__ import annotations

from typing import Any, Final

import jsonschema_rs

from crdt_sync.errors import SchemaError
from crdt_sync.schemas import keywords, policies, yaml_nodes
from crdt_sync.schemas.closing import read_closed
from crdt_sync.schemas.field_reader import read_fields
from crdt_sync.schemas.indexes import read_indexes
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync.schemas.priorities import read_priorities
from crdt_sync.schemas.sentences import keyword_sentence
from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync.schemas.yaml_nodes import ListNode, MapNode, Node, Problems, ScalarNode

_META: Final = jsonschema_rs.Draft202012Validator(
    {"$ref": keywords.DRAFT}, offline=True, validate_formats=True
)
"""The schema of schemas: what the keywords of JSON Schema may hold."""


def load_schema(text: str, *, source: str) -> RecordSchema:
    """The record type that `text` declares; `source` names the text in problems (a path, usually).

    Raises SchemaError with all problems, sorted by line.
    """
    problems = Problems(source)
    root = yaml_nodes.read(text, problems)
    schema = _read_root(root, text, problems) if root is not None else None
    if problems.found or schema is None:
        raise SchemaError(sorted(set(problems.found)))
    return schema


def without_comments(text: str) -> str:
    """The schema's text without comment lines and empty lines, for the way to other devices.

    Lines in a block of prose may look like comments: when leaving them out would change what the text
    says, or the text cannot be read, it comes back as it is.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    shorter = "\n".join(lines) + "\n"
    before, after = (yaml_nodes.read(each, Problems("")) for each in (text, shorter))
    if before is None or after is None or yaml_nodes.plain(before) != yaml_nodes.plain(after):
        return text
    return shorter


def _read_root(root: Node, text: str, problems: Problems) -> RecordSchema | None:
    if not isinstance(root, MapNode):
        problems.add(root, "a schema is a mapping of keywords, such as `x-type: work_order`")
        return None
    keywords.check_names(root, keywords.ROOT, "", problems)
    _check_root_constants(root, problems)
    record_type = _read_type_name(root, problems)
    version = _read_version(root, problems)
    write_roles = policies.read_write_roles(root, problems)
    delete = policies.read_delete(root, write_roles, problems)
    fields = _read_properties(root, problems)
    parent = policies.read_parent(root, fields, problems)
    history = policies.read_history(root, problems)
    indexes = read_indexes(root, fields, problems)
    priorities = read_priorities(root, problems)
    closed = read_closed(root, fields, problems)
    _check_against_meta(root, problems)
    if problems.found:
        return None
    return RecordSchema(
        type=record_type,
        version=version,
        title=_note(root, "title") or record_type,
        fields=fields,
        delete=delete,
        text=text,
        source=problems.source,
        write_roles=write_roles,
        parent=parent,
        history=history,
        indexes=indexes,
        priorities=priorities,
        closed=closed,
        description=_note(root, "description"),
        comment=_note(root, "$comment"),
    )


def _note(root: MapNode, keyword: str) -> str:
    node = root.get(keyword)
    return str(node.value) if isinstance(node, ScalarNode) else ""


def _check_root_constants(root: MapNode, problems: Problems) -> None:
    draft = root.get("$schema")
    if draft is not None and not (isinstance(draft, ScalarNode) and draft.value == keywords.DRAFT):
        problems.add(draft, f"$schema must be {keywords.DRAFT}")
    kind = root.get("type")
    if kind is not None and not (isinstance(kind, ScalarNode) and kind.value == "object"):
        problems.add(kind, "a record's type must be object")
    others = root.get("additionalProperties")
    if others is not None and not (isinstance(others, ScalarNode) and others.value is False):
        problems.add(others, "additionalProperties can only be false: a record has the fields it declares")


def _read_type_name(root: MapNode, problems: Problems) -> str:
    node = root.get("x-type")
    if node is None:
        problems.add(root, "x-type is missing: the name of the record type, such as work_order")
    elif not isinstance(node, ScalarNode) or not isinstance(node.value, str):
        problems.add(node, "x-type must be a name, such as work_order")
    elif not policies.TYPE_NAME.fullmatch(node.value):
        problems.add(
            node, "x-type must be in snake case: a letter, then letters a-z, digits and _, at most 64 in all"
        )
    else:
        return node.value
    return ""


def _read_version(root: MapNode, problems: Problems) -> int:
    node = root.get("x-version")
    if node is None:
        return 1
    if isinstance(node, ScalarNode) and type(node.value) is int and 0 < node.value < 2**31:
        return node.value
    problems.add(node, "x-version must be a whole number from 1")
    return 1


def _read_properties(root: MapNode, problems: Problems) -> dict[str, FieldSpec]:
    node = root.get("properties")
    if node is None:
        problems.add(root, "properties is missing: the fields of the record type")
        return {}
    if not isinstance(node, MapNode) or not node.entries:
        problems.add(node, "properties must be a mapping of field names to their schemas")
        return {}
    required = _read_required(root.get("required"), node, problems)
    return read_fields(node, required, problems)


def _read_required(node: Node | None, properties: MapNode, problems: Problems) -> frozenset[str]:
    if node is None:
        return frozenset()
    if not isinstance(node, ListNode):
        problems.add(node, "required must be a list of field names, such as [title]")
        return frozenset()
    names: set[str] = set()
    for item in node.items:
        name = item.value if isinstance(item, ScalarNode) else None
        if not isinstance(name, str):
            problems.add(item, "required must be a list of field names, such as [title]")
        elif name not in properties.entries:
            near = did_you_mean(name, properties.entries)
            problems.add(item, f"required names {name!r}, which is not in properties{near}")
        else:
            names.add(name)
    return frozenset(names)


def _check_against_meta(root: MapNode, problems: Problems) -> None:
    """What the keywords of JSON Schema hold, by its own meta-schema; only where nothing was said yet."""
    document: Any = yaml_nodes.plain(root)
    if _META.is_valid(document):
        return
    for error in _META.iter_errors(document):
        # `read_types` and the compiler have said so where it is wrong, closer than the meta-schema can.
        if problems.found and error.kind.name in ("anyOf", "propertyNames"):
            continue
        problems.add_unless_said(yaml_nodes.node_at(root, error.instance_path), keyword_sentence(error))
