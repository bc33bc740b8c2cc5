"""What a new version of a schema changes, and whether devices with the old one get along with it.

While an upgrade is on its way, some devices have the new version, others the old, and some come back with
work they did under the old one a week ago. Merging refuses nothing, so no change loses a write; but a change
may hide what was written, or make two devices show different values for a while. Each change is

    safe     devices of both versions show the same and can go on
    note     they can, but somebody should know: see its reason
    unsafe   what was written would be hidden, or devices show different things until all are upgraded
             and their past work has arrived

Nothing here looks at records: what is said holds for any that there may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final, Literal, TypeAlias

from crdt_sync.rules import Rule
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync.schemas.sentences import listed, shown

Safety: TypeAlias = Literal["safe", "note", "unsafe"]

_ROW: Final = "KEY"
"""Stands for any row's key in a path."""
_SIMILAR: Final = 0.5
"""How alike the names of two fields are, of 1, to be taken for one field renamed."""
_FLOORS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_CEILINGS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_READ_APART: Final = {"type", "enum", "additionalProperties", "description", *_FLOORS, *_CEILINGS}


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One difference. `path` is the dotted field (`parts.KEY.qty`), or empty for the record type itself."""

    kind: str
    path: str
    safety: Safety
    why: str


def compare(old: RecordSchema, new: RecordSchema) -> list[SchemaChange]:
    """What `new` changes against `old`, the record type first and then its fields; empty for no change."""
    changes = [*_record_type(old, new), *_fields(old.fields, new.fields, "")]
    return [*_version(old, new, changed=bool(changes) or old.text != new.text), *changes]


def worst(changes: list[SchemaChange]) -> Safety:
    """The gravest of them; `safe` for none."""
    grades = {change.safety for change in changes}
    return "unsafe" if "unsafe" in grades else "note" if "note" in grades else "safe"


def _version(old: RecordSchema, new: RecordSchema, *, changed: bool) -> Iterator[SchemaChange]:
    if old.type != new.type:
        return
    if new.version < old.version:
        why = f"it goes from {old.version} back to {new.version}: no space carries it after the higher one"
        yield SchemaChange("version", "", "unsafe", why)
    elif new.version == old.version and changed:
        why = f"both are version {old.version}, so devices cannot tell which is newer: raise x-version"
        yield SchemaChange("version", "", "unsafe", why)


# The record type -----------------------------------------------------------------------------------


def _record_type(old: RecordSchema, new: RecordSchema) -> Iterator[SchemaChange]:
    if old.type != new.type:
        why = f"{old.type} and {new.type} are two record types; records of one are none of the other"
        yield SchemaChange("type", "", "unsafe", why)
    gone, come = _roles(old.write_roles - new.write_roles), _roles(new.write_roles - old.write_roles)
    if gone:
        why = f"{gone} may not write any more once they have this version; what they wrote before is taken"
        yield SchemaChange("write", "", "note", why)
    if come:
        why = f"{come} may write now: devices with the old version set that aside until they have this one"
        yield SchemaChange("write", "", "note", why)
    if old.delete.rule != new.delete.rule:
        yield SchemaChange(
            "delete",
            "",
            "note",
            f"the delete rule was {old.delete.rule} and is {new.delete.rule}: records deleted against an "
            "edit may be there on some devices and not on others until all have this version",
        )
    gone = _roles(old.delete.roles - new.delete.roles)
    if gone and old.delete.roles - new.delete.roles != old.write_roles - new.write_roles:
        why = f"{gone} may not delete any more once they have this version"
        yield SchemaChange("delete", "", "note", why)
    come = _roles(new.delete.roles - old.delete.roles)
    if come and new.delete.roles - old.delete.roles != new.write_roles - old.write_roles:
        why = f"{come} may delete now: devices with the old version set that aside until they have this one"
        yield SchemaChange("delete", "", "note", why)
    yield from _parent(old, new)
    if old.history != new.history:
        why = f"devices kept {old.history} entries of each record's history and keep {new.history}"
        yield SchemaChange("history", "", "safe", why)
    if old.indexes != new.indexes:
        why = "each device makes and drops the indexes of its own store when it gets this version"
        yield SchemaChange("indexes", "", "safe", why)
    if old.priorities != new.priorities:
        why = "each device sends what waits on it in the new order once it has this version"
        yield SchemaChange("priorities", "", "safe", why)
    if old.closed != new.closed:
        why = "each device lets go of closed records by the new rule once it has this version"
        yield SchemaChange("closed", "", "safe", why)


def _parent(old: RecordSchema, new: RecordSchema) -> Iterator[SchemaChange]:
    before, after = old.parent, new.parent
    if before == after:
        return
    if after is None:
        why = "there is no parent any more: deleting one leaves these records as they are"
        yield SchemaChange("parent", "", "note", why)
    elif before is None:
        why = f"records belong to a {after.type} now; those that name none in {after.field} belong to nothing"
        yield SchemaChange("parent", "", "note", why)
    elif (before.type, before.field) != (after.type, after.field):
        was, now = f"{before.type} in {before.field}", f"{after.type} in {after.field}"
        why = f"the parent was a {was} and is a {now}: records that exist lose the one they had"
        yield SchemaChange("parent", "", "unsafe", why)
    else:
        why = (
            f"on_delete was {before.on_delete} and is {after.on_delete}: each device goes by its own version"
        )
        yield SchemaChange("parent", "", "note", why)


def _roles(roles: frozenset[Any]) -> str:
    return listed([role.text for role in sorted(roles)], " and ") if roles else ""


# Fields --------------------------------------------------------------------------------------------


def _fields(
    old: Mapping[str, FieldSpec], new: Mapping[str, FieldSpec], prefix: str
) -> Iterator[SchemaChange]:
    """Fields of a record or row, in the order of the new version, then those that are gone."""
    former = {alias: name for name, spec in new.items() for alias in spec.aliases if alias in old}
    gone = [name for name in old if name not in new and name not in former]
    for name, spec in new.items():
        here = f"{prefix}{name}"
        before = [alias for alias in spec.aliases if former.get(alias) == name]
        if name in old:
            yield from _field(old[name], spec, here)
        for alias in before:
            yield SchemaChange("renamed", here, "safe", f"was called {alias}, and reads what stands there")
            yield from _field(old[alias], spec, here)
        if name not in old and not before:
            renamed = _renamed(spec, [old[each] for each in gone])
            if renamed:
                gone.remove(renamed)
            yield _new_field(spec, here, renamed)
    for name in gone:
        why = "its values stay in the records and are shown as those of an unknown field"
        needed = "; devices with the old version go on asking for it" * old[name].required
        yield SchemaChange("removed", f"{prefix}{name}", "note", why + needed)


def _new_field(spec: FieldSpec, path: str, renamed: str) -> SchemaChange:
    if renamed:
        return SchemaChange(
            "renamed",
            path,
            "unsafe",
            f"looks like {renamed} under a new name: what stands there would not be seen. "
            f"If it is, write x-aliases: [{renamed}]",
        )
    if spec.required:
        why = "is required and new: records that exist, and those that older devices make, do not have it"
        return SchemaChange("added", path, "note", why)
    return SchemaChange("added", path, "safe", "older devices keep it and pass it on without using it")


def _renamed(spec: FieldSpec, gone: list[FieldSpec]) -> str:
    """The field that is gone and may be this one: of the same kind, and alike in name or the only one."""
    alike = [each for each in gone if (each.types, each.rule.name) == (spec.types, spec.rule.name)]
    if not alike:
        return ""
    score, best = max((SequenceMatcher(None, each.name, spec.name).ratio(), each.name) for each in alike)
    return best if score >= _SIMILAR or len(gone) == 1 else ""


def _field(old: FieldSpec, new: FieldSpec, path: str) -> Iterator[SchemaChange]:
    if old.shape != new.shape or old.is_bytes != new.is_bytes:
        was, now = (_shape(each) for each in (old, new))
        why = f"was {was} and is {now}, which is kept in another way: what was written is not seen as {now}"
        yield SchemaChange("shape", path, "unsafe", why)
        return
    yield from _rule(old, new, path)
    if old.required != new.required:
        yield _required(new, path)
    yield from _types(old, new, path)
    yield from _limits(old, new, path)
    yield from _transitions(old, new, path)
    for alias in sorted(set(old.aliases) - set(new.aliases) - {new.name}):
        why = f"does not read what stands under {alias} any more"
        yield SchemaChange("alias", path, "unsafe", why)
    if old.default != new.default:
        why = "the default is another one; records that exist keep what they have"
        yield SchemaChange("default", path, "safe", why)
    if old.row is not None and new.row is not None:
        yield from _fields(old.row, new.row, f"{path}.{_ROW}.")


def _shape(spec: FieldSpec) -> str:
    words = {"value": "one value", "set": "a set", "rows": "rows", "counter": "a counter", "text": "a text"}
    return "bytes" if spec.is_bytes else words[spec.shape]


def _rule(old: FieldSpec, new: FieldSpec, path: str) -> Iterator[SchemaChange]:
    until = "devices may show different values, and different conflicts, until all have this version"
    if old.rule.name != new.rule.name:
        why = f"the rule was {old.rule.name} and is {new.rule.name}: {until}"
        yield SchemaChange("rule", path, "note", why)
    elif rule_options(old.rule) != rule_options(new.rule):
        yield SchemaChange("rule", path, "note", f"the options of {new.rule.name} are others: {until}")


def rule_options(rule: Rule) -> dict[str, Any]:
    """The options of a rule as they would stand in a schema, without those that are not set."""
    found: dict[str, Any] = {}
    for name in ("prefer", "order", "correct", "remove_wins"):
        value = getattr(rule, name, None)
        if value:
            plain = [getattr(each, "text", each) for each in value] if isinstance(value, tuple) else value
            found[name] = plain
    if rule.name == "client_wins":  # its preference is its name
        found.pop("prefer", None)
    return found


def _required(new: FieldSpec, path: str) -> SchemaChange:
    if new.required:
        why = "is required now: records that exist, and those that older devices make, may lack it"
        return SchemaChange("required", path, "note", why)
    return SchemaChange("required", path, "safe", "is not required any more; older devices still ask for it")


def _types(old: FieldSpec, new: FieldSpec, path: str) -> Iterator[SchemaChange]:
    before, after = set(old.types), set(new.types)
    if before == after:
        return
    was, now = (listed(list(each.types)) if each.types else "anything" for each in (old, new))
    if not after or (before and before < after) or (before == {"integer"} and after == {"number"}):
        why = f"takes {now} instead of {was}: older devices show such values but do not write them"
        yield SchemaChange("type", path, "note", why)
    elif not before or after < before or (before == {"number"} and after == {"integer"}):
        why = f"takes {now} instead of {was}: other values stay, but cannot be written again"
        yield SchemaChange("type", path, "note", why)
    else:
        why = f"takes {now} and took {was}: apps of one version meet values of the other"
        yield SchemaChange("type", path, "unsafe", why)


def _limits(old: FieldSpec, new: FieldSpec, path: str) -> Iterator[SchemaChange]:
    before, after = old.json_schema, new.json_schema
    stays = "values that exist stay, but cannot be written again"
    yield from _enum(before.get("enum"), after.get("enum"), path, stays)
    for name in (*_FLOORS, *_CEILINGS):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        sign = 1 if name in _FLOORS else -1
        tighter = was is None or (now is not None and (now - was) * sign > 0)
        change = f"{name} is {shown(now)}" if now is not None else f"{name} is gone"
        why = f"{change}: {stays}" if tighter else f"{change}: older devices keep to theirs"
        yield SchemaChange("limit", path, "note" if tighter else "safe", why)
    for name in sorted((before.keys() | after.keys()) - _READ_APART):
        if before.get(name) != after.get(name):
            why = f"{name} is another one: values that exist stay, and may not fit it"
            yield SchemaChange("limit", path, "note", why)


def _enum(before: list[Any] | None, after: list[Any] | None, path: str, stays: str) -> Iterator[SchemaChange]:
    if before == after:
        return
    if after is None:
        yield SchemaChange("enum", path, "safe", "takes any value now; older devices keep to their list")
        return
    if before is None:
        yield SchemaChange("enum", path, "note", f"takes only listed values now: {stays}")
        return
    gone = [shown(value) for value in before if value not in after]
    come = [shown(value) for value in after if value not in before]
    if gone:
        yield SchemaChange("enum", path, "note", f"does not take {listed(gone)} any more: {stays}")
    if come:
        why = f"takes {listed(come, ' and ')} too: older devices show that but do not write it"
        yield SchemaChange("enum", path, "safe", why)


def _transitions(old: FieldSpec, new: FieldSpec, path: str) -> Iterator[SchemaChange]:
    before, after = _steps(old), _steps(new)
    if before == after:
        return
    if after is None:
        yield SchemaChange("transitions", path, "safe", "every step is allowed now")
        return
    known = set(old.transitions or ())
    gone = (
        ["every step that is not listed"]
        if before is None
        else [f"from {one} to {other}" for one, other in sorted(before - after)]
    )
    come = [] if before is None else sorted(step for step in after - before if step[0] in known)
    if gone:
        why = f"may not go {listed(gone)} any more" if before is not None else "steps are checked now"
        yield SchemaChange("transitions", path, "note", f"{why}: older devices still do, and it merges")
    if come:
        steps = listed([f"from {one} to {other}" for one, other in come], " and ")
        yield SchemaChange("transitions", path, "safe", f"may go {steps} now")


def _steps(spec: FieldSpec) -> set[tuple[str, str]] | None:
    if spec.transitions is None:
        return None
    return {(current, after) for current, following in spec.transitions.items() for after in following}
