"""What a record type is: its fields, the rule and the values of each, and who may delete its records.

A schema is made by `loader.load_schema` from YAML text and never changes afterwards. It knows what a
value may be and by which rule concurrent writes merge; it does not know documents, writes or roles of
devices other than by name, and it is consulted when a device *writes*. What arrives from other devices
may come from a newer version of the schema, so merging never refuses a value or an unknown field.

Three kinds of field, after the shape of their rule:

- value, counter and text: one path, `("status",)`, checked as a whole;
- set: one path per element; `check` takes the whole list, `check_element` one element;
- rows: one path per row and subfield, `("parts_used", "A", "qty")`; `row` has the subfields.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from crdt_sync.errors import PermissionDenied, ValidationError
from crdt_sync.records.changes import Value
from crdt_sync.records.writes import MAX_NAME_LENGTH, DocWrites, Path, element_key
from crdt_sync.roles import Role
from crdt_sync.rules import Rule, Shape
from crdt_sync.rules.deletion import EDIT_WINS, DeleteRule
from crdt_sync.schemas import assignments
from crdt_sync.schemas.aliases import OldNames, old_names
from crdt_sync.schemas.closing import Closed
from crdt_sync.schemas.priorities import AS_USUAL, Priorities
from crdt_sync.schemas.sentences import describe
from crdt_sync.schemas.suggest import did_you_mean
from crdt_sync.schemas.values import ValueCheck, check_plain, check_row_key

WRITERS: Final = frozenset(role for role in Role if role.may_write)


@dataclass(frozen=True, slots=True)
class DeletePolicy:
    """How a delete merges with a concurrent edit, and which roles may delete."""

    rule: DeleteRule = EDIT_WINS
    roles: frozenset[Role] = WRITERS

    def may_delete(self, role: Role) -> bool:
        return role in self.roles


OnDelete: TypeAlias = Literal["cascade", "refuse", "keep"]
ON_DELETE: Final[tuple[OnDelete, ...]] = ("cascade", "refuse", "keep")


@dataclass(frozen=True, slots=True)
class Parent:
    """That each record of a type may belong to one of another type, whose id stands in `field`.

    `on_delete` says what deleting the parent does where it is deleted: `cascade` deletes the children
    with it, `refuse` refuses while there are any, `keep` leaves them as they are.
    """

    type: str
    field: str
    on_delete: OnDelete = "keep"


@dataclass(frozen=True, slots=True, eq=False)
class FieldSpec:
    """One field, or one subfield of a row.

    `types` are its JSON types without "null", in the schema's order; empty means any. `json_schema` is
    the property as JSON Schema, without our own keywords. `default` is None where there is none.
    """

    name: str
    rule: Rule
    types: tuple[str, ...]
    value_check: ValueCheck
    json_schema: Mapping[str, Any]
    title: str = ""
    required: bool = False
    is_bytes: bool = False
    default: Value = None
    aliases: tuple[str, ...] = ()
    """What the field was called in earlier versions."""
    transitions: Mapping[str, tuple[str, ...]] | None = None
    row: Mapping[str, FieldSpec] | None = None
    row_key_check: ValueCheck | None = None
    element_check: ValueCheck | None = None

    @property
    def shape(self) -> Shape:
        """`value`, `set`, `rows`, `counter` or `text`: how this field's writes stand in a document."""
        return self.rule.shape

    def check(self, value: Any, field: str) -> Value:
        """The value in the one form it is stored in; `field` is the dotted path for messages.

        Integral floats become ints in integer fields, tuples become lists, bytearrays bytes. None
        clears a field that is not required. A set takes a list; rows take `{row key: {subfield: value}}`,
        where a row of None removes the row. Raises ValidationError.
        """
        if value is None:
            if self.required:
                raise ValidationError(field, "is required and cannot be cleared")
            return None
        if self.row is not None:
            return self._check_rows(value, field)
        if self.element_check is not None:
            return self._check_set(value, field)
        return self.value_check(value, field)

    def check_element(self, element: Any, field: str) -> Value:
        """One element of a set, in the form it is stored in. Raises ValidationError."""
        if self.element_check is None:
            raise ValidationError(field, f"is not a set but merges by {self.rule.name}")
        if element is None:
            raise ValidationError(field, "an element of a set cannot be null")
        checked = self.element_check(element, field)
        # An element is named by its JSON text in the paths of its writes, and names have a limit.
        if len(element_key(checked)) > MAX_NAME_LENGTH:
            raise ValidationError(field, f"is too long for an element of a set: {MAX_NAME_LENGTH} characters")
        return checked

    def check_row_key(self, key: Any, field: str) -> str:
        """The key of a row. Raises ValidationError."""
        checked = check_row_key(key, field)
        if self.row_key_check is not None:
            self.row_key_check(checked, f"{field} (row key)")
        return checked

    def subfield(self, name: str, field: str) -> FieldSpec:
        """The subfield of that name; `field` is the dotted path of the row. Raises ValidationError."""
        subfields = self.row or {}
        spec = subfields.get(name)
        if spec is None:
            near = _renamed(name, subfields) or did_you_mean(name, subfields)
            raise ValidationError(f"{field}.{name}", f"there is no such field{near}")
        return spec

    def _check_set(self, value: Any, field: str) -> Value:
        if isinstance(value, (set, frozenset)):
            value = sorted(value, key=repr)  # any order will do, but always the same
        if not isinstance(value, (list, tuple)):
            raise ValidationError(field, f"takes a list of elements, got {describe(value)}")
        check_plain(list(value), field)
        elements = [self.check_element(element, f"{field}[{index}]") for index, element in enumerate(value)]
        return list({element_key(element): element for element in elements}.values())

    def _check_rows(self, value: Any, field: str) -> Value:
        if not isinstance(value, Mapping):
            raise ValidationError(field, f"takes rows by key, got {describe(value)}")
        rows: dict[str, Value] = {}
        for key, row in value.items():
            key = self.check_row_key(key, field)
            rows[key] = self.check_row(row, f"{field}.{key}")
        return rows

    def check_row(self, row: Any, field: str) -> dict[str, Value] | None:
        """One row, `{subfield: value}`; None stands for its removal. Raises ValidationError."""
        if row is None:
            return None
        if not isinstance(row, Mapping):
            raise ValidationError(field, f"takes a row of fields, got {describe(row)}")
        return {
            name: self.subfield(name, field).check(value, f"{field}.{name}") for name, value in row.items()
        }


