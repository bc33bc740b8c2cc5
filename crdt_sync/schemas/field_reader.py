"""One property of a schema, from its node to a `FieldSpec`.

The rule decides which keywords make sense: where devices that are apart both add (sets, rows,
counters), nothing can be promised about the whole, so keywords about the whole are problems.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import jsonschema_rs

from crdt_sync.errors import ValidationError
from crdt_sync.records.changes import Value
from crdt_sync.rules import RULE_NAMES, Rule, RuleError, build_rule
from crdt_sync.rules.once import Once
from crdt_sync.schemas import keywords
from crdt_sync.schemas.model import FieldSpec
from crdt_sync.schemas.sentences import keyword_sentence
from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync.schemas.values import ValueCheck
from crdt_sync.schemas.yaml_nodes import ListNode, MapNode, Node, Problems, ScalarNode, node_at, plain

DEFAULT_RULE: Final = "register"
MAX_ROWS_DEPTH: Final = 3
"""A set in rows in rows in rows has paths of 8 names, the most that a write can have."""

_FIELD_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_RESERVED_NAMES: Final = frozenset({"id"})
"""What a record's JSON form needs for itself (`_sync` cannot be a field name anyway)."""
_OWN_KEYWORDS: Final = keywords.NOTES | {
    "default", "x-merge", "x-transitions", "x-aliases", "x-priority", "contentEncoding", "contentMediaType"
}  # fmt: skip
_PATTERNS: Final = jsonschema_rs.RegexOptions()
"""Rust's linear-time expressions: no pattern in a schema can hang a device. They have no look-around."""


def read_fields(
    properties: MapNode, required: frozenset[str], problems: Problems, depth: int = 0
) -> dict[str, FieldSpec]:
    """The fields of a record type or of a row; those with problems are left out."""
    fields: dict[str, FieldSpec] = {}
    for name, (key, node) in properties.entries.items():
        if not _FIELD_NAME.fullmatch(name):
            problems.add(
                key,
                f"{name!r} cannot be a field's name: a letter, then letters, digits and _, at most 64 in all",
            )
        if name in _RESERVED_NAMES:
            problems.add(key, f"{name!r} cannot be a field's name: every record has its own {name}")
        if isinstance(node, MapNode):
            spec = _FieldReader(name, node, problems, depth).read(name in required)
            if spec is not None:
                fields[name] = spec
        else:
            problems.add(node, f"{name} must be a mapping of keywords, such as {{type: string}}")
    _check_aliases(properties, problems)
    return fields


def _check_aliases(properties: MapNode, problems: Problems) -> None:
    """An old name leads to one field, and is nobody's name now."""
    owner: dict[str, str] = {}
    for name, (_, node) in properties.entries.items():
        aliases = node.get("x-aliases") if isinstance(node, MapNode) else None
        for item in aliases.items if isinstance(aliases, ListNode) else []:
            alias = item.value if isinstance(item, ScalarNode) else None
            if not isinstance(alias, str) or not _FIELD_NAME.fullmatch(alias):
                problems.add(item, "an old name must be a field's name: letters, digits and _")
            elif alias in properties.entries:
                problems.add(item, f"{alias!r} is the name of a field now, so it cannot be an old name")
            elif alias in owner:
                whose = "this field" if owner[alias] == name else owner[alias]
                problems.add(item, f"{alias!r} is an old name of {whose} already")
            else:
                owner[alias] = name


