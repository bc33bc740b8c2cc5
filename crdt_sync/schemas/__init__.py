"""Record types as data: JSON Schema in YAML, with a merge rule per field."""

from crdt_sync.records.writes import Path
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import DeletePolicy, FieldSpec, RecordSchema
from crdt_sync.schemas.transitions import check_transition, next_values
from crdt_sync.schemas.values import to_json

__all__ = [
    "DeletePolicy",
    "FieldSpec",
    "Path",
    "RecordSchema",
    "check_transition",
    "load_schema",
    "next_values",
    "to_json",
]