@dataclass(frozen=True, slots=True, eq=False)
class RecordSchema:
    """A record type. `text` is the YAML it was made from, `source` says where that came from.

    `description` is a sentence about it, `comment` the schema's own note on where it belongs (`$comment`).
    """

    type: str
    version: int
    title: str
    fields: Mapping[str, FieldSpec]
    delete: DeletePolicy
    text: str
    source: str
    write_roles: frozenset[Role] = WRITERS
    parent: Parent | None = None
    history: int = 0
    """Entries of each record's history that a device keeps."""
    indexes: tuple[tuple[str, ...], ...] = ()
    """Fields by which devices find records fast, see `indexes`."""
    priorities: Priorities = AS_USUAL
    """What of its unsent work goes first, see `priorities`."""
    closed: Closed | None = None
    """When a record is done with, and how long devices keep it then."""
    description: str = ""
    comment: str = ""
    defaults: Mapping[str, Value] = field(init=False)
    old_names: OldNames | None = field(init=False)
    has_texts: bool = field(init=False)
    """Whether a field, at any depth, merges by rule `text`."""
    with_bytes: tuple[tuple[str, FieldSpec], ...] = field(init=False)
    """Fields, by name, that hold bytes: themselves, or in their rows at any depth."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))
        defaults = {name: spec.default for name, spec in self.fields.items() if spec.default is not None}
        object.__setattr__(self, "defaults", MappingProxyType(defaults))
        object.__setattr__(self, "old_names", old_names(self.fields))
        object.__setattr__(self, "has_texts", any(_has_text(spec) for spec in self.fields.values()))
        with_bytes = tuple((name, spec) for name, spec in self.fields.items() if _has_bytes(spec))
        object.__setattr__(self, "with_bytes", with_bytes)

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the fields every record of this type must have, in the schema's order."""
        return tuple(name for name, spec in self.fields.items() if spec.required)

    def current(self, doc_writes: DocWrites) -> DocWrites:
        """The visible writes of a record by the names its fields have now, see `aliases`."""
        return doc_writes if self.old_names is None else self.old_names.writes(doc_writes)

    def require_writer(self, role: Role) -> None:
        """Raises PermissionDenied when a device of that role may not write records of this type."""
        if role not in self.write_roles:
            raise PermissionDenied(
                f"a device with role {role.text} may not write records of type {self.type}",
                hint=f"ask a device with role {_or(self.write_roles)}",
            )

    def field_at(self, path: Path) -> FieldSpec:
        """The spec of what stands at a path.

        `("status",)` is that field, `("parts_used", "A", "qty")` the subfield. For a whole row, a row's
        marker (`$deleted`, `$row`) and a set's element it is the spec of the collection itself.
        Raises ValidationError for a field that is not there, naming the nearest that is.
        """
        name = path[0] if path else ""
        spec = self.fields.get(name)
        if spec is None:
            near = _renamed(name, self.fields) or did_you_mean(name, self.fields)
            raise ValidationError(
                ".".join(path) or "(no field)",
                f"a {self.type} has no field {name!r}{near}",
                hint=f"its fields are {', '.join(self.fields)}",
            )
        # After a collection's name comes a row's key or an element, after a row's key a subfield.
        at = 1
        while at < len(path):
            if spec.shape not in ("set", "rows") or (spec.shape == "set" and at + 1 < len(path)):
                raise ValidationError(".".join(path), f"{'.'.join(path[:at])} has no fields of its own")
            if spec.shape == "rows":
                check_row_key(path[at], ".".join(path[:at]))
            if at + 1 == len(path) or path[at + 1].startswith("$"):
                return spec
            spec = spec.subfield(path[at + 1], ".".join(path[: at + 1]))
            at += 2
        return spec

    def parse_assignment(self, text: str) -> tuple[Path, Any]:
        """One `field=value` of the command line, see `assignments`. Raises ValidationError."""
        return assignments.parse_assignment(self, text)

    def parse_cell(self, field: str, text: str) -> Value:
        """One cell of a CSV file, see `assignments`. Raises ValidationError."""
        return assignments.parse_cell(self.field_at((field,)), field, text)

    def from_json(self, values: Mapping[str, Any]) -> dict[str, Value]:
        """Values as JSON carries them, base64 text where the field holds bytes. Raises ValidationError."""
        return {
            name: assignments.from_json(self.field_at((name,)), value, name) for name, value in values.items()
        }

    def with_defaults(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A new dict: the values, and the default of each field that is not among them."""
        merged = {
            name: copy.deepcopy(default) for name, default in self.defaults.items() if name not in values
        }
        return {**merged, **values}

    def check_required(self, values: Mapping[str, Any]) -> None:
        """Raises ValidationError naming the first required field that is missing or None."""
        missing = [name for name in self.required if values.get(name) is None]
        if missing:
            others = f" (and so {'are' if len(missing) > 2 else 'is'} {', '.join(missing[1:])})" * (
                len(missing) > 1
            )
            raise ValidationError(
                missing[0],
                f"is required for a {self.type}{others}",
                hint=f"give it a value: {missing[0]}=…",
            )


def _has_text(spec: FieldSpec) -> bool:
    return spec.shape == "text" or any(_has_text(below) for below in (spec.row or {}).values())


def _has_bytes(spec: FieldSpec) -> bool:
    return spec.is_bytes or any(_has_bytes(below) for below in (spec.row or {}).values())


def _renamed(name: str, fields: Mapping[str, FieldSpec]) -> str:
    now = [each for each, spec in fields.items() if name in spec.aliases]
    return f"; it is called {now[0]!r} now" if now else ""


def _or(roles: frozenset[Role]) -> str:
    return " or ".join(role.text for role in sorted(roles))
