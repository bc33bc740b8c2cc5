"""Who may write, and what belongs to what: `x-write` and `x-parent`, with every problem where it stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crdt_sync.errors import PermissionDenied, SchemaError
from crdt_sync.roles import Role
from crdt_sync.schemas import RecordSchema, load_schema
from crdt_sync.schemas.model import Parent
from tests.core.record_replicas import Replica, meet

GOOD = """\
x-type: asset
properties:
  name: {type: string}
  site_id: {type: string}
  tags: {type: array, items: {type: string}, x-merge: set}
"""
"""Five lines; what follows is on line 6."""

NAMES_ROLES = "x-write must name the roles that may write, as in {roles: [office, admin]}"


def load(text: str) -> RecordSchema:
    return load_schema(text, source="asset.yaml")


def problems(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(SchemaError) as caught:
        load(text)
    return [(problem.line, problem.column, problem.message) for problem in caught.value.problems]


def test_reference_data_is_written_by_the_office_alone() -> None:
    schema = load(GOOD + "x-write: {roles: [office, admin]}\n")
    assert schema.write_roles == schema.delete.roles == {Role.OFFICE, Role.ADMIN}
    office, field = Replica(1, schema), Replica(0, schema)
    office.create({"name": "Pump 2"})
    meet(office, field)
    attempts: list[Callable[[], object]] = [
        lambda: field.set({"name": "mine"}),
        lambda: field.create({"name": "mine"}),
        lambda: field.resolve("name", "mine"),
        field.delete,
        field.restore,
    ]
    for refused in attempts:
        with pytest.raises(PermissionDenied) as caught:
            refused()
        assert str(caught.value) == "a device with role field may not write records of type asset"
        assert caught.value.hint == "ask a device with role office or admin"
    assert field.values == {"name": "Pump 2"}


def test_deleting_may_be_for_fewer_than_writing() -> None:
    schema = load(GOOD + "x-write: {roles: [office, admin]}\nx-delete: {roles: [admin]}\n")
    office, admin = Replica(1, schema), Replica(3, schema)
    office.create({"name": "Pump 2"})
    meet(office, admin)
    with pytest.raises(PermissionDenied) as caught:
        office.delete()
    assert str(caught.value) == "a device with role office may not delete records of type asset"
    assert caught.value.hint == "ask a device with role admin"
    assert admin.delete()


@pytest.mark.parametrize(
    ("policy", "column", "message"),
    [
        ("x-write: [office]", 10, NAMES_ROLES),
        ("x-write: {}", 10, NAMES_ROLES),
        ("x-write: {roles: office}", 18, "roles must be a list of roles, such as [office, admin]"),
        ("x-write: {roles: []}", 18, "roles must be a list of roles, such as [office, admin]"),
        ("x-write: {roles: [offic]}", 19, "unknown role 'offic'; did you mean 'office'?"),
        ("x-write: {roles: [reader]}", 19, "a reader may not write"),
        ("x-write: {roles: [admin], rule: x}", 27, "x-write has no option 'rule'; did you mean 'roles'?"),
        ("x-parent: site", 11, "x-parent must be a mapping, such as {type: project, field: project_id}"),
        ("x-parent: {field: site_id}", 11, "x-parent needs type: the parent's record type, such as project"),
        ("x-parent: {type: site}", 11,
         "x-parent needs field: the field that holds the parent's id, such as project_id"),
        ("x-parent: {type: [site], field: site_id}", 18,
         "type must be a word: the parent's record type, such as project"),
        ("x-parent: {type: Site, field: site_id}", 18, "'Site' cannot be the name of a record type"),
        ("x-parent: {type: site, field: site}", 31,
         "x-parent names 'site', which is not in properties; did you mean 'site_id'?"),
        ("x-parent: {type: site, field: tags}", 31,
         "tags must be text with one value, since it holds the id of a record"),
        ("x-parent: {type: site, field: site_id, on_delete: cascad}", 51,
         "on_delete is cascade, refuse or keep; did you mean 'cascade'?"),
        ("x-parent: {type: site, field: site_id, on_delete: [keep]}", 51,
         "on_delete is cascade, refuse or keep"),
        ("x-parent: {type: site, field: site_id, delete: keep}", 40,
         "x-parent has no option 'delete'; did you mean 'on_delete'?"),
        ("x-parent: {type: site, field: site_id, zzz: keep}", 40,
         "x-parent has no option 'zzz'; its options are type, field, on_delete"),
    ],
)  # fmt: skip
def test_a_problem_of_a_policy_is_named_where_it_stands(policy: str, column: int, message: str) -> None:
    assert problems(f"{GOOD}{policy}\n") == [(6, column, message)]


def test_who_may_not_write_cannot_delete() -> None:
    text = GOOD + "x-write: {roles: [office]}\nx-delete: {roles: [office, field]}\n"
    assert problems(text) == [(7, 28, "x-write does not let field write, so it cannot delete")]


def test_a_type_may_have_a_parent() -> None:
    schema = load(GOOD + "x-parent: {type: site, field: site_id, on_delete: cascade}\n")
    assert schema.parent == Parent("site", "site_id", "cascade")
    assert load(GOOD + "x-parent: {type: site, field: site_id}\n").parent == Parent("site", "site_id", "keep")
    assert load(GOOD).parent is None


def test_a_type_may_keep_a_history() -> None:
    assert load(GOOD).history == 0
    assert load(GOOD + "x-history: 50\n").history == 50
    for wrong in ("-1", "1001", "many", "[5]", "true"):
        assert problems(f"{GOOD}x-history: {wrong}\n") == [
            (6, 12, "x-history must be a whole number from 0 to 1000")
        ]


def test_a_policy_belongs_to_the_record_type() -> None:
    assert problems("x-type: a\nproperties:\n  b: {x-write: {roles: [office]}}\n") == [
        (3, 7, "x-write cannot stand here: it belongs to the record type")
    ]
