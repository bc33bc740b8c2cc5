"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from ...conflict_export import ExportFormat, Writable
from ...conflict_methods import ConflictMethods as AsyncConflictMethods
from ...engine.explaining import Explanation
from ...engine.history import HistoryEntry
from ...engine.model import ConflictEntry, ConflictState
from ...engine.trail import CountBy
from ..wrapping import BlockingGenerator
from .conflict_watching import ConflictWatch
from .preferences import Preferences
from .write_methods import WriteMethods

W = TypeVar("W", bound=AsyncConflictMethods)


class ConflictMethods(WriteMethods[W]):
    """Part of `Device`, which has the store, the queue of writes and the thread they run on."""

    def conflicts(
        self,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> list[ConflictEntry]:
        """What waits for a person's decision; with `open_only=False` the whole audit trail, oldest first.

        `state` asks for one kind of entry instead ("open", "auto", "closed"); `type` and `id` for a
        record's, `device` (name or id) for those in which that device has an alternative. Raises
        LocalError for a device that nobody knows.
        """
        return self._run(
            lambda: self._inner.conflicts(
                open_only=open_only, state=state, type=type, id=id, device=device, space=space
            )
        )

    def count_conflicts(
        self,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> int:
        """How many `conflicts` would find."""
        return self._run(
            lambda: self._inner.count_conflicts(
                open_only=open_only, state=state, type=type, id=id, device=device, space=space
            )
        )

    def conflict_counts(
        self,
        by: CountBy,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> dict[str, int]:
        """How many `conflicts` would find by "device", "type", "record", "field" or "state", the most first.

        By device: in how many it has an alternative.
        """
        return self._run(
            lambda: self._inner.conflict_counts(
                by, open_only=open_only, state=state, type=type, id=id, device=device, space=space
            )
        )

    def conflict_trail(self, *, since_ms: int | None = None) -> Iterator[ConflictEntry]:
        """The whole audit trail, oldest first, read page by page: `for entry in …`.

        `since_ms` (Unix milliseconds) leaves out what was seen and closed before.
        """
        made = self._call(lambda: self._inner.conflict_trail(since_ms=since_ms))
        return BlockingGenerator(made, self._background, self._kept())

    def export_conflicts(
        self, out: Writable, *, format: ExportFormat = "jsonl", since_ms: int | None = None
    ) -> int:
        """Write the trail as JSON lines or CSV, entry by entry; returns how many there were.

        What stands in it: `crdt_sync_client.conflict_export`. Open a file for CSV with `newline=""`.
        """
        return self._run(lambda: self._inner.export_conflicts(out, format=format, since_ms=since_ms))

    def watch_conflicts(
        self, type: str | None = None, id: str | None = None, *, open_only: bool = True
    ) -> ConflictWatch:
        """Conflicts that open or close from now on: `for change in device.watch_conflicts():`.

        Of one type or one record if given; with `open_only=False` also those that a rule settled. One that
        opens and closes before it is looked at is told once, as closed.
        """
        made = self._call(lambda: self._inner.watch_conflicts(type, id, open_only=open_only))
        return ConflictWatch(made, self._background, self._kept())

    def explain(
        self, type: str, id: str, field: str | None = None, *, space: str | None = None
    ) -> Explanation:
        """Why a record, or one field of it (dotted), is as it is.

        Per field the writes that stand, who made them and when, which rule chose and why, what lost and
        the conflict's id; for a record that is deleted or came back what the deletion had seen; whether its
        parent is deleted. Raises UnknownType, RecordNotFound, ValidationError.
        """
        return self._run(lambda: self._inner.explain(type, id, field, space=space))

    def history(self, type: str, id: str, *, limit: int = 50, space: str | None = None) -> list[HistoryEntry]:
        """What each transaction on this device changed in a record, the newest first.

        Only for types whose schema says how many entries to keep (`x-history: 50`); LocalError for others.
        """
        return self._run(lambda: self._inner.history(type, id, limit=limit, space=space))

    @property
    def preferences(self) -> Preferences:
        """Which side this device keeps in conflicts about a field: `set`, `ls`, `clear`."""
        return Preferences(self._read(lambda: self._inner.preferences), self._background, self._kept())
