"""From visible writes to what people see: values, conflicts, and whether the record is deleted.

Pure, and the only place where rules meet writes; every device that has seen the same writes and has the
same schema gets the same view. Values come in the schema's order, rows and elements sorted, so that the
same record has the same JSON everywhere. Sets and rows that hold nothing are `[]` and `{}`, a counter
starts at 0, any other field without a write is absent; one that was cleared is None.

Fields a newer schema brought are kept in the document and shown by the clock alone, without conflicts:
which rule they have is not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from crdt_sync.errors import ValidationError
from crdt_sync.records.conflicts import Conflict, ConflictKind, deletion_conflict, differ, field_conflict
from crdt_sync.records.writes import DELETED, DocWrites, Path, Write
from crdt_sync.rules.base import Rule, ValueRule, by_clock
from crdt_sync.rules.collections import Rows, SetRule
from crdt_sync.rules.counter import Counter
from crdt_sync.rules.deletion import DELETE_WINS, EDIT_WINS, is_gone
from crdt_sync.rules.text import Text
from crdt_sync.schemas.model import FieldSpec, RecordSchema

DELETED_PATH: Final[Path] = (DELETED,)


class RecordView(msgspec.Struct, frozen=True):
    """One record as it stands.

    `values` has the last values also when the record is deleted. `conflicts` are ordered by path,
    `provisional` are the paths whose value waits for a person. `exists`: something was ever written.
    """

    values: dict[str, Any]
    deleted: bool
    conflicts: tuple[Conflict, ...]
    provisional: tuple[Path, ...]
    exists: bool
    field_conflicts: tuple[Conflict, ...]
    """Those inside fields, also while the record is deleted: what a later view starts from."""


def view(
    schema: RecordSchema,
    record_type: str,
    record_id: str,
    doc_writes: DocWrites,
    *,
    before: RecordView | None = None,
    touched: Collection[str] | None = None,
) -> RecordView:
    """What the visible writes of a record amount to under a schema.

    With the view from `before` and the top-level names `touched` since, only those are looked at again;
    what comes out is the same. Values of other fields are then shared between the two views.
    """
    if schema.old_names is not None:
        doc_writes = schema.current(doc_writes)
        touched = None if touched is None else schema.old_names.touched(touched)
    reader = _Reader(record_type, record_id, doc_writes)
    paths = list(doc_writes)
    if before is None or touched is None:
        values = reader.fields(schema.fields, (), paths)
    else:
        specs = {name: schema.fields[name] for name in touched if name in schema.fields}
        fresh = reader.fields(specs, (), [path for path in paths if path[0] in touched])
        values = _woven(schema.fields, before.values, fresh, touched)
        reader.conflicts += [each for each in before.field_conflicts if each.path[0] not in touched]
    conflicts = sorted(reader.conflicts, key=_by_path) if reader.conflicts else []
    field_conflicts = tuple(conflicts)
    marks = doc_writes.get(DELETED_PATH, ())
    exists = len(paths) > (1 if marks else 0)
    deleted = False
    if marks:
        under = list(writes_under(doc_writes, (), paths))
        deleted = is_gone(schema.delete.rule, marks, under)
        met = deletion_conflict(record_type, record_id, DELETED_PATH, schema.delete.rule, marks, under)
        conflicts = [*([] if met is None else [met]), *([] if deleted else conflicts)]
    if schema.has_texts:
        conflicts = [_in_plain_text(schema, conflict) for conflict in conflicts]
    provisional = tuple([conflict.path for conflict in conflicts if conflict.kind == "open"])
    return RecordView(values, deleted, tuple(conflicts), provisional, exists, field_conflicts)


def _by_path(conflict: Conflict) -> Path:
    return conflict.path


def _in_plain_text(schema: RecordSchema, conflict: Conflict) -> Conflict:
    """Where a deletion met the edit of a text, the alternative is the text and not its state."""
    if conflict.path[-1] != DELETED:
        return conflict
    plain = [_plain(schema, write) for write in conflict.alternatives]
    winner = plain[conflict.alternatives.index(conflict.winner)]
    return msgspec.structs.replace(conflict, alternatives=tuple(plain), winner=winner)


def _plain(schema: RecordSchema, write: Write) -> Write:
    path = write.path if schema.old_names is None else schema.old_names.path(write.path)
    if path[-1][0] == "$" or path[0] not in schema.fields:
        return write
    try:
        rule = schema.field_at(path).rule
    except ValidationError:  # a field in rows of a newer version
        return write
    return msgspec.structs.replace(write, value=rule.value_of([write])) if isinstance(rule, Text) else write


def _woven(
    specs: Mapping[str, FieldSpec],
    before: Mapping[str, Any],
    fresh: Mapping[str, Any],
    touched: Collection[str],
) -> dict[str, Any]:
    """The values of both in the order of a view made from nothing: the schema's, then the unknown by name."""
    kept = {**before, **fresh}
    for name in touched:
        if name not in fresh:
            kept.pop(name, None)
    if len(kept) == len(before) and fresh.keys() <= before.keys():
        return kept
    known = {name: kept[name] for name in specs if name in kept}
    unknown = sorted(kept.keys() - known.keys()) if len(known) < len(kept) else ()
    return {**known, **{name: kept[name] for name in unknown}}


def writes_under(doc_writes: DocWrites, prefix: Path, paths: Iterable[Path]) -> Iterable[Write]:
    """All visible writes of the record (`prefix` empty) or row, but for the marks of its own deletion."""
    own_mark = (*prefix, DELETED)
    depth = len(prefix)
    for path in paths:
        if path[:depth] == prefix and path != own_mark:
            yield from doc_writes[path]


