"""Random but valid work: what people might do with the records a device shows them.

Values are made from the schema. Texts carry `CANARY`, so that one leaking in the clear anywhere is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, Final
from uuid import UUID

from crdt_sync.errors import ValidationError
from crdt_sync.ids import RecordId
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync_client.engine.model import (
    ConflictEntry,
    CreateOp,
    DeleteOp,
    Operation,
    Record,
    ResolveOp,
    ResolveRecordOp,
    RestoreOp,
    RestoreVersionOp,
    Transaction,
    UpdateOp,
)
from crdt_sync_sim.device_node import DeviceNode

CANARY: Final = "Zq7kCanary"
_ROW_KEYS: Final = ("A", "B", "C")
_SHOWN: Final = (
    "SELECT id FROM records WHERE type = ? AND deleted = 0 AND json IS NOT NULL ORDER BY no LIMIT ?"
)
_ELEMENTS: Final = ("red", "green", "blue", "urgent")


Span = tuple[int, int]
"""From and to, both included."""


def draw_operation(
    device: DeviceNode, chance: Random, mix: dict[str, int], fields: Span | None = None
) -> Operation | Transaction | None:
    """One operation that fits what the device shows now; None when there is nothing to do of that kind.

    A group is a transaction that writes the same text to several records, some of them new.

    A save touches as many fields as drawn from `fields`; without it mostly one.
    """
    kinds = [kind for kind, weight in mix.items() if weight]
    kind = chance.choices(kinds, [mix[kind] for kind in kinds])[0]
    if kind == "resolve":
        return _resolve(device, chance)
    if kind == "group":
        return _group(device, chance, fields)
    schema = _schema(device, chance)
    if schema is None:
        return None
    if kind == "create":
        return CreateOp(schema.type, _values(device, schema, chance, fields))
    record = _record(device, schema, chance, deleted=kind == "restore")
    if record is None:
        return CreateOp(schema.type, _values(device, schema, chance, fields)) if kind == "update" else None
    match kind:
        case "delete":
            return DeleteOp(schema.type, record.id)
        case "restore":
            return RestoreOp(schema.type, record.id)
        case _:
            return UpdateOp(schema.type, record.id, _changes(device, schema, record, chance, fields))


def _group(device: DeviceNode, chance: Random, fields: Span | None) -> Transaction | None:
    mark = f"{CANARY} together {chance.randrange(10**6)}"
    ops: dict[RecordId, Operation] = {}
    for _ in range(chance.choice([2, 2, 3, 3, 4, 8])):
        schema = _schema(device, chance)
        if schema is None:
            return None
        record = _record(device, schema, chance, deleted=False)
        if record is None or chance.random() < 0.2:
            id = RecordId(str(UUID(int=chance.getrandbits(128), version=4)))
            values = _values(device, schema, chance, fields) | _marked(schema, mark)
            ops[id] = CreateOp(schema.type, values, id)
        elif record.id not in ops:
            changes = _marked(schema, mark) or _changes(device, schema, record, chance, fields)
            ops[record.id] = UpdateOp(schema.type, record.id, changes)
    return Transaction(tuple(ops.values()))


def _marked(schema: RecordSchema, mark: str) -> dict[str, Any]:
    """The text in a field that takes any."""
    for name, spec in schema.fields.items():
        plain = spec.shape == "value" and spec.rule.name != "once" and not spec.transitions
        if plain and _takes(spec, mark):
            return {name: mark}
    return {}


def _takes(spec: FieldSpec, value: Any) -> bool:
    try:
        return bool(spec.check(value, spec.name) == value)
    except Exception:
        return False


def _record(device: DeviceNode, schema: RecordSchema, chance: Random, *, deleted: bool) -> Record | None:
    """A record to work on. A few get most of the work, as in life; that is where conflicts are."""
    if deleted:
        gone = [record for record in device.engine.query(schema.type, deleted=True) if record.deleted]
        return gone[min(int(chance.expovariate(0.5)), len(gone) - 1)] if gone else None
    # The last of the first so many that came to the device and that apps see. Only that one is read: with a
    # thousand records, all of them for each operation would be most of a run.
    first = device.database.rows(_SHOWN, (schema.type, int(chance.expovariate(0.5)) + 1))
    return device.engine.get(schema.type, first[-1][0]) if first else None


def _schema(device: DeviceNode, chance: Random) -> RecordSchema | None:
    schemas = device.engine.schemas()
    names = sorted(name for name in schemas if not name.startswith("_"))
    replica = device.engine._replica
    role = replica.space(device.space).role_of(replica.device_id)
    allowed = [name for name in names if role in schemas[name].write_roles]
    if len(allowed) < len(names) and chance.random() < 0.9:  # now and then somebody tries
        names = allowed
    return schemas[chance.choice(names)] if names else None


def _resolve(device: DeviceNode, chance: Random) -> Operation | None:
    conflicts = device.engine.conflicts(open_only=True)
    if not conflicts:
        return None
    conflict = chance.choice(conflicts)
    if chance.random() < 0.2:
        # As somebody does who goes through a record: all that waits there at once.
        together = [each for each in conflicts if each.record == conflict.record]
        return ResolveRecordOp(tuple([_decision(each, chance) for each in together]))
    if chance.random() < 0.2:
        # Or who looks at what was decided, by whomever, and wants another version back.
        conflict = chance.choice(device.engine.conflicts(open_only=False))
        return RestoreVersionOp(conflict.id, chance.randrange(len(conflict.alternatives)))
    return _decision(conflict, chance)


def _decision(conflict: ConflictEntry, chance: Random) -> ResolveOp:
    return ResolveOp(conflict.id, alternative=chance.randrange(len(conflict.alternatives)))


def _values(device: DeviceNode, schema: RecordSchema, chance: Random, fields: Span | None) -> dict[str, Any]:
    values = {name: draw_value(schema.fields[name], chance) for name in schema.required}
    plain = [
        name
        for name, spec in schema.fields.items()
        if name not in values and spec.shape == "value" and not spec.transitions
    ]
    if fields is None:
        chosen = [name for name in plain if chance.random() < 0.3]
    else:
        count = max(chance.randint(*fields) - len(values), 0)
        chosen = chance.sample(plain, min(count, len(plain)))
    values |= {name: draw_value(schema.fields[name], chance) for name in chosen}
    values |= _parent(device, schema, chance, share=0.9)
    return {name: value for name, value in values.items() if value is not None}


def _parent(device: DeviceNode, schema: RecordSchema, chance: Random, *, share: float) -> dict[str, Any]:
    """A record that there is, as the parent; else the field has any id, of a record that is not there."""
    if schema.parent is None or chance.random() >= share:
        return {}
    above = device.engine.schemas().get(schema.parent.type)
    record = None if above is None else _record(device, above, chance, deleted=False)
    return {} if record is None else {schema.parent.field: record.id}


def _changes(
    device: DeviceNode, schema: RecordSchema, record: Record, chance: Random, fields: Span | None
) -> dict[Any, Any]:
    changes: dict[Any, Any] = {}
    count = chance.choice([1, 1, 1, 2, 4]) if fields is None else chance.randint(*fields)
    for name in chance.sample(list(schema.fields), min(len(schema.fields), count)):
        spec = schema.fields[name]
        change = _change(spec, record, chance)
        if change is not None and schema.parent is not None and name == schema.parent.field:
            change = _parent(device, schema, chance, share=0.8) or change
        if change is not None:
            changes.update(change)
    return changes or {schema.required[0]: draw_value(schema.fields[schema.required[0]], chance)}


def _change(spec: FieldSpec, record: Record, chance: Random) -> dict[Any, Any] | None:
    name = spec.name
    match spec.shape:
        case "counter":
            return {name: Increment(chance.choice([1, 2, -1, 5]))}
        case "set":
            element = chance.choice(_ELEMENTS)
            return {name: AddElement(element) if chance.random() < 0.6 else RemoveElement(element)}
        case "rows":
            return _in_rows(spec, (name,), record.values.get(name) or {}, chance)
        case "text" if record.values.get(name) and chance.random() < 0.8:
            return {name: _retyped(str(record.values[name]), chance)}
        case _:
            if spec.rule.name == "once" and record.values.get(name) is not None:
                return None
            if spec.transitions is not None:
                after = spec.transitions.get(str(record.values.get(name)), ())
                return {name: chance.choice(after)} if after else None
            return {name: draw_value(spec, chance)}


def _in_rows(
    spec: FieldSpec, path: tuple[str, ...], rows: Mapping[str, Any], chance: Random
) -> dict[Any, Any]:
    """A row taken away, or something changed in one, or in a row of its own rows."""
    assert spec.row is not None
    key = chance.choice(_ROW_KEYS)
    if key in rows and chance.random() < 0.2:
        return {(*path, key): None}
    subfield = chance.choice(sorted(spec.row))
    inner, here = spec.row[subfield], (*path, key, subfield)
    match inner.shape:
        case "rows":
            return _in_rows(inner, here, (rows.get(key) or {}).get(subfield) or {}, chance)
        case "counter":
            return {here: Increment(chance.choice([1, 2, -1, 5]))}
        case "set":
            element = chance.choice(_ELEMENTS)
            return {here: AddElement(element) if chance.random() < 0.6 else RemoveElement(element)}
        case _:
            return {here: draw_value(inner, chance)}


def _retyped(text: str, chance: Random) -> str:
    """The text with a word more, or one less, or another in its place; it does not grow for ever."""
    words = text.split(" ")
    place = chance.randrange(len(words) + 1)
    word = [chance.choice(_ELEMENTS)] if len(words) < 40 and chance.random() < 0.7 else []
    return " ".join([*words[:place], *word, *words[place + chance.choice([0, 0, 1]) :]])


def draw_value(spec: FieldSpec, chance: Random) -> Any:
    """A value that the field takes, found by trying what its kind suggests; None where nothing fits."""
    if enum := spec.json_schema.get("enum"):
        return spec.check(chance.choice(enum), spec.name)
    if spec.is_bytes:
        return _fitting(spec, [chance.randbytes(chance.choice([10, 200, 2000]))])
    number, truth = chance.randrange(1000), chance.random() < 0.5
    return _fitting(spec, (_MAKERS[kind][place](number, truth) for kind, place in _makers_for(spec)))


def _fitting(spec: FieldSpec, candidates: Iterable[Any]) -> Any:
    for candidate in candidates:
        try:
            return spec.check(candidate, spec.name)
        except ValidationError:  # the next candidate may fit
            continue
    return spec.default


_MAKERS: Final[dict[str, Sequence[Callable[[int, bool], Any]]]] = {
    "string": [
        lambda number, _: f"{CANARY} {number}",
        lambda number, _: f"2026-01-{number % 28 + 1:02d}",
        lambda number, _: f"2026-01-{number % 28 + 1:02d}T08:00:00Z",
        lambda number, _: str(RecordId(f"00000000-0000-4000-8000-{number:012d}")),
        lambda *_: "x",
        lambda *_: f"{CANARY} {'long ' * 20}",
    ],
    "integer": [lambda number, _: number, lambda number, _: number % 10, lambda *_: 1],
    "number": [lambda number, _: round(number / 10, 1), lambda number, _: number % 10, lambda *_: 1],
    "boolean": [lambda _, truth: truth],
    "array": [lambda *_: [], lambda number, _: [number]],
    "object": [lambda *_: {}, lambda number, _: {"a": number}],
}
"""Per type of JSON, candidates for a value, from a number below 1,000 and a truth value."""


_PROBES: Final = (0, 1, 5, 27, 150, 999)


@lru_cache(maxsize=4_096)
def _makers_for(spec: FieldSpec) -> Sequence[tuple[str, int]]:
    """The candidates to try, in order: without those at the start that do not fit whatever the number.

    Trying one that does not fit makes an error with all its words, which is most of the cost of a value.
    """
    every = [(kind, place) for kind in spec.types for place in range(len(_MAKERS.get(kind, ())))]
    fits = [_fits(spec, kind, place) for kind, place in every]
    return every[fits.index(True) :] if True in fits else every


def _fits(spec: FieldSpec, kind: str, place: int) -> bool:
    """Whether a candidate fits for some number of a few."""
    for number in _PROBES:
        try:
            spec.check(_MAKERS[kind][place](number, True), spec.name)
        except ValidationError:  # another number may fit
            continue
        return True
    return False
