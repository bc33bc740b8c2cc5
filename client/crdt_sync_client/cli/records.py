"""`crdt-sync create`, `set`, `get`, `ls`, `rm`, `restore`: records in the device's own store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from crdt_sync.errors import RecordNotFound

from .checkout_words import note_saved, stands_against, who_until
from .command import Command, Target, space_option, store_options
from .failures import UsageProblem
from .output import Output, new_table, print_rich, show

if TYPE_CHECKING:
    from crdt_sync.schemas.model import RecordSchema
    from crdt_sync_client import Device, Record, WriteResult
    from crdt_sync_client.engine.queries import QueryState

LS_COLUMNS: Final = 4
"""Fields in the table of `ls`, besides the id and the state: what fits a terminal of 120 columns."""
LS_LIMIT: Final = 50
"""Records in the table of `ls` when no --limit is given; with --json there is no limit of our own."""

FIRST_PRIORITY: Final = 1
LAST_PRIORITY: Final = 10
FIRST_PAGE: Final = "first"
STATES: Final = ("synced", "pending", "failed", "conflict", "orphaned")

_priority_option = click.option(
    "--priority",
    type=click.IntRange(FIRST_PRIORITY, LAST_PRIORITY),
    metavar="1-10",
    help="How urgent it is to send; 1 goes first. The schema says it without this.",
)

_NOT_SENT: Final = "Saved on this device; crdt-sync sync sends it."


@click.command(
    cls=Command,
    name="create",
    examples=(
        "crdt-sync create work_order --store office.db title='Swap bucket' asset_id=A status=assigned",
        "crdt-sync create work_order --store office.db title=Grease parts_used.A.qty=2 tags=pm,urgent",
    ),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("assignments", nargs=-1, metavar="FIELD=VALUE...")
@_priority_option
@store_options
@space_option
def command_create(
    out: Output,
    target: Target,
    record_type: str,
    assignments: tuple[str, ...],
    space: str | None,
    priority: int | None,
) -> None:
    """Make a record and print its id.

    Values are read by the types of the schema. A row is written by its key, as in parts_used.A.qty=2; a list
    as tags=urgent,pm or as JSON.
    """
    from . import opening

    async def work(device: Device) -> None:
        schema = await device.schema(record_type, space)
        written = await device.create(
            record_type, parse_assignments(schema, assignments), space=space, priority=priority
        )
        if out.as_json:
            out.result({"id": written.id, "ref": written.ref})
            return
        out.say(written.id)
        out.note(_NOT_SENT)

    opening.run(target, work)


@click.command(
    cls=Command,
    name="set",
    examples=(
        "crdt-sync set work_order 6f1c9f0e-… --store office.db status=in_progress parts_used.A.qty=3",
        "crdt-sync set work_order 6f1c9f0e-… --store office.db tags+=urgent tags-=pm root_cause=null",
    ),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@click.argument("assignments", nargs=-1, required=True, metavar="FIELD=VALUE...")
@_priority_option
@store_options
@space_option
def command_set(
    out: Output,
    target: Target,
    record_type: str,
    record_id: str,
    assignments: tuple[str, ...],
    space: str | None,
    priority: int | None,
) -> None:
    """Change fields of a record.

    FIELD=null clears a field; tags+=x and tags-=x add and remove an element; a counter takes hours=+2.
    """
    from . import opening

    async def work(device: Device) -> None:
        schema = await device.schema(record_type, space)
        record = await device.get(record_type, record_id, space=space)
        changes = parse_assignments(schema, assignments, record.values if record else None)
        written = await device.update(record_type, record_id, changes, space=space, priority=priority)
        if out.as_json:
            resolved = list(written.resolved)
            body = {"id": written.id, "state": written.state, "resolved": resolved, "ref": written.ref}
            out.result(body | stands_against(written))
            return
        if not written.changed:
            out.say(f"{record_type} {written.id} was so already.")
            return
        out.say(f"{record_type} {written.id} is changed.")
        for conflict in written.resolved:
            out.say(f"This resolved conflict {conflict}: you had seen all its versions.")
        note_saved(out, written, _NOT_SENT)

    opening.run(target, work)


@click.command(
    cls=Command,
    name="get",
    examples=(
        "crdt-sync get work_order 6f1c9f0e-… --store office.db",
        "crdt-sync get work_order 6f1c9f0e-… --store office.db --json",
    ),
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@store_options
@space_option
def command_get(out: Output, target: Target, record_type: str, record_id: str, space: str | None) -> None:
    """Show one record.

    With --json: its fields by name, its id and type, and under _sync its state, open conflicts, the fields
    whose value is provisional until a conflict is resolved, whether it is orphaned (the record it belongs
    to is deleted, or not on this device), and who has it checked out.
    """
    from . import opening

    async def work(device: Device) -> None:
        schema = await device.schema(record_type, space)
        record = await device.get(record_type, record_id, space=space)
        if record is None:
            raise RecordNotFound(
                f"this device has no {record_type} {record_id}",
                hint=f"crdt-sync ls {record_type} lists what it has; crdt-sync sync brings what is new",
            )
        if out.as_json:
            out.result(record_json(record))
        else:
            _print_record(record, schema)

    opening.run(target, work)


@click.command(
    cls=Command,
    name="ls",
    examples=(
        "crdt-sync ls work_order --store office.db --where status=assigned --where 'cost>100' --order -cost",
        "crdt-sync ls work_order --store office.db --where 'status in open,assigned' --limit 10 --json",
        "crdt-sync ls work_order --store office.db --state conflict --count",
    ),
)
@click.argument("record_type", metavar="TYPE")
@store_options
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="FIELD=VALUE, or with != < <= > >= ^= (begins with), or 'FIELD in A,B'.",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="Only records with unsent or failed work, in conflict, or whose parent is deleted.",
)
@click.option(
    "--order", "--order-by", "orders", multiple=True, metavar="FIELD", help="Sort by; -FIELD descends."
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help=f"At most N records (table: {LS_LIMIT})."
)
@click.option("--page", "token", metavar="TOKEN", help="Go on after the page that gave this token.")
@click.option("--count", is_flag=True, help="Only say how many there are.")
@click.option("--deleted", is_flag=True, help="Only deleted records.")
@space_option
def command_ls(
    out: Output,
    target: Target,
    record_type: str,
    conditions: tuple[str, ...],
    states: tuple[QueryState, ...],
    orders: tuple[str, ...],
    limit: int | None,
    token: str | None,
    count: bool,
    deleted: bool,
    space: str | None,
) -> None:
    """List the records of a type.

    Several --where must all hold; several --state: one of them. FIELD=null asks for no value; for a set,
    FIELD=VALUE asks whether the value is in it. Ties in an order go by id. Everything is read from this
    device; no relay is asked.

    When there are more than --limit, the last line has the token for --page. A page goes on where the last
    one ended, whatever was written in between. With --json and --page the result is an object of `records`
    and `next`, the token or null; --page first begins so.
    """
    from crdt_sync_client.engine.queries import Query

    from . import opening
    from .conditions import parse_conditions

    async def work(device: Device) -> None:
        schema = await device.schema(record_type, space)
        most = limit if limit is not None or out.as_json else LS_LIMIT
        query = Query(
            record_type,
            parse_conditions(schema, conditions),
            orders,
            most,
            states,
            deleted="only" if deleted else False,
            space=space,
        )
        if count:
            total = await device.count(query)
            out.result({"count": total}) if out.as_json else out.say(f"{total:,}")
            return
        records, following = await device.page(query, None if token == FIRST_PAGE else token)
        if out.as_json:
            listed = [record_json(record) for record in records]
            out.result(listed if token is None else {"records": listed, "next": following})
            return
        columns = _columns(schema, records)
        narrowed = conditions or states or deleted or token
        held = ["checked out by"] if any(r.checkout is not None for r in records) else []
        out.table(
            ("id", *columns, "state", *held),
            [
                (r.id, *(r.values.get(name) for name in columns), _state(r), *(_holder(r) for _ in held))
                for r in records
            ],
            none=f"No {record_type} matches."
            if narrowed
            else f"There is no {record_type} on this device yet.",
        )
        if following is not None:
            total = await device.count(query)
            out.note(
                f"{len(records)} of {total:,}; --page {following} goes on, --limit N shows more, --json all."
            )

    opening.run(target, work)


@click.command(cls=Command, name="rm", examples=("crdt-sync rm work_order 6f1c9f0e-… --store office.db",))
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@store_options
@space_option
def command_rm(out: Output, target: Target, record_type: str, record_id: str, space: str | None) -> None:
    """Delete a record, for everyone in the space.

    The schema says who may, what happens when somebody else changed it at the same time, and whether the
    records that belong to it go with it or are in the way.
    """
    from . import opening

    async def work(device: Device) -> None:
        written = await device.delete(record_type, record_id, space=space)
        if out.as_json:
            below = [{"type": below, "id": id} for below, id in written.below]
            body = {"id": written.id, "deleted": True, "state": written.state, "below": below}
            out.result(body | stands_against(written))
            return
        out.say(f"{record_type} {written.id} is deleted{_with_below(written)}.")
        note_saved(out, written, f"{_NOT_SENT} crdt-sync restore brings it back.")

    opening.run(target, work)


@click.command(
    cls=Command, name="restore", examples=("crdt-sync restore work_order 6f1c9f0e-… --store office.db",)
)
@click.argument("record_type", metavar="TYPE")
@click.argument("record_id", metavar="ID")
@store_options
@space_option
def command_restore(out: Output, target: Target, record_type: str, record_id: str, space: str | None) -> None:
    """Bring a deleted record back, and what was deleted with it."""
    from . import opening

    async def work(device: Device) -> None:
        written = await device.restore(record_type, record_id, space=space)
        if out.as_json:
            below = [{"type": below, "id": id} for below, id in written.below]
            body = {"id": written.id, "deleted": False, "state": written.state, "below": below}
            out.result(body | stands_against(written))
            return
        if not written.changed:
            out.say(f"{record_type} {written.id} was not deleted.")
            return
        out.say(f"{record_type} {written.id} is back{_with_below(written)}.")
        note_saved(out, written, _NOT_SENT)

    opening.run(target, work)


def _state(record: Record) -> str:
    return f"{record.sync_state}, orphaned" if record.orphaned else record.sync_state


def _holder(record: Record) -> str:
    return "" if record.checkout is None else who_until(record.checkout)


def _with_below(written: WriteResult) -> str:
    """` with 3 work_assignment and 1 time_record`, for what went or came back with a record."""
    counts = Counter(record_type for record_type, _ in written.below)
    told = " and ".join(f"{count} {record_type}" for record_type, count in sorted(counts.items()))
    return f", with {told}" if told else ""


def parse_assignments(
    schema: RecordSchema, assignments: Iterable[str], current: Mapping[str, Any] | None = None
) -> dict[Any, Any]:
    """`field=value` arguments as the changes of one write, parsed by the schema's types.

    `current` are the record's values: several `tags+=x` in one command become one new list.
    """
    changes: dict[Any, Any] = {}
    for text in assignments:
        path, value = schema.parse_assignment(text)
        if path in changes:
            value = _together(".".join(path), changes[path], value, (current or {}).get(path[0]))
        changes[path] = value
    return changes


def _together(field: str, first: Any, second: Any, current: Any) -> Any:
    """Two changes of one field in one command: they add up where they are relative, else it is a mistake."""
    from crdt_sync.records.changes import AddElement, Increment, RemoveElement

    if isinstance(first, Increment) and isinstance(second, Increment):
        return Increment(first.amount + second.amount)
    elements = first if isinstance(first, list) else current or []
    for change in (first, second):
        if isinstance(change, AddElement):
            elements = [*elements, *([] if change.element in elements else [change.element])]
        elif isinstance(change, RemoveElement):
            elements = [element for element in elements if element != change.element]
        elif change is not first or not isinstance(change, list):
            raise UsageProblem(f"{field} is given twice", hint="give each field one value")
    return elements


def record_json(record: Record) -> dict[str, Any]:
    """A record for programs. A field may be called `type`, so `_sync.type` always has the record type."""
    body = record.to_json()
    body["_sync"] = {"type": record.type, "space": record.space, **body["_sync"]}
    return body


def _columns(schema: RecordSchema, records: Iterable[Record]) -> list[str]:
    """The fields worth a column: in the schema's order, the first ones that any of the records has."""
    listed = list(records)
    one_line = [name for name, spec in schema.fields.items() if spec.row is None and not spec.is_bytes]
    return [name for name in one_line if any(r.values.get(name) is not None for r in listed)][:LS_COLUMNS]


