"""What is wrong with a store: pages that do not verify, and what does not fit together on those that do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.ids import Author, DeviceId, Incarnation
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.view import view
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine.open_records import decode_heads, decode_standing
from crdt_sync_client.engine.replica import _SPACE_COLUMNS
from crdt_sync_client.engine.space import Space
from crdt_sync_client.store.connection import Database
from crdt_sync_client.store.salvage import UNKNOWN, Salvage
from crdt_sync_client.store.tables import upgrade_tables

from .findings import Finding
from .sifting import whole_document, writes_of

_to_json = msgspec.json.Encoder().encode

EXAMINED: Final = frozenset({"documents", "outbox", "sealed", "membership"})
"""Tables of which `content_findings` looks at every row."""

_IN_META: Final = frozenset({"name", "keys", "incarnation", "hlc", "clean"})

_MESSAGES: Final = {
    "sqlite": "SQLite finds the file inconsistent",
    "documents_missing": "records without a document",
    "records_missing": "documents without a record",
    "document_unreadable": "documents that cannot be read",
    "shown_otherwise": "records that show something else than their document says",
    "conflicts_otherwise": "records whose standing conflicts are not those of their document",
    "outbox_unreadable": "waiting changes that cannot be read",
    "outbox_homeless": "waiting changes of records that are not there",
    "envelope_unreadable": "sealed envelopes that cannot be read",
    "chain_broken": "sealed envelopes that are not the end of this device's chain",
    "membership": "a member log that does not verify",
    "space": "a space that cannot be loaded",
    "identity": "this device's keys or settings cannot be read",
}


def page_findings(salvage: Salvage) -> list[Finding]:
    """Damage to the file itself."""
    found = []
    for owner in sorted(salvage.damage):
        numbers = sorted(salvage.damage[owner])
        what = "of what cannot be told any more" if owner == UNKNOWN else f"of {owner}"
        some = ", ".join(str(number) for number in numbers[:5]) + (", …" if len(numbers) > 5 else "")
        found.append(Finding("page", f"pages {what} that cannot be read: {some}", owner, len(numbers)))
    for table, count in sorted(salvage.broken_rows.items()):
        found.append(Finding("row", f"rows of {table} that go on on such a page", table, count))
    if salvage.bad_frames:
        message = "changed pages in the write-ahead log that cannot be read or come after such"
        found.append(Finding("write_ahead_log", message, "", salvage.bad_frames))
    return found


def senseless_findings(gone: Mapping[str, int]) -> list[Finding]:
    """Rows on good pages that no store can hold, by table."""
    return [
        Finding("senseless_row", f"rows of {table} that make no sense", table, count)
        for table, count in sorted(gone.items())
    ]


def unusable() -> Finding:
    """SQLite refuses the file, though every page of it is what was written."""
    return Finding("sqlite", _MESSAGES["sqlite"])


def content_findings(db: Database) -> list[Finding]:
    """What does not fit together. For a store all pages of which can be read; nothing in it changes."""
    counted: Counter[tuple[str, str]] = Counter()
    db.execute("BEGIN")
    try:
        upgrade_tables(db)  # one of an earlier format is looked at as it will be, and then left as it was
        for code, where in _problems(db):
            counted[code, where] += 1
    except Exception:  # a page that holds nothing now is damaged: SQLite reads it, and then nothing any more
        counted["sqlite", ""] += 1
    finally:
        with suppress(Exception):
            db.execute("ROLLBACK")
    return [Finding(code, _MESSAGES[code], where, count) for (code, where), count in sorted(counted.items())]


def _problems(db: Database) -> Iterator[tuple[str, str]]:
    for (answer,) in db.rows("PRAGMA integrity_check(20)"):
        if answer != "ok":
            yield "sqlite", ""
    for (_,) in db.rows(
        "SELECT no FROM records WHERE no NOT IN (SELECT record FROM documents) AND absent IS NULL"
    ):
        yield "documents_missing", "records"
    for (_,) in db.rows("SELECT record FROM documents WHERE record NOT IN (SELECT no FROM records)"):
        yield "records_missing", "documents"
    try:
        meta = dict(db.rows("SELECT name, value FROM meta"))
        keys = DeviceKeys.from_bytes(meta["keys"])
        if not meta.keys() >= _IN_META:
            yield "identity", "meta"
        rows = db.rows(f"SELECT {_SPACE_COLUMNS} FROM spaces ORDER BY no")
    except Exception:  # whatever it is: without this there is no device
        yield "identity", "meta"
        return
    for row in rows:
        yield from _problems_of_space(db, row, keys)


def _problems_of_space(db: Database, row: Any, keys: DeviceKeys) -> Iterator[tuple[str, str]]:
    no, space_id, name = row[0], row[1], row[2]
    log = MembershipLog(space_id)
    try:
        for (entry,) in db.rows("SELECT entry FROM membership WHERE space = ? ORDER BY position", (no,)):
            log.apply(entry)
    except Exception:  # an entry may be broken in any way
        yield "membership", name
    try:
        space = Space.load(db, row, keys.device_id)
    except Exception:  # as above
        yield "space", name
        return
    yield from _problems_of_documents(db, space)
    yield from _problems_of_outbox(db, space, keys.device_id)
    yield from _problems_of_sealed(db, space, keys)


def _problems_of_documents(db: Database, space: Space) -> Iterator[tuple[str, str]]:
    remaking = space.record_types.remaking
    for record_type, id, json, deleted, standing, state, heads in db.rows(
        "SELECT type, id, json, deleted, standing, state, heads FROM documents JOIN records ON no = record"
        " WHERE space = ?",
        (space.no,),
    ):
        try:
            document = whole_document(state)
            decode_heads(heads)
        except Exception:  # whatever is wrong with it
            yield "document_unreadable", record_type
            continue
        schema = space.schemas.get(record_type)
        if schema is None or record_type in remaking:
            continue
        seen = view(schema, record_type, id, document.writes())
        if (
            record_type == SCHEMA_TYPE
        ):  # an earlier program may have shown the rest otherwise: nobody reads it
            if seen.exists and json is not None and _source(json) != seen.values.get("source"):
                yield "shown_otherwise", record_type
            continue
        shown = _to_json(seen.values).decode() if seen.exists or seen.deleted else None
        if shown != json or seen.deleted != bool(deleted):
            yield "shown_otherwise", record_type
        stored = {conflict.id for conflict in decode_standing(standing).conflicts}
        if stored != {conflict.id for conflict in seen.conflicts}:
            yield "conflicts_otherwise", record_type


def _source(json: str) -> object:
    values = msgspec.json.decode(json)
    return values.get("source") if isinstance(values, dict) else None


def _problems_of_outbox(db: Database, space: Space, device: DeviceId) -> Iterator[tuple[str, str]]:
    for change, incarnation, record in db.rows(
        "SELECT change, incarnation, r.no FROM outbox o LEFT JOIN records r ON r.no = record"
        " WHERE o.space = ?",
        (space.no,),
    ):
        if not _readable(writes_of, change, Author(device, Incarnation(incarnation))):
            yield "outbox_unreadable", "outbox"
        elif record is None:
            yield "outbox_homeless", "outbox"


def _problems_of_sealed(db: Database, space: Space, keys: DeviceKeys) -> Iterator[tuple[str, str]]:
    last: dict[int, tuple[int, bytes]] = {}
    for incarnation, sequence, link, raw in db.rows(
        "SELECT incarnation, sequence, hash, envelope FROM sealed WHERE space = ?"
        " ORDER BY incarnation, sequence",
        (space.no,),
    ):
        try:
            envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
            payload = Payload.decode(envelope.open(space.keys.envelope_key(envelope.header.epoch)))
            parse_update(payload.update)
        except Exception:  # whatever is wrong with it
            yield "envelope_unreadable", "sealed"
            continue
        before = last.get(incarnation)
        follows = before is None or (before[0] + 1 == sequence and envelope.header.prev == before[1])
        if envelope.hash != link or not follows:
            yield "chain_broken", "sealed"
        last[incarnation] = (sequence, envelope.hash)
    for author, head in space.chains.items():
        end = last.get(author.incarnation) if author.device == keys.device_id else None
        if end is not None and (head.sequence, head.hash) != end and head.sequence <= end[0]:
            yield "chain_broken", "chains"


def _readable(read: Callable[..., object], *given: object) -> bool:
    try:
        read(*given)
    except Exception:  # whatever is wrong with it
        return False
    return True
