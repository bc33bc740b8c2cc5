"""Reading: from the materialised rows only, never from documents.

Conditions are equality on fields, checked against the schema and bound as parameters. A list field (a
set) matches when it contains the value. Records of a type whose schema is not there yet, and records
of which only parts have arrived, are not shown.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from crdt_sync.errors import ValidationError
from crdt_sync.ids import RecordId, SpaceId
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync_client.engine.materialising import make_record
from crdt_sync_client.engine.model import OutboxItem, Record, StatusCounts
from crdt_sync_client.engine.open_records import decode_standing
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_COLUMNS: Final = "no, id, json, deleted, standing"
_MAX_SQL_INT: Final = 2**63 - 1


def get(replica: Replica, space: Space, record_type: str, id: str, *, deleted: bool) -> Record | None:
    """One record by id, or None."""
    schema = space.schema(record_type)
    row = replica.db.execute(
        f"SELECT {_COLUMNS} FROM records WHERE space = ? AND opaque = ? AND json IS NOT NULL",
        (space.no, space.keys.opaque_id(record_type, id)),
    ).fetchone()
    if row is None or (row[3] and not deleted):
        return None
    return _record(replica, space, schema, row)


def query(
    replica: Replica,
    space: Space,
    record_type: str,
    where: Mapping[str, Any],
    *,
    order_by: str | None,
    limit: int | None,
    offset: int,
    deleted: bool,
) -> list[Record]:
    """Records in the order asked for, else in the order they came to this device."""
    schema = space.schema(record_type)
    condition, params = _condition(schema, space, where, deleted)
    order = "no"
    if order_by is not None:
        name = order_by.removeprefix("-")
        schema.field_at(tuple(name.split(".")))
        order = f"json_extract(json, ?) {'DESC' if order_by.startswith('-') else 'ASC'}, no"
        params.append(_json_path(name))
    params += [-1 if limit is None else limit, offset]
    sql = f"SELECT {_COLUMNS} FROM records WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?"
    return [_record(replica, space, schema, row) for row in replica.db.execute(sql, params)]


def count(replica: Replica, space: Space, record_type: str, where: Mapping[str, Any]) -> int:
    condition, params = _condition(space.schema(record_type), space, where, False)
    found = replica.db.value(f"SELECT count(*) FROM records WHERE {condition}", params)
    return int(found)


def _condition(
    schema: RecordSchema, space: Space, where: Mapping[str, Any], deleted: bool
) -> tuple[str, list[Any]]:
    """SQL made of constants only; every name and value is a parameter."""
    parts = ["space = ?", "type = ?", "json IS NOT NULL"]
    params: list[Any] = [space.no, schema.type]
    if not deleted:
        parts.append("deleted = 0")
    for name, value in where.items():
        spec = schema.field_at(tuple(name.split(".")))
        path = _json_path(name)
        if value is None:
            parts.append("json_extract(json, ?) IS NULL")
            params.append(path)
        elif spec.shape == "set" and not isinstance(value, (list, dict)):
            parts.append("EXISTS (SELECT 1 FROM json_each(records.json, ?) AS e WHERE e.value = ?)")
            params += [path, _comparable(value)]
        else:
            parts.append("json_extract(json, ?) = ?")
            params += [path, _comparable(value)]
    return " AND ".join(parts), params


def _json_path(dotted: str) -> str:
    """SQLite's path to a field. Names are quoted; SQLite has no way to quote a quote."""
    if '"' in dotted:
        raise ValidationError(dotted, "names with quotes cannot be searched by")
    return "$" + "".join(f'."{name}"' for name in dotted.split("."))


