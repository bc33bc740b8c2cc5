"""Why a field has its value: the visible writes, the rule, what it chose and why, in words.

Pure, and a second look at what `records.view` decides: a property test holds the two together. The
sentences speak of roles, values and times, never of devices: whoever shows them knows their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from crdt_sync.hlc import Hlc, hlc_to_ms
from crdt_sync.records.conflicts import Conflict, canonical, differ
from crdt_sync.records.view import DELETED_PATH, RecordView, row_rule, shown_elements, view, writes_under
from crdt_sync.records.writes import DELETED, DocWrites, Path, Write
from crdt_sync.rules.base import ValueRule, by_clock
from crdt_sync.rules.collections import Rows, SetRule
from crdt_sync.rules.counter import Counter
from crdt_sync.rules.deletion import DELETE_WINS, MANUAL, is_gone, uncovered
from crdt_sync.rules.extremes import Max, Min, measure
from crdt_sync.rules.once import Once
from crdt_sync.rules.register import Register
from crdt_sync.rules.text import Text
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync.schemas.sentences import shown

Part: TypeAlias = Literal["shown", "lost", "counts", "deletes", "unseen"]
"""What became of a write: its value is shown; another's is; it is a part of the whole (set, counter, text);
it is the deletion; or it is an edit that the deletion had not seen."""

_NEWER: Final = "newer schema"
"""In place of a rule, for fields that this device's schema does not have."""


@dataclass(frozen=True, slots=True)
class ExplainedWrite:
    """One visible write, with its value as people see it, and what became of it."""

    write: Write
    value: Any
    part: Part


@dataclass(frozen=True, slots=True)
class FieldExplanation:
    """Why one field (or, at a path ending in `$deleted`, a deletion) stands as it does.

    `value` is what is shown there; for a deletion whether it is in effect. `reason` is a sentence without
    its full stop. `conflict` is the one that stands there, if any.
    """

    path: Path
    value: Any
    rule: str
    reason: str
    writes: tuple[ExplainedWrite, ...]
    conflict: Conflict | None = None


@dataclass(frozen=True, slots=True)
class RecordExplanation:
    """All fields in which something was written, in the schema's order, a record's deletion first."""

    deleted: bool
    fields: tuple[FieldExplanation, ...]


def explain(
    schema: RecordSchema, record_type: str, record_id: str, doc_writes: DocWrites, field: Path | None = None
) -> RecordExplanation:
    """Explain a record, or only `field` and what is under it (`("parts_used", "A")` is a row).

    Raises ValidationError for a field that neither the schema nor the record has.
    """
    doc_writes = schema.current(doc_writes)
    if field is not None:
        if schema.old_names is not None:
            field = schema.old_names.path(field)
        _check_field(schema, doc_writes, field)
    seen = view(schema, record_type, record_id, doc_writes)
    found = _Explainer(seen, doc_writes).record(schema)
    fields = tuple(each for each in found if field is None or each.path[: len(field)] == field)
    return RecordExplanation(seen.deleted, fields)


def value_at(schema: RecordSchema, doc_writes: DocWrites, field: str) -> Any:
    """What is shown in a top-level field with one value; None where nobody wrote it."""
    writes = schema.current(doc_writes).get((field,), ())
    rule = schema.fields[field].rule
    return rule.choose(writes).value if writes and isinstance(rule, ValueRule) else None


def _check_field(schema: RecordSchema, doc_writes: DocWrites, field: Path) -> None:
    if field == DELETED_PATH or any(path[: len(field)] == field for path in doc_writes):
        return
    schema.field_at(field)


