"""What a live query found, and which changes can make it find something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import reading
from crdt_sync_client.engine.matching import Matcher
from crdt_sync_client.engine.model import Record, RecordChange
from crdt_sync_client.engine.queries import Query
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


class LiveAnswer:
    """The records of a query at one moment. It never changes, and may cross threads."""

    def __init__(
        self, space: Space, schema: RecordSchema, query: Query, records: list[Record], next: str | None
    ) -> None:
        self.records: Final = records
        self.next: Final = next
        self._space = space.id
        self._query = query
        self._matcher = Matcher(schema, query)
        self._held = {record.id: record for record in records}
        self._parent = schema.parent.type if schema.parent and "orphaned" in query.states else None
        shown = self._matcher.shown
        self._watched = None if shown is None else shown | self._matcher.deciding
        self.shows_work: Final = bool(query.states) or any(r.sync_state != "synced" for r in records)
        """Whether it can change when the relay acknowledges or refuses something."""

    def same_as(self, other: LiveAnswer) -> bool:
        """Whether an app would see no difference."""
        return self.records == other.records and self.next == other.next

    def about(self, change: RecordChange) -> bool:
        """Whether the change is of the type and space that the query reads."""
        return change.space == self._space and change.type in (self._query.type, self._parent)

    def matters(self, change: RecordChange) -> bool:
        """Whether the query can find something else now."""
        if change.type != self._query.type:
            return change.type == self._parent and change.space == self._space
        if change.space != self._space:
            return False
        record, held = change.record, self._held.get(change.id)
        comes = self._may_show(record.deleted) and self._matcher.holds(record.values)
        if held is None or not comes:
            return comes or held is not None
        if self._query.states or (
            change.fields if self._watched is None else not self._watched.isdisjoint(change.fields)
        ):
            return True
        return (
            record.sync_state,
            record.conflicts,
            record.provisional,
            record.deleted,
            record.checkout,
        ) != (held.sync_state, held.conflicts, held.provisional, held.deleted, held.checkout)

    def _may_show(self, deleted: bool) -> bool:
        wanted = self._query.deleted
        return deleted if wanted == "only" else bool(wanted) or not deleted


def answer(replica: Replica, space: Space, query: Query) -> LiveAnswer:
    """The query's first page as it is now."""
    records, next = reading.page(replica, space, query, None)
    return LiveAnswer(space, space.schema(query.type), query, records, next)
