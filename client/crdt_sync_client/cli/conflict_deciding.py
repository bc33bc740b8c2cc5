"""`crdt-sync conflicts resolve` and `restore`: deciding one conflict, or all of a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import click

from .checkout_words import note_saved, stands_against
from .command import Command, Target, space_option, store_options
from .conflict_views import conflict_json, find_conflict, index_of, resolution_of, value_of
from .failures import UsageProblem
from .output import Output, show

if TYPE_CHECKING:
    from crdt_sync_client import ConflictEntry, Device
    from crdt_sync_client.choices import Choice
    from crdt_sync_client.engine.operations import Keep

_SIDES: Final = ("mine", "theirs", "deleted", "record")
_SAVED: Final = "Saved on this device; crdt-sync sync sends it."


@click.command(
    cls=Command,
    name="resolve",
    examples=(
        "crdt-sync conflicts resolve 5f0c21aa --store office.db --field root_cause --keep theirs",
        "crdt-sync conflicts resolve 5f0c21aa --store office.db --field root_cause --value 'Seal worn'",
        "crdt-sync conflicts resolve --record work_order 6f1c9f0e-… --store office.db --keep theirs",
        "crdt-sync conflicts resolve --record work_order 6f1c9f0e-… --set root_cause=mine --set notes=2",
    ),
)
@click.argument("conflict_id", metavar="[ID]", required=False)
@store_options
@click.option(
    "--record", nargs=2, metavar="TYPE ID", help="Decide the conflicts of this record, all at once or none."
)
@click.option(
    "--field", metavar="FIELD", help="The field it is about; checked, so that the right one is resolved."
)
@click.option(
    "--keep",
    type=click.Choice(_SIDES),
    help="This device's version or the other one; of a deletion, whether it is deleted. With --record: of"
    " all open ones not named.",
)
@click.option(
    "--keep-version", type=click.IntRange(min=1), metavar="N", help="Keep version N of `conflicts show`."
)
@click.option(
    "--value",
    "values",
    multiple=True,
    metavar="VALUE",
    help="A value of your own, read by the field's type. With --record: FIELD=VALUE, may be repeated.",
)
@click.option(
    "--set",
    "choices",
    multiple=True,
    metavar="FIELD=SIDE",
    help="With --record: what stays in that field: mine, theirs, deleted, record or a version's number.",
)
@click.option("--suggested", is_flag=True, help="Keep what your preference suggests.")
@click.option("--remember", is_flag=True, help="Remember this side as your preference for the field.")
@space_option
def conflicts_resolve(
    out: Output,
    target: Target,
    conflict_id: str | None,
    record: tuple[str, str] | None,
    field: str | None,
    keep: Keep | None,
    keep_version: int | None,
    values: tuple[str, ...],
    choices: tuple[str, ...],
    suggested: bool,
    remember: bool,
    space: str | None,
) -> None:
    """Decide a conflict, or those of a record.

    Keep one of its versions, or give a value of your own.
    For one that a rule had settled already, this brings the losing version back.
    """
    from . import opening

    if (conflict_id is None) == (record is None):
        raise UsageProblem(
            "say which conflict", hint="give its ID, or --record TYPE ID for those of a record"
        )
    if record is not None:
        _refuse_alone(field=field, keep_version=keep_version, remember=remember)
        if not (keep or values or choices or suggested):
            raise UsageProblem("say what should stay", hint="give --keep, --set, --value or --suggested")
        opening.run(target, _ofrecord(out, record, keep, values, choices, suggested, space))
        return
    if choices:
        raise UsageProblem("--set belongs to --record", hint="give --keep or --keep-version with an ID")
    given = [keep is not None, keep_version is not None, bool(values), suggested]
    if sum(given) != 1 or len(values) > 1:
        raise UsageProblem(
            "say what should stay",
            hint="give exactly one of --keep mine, --keep theirs, --keep-version N, --value VALUE and"
            " --suggested",
        )

    async def work(device: Device) -> None:
        assert conflict_id is not None
        conflict = await find_conflict(device, conflict_id)
        choice: dict[str, Any] = {"suggested": suggested}
        if values:
            choice["value"] = await _parsed(device, conflict, values[0])
        elif keep_version is not None:
            choice["alternative"] = index_of(conflict, keep_version)
        elif keep is not None:
            choice["keep"] = keep
        written = await device.resolve(conflict.id, field=field, remember=remember, **choice)
        settled = await device.conflict(conflict.id)
        if out.as_json:
            out.result(conflict_json(settled) | {"record_state": written.state, **stands_against(written)})
            return
        out.say(f"{conflict.field} of {conflict.type} {conflict.record} is now: {resolution_of(settled)}")
        note_saved(out, written, _SAVED)

    opening.run(target, work)


def _refuse_alone(**options: Any) -> None:
    for name, value in options.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise UsageProblem(f"{option} is for one conflict", hint="give it with an ID, not with --record")


def _ofrecord(
    out: Output,
    record: tuple[str, str],
    keep: Keep | None,
    values: tuple[str, ...],
    choices: tuple[str, ...],
    suggested: bool,
    space: str | None,
) -> Any:
    record_type, record_id = record

    async def work(device: Device) -> None:
        found = await device.conflicts(open_only=False, type=record_type, id=record_id, space=space)
        standing = {conflict.field: conflict for conflict in found if conflict.state != "closed"}
        decisions = _sides(choices, standing)
        for text in values:
            name, value = await _named_value(device, record_type, text, space)
            _once(name, decisions)
            decisions[name] = value
        if suggested:
            for name, conflict in standing.items():
                if conflict.suggestion is not None and name not in decisions:
                    decisions[name] = conflict.suggestion.alternative
        written = await device.resolve_record(
            record_type,
            record_id,
            decisions,
            keep=keep,
            space=space,
        )
        settled = [await device.conflict(id) for id in written.resolved]
        if out.as_json:
            out.result([conflict_json(conflict) for conflict in settled])
            return
        for conflict in settled:
            out.say(f"{conflict.field} of {record_type} {record_id} is now: {resolution_of(conflict)}")
        note_saved(out, written, _SAVED)

    return work


def _sides(choices: tuple[str, ...], standing: dict[str, ConflictEntry]) -> dict[str, Choice]:
    """`FIELD=SIDE` arguments."""
    decisions: dict[str, Choice] = {}
    for text in choices:
        name, _, side = text.partition("=")
        _once(name, decisions)
        if side in _SIDES:
            decisions[name] = cast("Keep", side)
        elif side.isascii() and side.isdigit() and name in standing:
            decisions[name] = index_of(standing[name], int(side))
        elif side.isascii() and side.isdigit():
            decisions[name] = 0  # of a field about which no conflict stands; the device says so
        else:
            raise UsageProblem(
                f"--set {name}={side} names no side",
                hint=f"write {name or 'FIELD'}= and one of {', '.join(_SIDES)} or a version's number",
            )
    return decisions


def _once(name: str, decisions: dict[str, Choice]) -> None:
    if name in decisions:
        raise UsageProblem(f"{name} is decided twice", hint="decide each field once")


async def _named_value(device: Device, record_type: str, text: str, space: str | None) -> tuple[str, Choice]:
    from crdt_sync_client import OwnValue

    if "=" not in text:
        raise UsageProblem("with --record a value needs its field", hint="write --value FIELD=VALUE")
    schema = await device.schema(record_type, space)
    path, value = schema.parse_assignment(text)
    return ".".join(path), OwnValue(value)


async def _parsed(device: Device, conflict: ConflictEntry, text: str) -> Any:
    if conflict.about_deletion:
        return text  # the device refuses it and says what can be given
    schema = await device.schema(conflict.type, conflict.space.hex())
    return schema.parse_assignment(f"{conflict.field}={text}")[1]


@click.command(
    cls=Command,
    name="restore",
    examples=("crdt-sync conflicts restore 5f0c21aa --version 1 --store office.db",),
)
@click.argument("conflict_id", metavar="ID")
@store_options
@click.option(
    "--version",
    "number",
    type=click.IntRange(min=1),
    required=True,
    metavar="N",
    help="Version N of `conflicts show`.",
)
def conflicts_restore(out: Output, target: Target, conflict_id: str, number: int) -> None:
    """Bring back a version of a conflict that lost.

    Whether a rule or a person had decided, and whatever was written since: this is a new write, made by
    somebody who has seen everything, and replaces for everyone what stands now.
    """
    from . import opening

    async def work(device: Device) -> None:
        conflict = await find_conflict(device, conflict_id)
        index = index_of(conflict, number)
        written = await device.restore_version(conflict.id, index)
        if out.as_json:
            after = conflict_json(await device.conflict(conflict.id))
            again = conflict.state == "closed"
            out.result(after | {"restored_version": number, "changed": written.changed, "new_write": again})
            return
        version = conflict.alternatives[index]
        where = f"{version.field} of {conflict.type} {conflict.record}"
        if version.deletes:
            where = (
                f"{conflict.field.rpartition('$deleted')[0].rstrip('.') or conflict.type} {conflict.record}"
            )
        if not written.changed:
            out.say(f"{where} is so already: {show(value_of(version))}")
            return
        out.say(f"{where} is now: {show(value_of(version))}")
        if conflict.state == "closed":
            out.note("The conflict was closed, so this is a new write; it replaces what stood since.")
        note_saved(out, written, _SAVED)

    opening.run(target, work)
