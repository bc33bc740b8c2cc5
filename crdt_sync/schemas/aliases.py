"""Fields that were called something else in an earlier version of their schema.

Devices with the older schema go on writing under the old name, and what was written before stays where
it is. So writes keep their path in the document for ever, and a schema with `x-aliases` reads those
under an old name as writes of the field: once, where the writes of a record enter a view or a plan.
Writing the field then removes what stands under either name.

Old names of rows and of fields in rows count as well: `("parts_used", "A", "qty")` may be read as
`("parts", "A", "quantity")`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from crdt_sync.records.writes import DocWrites, Path, Write

if TYPE_CHECKING:
    from crdt_sync.schemas.model import FieldSpec


class OldNames:
    """The old names among the fields of a record or row, and those in the rows below."""

    __slots__ = ("current", "rows")

    def __init__(self, current: Mapping[str, str], rows: Mapping[str, OldNames]) -> None:
        self.current = current
        """Old name -> the field's name now."""
        self.rows = rows
        """Name of a rows field -> the old names in its rows, where there are any."""

    def path(self, path: Path) -> Path:
        """The path that a write counts for: the same object when no name in it is old."""
        names: OldNames | None = self
        renamed: list[str] | None = None
        for at in range(0, len(path), 2):
            if names is None:
                break
            name = path[at]
            now = names.current.get(name, name)
            if now is not name:
                renamed = renamed or list(path)
                renamed[at] = now
            names = names.rows.get(now)
        return path if renamed is None else tuple(renamed)

    def writes(self, doc_writes: DocWrites) -> DocWrites:
        """The visible writes by the paths they count for; the same mapping when none has an old name.

        A write itself is not changed, so that it can be found in the document.
        """
        moved = [path for path in doc_writes if self.path(path) is not path]
        if not moved:
            return doc_writes
        by_path: dict[Path, tuple[Write, ...]] = {}
        for path, writes in doc_writes.items():
            now = self.path(path)
            beside = by_path.get(now)
            by_path[now] = (
                writes
                if beside is None
                else tuple(sorted((*beside, *writes), key=lambda write: (write.author, write.hlc)))
            )
        return by_path

    def touched(self, names: Collection[str]) -> Collection[str]:
        """The fields meant by top-level names."""
        return {self.current.get(name, name) for name in names}


def old_names(fields: Mapping[str, FieldSpec]) -> OldNames | None:
    """The old names that the fields declare; None when there is none at any depth."""
    current = {alias: name for name, spec in fields.items() for alias in spec.aliases}
    rows = {
        name: below
        for name, spec in fields.items()
        if spec.row is not None and (below := old_names(spec.row)) is not None
    }
    return OldNames(current, rows) if current or rows else None
