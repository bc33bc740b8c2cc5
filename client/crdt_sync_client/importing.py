"""Importing rows as records: each row stands for itself, and a second import updates instead of doubling.

`read_csv` reads a CSV file by the schema's types. It refuses a file whose columns are not those that were
asked for before a single row is taken; after that a cell that does not fit makes its row fail, nothing
else. `RowImport` writes rows in groups that share commits.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from crdt_sync.errors import CrdtSyncError, ImportFileError, LocalError, ValidationError
from crdt_sync.ids import RecordId, SpaceId, keyed_record_id
from crdt_sync.schemas.model import RecordSchema
from crdt_sync.schemas.suggest import did_you_mean

from .engine import model

GROUP: Final = 500
"""Rows handed over at once: they share a commit, and the progress bar still moves ten times a second."""
MAX_FILE_BYTES: Final = 256 * 1024 * 1024

Write = Callable[[model.Operation], Awaitable[model.WriteResult]]


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One row: its line in the file, its values, its key; or why it cannot be used."""

    line: int
    values: Mapping[str, Any]
    key: str | None = None
    problem: tuple[str, str] | None = None
    """(field, message) when a cell did not fit."""


@dataclass(slots=True)
class ImportReport:
    """`failed` lists (line, field, message) of the rows that did not go in, in the order of the rows."""

    imported: int = 0
    failed: list[tuple[int, str, str]] = field(default_factory=list)


def read_csv(
    path: Path | str, schema: RecordSchema, mapping: Mapping[str, str], *, key: str | None = None
) -> list[ImportRow]:
    """The rows of a CSV file: `mapping` is field -> column, `key` the column that identifies a row.

    The first line names the columns. Raises ImportFileError for a file that is not UTF-8 CSV, a missing
    column or an unknown field; nothing has been written then.
    """
    text = _read(Path(path))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, None)
        if not columns:
            raise ImportFileError(f"{path} is empty", hint="the first line names the columns")
        places = _places(path, columns, schema, mapping)
        key_place = _place(path, columns, key) if key is not None else None
        return [
            _row(reader.line_num, cells, len(columns), schema, places, key_place) for cells in reader if cells
        ]
    except csv.Error as exc:
        raise ImportFileError(
            f"{path} is not a CSV file: line {reader.line_num}: {exc}", hint="check its quotes and commas"
        ) from None


class RowImport:
    """One import into one type. `write` is the device's group-committing write."""

    def __init__(self, space: SpaceId, schema: RecordSchema, write: Write, key: str | None) -> None:
        self._space = space
        self._schema = schema
        self._write = write
        self._key = key

    async def run(
        self, rows: Iterable[Mapping[str, Any] | ImportRow], progress: Callable[[int], None] | None
    ) -> ImportReport:
        """Write all rows; `progress` gets the number of rows done."""
        report = ImportReport()
        done = 0
        for group in _groups(rows):
            numbered = [self._as_row(row, done + place) for place, row in enumerate(group, start=1)]
            outcomes = await asyncio.gather(*(self._import(row) for row in numbered))
            for row, failure in zip(numbered, outcomes, strict=True):
                if failure is None:
                    report.imported += 1
                else:
                    report.failed.append((row.line, *failure))
            done += len(group)
            if progress is not None:
                progress(done)
        return report

    def _as_row(self, row: Mapping[str, Any] | ImportRow, line: int) -> ImportRow:
        if isinstance(row, ImportRow):
            return row
        values = dict(row)
        key = None
        if self._key is not None:
            keep = self._key in self._schema.fields
            found = values.get(self._key) if keep else values.pop(self._key, None)
            if found in (None, ""):
                return ImportRow(line, values, problem=(self._key, "the key is missing"))
            key = str(found)
        return ImportRow(line, values, key)

    async def _import(self, row: ImportRow) -> tuple[str, str] | None:
        """None when the row went in, else the field and the reason."""
        if row.problem is not None:
            return row.problem
        id: RecordId | None = None
        if row.key is not None:
            id = keyed_record_id(self._space, self._schema.type, row.key)
        try:
            await self._write(model.CreateOp(self._schema.type, row.values, id, self._space))
        except ValidationError as exc:
            return exc.field, exc.message.removeprefix(f"{exc.field}: ")
        except LocalError as exc:
            return "", exc.message
        return None


def _groups(
    rows: Iterable[Mapping[str, Any] | ImportRow],
) -> Iterator[list[Mapping[str, Any] | ImportRow]]:
    source = iter(rows)
    while group := list(islice(source, GROUP)):
        yield group


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImportFileError(
                f"{path} is larger than {MAX_FILE_BYTES // 1024**2} MiB", hint="split the file"
            )
        return path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise ImportFileError(f"{path} cannot be read: {exc.strerror}", hint="check the path") from None
    except UnicodeDecodeError:
        raise ImportFileError(f"{path} is not UTF-8 text", hint="save it as CSV in UTF-8") from None


def _places(
    path: Path | str, columns: list[str], schema: RecordSchema, mapping: Mapping[str, str]
) -> dict[str, int]:
    """Field -> index of its column. One error names everything that is missing."""
    missing = [column for column in mapping.values() if column not in columns]
    if missing:
        raise _missing(path, missing, columns)
    for name in mapping:
        try:
            schema.field_at((name,))
        except CrdtSyncError as exc:
            raise ImportFileError(exc.message, hint=exc.hint) from None
    unfilled = [name for name in schema.required if name not in mapping and name not in schema.defaults]
    if unfilled:
        raise ImportFileError(
            f"no column is mapped to {', '.join(unfilled)}, which every {schema.type} must have",
            hint=f"add --map {unfilled[0]}=COLUMN",
        )
    return {name: columns.index(column) for name, column in mapping.items()}


def _place(path: Path | str, columns: list[str], column: str) -> int:
    if column not in columns:
        raise _missing(path, [column], columns)
    return columns.index(column)


def _missing(path: Path | str, missing: list[str], columns: list[str]) -> ImportFileError:
    nearest = did_you_mean(missing[0], columns)
    return ImportFileError(
        f"{path} has no column {', '.join(missing)}{nearest}", hint=f"its columns are {', '.join(columns)}"
    )


def _row(
    line: int,
    cells: list[str],
    width: int,
    schema: RecordSchema,
    places: Mapping[str, int],
    key_place: int | None,
) -> ImportRow:
    if len(cells) != width:
        return ImportRow(line, {}, problem=("", f"has {len(cells)} cells, the first line has {width}"))
    values: dict[str, Any] = {}
    for name, place in places.items():
        try:
            value = schema.parse_cell(name, cells[place])
        except ValidationError as exc:
            return ImportRow(line, {}, problem=(name, exc.message.removeprefix(f"{exc.field}: ")))
        if value is not None:
            values[name] = value
    key = None
    if key_place is not None:
        key = cells[key_place].strip()
        if not key:
            return ImportRow(line, values, problem=("", "the key column is empty"))
    return ImportRow(line, values, key)