class _Explainer:
    """One record."""

    def __init__(self, seen: RecordView, doc_writes: DocWrites) -> None:
        self._writes = doc_writes
        standing = [*seen.conflicts, *seen.field_conflicts]
        self._conflicts = {conflict.path: conflict for conflict in standing}
        self._values = seen.values
        self._deleted = seen.deleted

    def record(self, schema: RecordSchema) -> Iterator[FieldExplanation]:
        marks = self._writes.get(DELETED_PATH, ())
        if marks:
            under = list(writes_under(self._writes, (), self._writes))
            yield self._deletion(DELETED_PATH, schema.delete.rule, marks, under, "record")
        yield from self._fields(schema.fields, (), list(self._writes), self._values)

    def _fields(
        self, specs: Mapping[str, FieldSpec], prefix: Path, paths: Sequence[Path], values: Mapping[str, Any]
    ) -> Iterator[FieldExplanation]:
        depth = len(prefix)
        for name, spec in specs.items():
            here = (*prefix, name)
            below = [path for path in paths if path[: depth + 1] == here]
            if below:
                yield from self._field(spec, here, below, values.get(name))
        names = {path[depth] for path in paths}
        for name in sorted(names):
            if name not in specs and not name.startswith("$"):
                here = (*prefix, name)
                yield self._unknown(here, [path for path in paths if path[: depth + 1] == here], values)

    def _field(
        self, spec: FieldSpec, here: Path, below: Sequence[Path], value: Any
    ) -> Iterator[FieldExplanation]:
        rule = spec.rule
        writes = self._writes.get(here, ())
        if isinstance(rule, ValueRule):
            if writes:
                yield self._chosen(rule, here, writes)
        elif isinstance(rule, Rows):
            yield from self._rows(spec, here, below, value or {})
        elif isinstance(rule, SetRule):
            yield self._set(rule, here, below, value)
            for path in below:
                if rule.remove_wins and path[-1] == DELETED:
                    adds = self._writes.get(path[:-1], ())
                    yield self._deletion(path, DELETE_WINS, self._writes[path], adds, "element")
        else:
            reason = _counted(rule, writes) if isinstance(rule, Counter) else _woven(writes)
            plain: Callable[[Write], Any] = (
                (lambda write: rule.value_of([write]))
                if isinstance(rule, Text)
                else (lambda write: write.value)
            )
            parts = tuple(ExplainedWrite(write, plain(write), "counts") for write in canonical(writes))
            yield FieldExplanation(here, value, rule.name, reason, parts)

    def _chosen(self, rule: ValueRule, path: Path, writes: Sequence[Write]) -> FieldExplanation:
        winner = rule.choose(writes)
        parts = tuple(
            ExplainedWrite(write, write.value, "shown" if write is winner else "lost")
            for write in canonical(writes)
        )
        return FieldExplanation(
            path, winner.value, rule.name, why(rule, writes), parts, self._conflicts.get(path)
        )

    def _set(self, rule: SetRule, here: Path, below: Sequence[Path], value: Any) -> FieldExplanation:
        standing = shown_elements(rule, self._writes, here, below)
        depth = len(here)
        parts = tuple(
            ExplainedWrite(write, write.value, "counts" if path[depth] in standing else "lost")
            for path in below
            if path[-1] != DELETED
            for write in self._writes[path]
        )
        reason = "every element that somebody added and nobody who had seen it removed"
        if rule.remove_wins:
            reason += "; a removal beats an addition made apart"
        return FieldExplanation(here, value, rule.name, reason, parts)

    def _rows(
        self, spec: FieldSpec, here: Path, below: Sequence[Path], rows: Mapping[str, Any]
    ) -> Iterator[FieldExplanation]:
        depth = len(here)
        assert isinstance(spec.rule, Rows)
        rule = row_rule(spec.rule)
        for key in sorted({path[depth] for path in below if len(path) > depth + 1}):
            row = (*here, key)
            inside = [path for path in below if path[: depth + 1] == row]
            marks = self._writes.get((*row, DELETED), ())
            if marks:
                under = list(writes_under(self._writes, row, inside))
                yield self._deletion((*row, DELETED), rule, marks, under, "row")
            if key in rows:
                yield from self._fields(spec.row or {}, row, inside, rows[key])

    def _deletion(
        self, path: Path, rule: str, marks: Sequence[Write], under: Sequence[Write], what: str
    ) -> FieldExplanation:
        gone = is_gone(rule, marks, under)
        unseen = uncovered(marks, under)
        parts = [ExplainedWrite(mark, None, "deletes") for mark in canonical(marks)]
        parts += [ExplainedWrite(write, write.value, "unseen") for write in canonical(unseen)]
        reason = _deletion_reason(rule, gone, len(unseen), what)
        return FieldExplanation(path, gone, rule, reason, tuple(parts), self._conflicts.get(path))

    def _unknown(self, here: Path, below: Sequence[Path], values: Mapping[str, Any]) -> FieldExplanation:
        """A field of a newer schema: the latest by clock at each path."""
        parts: list[ExplainedWrite] = []
        for path in below:
            writes = self._writes[path]
            latest = max(writes, key=by_clock)
            parts += [
                ExplainedWrite(write, write.value, "shown" if write is latest else "lost") for write in writes
            ]
        reason = "the latest is shown: this device's schema does not have the field, a newer one does"
        return FieldExplanation(here, values.get(here[-1]), _NEWER, reason, tuple(parts))


