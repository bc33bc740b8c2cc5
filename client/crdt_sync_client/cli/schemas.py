"""`crdt-sync schema`: check schema files, list record types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import Group, Target, json_option, space_option, store_options
from .output import Output, new_table, print_rich

if TYPE_CHECKING:
    from crdt_sync.schemas.model import FieldSpec
    from crdt_sync_client import Device


@click.group(cls=Group, name="schema")
def command_schema() -> None:
    """Check schema files and list record types."""


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
    for name, spec in schema.fields.items():
        table.add_row(name, _types(spec), spec.rule.name)
        for sub, inner in (spec.row or {}).items():
            table.add_row(f"  .KEY.{sub}", _types(inner), inner.rule.name)
    out.say(f"{file} is good: type {schema.type}, version {schema.version}.")
    print_rich(table)


@command_schema.command(name="ls", examples=("crdt-sync schema ls --store office.db",))
@store_options
@space_option
def schema_ls(out: Output, target: Target, space: str | None) -> None:
    """List the record types of a space."""
    from . import opening

    async def work(device: Device) -> None:
        schemas = await device.schemas(space)
        if out.as_json:
            out.result([{"type": s.type, "version": s.version, "title": s.title} for s in schemas])
            return
        out.table(
            ("type", "title", "version", "fields"),
            [(s.type, s.title, s.version, len(s.fields)) for s in schemas],
            none="No record types are known yet. Run crdt-sync sync.",
        )

    opening.run(target, work)


def _types(spec: FieldSpec) -> str:
    return " or ".join(spec.types)


def _field_json(spec: FieldSpec) -> dict[str, object]:
    body: dict[str, object] = {"types": list(spec.types), "rule": spec.rule.name}
    if spec.row:
        body["row"] = {name: _field_json(inner) for name, inner in spec.row.items()}
    return body
