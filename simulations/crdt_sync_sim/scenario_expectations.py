"""Reads what a scenario expects at its end."""

from __future__ import annotations

from typing import Any, Final, Literal

from crdt_sync_sim.scenario import Conflict, Expectations, FieldExpectation
from crdt_sync_sim.scenario_names import Names
from crdt_sync_sim.scenario_tables import Tables

_EXPECT: Final = {
    "converged_within_s", "open_conflicts", "bytes_up_to", "acknowledged_at_least", "refused", "deleted",
    "present", "orphaned", "records", "field",
}  # fmt: skip
_EXPECT_FIELD: Final = {"record", "field", "value", "conflict", "alternatives"}


def read_expectations(tables: Tables, names: Names, document: dict[str, Any]) -> Expectations:
    """The tables `expect` and `expect.field` of a scenario."""
    at = ("expect",)
    table = tables.table(document, "expect", _EXPECT)
    fields = []
    for index, block in enumerate(tables.get(table, "field", list, [], at)):
        here = (*at, "field", index)
        tables.known(block, _EXPECT_FIELD, here, "an expected field")
        record = tables.get(block, "record", str, "", here)
        name = tables.get(block, "field", str, "", here)
        names.check_field(record, name, here)
        alternatives = block.get("alternatives")
        conflict: Conflict | Literal[""] = tables.choice(
            block, "conflict", ("open", "auto", "none"), "", here
        )
        fields.append(
            FieldExpectation(
                record=record,
                field=name,
                line=tables.line(here),
                value=block.get("value"),
                has_value="value" in block,
                conflict=conflict or None,
                alternatives=None if alternatives is None else tuple(alternatives),
            )
        )
    for kind in ("deleted", "present", "orphaned"):
        for name in tables.get(table, kind, list, [], at):
            names.check_record(name, (*at, kind))
    return Expectations(
        converged_within_s=tables.optional(table, "converged_within_s", at),
        open_conflicts=_whole(tables.optional(table, "open_conflicts", at)),
        bytes_up_to=_whole(tables.optional(table, "bytes_up_to", at)),
        acknowledged_at_least=_whole(tables.optional(table, "acknowledged_at_least", at)),
        refused=_whole(tables.optional(table, "refused", at)),
        records=_whole(tables.optional(table, "records", at)),
        deleted=tuple(table.get("deleted", ())),
        present=tuple(table.get("present", ())),
        orphaned=tuple(table.get("orphaned", ())),
        fields=tuple(fields),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
