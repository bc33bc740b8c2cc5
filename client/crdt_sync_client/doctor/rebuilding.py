"""A new store from the rows that could be read of a damaged one.

Rows are copied as they are, then made to fit together: what has lost its other half is left out or marked to
be fetched. The engine does the rest, as after other accidents:

- a record whose document is gone is *absent* and wanted (`engine.absent`), its unsent work put back into it;
- where unsent work or its place in the chain may be lost, the store is treated as an older copy of itself
  (`engine.older_copy`): everything is received again, and what the relay does not have by then was never sent
  and is made again by a new author, whether it still stood in the outbox or only in a document;
- everything else that was lost comes again when the log is read from its start: what is there already
  changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import CrdtSyncError, StoreDamaged
from crdt_sync.ids import (
    Author,
    DeviceId,
    Entropy,
    Incarnation,
    RecordId,
    SpaceId,
    keyed_record_id,
    new_incarnation,
)
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.document import EMPTY_UPDATE, RecordDocument
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.view import view
from crdt_sync.schemas.builtin import SCHEMA_TYPE, schema_type
from crdt_sync_client.engine.engine import Engine
from crdt_sync_client.engine.open_records import encode_heads
from crdt_sync_client.store import tables
from crdt_sync_client.store.connection import Database
from crdt_sync_client.store.salvage import Salvage, Values

from .findings import LostChange
from .resuming import Resuming
from .sifting import sift, writes_of

_SPARE: Final = frozenset({"spare_meta", "spare_spaces"})
"""Filled by triggers from what they are a second copy of."""
_NOT_COPIED: Final = frozenset({"held", "meta", "spaces", *_SPARE})
_WORK_WITHOUT_DOCUMENT: Final = (
    "SELECT no FROM records WHERE no NOT IN (SELECT record FROM documents)"
    " AND (no IN (SELECT record FROM outbox) OR no IN (SELECT record FROM sealed))"
)
_SHOW: Final = "UPDATE records SET json = CAST(? AS TEXT) WHERE no = ?"
_FIRST_PRIORITY: Final = 1 << 48
"""Numbers of the outbox below this are of a format before priorities."""


@dataclass(slots=True)
class Rebuilt:
    """See `findings.Repair`."""

    records: int = 0
    to_fetch: int = 0
    from_start: bool = False
    unsent: int = 0
    unsaved: list[str] = field(default_factory=list)
    lost_changes: list[LostChange] = field(default_factory=list)


def rebuild(salvage: Salvage, db: Database, *, clock: Callable[[], int], entropy: Entropy) -> Rebuilt:
    """Fill an empty database and close it. Raises StoreDamaged when who the device is cannot be read."""
    rebuilt = Rebuilt()
    sift(salvage)
    resuming = Resuming.after(salvage)
    with db.transaction(durable=True):
        tables.create_tables(db)
        device = _copy_identity(salvage, db, entropy)
        _copy_spaces(salvage, db)
        for table in _tables(db):
            _copy(salvage, db, table)
        db.execute("UPDATE outbox SET no = no + (5 << 48) WHERE no < ?", (_FIRST_PRIORITY,))
        db.execute("DELETE FROM membership WHERE space NOT IN (SELECT no FROM spaces)")
        _name_by_envelope(db)
        _give_up_spaces(db, device, rebuilt)
        _give_up_nameless(db, device, rebuilt)
        if db.value(_WORK_WITHOUT_DOCUMENT) is not None:
            # Whether the relay has anything of it cannot be told, so nothing is sent before that is known.
            resuming = replace(resuming, as_older_copy=True, from_start=True)
        if resuming.as_older_copy:
            _make_documents(db, device)
        if _keep_types(db):
            resuming = replace(resuming, from_start=True)
    engine = Engine.open(db, clock=clock, entropy=entropy)
    try:
        resuming.run(engine)
        _count(db, rebuilt)
    finally:
        engine.close()
    rebuilt.from_start = resuming.from_start
    rebuilt.unsaved += _what_is_gone(salvage)
    return rebuilt


def _tables(db: Database) -> list[str]:
    names = [name for (name,) in db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [name for name in names if name not in _NOT_COPIED]


def _copy(salvage: Salvage, db: Database, table: str) -> None:
    for row in salvage.rows.get(table, ()):
        _insert(db, table, row)


def _insert(db: Database, table: str, row: Values) -> None:
    known = [name for name, *_ in db.rows(f"SELECT name FROM pragma_table_info('{table}')")]
    names = [name for name in known if name in row]
    marks = ", ".join("?" * len(names))
    db.execute(
        f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})",
        [row[name] for name in names],
    )


def _copy_identity(salvage: Salvage, db: Database, entropy: Entropy) -> DeviceId:
    meta = {row["name"]: row["value"] for row in salvage.rows.get("spare_meta", ())}
    meta |= {row["name"]: row["value"] for row in salvage.rows.get("meta", ())}
    if "keys" not in meta:
        raise StoreDamaged(
            "the keys of this device cannot be read any more, so it cannot be told who it is",
            hint="restore the store from a backup, or join again with a new store and a new invite",
        )
    meta.setdefault("name", "repaired")
    meta.setdefault("incarnation", new_incarnation(entropy))
    meta.setdefault("hlc", 0)
    meta["clean"] = 0  # so that opening it begins a new incarnation
    db.many("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
    from crdt_sync.crypto.device_keys import DeviceKeys

    return DeviceKeys.from_bytes(meta["keys"]).device_id


def _copy_spaces(salvage: Salvage, db: Database) -> None:
    for row in (*salvage.rows.get("spaces", ()), *salvage.rows.get("spare_spaces", ())):
        _insert(db, "spaces", row)


def _name_by_envelope(db: Database) -> None:
    """A record whose row is gone still has its name in an envelope that waits to be sent."""
    keys = {no: SpaceKeys.from_bytes(raw) for no, raw in db.rows("SELECT no, keys FROM spaces")}
    for no, space, raw in db.rows(
        "SELECT record, space, envelope FROM sealed WHERE record NOT IN (SELECT no FROM records)"
    ):
        try:
            envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
            payload = Payload.decode(envelope.open(keys[space].envelope_key(envelope.header.epoch)))
        except (CrdtSyncError, KeyError):
            continue
        values = (no, space, envelope.header.record, payload.record_type, payload.record_id)
        db.execute(
            "INSERT OR IGNORE INTO records (no, space, opaque, type, id) VALUES (?, ?, ?, ?, ?)", values
        )


def _give_up_spaces(db: Database, device: DeviceId, rebuilt: Rebuilt) -> None:
    """What belongs to a space whose keys are gone twice cannot be read by anyone here."""
    gone = "space NOT IN (SELECT no FROM spaces)"
    if db.value(f"SELECT 1 FROM records WHERE {gone} LIMIT 1") is None:
        return
    rebuilt.unsaved.append(
        "the keys of a space: ask an admin for a new invite and join with it; what the relay has comes then"
    )
    rows = db.rows(f"SELECT incarnation, change FROM outbox WHERE {gone} ORDER BY no")
    rebuilt.lost_changes += _lost_changes(rows, device)
    for table in ("outbox", "sealed", "records", "membership", "chains", "quarantine", "waiting", "types"):
        db.execute(f"DELETE FROM {table} WHERE {gone}")


def _give_up_nameless(db: Database, device: DeviceId, rebuilt: Rebuilt) -> None:
    """Rows of records of which nobody can say any more which they are."""
    rows = db.rows(
        "SELECT incarnation, change FROM outbox WHERE record NOT IN (SELECT no FROM records) ORDER BY no"
    )
    rebuilt.lost_changes += _lost_changes(rows, device)
    if gone := len(rows):
        rebuilt.unsaved.append(
            f"{gone} {'change' if gone == 1 else 'changes'} that no relay had: the records' names cannot be"
            " read; what was written in them is listed"
        )
    for table in ("outbox", "sealed", "documents", "conflicts", "history"):
        db.execute(f"DELETE FROM {table} WHERE record NOT IN (SELECT no FROM records)")


def _lost_changes(rows: Iterable[tuple[int, bytes]], device: DeviceId) -> list[LostChange]:
    found = (_values_of(change, Author(device, Incarnation(incarnation))) for incarnation, change in rows)
    return [LostChange(values) for values in found if values]


def _values_of(change: bytes, author: Author) -> dict[str, Any]:
    try:
        return writes_of(change, author)
    except CrdtSyncError:
        return {}


def _make_documents(db: Database, device: DeviceId) -> None:
    """Records with unsent work and without a document get what can be made of that work."""
    for (no,) in db.rows(_WORK_WITHOUT_DOCUMENT):
        doc = RecordDocument(EMPTY_UPDATE)
        for incarnation, change in db.rows(
            "SELECT incarnation, change FROM outbox WHERE record = ? ORDER BY no", (no,)
        ):
            author = Author(device, Incarnation(incarnation))
            parsed = parse_update(change)
            if not parsed.deletes and all(blocks.start == doc.end(author) for blocks in parsed.blocks):
                doc.apply(change)
        db.execute(
            "INSERT INTO documents (record, state, heads) VALUES (?, ?, ?)",
            (no, doc.state(), encode_heads({})),
        )
        db.execute("UPDATE records SET absent = NULL, wanted = 0 WHERE no = ?", (no,))


def _keep_types(db: Database) -> bool:
    """Record types whose documents are lost stay known as they were in use; whether there are any.

    Without them nothing could be read, nor be merged that comes from the relay before they do.
    """
    for no, id, state in db.rows(
        "SELECT no, id, state FROM records JOIN documents ON record = no WHERE type = ?", (SCHEMA_TYPE,)
    ):
        seen = view(schema_type(), SCHEMA_TYPE, id, RecordDocument(state).writes())
        if seen.exists:
            db.execute(_SHOW, (msgspec.json.encode(seen.values), no))
    for no, id, raw in db.rows("SELECT no, id, keys FROM spaces"):
        keys = SpaceKeys.from_bytes(raw)
        for name, source in db.rows("SELECT type, source FROM types WHERE space = ?", (no,)):
            if source is not None:
                _show_type(db, no, keys, keyed_record_id(SpaceId(id), SCHEMA_TYPE, name), source)
    lost = db.rows(
        "SELECT no FROM records WHERE type = ? AND json IS NOT NULL AND no NOT IN"
        " (SELECT record FROM documents)",
        (SCHEMA_TYPE,),
    )
    rows = [(no, EMPTY_UPDATE, encode_heads({})) for (no,) in lost]
    db.many("INSERT INTO documents (record, state, heads) VALUES (?, ?, ?)", rows)
    return bool(rows)


def _show_type(db: Database, space: int, keys: SpaceKeys, id: RecordId, source: str) -> None:
    """What a type's record shows, unless that is known."""
    values = (
        space,
        keys.opaque_id(SCHEMA_TYPE, id),
        SCHEMA_TYPE,
        id,
        msgspec.json.encode({"source": source}),
    )
    db.execute(
        "INSERT INTO records (space, opaque, type, id, json) VALUES (?1, ?2, ?3, ?4, CAST(?5 AS TEXT))"
        " ON CONFLICT (space, opaque) DO UPDATE SET json = excluded.json WHERE json IS NULL"
        " AND no NOT IN (SELECT record FROM documents)",
        values,
    )


def _count(db: Database, rebuilt: Rebuilt) -> None:
    rebuilt.records = db.value("SELECT count(*) FROM documents")
    rebuilt.to_fetch = db.value("SELECT count(*) FROM records WHERE absent = 'damaged' AND wanted > 0")
    rebuilt.unsent = db.value("SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM sealed)")


_GONE: Final = {
    "conflicts": "entries of the audit trail: what stands open is there again, who closed what may not be",
    "history": "entries of the history of records",
    "preferences": "which side was kept in conflicts, where that was remembered",
    "quarantine": "updates of others that had been put aside, unless the relay still has them",
    "picks": "which records were picked to be kept on this device",
    "scopes": "which records this device was to hold",
    "meta": "settings of this device",
}


def _what_is_gone(salvage: Salvage) -> list[str]:
    gone = [text for name, text in _GONE.items() if name in salvage.damage or salvage.broken_rows.get(name)]
    if salvage.lost("outbox", "sealed"):
        gone.append(
            "perhaps removals and changes that no relay had, of records whose documents are damaged as well"
        )
    return gone
