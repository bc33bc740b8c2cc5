"""Devices that keep only a part of the space: what people choose in a story, and whether that is there.

At the end, when all have converged, it is noted what each such device has (`look`). Then its owner asks for
all again (`widen`), everything comes, and all devices are compared as ever. With what they then show, it is
said what should have been there before and what not (`check`), without asking the code of the product that
decided it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.ids import RecordId
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync_client.engine.filters import AllOf, AnyOf, Compare, Filter, Not, field, nothing
from crdt_sync_client.engine.queries import Where
from crdt_sync_sim.checks import MAX_DETAILS, Violation
from crdt_sync_sim.device_line import device_is_sound
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.oracle import RecordName
from crdt_sync_sim.work import CANARY, draw_value

if TYPE_CHECKING:
    from crdt_sync_sim.run import Simulation

CLOSED_AT_ONCE: Final = -36_500
"""Days that closed records stay where a story has them cleaned up: they go however far clocks are off."""
_KINDS: Final = {"condition": 6, "all": 2, "pick": 4, "unpick": 2, "open": 2, "clean_up": 1}
"""What people choose, and how often."""
MAX_GENERATIONS: Final = 16


# What people choose ---------------------------------------------------------------------------------


def draw_choice(device: DeviceNode, chance: Random) -> None:
    """Somebody changes what the device keeps, in a way that fits what it has now."""
    schemas = [schema for name, schema in sorted(device.engine.schemas().items()) if name[0] != "_"]
    if not schemas:
        return
    schema = chance.choice(schemas)
    kind = chance.choices(list(_KINDS), list(_KINDS.values()))[0]
    match kind:
        case "condition":
            set_condition(device, schema.type, draw_condition(schema, chance))
        case "all":
            set_condition(device, schema.type, None)
        case "unpick" if picks := device.engine.scope(device.space).picks:
            unpick(device, chance.choice(picks))
        case "clean_up":
            clean_up(device)
        case _:
            names = [name for name in device.record_names() if name[0] == schema.type]
            if names:
                (open_one if kind == "open" else pick)(device, chance.choice(names))


def draw_condition(schema: RecordSchema, chance: Random) -> Filter:
    """A condition on a few fields: on many of them, so that work on records changes the answer often."""
    if chance.random() < 0.1:
        return nothing
    plain = [spec for spec in schema.fields.values() if spec.shape in ("value", "set") and not spec.is_bytes]
    enums = [spec for spec in plain if spec.json_schema.get("enum")]
    found = _about(chance.choice(enums if enums and chance.random() < 0.5 else plain), chance)
    for _ in range(chance.choice([0, 0, 1, 3, 5])):
        other = _about(chance.choice(plain), chance)
        found = found | other if chance.random() < 0.5 else found & other
    return found


def _about(spec: FieldSpec, chance: Random) -> Filter:
    subject = field(spec.name)
    if spec.shape == "set":
        condition = subject.contains("urgent")
    elif enum := spec.json_schema.get("enum"):
        condition = subject.one_of(*chance.sample(enum, chance.randint(1, len(enum))))
    elif "string" in spec.types and chance.random() < 0.5:
        condition = subject.starts_with(f"{CANARY} {chance.randint(1, 9)}")
    else:
        value = draw_value(spec, chance)
        simple = isinstance(value, str | int | float | bool) and chance.random() < 0.5
        condition = subject == value if simple else subject.is_null()
    return ~condition if chance.random() < 0.4 else condition


def set_condition(device: DeviceNode, record_type: str, where: Where) -> None:
    """Keep only those records of a type; None: all."""
    _choose(device, "scope", record_type, lambda: device.engine.set_scope(device.space, record_type, where))


def pick(device: DeviceNode, name: RecordName) -> None:
    """Keep that record in any case."""
    _choose(device, "pick", name[1], lambda: device.engine.pick(device.space, *name))


def unpick(device: DeviceNode, name: RecordName) -> None:
    """Keep it only if a condition says so."""
    _choose(device, "unpick", name[1], lambda: device.engine.unpick(device.space, *name))


def open_one(device: DeviceNode, name: RecordName) -> None:
    """Open a record that may be absent."""
    device.opened.add(name)
    _choose(device, "open", name[1], lambda: device.engine.ask_for(*name, space=device.space))


def clean_up(device: DeviceNode) -> None:
    """Let go of what is closed."""
    days = dict.fromkeys(device.engine.schemas(), CLOSED_AT_ONCE)
    _choose(device, "clean_up", "", lambda: device.engine.clean_up(device.space, days))


def _choose(device: DeviceNode, what: str, of: str, act: Callable[[], object]) -> None:
    if not device.ready:
        return
    device.changes += 1
    try:
        act()
    except Exception as exc:
        if not device_is_sound(exc):
            raise
        device.world.note(f"{what}_failed", device.name, type(exc).__name__)
        return
    device.world.note(what, device.name, of)
    device.look_after()
    device.sync.fetch_soon()


# What is there ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """What a device that keeps a part has when all have converged. `here` gives the content by record."""

    device: DeviceNode
    conditions: Mapping[str, Filter]
    picks: frozenset[RecordName]
    here: Mapping[RecordName, bytes]
    absent: Mapping[RecordName, str]
    """And why."""
    late: frozenset[RecordName]
    """Records that stay until a relay is given back what waits for the rest of its group."""


def look(sim: Simulation) -> list[Kept]:
    """The devices that keep only a part, with what they have."""
    return [_look(device) for device in sim.members if _keeps_a_part(device)]


def _keeps_a_part(device: DeviceNode) -> bool:
    state = device.engine.scope(device.space)
    return bool(state.conditions or state.picks or state.absent)


def _look(device: DeviceNode) -> Kept:
    engine = device.engine
    space = engine._replica.space(device.space)
    # A condition that does not fit what became of its type keeps everything.
    conditions = {
        name: condition
        for name, condition in engine.scope(device.space).conditions.items()
        if space.scope.matcher(space.schemas[name]) is not None
    }
    absent = device.absent_names()
    here = {name: engine.content_hash(*name) for name in device.record_names() if name not in absent}
    picks = frozenset(engine.scope(device.space).picks)
    late = frozenset(name for name in here if space.keys.opaque_id(*name) in space.giving.late)
    return Kept(device, conditions, picks, here, absent, late)


def widen(kept: Sequence[Kept]) -> None:
    """The owners of these devices want everything again."""
    for each in kept:
        device = each.device
        for record_type in device.engine.scope(device.space).conditions:
            set_condition(device, record_type, None)
        for name in sorted(each.picks):
            unpick(device, name)
        for name in device.absent_names():
            open_one(device, name)


def check(sim: Simulation, kept: Sequence[Kept]) -> Iterator[Violation]:
    """Whether each had what it was to have, now that it has everything."""
    for each in kept:
        lacks, wrong, old = [], [], []
        for name in each.device.record_names():
            if name[0].startswith("_"):
                belongs = closed = True
            else:
                belongs, closed = belongs_here(each, name), _is_closed(each.device, name)
            if name not in each.here:
                excused = closed and each.absent.get(name) == "closed"
                if belongs and not excused:
                    lacks.append(name)
            elif not belongs and name not in each.device.opened and name not in each.late:
                wrong.append(name)
            elif each.here[name] != each.device.engine.content_hash(*name):
                old.append(name)
        for names, what in (
            (lacks, "lacks records that it is to keep"),
            (wrong, "has records that it is not to keep"),
            (old, "has records that are not complete"),
        ):
            if names:
                details = tuple(f"{kind} {id} ({each.absent.get((kind, id), 'here')})" for kind, id in names)
                yield Violation(
                    9, f"{each.device.name} {what}", details[:MAX_DETAILS], record=names[0],
                    devices=(each.device.name,),
                )  # fmt: skip


def belongs_here(kept: Kept, name: RecordName) -> bool:
    """Whether a device with such conditions and picks is to keep the record, by what its app shows now."""
    engine = kept.device.engine
    record = engine.get(*name, deleted=True)
    if record is None:  # nothing that could be looked at: it may be anywhere
        return name in kept.here
    condition = kept.conditions.get(name[0])
    if condition is None or holds(condition, record.values):
        return True
    above: RecordName | None = name
    for _ in range(MAX_GENERATIONS):
        if above is None or above in kept.picks:
            break
        above = _parent(kept.device, above)
    return above is not None and above in kept.picks


def _parent(device: DeviceNode, name: RecordName) -> RecordName | None:
    schema = device.engine.schemas().get(name[0])
    if schema is None or schema.parent is None:
        return None
    record = device.engine.get(*name, deleted=True)
    id = None if record is None else record.values.get(schema.parent.field)
    return None if id is None else (schema.parent.type, RecordId(id))


def _is_closed(device: DeviceNode, name: RecordName) -> bool:
    schema, record = device.engine.schemas().get(name[0]), device.engine.get(*name, deleted=True)
    if schema is None or schema.closed is None or record is None:
        return False
    return record.deleted or record.values.get(schema.closed.field) in schema.closed.values


def holds(condition: Filter, values: Mapping[str, Any]) -> bool:
    """Whether values meet a condition of those that are drawn, or that a scenario can write."""
    if isinstance(condition, Not):
        return not holds(condition.part, values)
    if isinstance(condition, AllOf):
        return all(holds(part, values) for part in condition.parts)
    if isinstance(condition, AnyOf):
        return any(holds(part, values) for part in condition.parts)
    assert isinstance(condition, Compare)
    value = values.get(condition.path[0])
    match condition.op:
        case "=":
            if isinstance(value, list) and condition.value is not None:
                return condition.value in value
            return bool(value == condition.value)
        case "in":
            return value in condition.value
        case "contains":
            return condition.value in (value or ())
        case "prefix":
            return isinstance(value, str) and value.startswith(condition.value)
    raise AssertionError(f"no scenario can ask for {condition.op}")
