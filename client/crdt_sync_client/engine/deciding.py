"""From what a person decides in a conflict to the value that shall stand.

Reads the trail and changes nothing; the writes are planned in `records.editing`. A decision names the
conflict by its id, and an id stands for exactly these alternatives: whoever decides has seen them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from crdt_sync.errors import LocalError, ValidationError
from crdt_sync.records.changes import AddElement
from crdt_sync.records.writes import DELETED, MARKS, Path, same_value
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import preferences, trail
from crdt_sync_client.engine.model import UNSET, Alternative, ConflictEntry, Keep, ResolveOp

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


class Decision(NamedTuple):
    """What shall stand at the conflict's path, and the side to remember, if any."""

    entry: ConflictEntry
    value: Any
    remember: str | None


def decided(replica: Replica, op: ResolveOp) -> Decision:
    """What `op` asks for. Raises ConflictNotFound, and ValidationError when that is nothing, or not clear."""
    entry = trail.entry(replica, op.conflict)
    if op.field is not None and op.field != entry.field:
        raise ValidationError(op.field, f"is not the field of this conflict, which is {entry.field}")
    given = [op.keep is not None, op.alternative is not None, op.value is not UNSET, op.suggested]
    if sum(given) != 1:
        raise ValidationError(
            entry.field, "needs one decision: keep, alternative, value or what is suggested"
        )
    if op.value is not UNSET and entry.about_deletion:
        raise ValidationError(
            entry.field, "is about a deletion and takes no value", hint="keep 'deleted' or 'record'"
        )
    index = None if op.value is not UNSET else _chosen(op, entry)
    side = preferences.side_of(op, entry, index) if op.remember else None
    return Decision(entry, op.value if index is None else _value_of(entry, index), side)


def of_one_record(decisions: Sequence[Decision]) -> None:
    """Raises LocalError unless all are about one record, and no two about one conflict."""
    records = {(each.entry.space, each.entry.type, each.entry.record) for each in decisions}
    if len(records) != 1:
        raise LocalError("these are conflicts of more than one record", hint="decide each record by itself")
    if len({each.entry.id for each in decisions}) != len(decisions):
        raise LocalError("one conflict is decided twice", hint="decide each field once")


def alternative_of(entry: ConflictEntry, index: int) -> Alternative:
    """Raises ValidationError when there is none of that number."""
    alternatives = entry.alternatives
    if not 0 <= index < len(alternatives):
        raise ValidationError(entry.field, f"has alternatives 0 to {len(alternatives) - 1}")
    return alternatives[index]


def _value_of(entry: ConflictEntry, index: int) -> Any:
    """What that alternative comes to. Removing a row is an edit to the record, though its value says the same
    as that of a deletion which had seen as much."""
    chosen = entry.alternatives[index]
    return None if entry.about_deletion and not chosen.deletes else chosen.value


def _chosen(op: ResolveOp, entry: ConflictEntry) -> int:
    """The index of the alternative that is to stay."""
    if op.alternative is not None:
        alternative_of(entry, op.alternative)
        return op.alternative
    if op.suggested:
        if entry.suggestion is None:
            raise ValidationError(
                entry.field,
                "has no suggestion: no preference is remembered for it, or none of the versions fits",
                hint="remember one with `crdt-sync conflicts prefer set TYPE FIELD --keep SIDE`",
            )
        return entry.suggestion.alternative
    keep = op.keep
    assert keep is not None
    if keep == "winner":
        return entry.winner
    fitting = [index for index, each in enumerate(entry.alternatives) if _fits(keep, each)]
    if keep in preferences.OUTCOMES and not entry.about_deletion:
        raise ValidationError(
            entry.field, f"is not about a deletion, so {keep!r} cannot be kept", hint="keep mine or theirs"
        )
    if not fitting or not _alike(entry, fitting):
        which = "this device" if keep == "mine" else "another device"
        raise ValidationError(
            entry.field,
            f"has {len(fitting)} alternatives from {which}, so it is not clear which to keep",
            hint="choose one by its place, or give the value",
        )
    return fitting[0]


def _fits(keep: Keep, alternative: Alternative) -> bool:
    if keep in preferences.OUTCOMES:
        return alternative.deletes is (keep == "deleted")
    return alternative.mine is (keep == "mine")


def _alike(entry: ConflictEntry, fitting: Sequence[int]) -> bool:
    """Whether it makes no difference which of them stays."""
    first, *others = [entry.alternatives[index] for index in fitting]
    if entry.about_deletion:
        return all(each.deletes is first.deletes for each in others)
    return all(same_value(each.value, first.value) for each in others)


def written_again(schema: RecordSchema, path: Path, value: Any) -> list[tuple[str | Path, Any]]:
    """The changes that bring one alternative's write back into a record that has moved on.

    Empty for the mark of a record, which there is no need to write. Raises ValidationError for a field in
    which no single value stands.
    """
    if schema.old_names is not None:
        path = schema.old_names.path(path)
    if path[-1] in MARKS:
        return [(path[:-1], {})] if path[:-1] else []
    if path[-1] == DELETED:
        return [(path[:-1], None)]
    spec = schema.field_at(path)
    if spec.shape in ("value", "text"):
        return [(path, value)]
    if spec.shape == "set":
        return [(path[:-1], AddElement(value))]
    raise ValidationError(
        ".".join(path), f"merges by {spec.rule.name}: there is no version of it to bring back"
    )
