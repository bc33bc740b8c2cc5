"""What this device keeps of a space, as its user chose it; `scoping` does what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sync.errors import ValidationError
from crdt_sync.ids import OpaqueId, RecordId
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine.filter_text import decode_filter
from crdt_sync_client.engine.filters import Filter
from crdt_sync_client.engine.matching import Matcher
from crdt_sync_client.engine.queries import Query

if TYPE_CHECKING:
    from crdt_sync_client.store.connection import Database


class Scope:
    """Of one space. A copy of the store's tables `scopes`, `picks` and `leaving`."""

    def __init__(self) -> None:
        self.conditions: dict[str, Filter] = {}
        self.picks: dict[OpaqueId, tuple[str, RecordId]] = {}
        self.opened: set[OpaqueId] = set()
        """Absent records that somebody opened: kept until the device is opened anew and something changes."""
        self.leaving: set[int] = set()
        """Numbers of records that are to go once nothing of them is unsent."""
        self._tests: dict[str, tuple[RecordSchema, Matcher | None]] = {}

    @classmethod
    def load(cls, db: Database, no: int) -> Scope:
        """All but `opened`, which is known with what is absent."""
        scope = cls()
        for record_type, text in db.rows("SELECT type, condition FROM scopes WHERE space = ?", (no,)):
            scope.conditions[record_type] = decode_filter(text)
        for opaque, record_type, id in db.rows("SELECT opaque, type, id FROM picks WHERE space = ?", (no,)):
            scope.picks[OpaqueId(opaque)] = (record_type, RecordId(id))
        scope.leaving = {record for (record,) in db.rows("SELECT record FROM leaving WHERE space = ?", (no,))}
        return scope

    def matcher(self, schema: RecordSchema) -> Matcher | None:
        """Tells which of a type's records meet its condition; None where all are kept."""
        condition = self.conditions.get(schema.type)
        if condition is None:
            return None
        known = self._tests.get(schema.type)
        if known is None or known[0] is not schema:
            try:
                matcher = Matcher(schema, Query(schema.type, condition))
            except ValidationError:
                matcher = None
            known = self._tests[schema.type] = (schema, matcher)
        return known[1]

    def forget_test(self, record_type: str) -> None:
        self._tests.pop(record_type, None)