def _print_record(record: Record, schema: RecordSchema) -> None:
    from rich.text import Text

    table = new_table(show_header=False)
    table.add_column("field", style="bold")
    table.add_column("value", overflow="fold")
    provisional = set(record.provisional)
    for path, value in _flat(record.values, schema):
        text = Text(show(value))
        if path in provisional:
            text.append("  provisional, in conflict", style="yellow")
        table.add_row(Text(path), text)
    print_rich(Text(f"{record.type} {record.id}", style="bold"), Text(record.sync_state, style="dim"))
    print_rich(table)
    if record.orphaned and schema.parent is not None:
        parent = schema.parent
        what = f"the {parent.type} named in {parent.field} is deleted, or not on this device"
        print_rich(Text(f"orphaned: {what}", style="yellow"))
    if record.checkout is not None:
        print_rich(Text(f"checked out by {show(who_until(record.checkout))}", style="yellow"))
    for conflict in record.conflicts:
        print_rich(Text(f"in conflict: crdt-sync conflicts show {conflict[:8]}", style="yellow"))


def _flat(values: Mapping[str, Any], schema: RecordSchema) -> Iterable[tuple[str, Any]]:
    """Dotted paths and values: rows one line per cell, as they are written on the command line."""
    for name, value in values.items():
        spec = schema.fields.get(name)
        if spec is not None and spec.row is not None and isinstance(value, Mapping):
            for key, row in value.items():
                for sub, cell in row.items() if isinstance(row, Mapping) else [("", row)]:
                    yield f"{name}.{key}.{sub}".rstrip("."), cell
                if not row:
                    yield f"{name}.{key}", {}
        else:
            yield name, value
