"""`crdt-sync schema`: check, list, show, compare and add record types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from . import failures
from .command import Group, Target, json_option, optional_store_options, space_option, store_options
from .output import Output, new_table, print_rich, to_json

if TYPE_CHECKING:
    from crdt_sync.schemas.compare import SchemaChange
    from crdt_sync.schemas.model import FieldSpec, RecordSchema
    from crdt_sync_client import Device


@click.group(cls=Group, name="schema")
def command_schema() -> None:
    """Check, show, compare and add record types."""


@command_schema.command(
    name="check",
    examples=("crdt-sync schema check work_order.yaml", "crdt-sync schema check work_order --json"),
)
@click.argument("file", metavar="FILE_OR_TYPE")
@json_option
def schema_check(out: Output, file: str) -> None:
    """Check a schema file; every problem is named with its line.

    Nothing is opened or sent. A good schema is printed as its fields and their merge rules.
    """
    from crdt_sync_client.shipped import find_schema

    schema = find_schema(file)
    if out.as_json:
        fields = {name: _field_json(spec) for name, spec in schema.fields.items()}
        out.result({"ok": True, "type": schema.type, "version": schema.version, "fields": fields})
        return
    table = new_table()
    for heading in ("field", "type", "merge rule"):
        table.add_column(heading)
    for names, spec in _flat(schema):
        table.add_row(_path(names), _types(spec), spec.rule.name)
    out.say(f"{file} is good: type {schema.type}, version {schema.version}.")
    print_rich(table)


@command_schema.command(
    name="ls", examples=("crdt-sync schema ls", "crdt-sync schema ls --store office.db --json")
)
@optional_store_options
@space_option
def schema_ls(out: Output, target: Target | None, space: str | None) -> None:
    """List the record types that ship, or those of a space with --store."""
    schemas = _shipped() if target is None else _of_space(target, space)
    if out.as_json:
        out.result([_head_json(schema) for schema in schemas])
        return
    shown = [(s.type, s.title, s.version, len(s.fields), s.comment or None, s.description) for s in schemas]
    out.table(
        ("type", "title", "version", "fields", "made for", "what it is"),
        shown,
        none="No record types are known yet. Run crdt-sync sync.",
    )


@command_schema.command(
    name="show",
    examples=("crdt-sync schema show work_order", "crdt-sync schema show pump_check.yaml --json"),
)
@click.argument("file", metavar="FILE_OR_TYPE")
@optional_store_options
@space_option
def schema_show(out: Output, target: Target | None, file: str, space: str | None) -> None:
    """Show a record type: its fields, how each merges, and why.

    The reasons are the comments of the schema file. Schemas travel without them, so a type out of a space
    (with --store) has the rules' own.
    """
    from crdt_sync.schemas.reasons import reasons

    schema = _find(target, space, file)
    why = reasons(schema)
    if out.as_json:
        fields = {name: _field_json(spec, why, (name,)) for name, spec in schema.fields.items()}
        out.result({**_head_json(schema), **_policies_json(schema), "fields": fields})
        return
    _say_head(out, schema)
    out.table(
        ("field", "type", "merge rule", "why"),
        [(_path(names), _types(spec), _rule(spec), _why(spec, why, names)) for names, spec in _flat(schema)],
        none="",
    )


@command_schema.command(
    name="diff",
    examples=(
        "crdt-sync schema diff pump_check.v1.yaml pump_check.yaml",
        "crdt-sync schema diff work_order my_work_order.yaml --json",
    ),
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@json_option
def schema_diff(out: Output, old: str, new: str) -> int:
    """Say what a new version of a schema changes, and whether safely.

    It tells what devices with the old one make of it. OLD and NEW are files or shipped types. Each change is
    `safe`, `note` (devices get along, but somebody should know) or `unsafe` (something written would be
    hidden, or devices show different things).

    Exit code 10 when a change is unsafe, 0 otherwise.
    """
    from crdt_sync.schemas.compare import compare, worst
    from crdt_sync_client.shipped import find_schema

    before, after = find_schema(old), find_schema(new)
    changes = compare(before, after)
    verdict = worst(changes)
    if out.as_json:
        found = [{"kind": c.kind, "path": c.path, "safety": c.safety, "why": c.why} for c in changes]
        out.result({"type": after.type, "verdict": verdict, "changes": found})
    else:
        _say_changes(out, changes)
    return failures.UNSAFE if verdict == "unsafe" else failures.OK


@command_schema.command(
    name="add",
    examples=(
        "crdt-sync schema add pump_check.yaml --store office.db",
        "crdt-sync schema add work_order --store office.db --force",
    ),
)
@click.argument("file", metavar="FILE_OR_TYPE")
@store_options
@space_option
@click.option("--force", is_flag=True, help="Also with changes that are unsafe.")
def schema_add(out: Output, target: Target, file: str, space: str | None, force: bool) -> None:
    """Carry a record type in a space, or a newer version of one. Admins only.

    Every device of the space gets it when it syncs; what was written under the version before stays, also
    what has not been sent yet. A version that is not newer is refused, and without --force one with changes
    that are unsafe: see crdt-sync schema diff.
    """
    from crdt_sync.schemas.compare import compare
    from crdt_sync_client.shipped import find_schema

    from . import opening

    schema = find_schema(file)

    async def work(device: Device) -> None:
        known = {each.type: each for each in await device.schemas(space)}.get(schema.type)
        changed = await device.add_schema(schema, space, force=force)
        if out.as_json:
            out.result({"type": schema.type, "version": schema.version, "changed": changed})
            return
        if not changed:
            out.say(f"The space carries this version of {schema.type} already.")
            return
        if known is not None:
            _say_changes(out, [change for change in compare(known, schema) if change.safety != "safe"])
        out.say(f"The space carries {schema.type}, version {schema.version}.")
        out.note("Saved on this device; crdt-sync sync sends it.")

    opening.run(target, work)


def _say_changes(out: Output, changes: list[SchemaChange]) -> None:
    for grade in ("unsafe", "note", "safe"):
        for change in changes:
            if change.safety == grade:
                out.say(f"{grade:<7} {change.path or 'record type'}: {change.why}")
    count = sum(change.safety == "unsafe" for change in changes)
    if not changes:
        out.say("Nothing changes.")
    elif count:
        out.say(f"{count} of {len(changes)} changes {'is' if count == 1 else 'are'} unsafe.")
    else:
        out.say("No change is unsafe." if len(changes) > 1 else "The change is not unsafe.")


# Where schemas come from ----------------------------------------------------------------------------


def _shipped() -> list[RecordSchema]:
    from crdt_sync_client.shipped import find_schema, shipped_types

    return [find_schema(name) for name in shipped_types()]


def _of_space(target: Target, space: str | None) -> list[RecordSchema]:
    from . import opening

    async def work(device: Device) -> list[RecordSchema]:
        return await device.schemas(space)

    return opening.run(target, work)


def _find(target: Target | None, space: str | None, name: str) -> RecordSchema:
    from crdt_sync.errors import UnknownType
    from crdt_sync_client.shipped import find_schema

    if target is None:
        return find_schema(name)
    known = {schema.type: schema for schema in _of_space(target, space)}
    if name not in known:
        hint = f"its types are {', '.join(known)}" if known else "run crdt-sync sync"
        raise UnknownType(f"the space has no record type {name!r}", hint=hint)
    return known[name]


# How they are shown ---------------------------------------------------------------------------------


def _flat(schema: RecordSchema) -> list[tuple[tuple[str, ...], FieldSpec]]:
    """Fields by their names, those of rows under the rows."""
    found: list[tuple[tuple[str, ...], FieldSpec]] = []

    def add(fields: Mapping[str, FieldSpec], above: tuple[str, ...]) -> None:
        for name, spec in fields.items():
            found.append(((*above, name), spec))
            add(spec.row or {}, (*above, name))

    add(schema.fields, ())
    return found


def _path(names: tuple[str, ...]) -> str:
    """`parts_used.KEY.qty`."""
    return ".KEY.".join(names)


def _types(spec: FieldSpec) -> str:
    return " or ".join(spec.types)


def _rule(spec: FieldSpec) -> str:
    from crdt_sync.schemas.compare import rule_options

    options = rule_options(spec.rule)
    told = [
        f"{name}: {value if value is True else ', '.join(map(str, value))}" for name, value in options.items()
    ]
    return f"{spec.rule.name} ({'; '.join(told)})" if told else spec.rule.name


def _why(spec: FieldSpec, why: dict[tuple[str, ...], str], names: tuple[str, ...]) -> str:
    from crdt_sync.schemas.reasons import RULE_SENTENCES

    return why.get(names) or RULE_SENTENCES[spec.rule.name]


def _say_head(out: Output, schema: RecordSchema) -> None:
    roles = ", ".join(role.text for role in sorted(schema.write_roles))
    deleters = ", ".join(role.text for role in sorted(schema.delete.roles))
    out.say(f"{schema.title} ({schema.type}, version {schema.version})")
    for line in (schema.description, schema.comment and f"Made for: {schema.comment}"):
        if line:
            out.say(line)
    out.say(f"Written by: {roles}")
    out.say(f"Deleted by: {deleters}; against an edit made apart: {schema.delete.rule}")
    if schema.parent is not None:
        parent = schema.parent
        out.say(
            f"Belongs to: {parent.type}, named in {parent.field}; when that is deleted: {parent.on_delete}"
        )
    out.say("")


def _head_json(schema: RecordSchema) -> dict[str, Any]:
    return {
        "type": schema.type,
        "version": schema.version,
        "title": schema.title,
        "description": schema.description,
        "made_for": schema.comment,
        "field_count": len(schema.fields),
    }


def _policies_json(schema: RecordSchema) -> dict[str, Any]:
    parent = schema.parent
    return {
        "write": {"roles": [role.text for role in sorted(schema.write_roles)]},
        "delete": {
            "rule": schema.delete.rule,
            "roles": [role.text for role in sorted(schema.delete.roles)],
        },
        "parent": None
        if parent is None
        else {"type": parent.type, "field": parent.field, "on_delete": parent.on_delete},
    }


def _field_json(
    spec: FieldSpec, why: dict[tuple[str, ...], str] | None = None, path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A field for programs; with `why`, in full."""
    body: dict[str, Any] = {"types": list(spec.types), "rule": spec.rule.name}
    if why is not None:
        from crdt_sync.schemas.compare import rule_options

        body |= {
            "options": rule_options(spec.rule),
            "why": _why(spec, why, path),
            "title": spec.title,
            "required": spec.required,
            "default": to_json(spec.default),
            "aliases": list(spec.aliases),
            "schema": dict(spec.json_schema),
        }
    if spec.row:
        body["row"] = {
            name: _field_json(inner, why, (*path, name) if path else ()) for name, inner in spec.row.items()
        }
    return body