def row_rule(rule: Rows) -> str:
    """The deletion rule that a field's rows follow."""
    return DELETE_WINS if rule.remove_wins else EDIT_WINS


def shown_elements(
    rule: SetRule, doc_writes: DocWrites, prefix: Path, paths: Iterable[Path]
) -> dict[str, Any]:
    """The elements of the set at `prefix`, by the path element that names them."""
    depth = len(prefix)
    return {
        path[depth]: max(doc_writes[path], key=by_clock).value
        for path in paths
        if len(path) == depth + 1
        and path[:depth] == prefix
        and not (rule.remove_wins and (*path, DELETED) in doc_writes)
    }


class _Reader:
    """Collects conflicts while it reads one record."""

    __slots__ = ("_id", "_type", "_writes", "conflicts")

    def __init__(self, record_type: str, record_id: str, doc_writes: DocWrites) -> None:
        self._type = record_type
        self._id = record_id
        self._writes = doc_writes
        self.conflicts: list[Conflict] = []

    def fields(self, specs: Mapping[str, FieldSpec], prefix: Path, paths: Sequence[Path]) -> dict[str, Any]:
        """The fields of the record or of one row; `paths` are all those under it."""
        depth = len(prefix)
        own: dict[str, tuple[Write, ...]] = {}
        deeper: dict[str, list[Path]] = {}
        unknown: set[str] = set()
        for path in paths:
            name = path[depth]
            if len(path) == depth + 1:
                own[name] = self._writes[path]
            else:
                deeper.setdefault(name, []).append(path)
            if name not in specs and name[0] != "$":
                unknown.add(name)
        values: dict[str, Any] = {}
        for name, spec in specs.items():
            writes, rule = own.get(name), spec.rule
            shape = rule.shape
            if shape == "value":
                if writes is not None:
                    alone = len(writes) == 1
                    values[name] = writes[0].value if alone else self._choose(rule, (*prefix, name), writes)
            elif shape == "rows":
                values[name] = self._rows(spec, (*prefix, name), deeper[name]) if name in deeper else {}
            elif shape == "set":
                values[name] = self._set(rule, (*prefix, name), deeper[name]) if name in deeper else []
            elif shape == "counter":
                values[name] = cast(Counter, rule).total(writes or ())
            elif writes is not None:
                values[name] = cast(Text, rule).value_of(writes)
        for name in sorted(unknown) if unknown else ():
            values[name] = self._unknown((*prefix, name), deeper.get(name, ()))
        return values

    def note_deletion(self, path: Path, rule: str, marks: Sequence[Write], under: Iterable[Write]) -> None:
        conflict = deletion_conflict(self._type, self._id, path, rule, marks, under)
        if conflict is not None:
            self.conflicts.append(conflict)

    def _choose(self, rule: Rule, path: Path, writes: Sequence[Write]) -> Any:
        winner = cast(ValueRule, rule).choose(writes)
        if differ(writes):
            kind: ConflictKind = "open" if rule.opens_conflict else "auto"
            self.conflicts.append(field_conflict(self._type, self._id, path, rule.name, kind, writes, winner))
        return winner.value

    def _set(self, rule: Rule, prefix: Path, paths: Sequence[Path]) -> list[Any]:
        shown = shown_elements(cast(SetRule, rule), self._writes, prefix, paths)
        if cast(SetRule, rule).remove_wins:
            for path in paths:
                if path[-1] == DELETED and path[:-1] in self._writes:
                    adds = self._writes[path[:-1]]
                    self.note_deletion(path, DELETE_WINS, self._writes[path], adds)
        return [shown[key] for key in sorted(shown, key=lambda key: _element_order(key, shown[key]))]

    def _rows(self, spec: FieldSpec, prefix: Path, paths: Sequence[Path]) -> dict[str, Any]:
        depth = len(prefix)
        by_key: dict[str, list[Path]] = {}
        for path in paths:
            if len(path) > depth + 1:
                by_key.setdefault(path[depth], []).append(path)
        rows: dict[str, Any] = {}
        rule = row_rule(cast(Rows, spec.rule))
        for key in sorted(by_key):
            row = (*prefix, key)
            mark_path = (*row, DELETED)
            marks = self._writes.get(mark_path, ())
            if marks:
                under = list(writes_under(self._writes, row, by_key[key]))
                self.note_deletion(mark_path, rule, marks, under)
                if not under or is_gone(rule, marks, under):
                    continue
            rows[key] = self.fields(spec.row or {}, row, by_key[key])
        return rows

    def _unknown(self, path: Path, deeper: Sequence[Path]) -> Any:
        """A field of a newer schema: by the clock, and as a tree when it has parts."""
        writes = self._writes.get(path)
        if writes is not None:
            return max(writes, key=by_clock).value
        depth = len(path)
        parts = sorted({each[depth] for each in deeper if each[depth][0] != "$"})
        return {
            part: self._unknown((*path, part), [p for p in deeper if p[depth] == part and len(p) > depth + 1])
            for part in parts
        }


def _element_order(key: str, element: Any) -> tuple[int, float, str]:
    """Numbers by size, then everything else by its JSON text."""
    if isinstance(element, (int, float)) and not isinstance(element, bool):
        try:
            return (0, float(element), key)
        except OverflowError:
            return (0, 0.0, key)
    return (1, 0.0, key)