def _comparable(value: Any) -> Any:
    """What `json_extract` gives for the value."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, tuple, dict)):
        return msgspec.json.encode(value).decode()
    if type(value) is int and abs(value) > _MAX_SQL_INT:
        return float(value)
    return value


def _record(replica: Replica, space: Space, schema: RecordSchema, row: Any) -> Record:
    no, id, json, deleted, standing = row
    values = _decode(json)
    for name, spec in schema.fields.items():
        if spec.is_bytes or spec.row is not None:
            _restore_bytes(values, name, spec)
    return make_record(
        replica, space, schema.type, RecordId(id), no, values, bool(deleted), decode_standing(standing)
    )


def _restore_bytes(values: dict[str, Any], name: str, spec: FieldSpec) -> None:
    """JSON has no bytes: they stand in it as base64 text, and become bytes again by their schema."""
    value = values.get(name)
    if spec.is_bytes and isinstance(value, str):
        values[name] = base64.b64decode(value)
    elif spec.row is not None and isinstance(value, dict):
        subfields = [(sub, subspec) for sub, subspec in spec.row.items() if subspec.is_bytes or subspec.row]
        for row in value.values() if subfields else ():
            if isinstance(row, dict):
                for sub, subspec in subfields:
                    _restore_bytes(row, sub, subspec)


def outbox(replica: Replica, space_no: int | None) -> list[OutboxItem]:
    """Unacknowledged work by record and state, oldest first."""
    spaces: dict[int, SpaceId] = {space.no: space.id for space in replica.spaces.values()}
    rows = replica.db.rows(
        "SELECT q.space, r.type, r.id, q.state, sum(q.updates), sum(q.size), min(q.at_ms), max(q.attempts),"
        " max(q.error) FROM ("
        "  SELECT space, record, CASE WHEN error IS NULL THEN 'pending' ELSE 'failed' END AS state,"
        "   1 AS updates, length(change) AS size, at_ms, 0 AS attempts, error FROM outbox"
        "  UNION ALL"
        "  SELECT space, record, CASE WHEN error IS NULL THEN 'sending' ELSE 'failed' END,"
        "   updates, length(envelope), at_ms, attempts, error FROM sealed"
        " ) q JOIN records r ON r.no = q.record WHERE ?1 IS NULL OR q.space = ?1"
        " GROUP BY q.record, q.state ORDER BY min(q.at_ms), q.record",
        (space_no,),
    )
    return [OutboxItem(spaces[row[0]], row[1], RecordId(row[2]), *row[3:]) for row in rows]


def status_counts(replica: Replica, space_no: int | None) -> StatusCounts:
    """Counts of records with unsent or failed work, open conflicts, quarantined envelopes and records.

    Asked more often than they change: counted once after each transaction that could have changed them.
    """
    if replica.in_transaction:
        return _count_status(replica, space_no)
    counted = replica.status.get(space_no)
    if counted is None:
        counted = replica.status[space_no] = _count_status(replica, space_no)
    return counted


def _count_status(replica: Replica, space_no: int | None) -> StatusCounts:
    failed, pending = replica.db.execute(
        "SELECT coalesce(sum(bad), 0), coalesce(sum(1 - bad), 0) FROM ("
        " SELECT max(error IS NOT NULL) AS bad FROM ("
        "  SELECT space, record, error FROM outbox UNION ALL SELECT space, record, error FROM sealed"
        " ) WHERE ?1 IS NULL OR space = ?1 GROUP BY record)",
        (space_no,),
    ).fetchone()
    conflicts = replica.db.value(
        "SELECT count(*) FROM conflicts c JOIN records r ON r.no = c.record"
        " WHERE c.state = 'open' AND (?1 IS NULL OR r.space = ?1)",
        (space_no,),
    )
    quarantined = replica.db.value(
        "SELECT count(*) FROM quarantine WHERE ?1 IS NULL OR space = ?1", (space_no,)
    )
    records = replica.db.value(
        "SELECT count(*) FROM records WHERE json IS NOT NULL AND deleted = 0 AND type NOT LIKE '\\_%'"
        " ESCAPE '\\' AND (?1 IS NULL OR space = ?1)",
        (space_no,),
    )
    return StatusCounts(
        pending=pending, failed=failed, conflicts=conflicts, quarantined=quarantined, records=records
    )