class _FieldReader:
    __slots__ = ("depth", "name", "node", "problems")

    def __init__(self, name: str, node: MapNode, problems: Problems, depth: int) -> None:
        self.depth = depth
        self.name = name
        self.node = node
        self.problems = problems

    def read(self, required: bool) -> FieldSpec | None:
        before = len(self.problems.found)
        types = keywords.read_types(self.node, self.problems)
        types = tuple(each for each in types if each != "null")
        types_known = len(self.problems.found) == before
        is_bytes = self._is_bytes(types)
        rule = self._rule(types) if types_known else None
        if rule is None:
            return None
        if is_bytes and rule.shape == "text":
            self.problems.add(self.node.key_node("contentEncoding"), "rule 'text' is not for bytes")
        allowed = keywords.BYTES if is_bytes else keywords.BY_SHAPE[rule.shape]
        keywords.check_names(self.node, allowed, "bytes" if is_bytes else rule.shape, self.problems)
        keywords.check_format(self.node, self.problems)
        keywords.check_enum(self.node, self.problems)
        row = self._row() if rule.shape == "rows" else None
        if rule.shape != "rows":
            keywords.check_subschemas(self.node, self.problems)
        transitions = self._transitions(rule)
        json_schema = _without(plain(self.node), _OWN_KEYWORDS)
        check: ValueCheck | None = None
        if len(self.problems.found) == before:
            check = self._compile(json_schema, self.node, types, is_bytes=is_bytes)
        title = self.node.get("title")
        if check is None:
            return None
        spec = FieldSpec(
            name=self.name,
            rule=rule,
            types=types,
            value_check=check,
            json_schema=json_schema,
            title=str(title.value) if isinstance(title, ScalarNode) else self.name,
            required=required,
            is_bytes=is_bytes,
            aliases=self._aliases(),
            transitions=transitions,
            row=row,
            row_key_check=self._part("propertyNames") if rule.shape == "rows" else None,
            element_check=(self._part("items") or _ANYTHING) if rule.shape == "set" else None,
        )
        self._check_order(spec)
        default = self._default(spec)
        return spec if default is None else replace(spec, default=default)

    def _is_bytes(self, types: tuple[str, ...]) -> bool:
        encoding = self.node.get("contentEncoding")
        if encoding is None:
            return False
        if not isinstance(encoding, ScalarNode) or encoding.value != "base64":
            self.problems.add(encoding, "contentEncoding can only be base64")
        elif types != ("string",):
            self.problems.add(encoding, "a field with contentEncoding must have type: string")
        return True

    def _rule(self, types: tuple[str, ...]) -> Rule | None:
        """The rule `x-merge` names, or None after a problem."""
        node = self.node.get("x-merge")
        options: dict[str, tuple[ScalarNode, Node]] = {}
        name_node = node
        if isinstance(node, MapNode):
            options = {name: entry for name, entry in node.entries.items() if name != "rule"}
            name_node = node.get("rule")
            if name_node is None:
                self.problems.add(node, "x-merge needs the name of a rule: rule: register")
                return None
        name: Any = DEFAULT_RULE
        if name_node is not None:
            name = name_node.value if isinstance(name_node, ScalarNode) else None
            if name not in RULE_NAMES:
                self._unknown_rule(name_node, name)
                return None
        try:
            return build_rule(
                name, {key: plain(value) for key, (_, value) in options.items()}, types, _formats(self.node)
            )
        except RuleError as exc:
            # The option that the message speaks of, where there is one.
            at_fault: list[Node] = [key for option, (key, _) in options.items() if repr(option) in str(exc)]
            self.problems.add((at_fault or [name_node or self.node])[0], str(exc))
            return None

    def _unknown_rule(self, node: Node, name: object) -> None:
        rules = ", ".join(RULE_NAMES)
        if isinstance(name, str):
            near = did_you_mean(name, RULE_NAMES) or f"; the rules are {rules}"
            self.problems.add(node, f"unknown rule {name!r}{near}")
        else:
            self.problems.add(node, f"x-merge must name a rule; the rules are {rules}")

    def _compile(
        self, json_schema: Any, node: Node, types: tuple[str, ...], *, is_bytes: bool = False
    ) -> ValueCheck | None:
        try:
            validator = jsonschema_rs.Draft202012Validator(
                json_schema, validate_formats=True, offline=True, pattern_options=_PATTERNS
            )
        except jsonschema_rs.ValidationError as exc:
            self.problems.add_unless_said(node_at(node, exc.instance_path), keyword_sentence(exc))
            return None
        except ValueError:
            self.problems.add(node, "cannot be read as JSON Schema")
            return None
        return ValueCheck(validator, types, is_bytes=is_bytes)

    def _part(self, keyword: str) -> ValueCheck | None:
        node = self.node.get(keyword)
        if isinstance(node, ScalarNode):
            self.problems.add(node, f"{keyword} must be a schema, such as {{type: string}}")
        if not isinstance(node, MapNode):
            return None
        # Its names and types were checked with the field; only the compiled check is missing.
        types = keywords.read_types(node, Problems(self.problems.source))
        return self._compile(_without(plain(node), keywords.NOTES), node, types)

    def _row(self) -> Mapping[str, FieldSpec] | None:
        if self.depth == MAX_ROWS_DEPTH:
            self.problems.add(self.node, f"rows cannot be more than {MAX_ROWS_DEPTH} deep in each other")
            return None
        row = self.node.get("additionalProperties")
        if not isinstance(row, MapNode) or not isinstance(row.get("properties"), MapNode):
            self.problems.add(
                row or self.node,
                "rows need the fields of a row: additionalProperties: {type: object, properties: {…}}",
            )
            return None
        keywords.check_names(row, keywords.ROW, "row", self.problems)
        types = keywords.read_types(row, self.problems)
        if types != ("object",) and "type" in row.entries:
            self.problems.add(row.entries["type"][1], "a row's type must be object")
        others = row.get("additionalProperties")
        if others is not None and not (isinstance(others, ScalarNode) and others.value is False):
            self.problems.add(
                others, "additionalProperties can only be false: a row has the fields it declares"
            )
        key_schema = self.node.get("propertyNames")
        if isinstance(key_schema, MapNode):
            keywords.check_names(key_schema, keywords.SUBSCHEMA, "", self.problems)
            keywords.check_format(key_schema, self.problems)
        properties = row.get("properties")
        assert isinstance(properties, MapNode)
        fields = read_fields(properties, frozenset(), self.problems, self.depth + 1)
        for name, (_, node) in properties.entries.items():
            if isinstance(node, MapNode) and "default" in node.entries:
                self.problems.add(
                    node.key_node("default"),
                    f"default cannot stand here: a row has {name} once it is written",
                )
        return fields

    def _aliases(self) -> tuple[str, ...]:
        node = self.node.get("x-aliases")
        if node is None:
            return ()
        if not isinstance(node, ListNode) or not node.items:
            self.problems.add(node, "x-aliases must be a list of old names, such as [old_name]")
            return ()
        return tuple(str(plain(item)) for item in node.items)

    def _transitions(self, rule: Rule) -> Mapping[str, tuple[str, ...]] | None:
        node = self.node.get("x-transitions")
        if node is None:
            return None
        key = self.node.key_node("x-transitions")
        enum = self.node.get("enum")
        values = [v for v in plain(enum) if isinstance(v, str)] if isinstance(enum, ListNode) else []
        if rule.shape != "value" or not values:
            self.problems.add(key, "x-transitions needs a field of type string with an enum of its values")
            return None
        if not isinstance(node, MapNode):
            self.problems.add(node, "x-transitions must map each value to the list of those that may follow")
            return None
        table: dict[str, tuple[str, ...]] = {}
        for current, (current_node, following) in node.entries.items():
            self._check_state(current_node, current, values)
            if not isinstance(following, ListNode):
                self.problems.add(
                    following, f"what may follow {current} must be a list, such as [{values[-1]}]"
                )
                continue
            for item in following.items:
                self._check_state(item, plain(item), values)
            table[current] = tuple(str(plain(item)) for item in following.items)
        return {value: table.get(value, ()) for value in values}

    def _check_state(self, node: Node, value: object, values: list[str]) -> None:
        if value not in values:
            near = did_you_mean(value, values) if isinstance(value, str) else ""
            said = repr(value) if isinstance(node, ScalarNode) else "a list"
            self.problems.add(node, f"x-transitions names {said}, which is not in the enum{near}")

    def _check_order(self, spec: FieldSpec) -> None:
        """A value in `order` that the field can never hold is a typing error."""
        merge = self.node.get("x-merge")
        order = merge.get("order") if isinstance(merge, MapNode) else None
        for item in order.items if isinstance(order, ListNode) else []:
            try:
                spec.value_check(plain(item), "order")
            except ValidationError as exc:
                self.problems.add(item, exc.message)

    def _default(self, spec: FieldSpec) -> Value:
        node = self.node.get("default")
        if node is None:
            return None
        if isinstance(spec.rule, Once):
            self.problems.add(
                self.node.key_node("default"), "default cannot stand here: it would fill the field for good"
            )
            return None
        if spec.is_bytes or spec.row is not None:
            self.problems.add(
                self.node.key_node("default"), "default cannot stand here: bytes and rows have none"
            )
            return None
        try:
            return spec.check(plain(node), "default")
        except ValidationError as exc:
            self.problems.add(node, exc.message)
            return None


def _formats(node: MapNode) -> tuple[str, ...]:
    """The formats that every text in the field has one of; none where it may have another form."""
    found: list[str] = []
    alternatives = next((each for name in ("anyOf", "oneOf") if (each := node.get(name)) is not None), None)
    for each in alternatives.items if isinstance(alternatives, ListNode) else [node]:
        declared = each.get("format") if isinstance(each, MapNode) else None
        if not isinstance(declared, ScalarNode):
            return ()
        found.append(str(declared.value))
    return tuple(found)


_ANYTHING: Final = ValueCheck(jsonschema_rs.Draft202012Validator(True), ())


def _without(schema: Any, names: frozenset[str]) -> Any:
    return {name: value for name, value in schema.items() if name not in names}
