"""What a new version of a schema changes, and whether devices with the old one get along with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from crdt_sync.records.view import view
from crdt_sync.roles import Role
from crdt_sync.schemas import RecordSchema, load_schema
from crdt_sync.schemas.compare import compare, rule_options, worst
from tests.core.record_replicas import RECORD_ID, Replica

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


def load(field: str, root: str = "", version: int = 1, name: str = "pump") -> RecordSchema:
    return load_schema(
        f"x-type: {name}\nx-version: {version}\n{root}\nproperties:\n  keep: {{type: string}}\n  {field}\n",
        source="pump.yaml",
    )


def changes(old: str, new: str, old_root: str = "", new_root: str = "") -> list[tuple[str, str, str, str]]:
    found = compare(load(old, old_root), load(new, new_root, 2))
    return [(each.kind, each.path, each.safety, each.why) for each in found]


def rows(fields: str, more: str = "") -> str:
    return (
        f"a: {{type: object, x-merge: rows, {more}additionalProperties: {{type: object, "
        f"properties: {{{fields}}}}}}}"
    )


STAY = "values that exist stay, but cannot be written again"
UNTIL = "devices may show different values, and different conflicts, until all have this version"
A = "a: {type: string}"


@pytest.mark.parametrize(
    ("old", "new", "kind", "safety", "why"),
    [
        ("", A, "added", "safe", "older devices keep it and pass it on without using it"),
        (A, "", "removed", "note",
         "its values stay in the records and are shown as those of an unknown field"),
        ("a: {type: integer}", "a: {type: number}", "type", "note",
         "takes number instead of integer: older devices show such values but do not write them"),
        (A, "a: {type: [string, integer]}", "type", "note",
         "takes string or integer instead of string: older devices show such values but do not write them"),
        (A, "a: {}", "type", "note",
         "takes anything instead of string: older devices show such values but do not write them"),
        ("a: {type: [string, integer]}", A, "type", "note",
         "takes string instead of string or integer: other values stay, but cannot be written again"),
        ("a: {type: number}", "a: {type: integer}", "type", "note",
         "takes integer instead of number: other values stay, but cannot be written again"),
        (A, "a: {type: integer}", "type", "unsafe",
         "takes integer and took string: apps of one version meet values of the other"),
        ("a: {enum: [x, y]}", "a: {enum: [x]}", "enum", "note", f"does not take 'y' any more: {STAY}"),
        ("a: {enum: [x]}", "a: {enum: [x, y, z]}", "enum", "safe",
         "takes 'y' and 'z' too: older devices show that but do not write it"),
        (A, "a: {type: string, enum: [x]}", "enum", "note", f"takes only listed values now: {STAY}"),
        ("a: {type: string, enum: [x]}", A, "enum", "safe",
         "takes any value now; older devices keep to their list"),
        ("a: {minimum: 1}", "a: {minimum: 2}", "limit", "note", f"minimum is 2: {STAY}"),
        ("a: {minimum: 2}", "a: {minimum: 1}", "limit", "safe", "minimum is 1: older devices keep to theirs"),
        ("a: {maximum: 2}", "a: {maximum: 1}", "limit", "note", f"maximum is 1: {STAY}"),
        ("a: {maxLength: 2}", "a: {}", "limit", "safe", "maxLength is gone: older devices keep to theirs"),
        ("a: {}", "a: {maxLength: 2}", "limit", "note", f"maxLength is 2: {STAY}"),
        ("a: {pattern: x}", "a: {pattern: y}", "limit", "note",
         "pattern is another one: values that exist stay, and may not fit it"),
        (A, "a: {type: string, default: x}", "default", "safe",
         "the default is another one; records that exist keep what they have"),
        (A, "a: {type: string, x-merge: client_wins}", "rule", "note",
         f"the rule was register and is client_wins: {UNTIL}"),
        ("a: {x-merge: {rule: register, prefer: [admin]}}", "a: {}", "rule", "note",
         f"the options of register are others: {UNTIL}"),
        ("a: {type: array}", "a: {type: array, x-merge: set}", "shape", "unsafe",
         "was one value and is a set, which is kept in another way: what was written is not seen as a set"),
        ("a: {type: number}", "a: {type: number, x-merge: counter}", "shape", "unsafe",
         "was one value and is a counter, which is kept in another way: "
         "what was written is not seen as a counter"),
        (A, "a: {type: string, contentEncoding: base64}", "shape", "unsafe",
         "was one value and is bytes, which is kept in another way: what was written is not seen as bytes"),
        ("a: {x-aliases: [b]}", "a: {}", "alias", "unsafe", "does not read what stands under b any more"),
        ("a: {enum: [x, y], x-transitions: {x: [y]}}", "a: {enum: [x, y], x-transitions: {y: [x]}}",
         "transitions", "note", "may not go from x to y any more: older devices still do, and it merges"),
        ("a: {enum: [x, y], x-transitions: {x: [y]}}", "a: {enum: [x, y]}", "transitions", "safe",
         "every step is allowed now"),
        ("a: {enum: [x, y]}", "a: {enum: [x, y], x-transitions: {x: [y]}}", "transitions", "note",
         "steps are checked now: older devices still do, and it merges"),
    ],
)  # fmt: skip
def test_a_change_of_a_field(old: str, new: str, kind: str, safety: str, why: str) -> None:
    assert (kind, "a", safety, why) in changes(old, new)


def test_an_unchanged_schema_changes_nothing() -> None:
    for path in SCHEMAS.glob("*.yaml"):
        schema = load_schema(path.read_text("utf-8"), source=path.name)
        assert compare(schema, schema) == []
    assert worst([]) == "safe"


def test_a_field_that_is_required() -> None:
    root = "required: [a]"
    assert changes("", A, "", root) == [
        ("added", "a", "note", "is required and new: records that exist, and those that older devices make, "
         "do not have it")
    ]  # fmt: skip
    assert changes(A, A, "", root) == [
        ("required", "a", "note", "is required now: records that exist, and those that older devices make, "
         "may lack it")
    ]  # fmt: skip
    assert changes(A, A, root, "") == [
        ("required", "a", "safe", "is not required any more; older devices still ask for it")
    ]
    assert changes(A, "", root, "") == [
        ("removed", "a", "note", "its values stay in the records and are shown as those of an unknown field; "
         "devices with the old version go on asking for it")
    ]  # fmt: skip


def test_a_field_that_was_renamed() -> None:
    assert changes(A, "b: {type: string, x-aliases: [a]}") == [
        ("renamed", "b", "safe", "was called a, and reads what stands there")
    ]
    assert changes("unit_cost: {type: number}", "unit_price: {type: number}") == [
        ("renamed", "unit_price", "unsafe", "looks like unit_cost under a new name: what stands there would "
         "not be seen. If it is, write x-aliases: [unit_cost]")
    ]  # fmt: skip
    assert [each[:3] for each in changes(A, "b: {type: integer}")] == [
        ("added", "b", "safe"),
        ("removed", "a", "note"),
    ]
    renamed_and_narrowed = changes(A, "b: {type: string, maxLength: 3, x-aliases: [a]}")
    assert [each[:3] for each in renamed_and_narrowed] == [("renamed", "b", "safe"), ("limit", "b", "note")]


def test_fields_in_rows() -> None:
    before = rows("qty: {type: number}, note: {type: string}")
    after = rows("quantity: {type: number, x-aliases: [qty]}, note: {type: string, x-merge: manual}")
    assert changes(before, after) == [
        ("renamed", "a.KEY.quantity", "safe", "was called qty, and reads what stands there"),
        ("rule", "a.KEY.note", "note", f"the rule was register and is manual: {UNTIL}"),
    ]
    keyed = rows("qty: {type: number}, note: {type: string}", "propertyNames: {maxLength: 3}, ")
    assert changes(before, keyed) == [
        ("limit", "a", "note", "propertyNames is another one: values that exist stay, and may not fit it")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "kind", "safety", "why"),
    [
        ("", "x-write: {roles: [office]}", "write", "note",
         "field, supervisor and admin may not write any more once they have this version; what they wrote "
         "before is taken"),
        ("x-write: {roles: [office]}", "x-write: {roles: [office, admin]}", "write", "note",
         "admin may write now: devices with the old version set that aside until they have this one"),
        ("", "x-delete: manual", "delete", "note",
         "the delete rule was edit_wins and is manual: records deleted against an edit may be there on some "
         "devices and not on others until all have this version"),
        ("", "x-delete: {roles: [admin]}", "delete", "note",
         "field, office and supervisor may not delete any more once they have this version"),
        ("x-delete: {roles: [admin]}", "x-delete: {roles: [office, admin]}", "delete", "note",
         "office may delete now: devices with the old version set that aside until they have this one"),
        ("", "x-parent: {type: site, field: keep}", "parent", "note",
         "records belong to a site now; those that name none in keep belong to nothing"),
        ("x-parent: {type: site, field: keep}", "", "parent", "note",
         "there is no parent any more: deleting one leaves these records as they are"),
        ("x-parent: {type: site, field: keep}", "x-parent: {type: plant, field: keep}", "parent", "unsafe",
         "the parent was a site in keep and is a plant in keep: records that exist lose the one they had"),
        ("x-parent: {type: site, field: keep}", "x-parent: {type: site, field: keep, on_delete: cascade}",
         "parent", "note", "on_delete was keep and is cascade: each device goes by its own version"),
    ],
)  # fmt: skip
def test_a_change_of_the_record_type(old: str, new: str, kind: str, safety: str, why: str) -> None:
    assert changes("", "", old, new) == [(kind, "", safety, why)]


def test_a_change_needs_a_higher_version() -> None:
    (change,) = compare(load(A), load("a: {type: string} # a word", version=1))
    assert (change.kind, change.safety, change.why) == (
        "version", "unsafe",
        "both are version 1, so devices cannot tell which is newer: raise x-version",
    )  # fmt: skip
    (change,) = compare(load(A, version=3), load(A, version=2))
    assert change.why == "it goes from 3 back to 2: no space carries it after the higher one"
    assert compare(load(A), load(A, version=2)) == []


def test_two_record_types_are_two() -> None:
    (change,) = compare(load(A), load(A, name="valve"))
    assert change.safety == "unsafe"
    assert change.why == "pump and valve are two record types; records of one are none of the other"


def test_the_verdict_is_the_gravest() -> None:
    assert worst(compare(load(""), load(A, version=2))) == "safe"
    assert worst(compare(load(A), load("", version=2))) == "note"
    assert worst(compare(load(A), load("a: {type: integer}", version=2))) == "unsafe"


def test_what_is_called_safe_loses_nothing_and_what_is_not_hides_something() -> None:
    """The verdicts about names and shapes, tried on a record."""
    old = load("a: {type: array, items: {type: string}}")
    device = Replica(0, old, Role.FIELD)
    device.create({"keep": "k", "a": ["x"]})
    renamed = load("b: {type: array, items: {type: string}, x-aliases: [a]}", version=2)
    lost = load("b: {type: array, items: {type: string}}", version=2)
    reshaped = load("a: {type: array, items: {type: string}, x-merge: set}", version=2)
    seen = [view(each, "pump", RECORD_ID, device.doc.writes()).values for each in (renamed, lost, reshaped)]
    assert [values.get("b", values.get("a")) for values in seen] == [["x"], ["x"], []]
    assert "b" not in seen[1]
    assert [worst(compare(old, each)) for each in (renamed, lost, reshaped)] == ["safe", "unsafe", "unsafe"]


def test_options_are_those_of_the_schema() -> None:
    options = {
        "a: {x-merge: {rule: register, prefer: [admin, office]}}": {"prefer": ["admin", "office"]},
        "a: {x-merge: {rule: register, order: [x, y]}}": {"order": ["x", "y"]},
        "a: {x-merge: {rule: once, correct: [admin]}}": {"correct": ["admin"]},
        "a: {type: array, x-merge: {rule: set, remove_wins: true}}": {"remove_wins": True},
        "a: {type: array, x-merge: set}": {},
        "a: {x-merge: client_wins}": {},
        "a: {x-merge: server_wins}": {},
        "a: {type: number, x-merge: counter}": {},
    }
    for text, expected in options.items():
        assert rule_options(load(text).fields["a"].rule) == expected
