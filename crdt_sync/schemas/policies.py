"""What a schema says about its records as wholes: who may write and delete them, and their parent.

x-write: {roles: [office, admin]}
x-delete: {rule: edit_wins, roles: [office, admin]}
x-parent: {type: project, field: project_id, on_delete: cascade}
x-history: 50
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from crdt_sync.roles import Role
from crdt_sync.rules.deletion import DELETE_RULES, EDIT_WINS, DeleteRule
from crdt_sync.schemas.model import ON_DELETE, WRITERS, DeletePolicy, FieldSpec, OnDelete, Parent
from crdt_sync.schemas.sentences import listed
from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync.schemas.yaml_nodes import ListNode, MapNode, Node, Problems, ScalarNode

TYPE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


MAX_HISTORY: Final = 1000
"""Entries of each record's history at most: a store is not an archive."""


def read_history(root: MapNode, problems: Problems) -> int:
    """`x-history`: how many entries of each record's history devices keep; 0, none, without it."""
    node = root.get("x-history")
    if node is None:
        return 0
    if isinstance(node, ScalarNode) and type(node.value) is int and 0 <= node.value <= MAX_HISTORY:
        return node.value
    problems.add(node, f"x-history must be a whole number from 0 to {MAX_HISTORY}")
    return 0


def read_write_roles(root: MapNode, problems: Problems) -> frozenset[Role]:
    """`x-write`: the roles that may write records of the type; all that write at all without it."""
    node = root.get("x-write")
    if node is None:
        return WRITERS
    if not isinstance(node, MapNode) or node.get("roles") is None:
        problems.add(node, "x-write must name the roles that may write, as in {roles: [office, admin]}")
        return WRITERS
    _check_options("x-write", node, ("roles",), problems)
    return _roles(node.get("roles"), problems, "a reader may not write")


def read_delete(root: MapNode, write_roles: frozenset[Role], problems: Problems) -> DeletePolicy:
    """`x-delete`: a rule's name, or a mapping of `rule` and `roles`."""
    node = root.get("x-delete")
    if node is None:
        return DeletePolicy(roles=write_roles)
    if isinstance(node, ScalarNode):
        return DeletePolicy(rule=_delete_rule(node, problems), roles=write_roles)
    if not isinstance(node, MapNode):
        problems.add(node, "x-delete must be a rule's name, or a mapping of rule and roles")
        return DeletePolicy()
    _check_options("x-delete", node, ("rule", "roles"), problems)
    rule = node.get("rule")
    roles = node.get("roles")
    return DeletePolicy(
        rule=EDIT_WINS if rule is None else _delete_rule(rule, problems),
        roles=write_roles if roles is None else _delete_roles(roles, write_roles, problems),
    )


def read_parent(root: MapNode, fields: Mapping[str, FieldSpec], problems: Problems) -> Parent | None:
    """`x-parent`: the type of the parent, the field that holds its id, and what its deletion does."""
    node = root.get("x-parent")
    if node is None:
        return None
    if not isinstance(node, MapNode):
        problems.add(node, "x-parent must be a mapping, such as {type: project, field: project_id}")
        return None
    _check_options("x-parent", node, ("type", "field", "on_delete"), problems)
    before = len(problems.found)
    parent_type = _word(node, "type", "the parent's record type, such as project", problems)
    if parent_type and not TYPE_NAME.fullmatch(parent_type):
        problems.add(_at(node, "type"), f"{parent_type!r} cannot be the name of a record type")
    field = _word(node, "field", "the field that holds the parent's id, such as project_id", problems)
    if field:
        _check_parent_field(root, node, field, fields, problems)
    on_delete: OnDelete = "keep"
    chosen = node.get("on_delete")
    if chosen is not None:
        on_delete = _on_delete(chosen, problems)
    return None if len(problems.found) > before else Parent(parent_type, field, on_delete)


def _check_parent_field(
    root: MapNode, node: MapNode, field: str, fields: Mapping[str, FieldSpec], problems: Problems
) -> None:
    properties = root.get("properties")
    declared: Collection[str] = properties.entries if isinstance(properties, MapNode) else ()
    spec = fields.get(field)
    if field not in declared:
        near = did_you_mean(field, declared)
        problems.add(_at(node, "field"), f"x-parent names {field!r}, which is not in properties{near}")
    elif spec is not None and (spec.shape != "value" or spec.types != ("string",) or spec.is_bytes):
        problems.add(
            _at(node, "field"), f"{field} must be text with one value, since it holds the id of a record"
        )


def _on_delete(node: Node, problems: Problems) -> OnDelete:
    name = node.value if isinstance(node, ScalarNode) else None
    for choice in ON_DELETE:
        if name == choice:
            return choice
    near = did_you_mean(name, ON_DELETE) if isinstance(name, str) else ""
    problems.add(node, f"on_delete is {listed(ON_DELETE)}{near}")
    return "keep"


def _delete_rule(node: Node, problems: Problems) -> DeleteRule:
    name = node.value if isinstance(node, ScalarNode) else None
    for rule in DELETE_RULES:
        if name == rule:
            return rule
    near = did_you_mean(name, DELETE_RULES) if isinstance(name, str) else ""
    problems.add(node, f"the delete rules are {listed(DELETE_RULES, ' and ')}{near}")
    return EDIT_WINS


def _delete_roles(node: Node, write_roles: frozenset[Role], problems: Problems) -> frozenset[Role]:
    roles = _roles(node, problems, "a reader may not write, so it cannot delete")
    for item in node.items if isinstance(node, ListNode) else []:
        name = item.value if isinstance(item, ScalarNode) else None
        if any(role.text == name for role in roles - write_roles):
            problems.add(item, f"x-write does not let {name} write, so it cannot delete")
    return roles


def _roles(node: Node | None, problems: Problems, not_readers: str) -> frozenset[Role]:
    assert node is not None
    if not isinstance(node, ListNode) or not node.items:
        problems.add(node, "roles must be a list of roles, such as [office, admin]")
        return WRITERS
    roles: set[Role] = set()
    names = [role.text for role in sorted(WRITERS)]
    for item in node.items:
        name = item.value if isinstance(item, ScalarNode) else None
        if name == Role.READER.text:
            problems.add(item, not_readers)
        elif isinstance(name, str) and name in names:
            roles.add(Role.parse(name))
        else:
            said = f"unknown role {name!r}" if isinstance(name, str) else "a role must be a word"
            near = did_you_mean(name, names) if isinstance(name, str) else ""
            problems.add(item, f"{said}{near or '; the roles are ' + ', '.join(names)}")
    return frozenset(roles)


def _check_options(keyword: str, node: MapNode, known: tuple[str, ...], problems: Problems) -> None:
    for name, (key, _) in node.entries.items():
        if name not in known:
            near = did_you_mean(name, known) or f"; its options are {', '.join(known)}" * (len(known) > 2)
            problems.add(key, f"{keyword} has no option {name!r}{near}")


def _word(node: MapNode, name: str, what: str, problems: Problems) -> str:
    value = node.get(name)
    if value is None:
        problems.add(node, f"x-parent needs {name}: {what}")
    elif isinstance(value, ScalarNode) and isinstance(value.value, str):
        return value.value
    else:
        problems.add(value, f"{name} must be a word: {what}")
    return ""


def _at(node: MapNode, name: str) -> Node:
    return node.entries[name][1]