def why(rule: ValueRule, writes: Sequence[Write]) -> str:
    """Why the rule chooses what it chooses among the visible writes of one field."""
    if len(writes) == 1:
        return "the only write that stands: whoever made it had seen those before"
    if not differ(writes):
        return f"{len(writes)} devices wrote the same apart: no conflict"
    winner = rule.choose(writes)
    others = [write for write in writes if write is not winner]
    reason = _before(rule, winner, rule.choose(others))
    if not rule.opens_conflict:
        return reason
    which = "first" if isinstance(rule, Once) else "latest"
    return f"a person decides; until then the {which} is shown: {reason}"


def _before(rule: ValueRule, winner: Write, other: Write) -> str:
    """Why `winner` stands before `other`, in the order in which the rule looks at things."""
    if isinstance(rule, Register):
        by_role, by_value = rule.rank(winner), rule.rank(other)
        if by_role[0] != by_value[0]:
            return f"{winner.role.text} before {other.role.text}"
        if by_role[1] != by_value[1]:
            return f"{shown(winner.value)} comes after {shown(other.value)} in the order of the schema"
    elif isinstance(rule, (Max, Min)):
        ours, theirs = measure(winner.value), measure(other.value)
        if ours is None or theirs is None:
            if ours is not None:
                return "the only kind of value that can be compared"
        elif ours != theirs:
            word = "greatest" if isinstance(rule, Max) else "least"
            return f"the {word}: {shown(winner.value)} against {shown(other.value)}"
    elif isinstance(rule, Once) and winner.value is not None:
        if other.value is None:
            return "the other one clears the field"
        return _apart(winner, other, "earlier")
    return _apart(winner, other, "later")


def _apart(winner: Write, other: Write, word: str) -> str:
    between_ms = abs(hlc_to_ms(Hlc(winner.hlc)) - hlc_to_ms(Hlc(other.hlc)))
    if between_ms:
        return f"{word} by {duration(between_ms)}"
    if winner.hlc != other.hlc:
        return f"{word} in the same millisecond"
    return "at the very same time; the device's id decides"


def duration(span_ms: int) -> str:
    """A span as people say it, in its greatest unit: `250 ms`, `12 s`, `2 min`, `3 h`, `5 days`."""
    for size_ms, unit in ((86_400_000, "day"), (3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if span_ms >= size_ms:
            count = span_ms // size_ms
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{span_ms} ms"


def _counted(rule: Counter, writes: Iterable[Write]) -> str:
    totals = [shown(write.value) for write in canonical(writes)]
    return "what each device has counted, added up: " + (" + ".join(totals) or "nothing")


def _woven(writes: Sequence[Write]) -> str:
    if len(writes) == 1:
        return "the only text that stands: whoever wrote it had seen those before"
    return f"{len(writes)} texts that were written apart, woven into one"


def _deletion_reason(rule: str, gone: bool, unseen: int, what: str) -> str:
    edits = f"{unseen} edit{'s' * (unseen != 1)}"
    if gone:
        if not unseen:
            return f"the {what} is deleted: the deletion had seen every edit"
        return f"the {what} is deleted although the deletion had not seen {edits}: a deletion wins"
    why_not = f"the deletion had not seen {edits}, so the {what} is there"
    if rule == MANUAL:
        return f"{why_not} until a person decides"
    return f"{why_not}: an edit wins"
