"""Which side people keep in conflicts about a field, remembered on this device.

A preference belongs to a record type and a field and names a side: `mine`, `theirs`, or a role. Where a
deletion met edits (a field ending in `$deleted`) it may also be `deleted` or `record`. It is shown as the
suggestion of an open conflict and never applied by itself. A field of a row is named for all rows alike:
`parts_used.*.qty`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from crdt_sync.errors import UnknownType, ValidationError
from crdt_sync.records.writes import DELETED, Path
from crdt_sync.roles import Role
from crdt_sync.rules.collections import SetRule
from crdt_sync.schemas.model import RecordSchema
from crdt_sync.schemas.sentences import listed
from crdt_sync_client.engine.model import Alternative, ConflictEntry, Preference, ResolveOp, Suggestion

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

ROLES: Final = tuple(role.text for role in Role if role.may_write)
SIDES: Final = ("mine", "theirs")
OUTCOMES: Final = ("deleted", "record")
_ANY_KEY: Final = "*"

Preferences = Mapping[tuple[str, str], str]
"""(type, field) -> side."""


def field_of(path: Path) -> str:
    """The name by which a preference knows a path: keys of rows and elements of sets are any."""
    return ".".join(_ANY_KEY if at % 2 and part != DELETED else part for at, part in enumerate(path))


def remembered(replica: Replica) -> Preferences:
    rows = replica.db.rows("SELECT type, field, keep FROM preferences")
    return {(record_type, field): keep for record_type, field, keep in rows}


def ls(replica: Replica) -> list[Preference]:
    """All of them, by type and field."""
    rows = replica.db.rows("SELECT type, field, keep, at_ms FROM preferences ORDER BY type, field")
    return [Preference(*row) for row in rows]


def remember(replica: Replica, record_type: str, field: str, keep: str) -> Preference:
    """Remember a side. Inside a transaction. Raises UnknownType and ValidationError with what there is."""
    schemas = [space.schemas[record_type] for space in replica.spaces.values() if record_type in space.types]
    if not schemas:
        known = sorted({name for space in replica.spaces.values() for name in space.types})
        raise UnknownType(
            f"this device knows no record type {record_type!r}",
            hint=f"the types are: {', '.join(known) or 'none yet; sync brings them'}",
        )
    path = tuple(field.split("."))
    _check_field(schemas, path, field)
    _check_side(path, keep)
    made = Preference(record_type, field_of(path), keep, replica.now_ms())
    replica.db.execute(
        "INSERT OR REPLACE INTO preferences (type, field, keep, at_ms) VALUES (?, ?, ?, ?)",
        (made.type, made.field, made.keep, made.at_ms),
    )
    return made


def clear(replica: Replica, record_type: str, field: str | None) -> int:
    """Forget one, or all of a type; returns how many there were. Inside a transaction."""
    sql, params = "DELETE FROM preferences WHERE type = ?", [record_type]
    if field is not None:
        sql += " AND field = ?"
        params.append(field_of(tuple(field.split("."))))
    return int(replica.db.execute(sql, params).rowcount)


def _check_field(schemas: Sequence[RecordSchema], path: Path, field: str) -> None:
    """It is enough that one of the spaces has the field. Raises ValidationError."""
    problem: ValidationError | None = None
    for schema in schemas:
        try:
            _require_conflicts(schema, path, field)
        except ValidationError as error:
            problem = problem or error
        else:
            return
    assert problem is not None
    raise problem


def _require_conflicts(schema: RecordSchema, path: Path, field: str) -> None:
    """Raises ValidationError for a field that is not there, or in which no conflict can ever stand."""
    if path == (DELETED,):
        return
    spec = schema.field_at(path)
    rule = spec.rule
    if path[-1] == DELETED:
        if spec.shape == "rows" or (isinstance(rule, SetRule) and rule.remove_wins):
            return
    elif spec.shape == "value":
        return
    raise ValidationError(
        field,
        f"merges by {rule.name} and never has a conflict of its own",
        hint="a preference belongs to a field with one value, or to the removal of rows (FIELD.*.$deleted)",
    )


def _check_side(path: Path, keep: str) -> None:
    sides = (*SIDES, *ROLES, *(OUTCOMES if path[-1] == DELETED else ()))
    if keep not in sides:
        why = "never writes" if keep == Role.READER.text else "is no side to keep"
        raise ValidationError("keep", f"{keep[:40]!r} {why}", hint=f"give one of {listed(sides)}")


def side_of(op: ResolveOp, entry: ConflictEntry, chosen: int | None) -> str:
    """The side that a decision took, to be remembered. Raises ValidationError for a value of one's own."""
    if op.keep is not None and op.keep != "winner":
        return op.keep
    if chosen is None:
        raise ValidationError(
            entry.field,
            "a value of one's own is no side that could be remembered",
            hint="keep one of the versions, or decide without remembering",
        )
    kept = entry.alternatives[chosen]
    if entry.about_deletion:
        return "deleted" if kept.deletes else "record"
    if kept.mine:
        return "mine"
    return "theirs" if sum(not each.mine for each in entry.alternatives) == 1 else kept.role.text


def suggestion(
    known: Preferences, record_type: str, path: Path, alternatives: Sequence[Alternative]
) -> Suggestion | None:
    """What the preference for that field keeps of these; None without one, or when it fits none of them."""
    field = field_of(path)
    keep = known.get((record_type, field))
    if keep is None:
        return None
    fitting = [index for index, each in enumerate(alternatives) if _fits(keep, each)]
    if not fitting:
        return None
    chosen = max(fitting, key=lambda index: (alternatives[index].at_ms, index))
    of = f", the latest of {len(fitting)}" if len(fitting) > 1 else ""
    return Suggestion(chosen, keep, f"your preference for {field} of {record_type} is {keep}{of}")


def _fits(keep: str, alternative: Alternative) -> bool:
    if keep in SIDES:
        return alternative.mine is (keep == "mine")
    if keep in OUTCOMES:
        return alternative.deletes is (keep == "deleted")
    return alternative.role.text == keep
