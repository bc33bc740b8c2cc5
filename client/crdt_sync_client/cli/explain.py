"""`crdt-sync explain` and `history`: why a record is as it is, and how it came to be so on this device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from .checkout_words import in_words
from .command import Command, Target, space_option, store_options
from .conflict_views import writer_of, written_by
from .output import Output, iso_time, local_time, new_table, print_rich, show, to_json
from .write_life import how_far, life_json

if TYPE_CHECKING:
    from crdt_sync_client import Device, ExplainedField, ExplainedVersion, Explanation, HistoryEntry

_PARTS: Final = {
    "shown": "shown",
    "lost": "lost",
    "counts": "counts",
    "deletes": "deleted it",
    "unseen": "not seen by the deletion",
}


@click.command(
    cls=Command,
    name="explain",
    examples=(
        "crdt-sync explain work_order 6f1c9f0e-… root_cause --store office.db",
        "crdt-sync explain work_order 6f1c9f0e-… --store office.db --json",
    ),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@click.argument("field", metavar="[FIELD]", required=False)
@store_options
@space_option
def command_explain(
    out: Output, target: Target, record_type: str, record_id: str, field: str | None, space: str | None
) -> None:
    """Say why a field has its value, or all fields of a record.

    Which writes stand, who made them and when, which rule chose and why, what lost, and the conflict. FIELD
    may be dotted, as in parts_used.A.qty, or name a row or all rows.
    """
    from . import opening

    async def work(device: Device) -> None:
        found = await device.explain(record_type, record_id, field, space=space)
        if out.as_json:
            out.result(explanation_json(found))
        else:
            _print(found, field)

    opening.run(target, work)


@click.command(
    cls=Command,
    name="history",
    examples=("crdt-sync history work_order 6f1c9f0e-… --store office.db --limit 10",),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@store_options
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most N entries.")
@space_option
def command_history(
    out: Output, target: Target, record_type: str, record_id: str, limit: int, space: str | None
) -> None:
    """Show what changed a record on this device, the newest first.

    Only of types whose schema keeps a history (x-history: N, the last N entries of each record).
    """
    from . import opening

    async def work(device: Device) -> None:
        entries = await device.history(record_type, record_id, limit=limit, space=space)
        if out.as_json:
            out.result([_history_json(entry) for entry in entries])
            return
        rows = [row for entry in entries for row in _history_rows(entry)]
        out.table(
            ("when", "by", "field", "before", "after"),
            rows,
            none="Nothing has changed since the history is kept.",
        )

    opening.run(target, work)


def explanation_json(found: Explanation) -> dict[str, Any]:
    """An explanation for programs."""
    parent = None if found.parent is None else {"type": found.parent[0], "id": found.parent[1]}
    return {
        "type": found.type,
        "id": found.id,
        "deleted": found.deleted,
        "parent": parent,
        "orphaned": found.orphaned,
        "checkout": None if found.checkout is None else found.checkout.to_json(),
        "fields": [
            {
                "field": each.field,
                "value": to_json(each.value),
                "rule": each.rule,
                "reason": each.reason,
                "conflict": each.conflict,
                "conflict_kind": each.conflict_kind,
                "writes": [
                    {
                        "value": to_json(version.value),
                        **written_by(version),
                        "part": version.part,
                        "life": None if version.life is None else life_json(version.life),
                    }
                    for version in each.versions
                ],
            }
            for each in found.fields
        ],
    }


def _print(found: Explanation, field: str | None) -> None:
    from rich.text import Text

    state = ", deleted" if found.deleted else ""
    print_rich(Text(f"{found.type} {found.id}{state}", style="bold"))
    if found.orphaned and found.parent is not None:
        print_rich(
            Text(
                f"Its {found.parent[0]} {show(found.parent[1])} is deleted: it is left over.", style="yellow"
            )
        )
    for line in [] if found.checkout is None else in_words(found.checkout):
        print_rich(Text(show(line), style="yellow"))
    if not found.fields:
        print_rich(Text(f"Nobody has written {show(field or 'anything')} yet."))
    for each in found.fields:
        print_rich(Text(""))
        print_rich(Text(_headline(each), style="bold"))
        print_rich(Text(f"{each.rule}: {show(each.reason)}"))
        table = new_table(show_header=False)
        for version in each.versions:
            table.add_row(*(Text(cell) for cell in _cells(each, version)))
        print_rich(table)
        if each.conflict is not None:
            what = "waits for a decision" if each.conflict_kind == "open" else "settled by the rule"
            print_rich(Text(f"conflict {each.conflict}, {what}", style="yellow"))


def _headline(each: ExplainedField) -> str:
    if each.path[-1] == "$deleted":
        where = ".".join(each.path[:-1]) or "the record"
        return f"deletion of {show(where)}: {'in effect' if each.value else 'not in effect'}"
    return f"{show(each.field)}: {show(each.value)}"


def _cells(each: ExplainedField, version: ExplainedVersion) -> tuple[str, ...]:
    who = writer_of(version)
    value = "" if version.part == "deletes" else show(version.value)
    where = "" if version.field == each.field or version.part == "deletes" else f"{show(version.field)} = "
    return (
        _PARTS[version.part],
        where + value,
        show(who),
        version.role.text,
        local_time(version.at_ms),
        "" if version.life is None else how_far(version.life),
    )


def _history_json(entry: HistoryEntry) -> dict[str, Any]:
    return {
        "at": iso_time(entry.at_ms),
        "origin": entry.origin,
        "fields": [
            {
                "field": each.field,
                "before": each.before,
                "after": each.after,
                "device": each.device_name,
                "device_id": None if each.device is None else each.device.hex(),
            }
            for each in entry.fields
        ],
        "deleted": entry.deleted,
        "conflicts_opened": list(entry.opened),
        "conflicts_closed": list(entry.closed),
    }


def _history_rows(entry: HistoryEntry) -> list[tuple[Any, ...]]:
    when = local_time(entry.at_ms)
    rows: list[tuple[Any, ...]] = [
        (when, each.device_name or "", each.field, each.before, each.after) for each in entry.fields
    ]
    if entry.deleted is not None:
        rows.append((when, "", "(the record)", "", "deleted" if entry.deleted else "brought back"))
    rows += [(when, "", "(conflict)", "", f"{id[:8]} opened") for id in entry.opened]
    rows += [(when, "", "(conflict)", "", f"{id[:8]} closed") for id in entry.closed]
    return rows
