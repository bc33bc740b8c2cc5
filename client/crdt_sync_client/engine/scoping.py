"""What of a space this device keeps: of some types only the records that meet a condition, and picked ones.

The relay cannot tell records apart, so everything travels to every device; what does not belong here is left
again in the transaction in which it came (`sift`), as an absent record: neither disk nor memory hold it. Its
condition is looked at again when something comes for it that may change the answer.

Kept, whatever the conditions say: record types; picked records, and those that belong to one, at any depth
(`x-parent`); and what has unsent work, until that is sent: it is noted in `leaving`, and goes afterwards
(`settle`). A condition that does not fit its type's schema any more keeps everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import absent, giving_back
from crdt_sync_client.engine.absent import Absent, Why
from crdt_sync_client.engine.arrivals import Opened
from crdt_sync_client.engine.checking import check_filter
from crdt_sync_client.engine.filter_text import decode_filter, encode_filter
from crdt_sync_client.engine.filters import Filter
from crdt_sync_client.engine.model import RecordChange
from crdt_sync_client.engine.open_records import OpenRecord
from crdt_sync_client.engine.presenting import COLUMNS, record_of_row

if TYPE_CHECKING:
    from crdt_sync_client.engine.materialising import Materialised
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space

MAX_DEPTH: Final = 16
"""Generations above a record that are looked at for a picked one; as deep as `family` goes."""
AT_ONCE: Final = 500
"""Records that leave in one transaction of upkeep."""
_DELETED: Final = "$deleted"

_HERE: Final = (
    "SELECT no, opaque, id, json, parent FROM records WHERE space = ? AND type = ? AND json IS NOT NULL"
)
_DUE: Final = (
    "SELECT r.no, r.opaque, r.type, r.id, r.json, r.parent FROM leaving l JOIN records r ON r.no = l.record"
    " WHERE l.space = ?"
)
_ABSENT: Final = "SELECT opaque FROM records WHERE space = ? AND type = ? AND absent = 'filter'"
_PLACE: Final = "SELECT no, json, parent FROM records WHERE space = ? AND opaque = ?"
_NUMBER: Final = "SELECT no FROM records WHERE space = ? AND opaque = ?"
_WAS_DELETED: Final = "SELECT deleted FROM records WHERE no = ?"
_ROW: Final = f"SELECT {COLUMNS}, type FROM records WHERE no = ?"
_PARENT: Final = "SELECT parent FROM records WHERE space = ? AND opaque = ?"
_CHILDREN: Final = "SELECT opaque, id, type, absent FROM records WHERE space = ? AND parent = ? AND type = ?"
_values = msgspec.json.Decoder(dict[str, Any]).decode


# Which belong here ------------------------------------------------------------------------------------


def keeps(
    replica: Replica,
    space: Space,
    record_type: str,
    opaque: OpaqueId,
    values: Mapping[str, Any],
    parent: str | None,
) -> bool:
    """Whether a record with these values belongs on this device."""
    schema = space.schemas.get(record_type)
    matcher = None if schema is None else space.scope.matcher(schema)
    return matcher is None or matcher.holds(values) or is_picked(replica, space, record_type, opaque, parent)


def is_picked(replica: Replica, space: Space, record_type: str, opaque: OpaqueId, parent: str | None) -> bool:
    """Whether it is picked, or belongs to one that is."""
    picks = space.scope.picks
    if opaque in space.scope.opened:
        return True
    for _ in range(MAX_DEPTH if picks else 0):
        if opaque in picks:
            return True
        schema = space.schemas.get(record_type)
        if parent is None or schema is None or schema.parent is None:
            return False
        record_type = schema.parent.type
        opaque = space.keys.opaque_id(record_type, parent)
        parent = replica.db.value(_PARENT, (space.no, opaque))
    return False


def may_matter(replica: Replica, space: Space, known: Absent, arrived: Sequence[Opened]) -> bool:
    """Whether what came for an absent record may make it one that belongs here."""
    schema = space.schemas.get(known.type)
    if schema is not None and schema.parent is not None and _touches(schema, arrived, {schema.parent.field}):
        return True  # others ask which record it belongs to
    if known.why == "closed":
        if replica.db.value(_WAS_DELETED, (known.no,)):
            return True  # it may be restored, by a restoration or by any edit
        deciding: Collection[str] = () if schema is None or schema.closed is None else (schema.closed.field,)
    elif known.why == "filter":
        matcher = None if schema is None else space.scope.matcher(schema)
        if matcher is None:
            return True
        deciding = matcher.deciding
    else:
        return True
    assert schema is not None
    if any(schema.fields[name].shape != "value" for name in deciding if name in schema.fields):
        return True  # an element or a row goes without a write
    return _touches(schema, arrived, {*deciding, _DELETED})


def _touches(schema: RecordSchema, arrived: Iterable[Opened], names: Collection[str]) -> bool:
    """Whether something may write one of these fields."""
    for opened in arrived:
        if opened.checked is None or not opened.checked.inserted:
            return True
        touched = {w.path[0] for writes in opened.checked.writes.values() for w in writes.values()}
        if schema.old_names is not None:
            touched = set(schema.old_names.touched(touched))
        if not touched.isdisjoint(names):
            return True
    return False


def pass_over(
    replica: Replica, space: Space, opaque: OpaqueId, known: Absent, opened: Sequence[Opened]
) -> None:
    """Something came for an absent record. The relay has it, with all the rest. Inside a transaction."""
    if opaque not in space.wanted and may_matter(replica, space, known, opened):
        absent.want(replica, space, [opaque])
    if opened:  # else all of it was put aside
        absent.note_missed(space, opaque, max(each.arrival.seq for each in opened))


# Coming and going ---------------------------------------------------------------------------------------


def sift(
    replica: Replica,
    space: Space,
    records: Iterable[OpenRecord],
    result: Materialised,
    *,
    new: Collection[int],
) -> None:
    """Let go of those of the records just stored that do not belong here. Inside their transaction.

    `new` are the numbers of those that were not here before: nobody is told of them.
    """
    if space.scope.conditions:
        _let_go(replica, space, records, result, new)
        _follow(replica, space, result.moved)


def _let_go(
    replica: Replica, space: Space, records: Iterable[OpenRecord], result: Materialised, new: Collection[int]
) -> None:
    going: list[OpenRecord] = []
    for record in records:
        if record.json is None:
            continue
        values = record.seen.values if record.seen is not None else _values(record.json)
        if not keeps(replica, space, record.type, record.opaque, values, record.parent):
            going.append(record)
    if not going:
        return
    unsent = [record.no for record in going if is_held(replica, record.no)]
    note_leaving(replica, space, unsent)
    gone = {(record.type, record.id): record.no for record in going if record.no not in space.scope.leaving}
    if not gone:
        return
    changes = []
    for change in result.changes:
        no = gone.get((change.type, change.id)) if change.space == space.id else None
        if no is None:
            changes.append(change)
            continue
        _untell(result.opened, change.opened)
        if no not in new:
            changes.append(left(change))
    result.changes[:] = changes
    leaving = [record for record in going if record.no in gone.values()]
    for record in leaving:
        record.gone = True
    absent.leave(replica, space, [(record.no, record.opaque) for record in leaving], "filter")


def _follow(replica: Replica, space: Space, moved: Iterable[OpenRecord]) -> None:
    """What belongs to a record comes and goes with it, where it came to belong to another one."""
    if not space.scope.picks:
        return
    for record in moved:
        for opaque, _, child_type, gone in below(replica, space, record.type, record.id):
            no, json, parent = replica.db.execute(_PLACE, (space.no, opaque)).fetchone()
            if gone:
                if is_picked(replica, space, child_type, opaque, parent):
                    absent.want(replica, space, [opaque])
            elif json is not None and not keeps(replica, space, child_type, opaque, _values(json), parent):
                note_leaving(replica, space, [no])


def _untell(told: list[str], conflicts: Collection[str]) -> None:
    for conflict in conflicts:
        if conflict in told:
            told.remove(conflict)


def left(change: RecordChange) -> RecordChange:
    """What watchers are told of a record that leaves."""
    record = msgspec.structs.replace(change.record, deleted=True)
    return msgspec.structs.replace(change, record=record, left=True, opened=(), closed=())


def is_held(replica: Replica, no: int) -> bool:
    """Whether it has work that no relay has."""
    return no in replica.unsent or no in replica.failed


def note_leaving(replica: Replica, space: Space, numbers: Iterable[int]) -> None:
    """They go once nothing of them is unsent. Inside a transaction."""
    new = [no for no in numbers if no not in space.scope.leaving]
    if new:
        replica.db.many("INSERT INTO leaving VALUES (?, ?)", [(no, space.no) for no in new])
        space.scope.leaving.update(new)


def depart(
    replica: Replica, space: Space, records: Iterable[tuple[int, OpaqueId]], why: Why, *, wanted: bool = False
) -> list[RecordChange]:
    """Take records off the device; what watchers are told. Inside a transaction.

    Those with unsent work stay, and those of which a relay has lost something that it is to be given back.
    """
    changes, going, waiting = [], [], []
    for no, opaque in records:
        if is_held(replica, no) or giving_back.holds_back(replica, space, opaque):
            waiting.append(no)
            continue
        row = replica.db.execute(_ROW, (no,)).fetchone()
        if row[2] is not None:
            schema = space.schemas[row[7]]
            record = record_of_row(replica, space, schema, row, None)
            change = RecordChange(space.id, schema.type, record.id, "local", (), record)
            changes.append(left(change))
        going.append((no, opaque))
    if why == "filter":
        note_leaving(replica, space, waiting)
    absent.leave(replica, space, going, why, wanted=wanted)
    space.scope.leaving.difference_update(no for no, _ in going)
    return changes


def note_edited(replica: Replica, edited: Iterable[OpenRecord], result: Materialised) -> None:
    """What was written here and does not belong here leaves once it is sent. Inside its transaction."""
    for record in edited:
        space = record.space
        if not space.scope.conditions or record.json is None:
            continue
        values = record.seen.values if record.seen is not None else _values(record.json)
        if not keeps(replica, space, record.type, record.opaque, values, record.parent):
            note_leaving(replica, space, [record.no])
    for space in {record.space.no: record.space for record in result.moved}.values():
        if space.scope.conditions:
            _follow(replica, space, [record for record in result.moved if record.space is space])


def is_due(replica: Replica, space: Space) -> bool:
    """Whether a record waits to leave and has nothing unsent any more."""
    if space.giving.of_all:
        return False
    late = {replica.db.value(_NUMBER, (space.no, opaque)) for opaque in space.giving.late}
    return any(not is_held(replica, no) and no not in late for no in space.scope.leaving)


def settle(replica: Replica, space: Space) -> list[RecordChange]:
    """Let go of what waited for its work to be sent. Inside a transaction."""
    going: list[tuple[int, OpaqueId]] = []
    stays: list[int] = []
    for no, opaque, record_type, _, json, parent in replica.db.rows(_DUE, (space.no,)):
        if is_held(replica, no):
            continue
        if json is None or keeps(replica, space, record_type, OpaqueId(opaque), _values(json), parent):
            stays.append(no)
        elif len(going) < AT_ONCE:
            going.append((no, OpaqueId(opaque)))
    replica.db.many("DELETE FROM leaving WHERE record = ?", [(no,) for no in stays])
    space.scope.leaving.difference_update(stays)
    return depart(replica, space, going, "filter")


class ScopeState(NamedTuple):
    """What of a space this device keeps: conditions by type, and picked records (type, id).

    `absent` and `wanted` count records that are not here, and those of them that are to be fetched;
    `leaving` those that go once their work is sent.
    """

    conditions: Mapping[str, Filter]
    picks: tuple[tuple[str, RecordId], ...]
    absent: int
    wanted: int
    leaving: int


def state(replica: Replica, space: Space) -> ScopeState:
    """See `ScopeState`."""
    scope = space.scope
    picks = tuple(sorted(scope.picks.values()))
    return ScopeState(dict(scope.conditions), picks, space.absent, len(space.wanted), len(scope.leaving))


# What people choose -------------------------------------------------------------------------------------


def set_condition(
    replica: Replica, space: Space, record_type: str, condition: Filter | None
) -> list[RecordChange]:
    """Keep only those of a type's records that meet a condition; None: all. Raises ValidationError.

    What does not belong here leaves, what may belong here now is fetched.
    """
    schema = space.schema(record_type)
    scope = space.scope
    if condition is not None:
        check_filter(schema, condition)
        text = encode_filter(condition)
        condition = decode_filter(text)
        replica.db.execute("INSERT OR REPLACE INTO scopes VALUES (?, ?, ?)", (space.no, record_type, text))
        scope.conditions[record_type] = condition
    else:
        replica.db.execute("DELETE FROM scopes WHERE space = ? AND type = ?", (space.no, record_type))
        scope.conditions.pop(record_type, None)
    scope.forget_test(record_type)
    going = [
        (no, OpaqueId(opaque))
        for no, opaque, _, json, parent in replica.db.rows(_HERE, (space.no, record_type))
        if not keeps(replica, space, record_type, OpaqueId(opaque), _values(json), parent)
    ]
    changes = depart(replica, space, going, "filter")
    gone = {opaque for _, opaque in going}
    rows = replica.db.rows(_ABSENT, (space.no, record_type))
    absent.want(replica, space, [OpaqueId(opaque) for (opaque,) in rows if opaque not in gone])
    return changes


def pick(replica: Replica, space: Space, record_type: str, id: RecordId) -> None:
    """Keep a record, and those that belong to it, whatever the conditions say. Inside a transaction."""
    space.schema(record_type)
    opaque = space.keys.opaque_id(record_type, id)
    values = (space.no, opaque, record_type, id)
    replica.db.execute("INSERT OR IGNORE INTO picks VALUES (?, ?, ?, ?)", values)
    space.scope.picks[opaque] = (record_type, id)
    absent.ask(replica, space, record_type, id)
    absent.want(replica, space, [each for each, _, _, gone in below(replica, space, record_type, id) if gone])


def unpick(replica: Replica, space: Space, record_type: str, id: RecordId) -> list[RecordChange]:
    """The conditions say again whether the record is kept, and those that belong to it."""
    space.schema(record_type)
    opaque = space.keys.opaque_id(record_type, id)
    replica.db.execute("DELETE FROM picks WHERE space = ? AND opaque = ?", (space.no, opaque))
    space.scope.picks.pop(opaque, None)
    space.scope.opened.discard(opaque)
    if opaque in space.wanted:  # it comes, and its condition is looked at
        absent.want(replica, space, [opaque])
    going = []
    for each in (
        opaque,
        *(opaque for opaque, _, _, gone in below(replica, space, record_type, id) if not gone),
    ):
        row = replica.db.execute(
            "SELECT no, type, json, parent FROM records WHERE space = ? AND opaque = ?", (space.no, each)
        ).fetchone()
        if row is None or row[2] is None:
            continue
        if not keeps(replica, space, row[1], each, _values(row[2]), row[3]):
            going.append((row[0], each))
    return depart(replica, space, going, "filter")


def below(
    replica: Replica, space: Space, record_type: str, id: RecordId
) -> list[tuple[OpaqueId, RecordId, str, str | None]]:
    """The records that belong to one, at any depth: opaque id, id, type, and why it is absent, if it is."""
    found: dict[OpaqueId, tuple[OpaqueId, RecordId, str, str | None]] = {}
    above = [(record_type, id)]
    for _ in range(MAX_DEPTH):
        parents, above = above, []
        for parent_type, parent_id in parents:
            for schema in space.record_types.children_of(parent_type):
                for opaque, child, child_type, gone in replica.db.rows(
                    _CHILDREN, (space.no, parent_id, schema.type)
                ):
                    if opaque not in found:
                        found[OpaqueId(opaque)] = (OpaqueId(opaque), RecordId(child), child_type, gone)
                        above.append((child_type, RecordId(child)))
    return list(found.values())
