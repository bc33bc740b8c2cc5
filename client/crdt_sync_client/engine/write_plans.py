"""What local writes are going to do, and what those of one call have done so far."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.records.editing import Edit
from crdt_sync.records.writes import DocWrites
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine.open_records import OpenRecord


class Plan(NamedTuple):
    """What one operation is going to do. `deleted`: what it makes of the record, where it does."""

    record: OpenRecord
    schema: RecordSchema
    edit: Edit
    deleted: bool | None = None
    remember: tuple[tuple[str, str], ...] = ()
    """(field, side) of preferences to remember for the record's type."""
    below: tuple[Plan, ...] = ()
    """What happens to records that belong to this one, because it is deleted or restored."""


class Done(NamedTuple):
    """What one operation did, before the record is viewed."""

    record: OpenRecord
    resolved: tuple[str, ...]
    changed: bool
    below: tuple[tuple[str, RecordId], ...] = ()
    first: int = 0
    """The clock at the first write, and after all."""
    clock: int = 0


class Seen:
    """What the operations so far have made of records that the store does not show yet."""

    __slots__ = ("added_bytes", "deleted", "parents", "planned", "settled", "stale", "touched")

    def __init__(self) -> None:
        self.touched: dict[tuple[int, OpaqueId], OpenRecord] = {}
        self.stale: set[int] = set()
        """Numbers of records edited: `json` and `standing` are from before it."""
        self.deleted: dict[int, bool] = {}
        self.settled: set[str] = set()
        self.planned: dict[int, DocWrites] = {}
        """Of records whose document is not edited yet, the visible writes that it is going to have."""
        self.added_bytes: dict[int, int] = {}
        self.parents: dict[int, str | None] = {}
        """Of edited records, the parent each names now, where it was looked for."""

    def copy(self) -> Seen:
        other = Seen()
        for name in self.__slots__:
            setattr(other, name, getattr(self, name).copy())
        return other

    def note(self, plan: Plan, resolved: Iterable[str]) -> None:
        record = plan.record
        self.touched[record.space.no, record.opaque] = record
        self.stale.add(record.no)
        self.parents.pop(record.no, None)
        self.settled.update(resolved)
        if plan.deleted is not None:
            self.deleted[record.no] = plan.deleted

    def edited(self) -> list[OpenRecord]:
        """The records edited, in the order in which they were touched first."""
        return [record for record in self.touched.values() if record.no in self.stale]

    def writes(self, record: OpenRecord) -> DocWrites:
        """The record's visible writes, those included that are only planned."""
        if self.planned:
            planned = self.planned.get(record.no)
            if planned is not None:
                return planned
        return record.doc.writes()
