"""The tables of a store, and how a file is recognised as one.

Everything is encrypted by SQLCipher, so columns are chosen for speed and for people with a SQL prompt.
Records, documents, and what is queued are joined by small integers (`no`); names that travel (space ids,
opaque ids, device ids) are looked up once per batch.

    meta         one value per name: identity, incarnation, clock, whether the last close was clean
    spaces       one row per space: keys, cursor, relay
    membership   the space's log, as received
    records      what apps read: materialised JSON (NULL until the type's schema is there), standing
                 conflicts; `parent` is the id of the record that it names as its parent; `absent` says why
                 a record is not on this device (NULL: it is), `wanted` that it is to be fetched
    documents    the CRDT document of a record, and its heads: the newest merged envelope of each author;
                 `group_ends` names per author the end of the newest group it holds a part of
    outbox       local updates not sealed yet, in the order in which they will be (see `outbox_order`);
                 `tied` is equal for those of one transaction; `clock` is that of the first write in it
    sealed       envelopes not acknowledged yet, byte for byte as they will always be sent; `until` is the
                 last sequence number of the group that one belongs to, `clock` that of its first update
    outbox_past  what left the outbox lately, the newest last: relayed, when the relay's log ended at `row`
                 (NULL: it has lost that), or given up (`sequence` NULL: before it was sealed)
    refused      records of which the relay refused something: why, how often, and when they are tried again
                 (NULL: when somebody says so); `aside` while their work is kept back
    held         records with unsent work of an author that another life of this store continued
    conflicts    the audit trail
    chains       the newest envelope seen of every author, and the newest sealed of our own
    quarantine   authentic envelopes that could not be merged; `type` of those that wait for their type's
                 schema, or for the right to write
    types        the schema in use of each record type; records numbered from `after` to `until` still show
                 what an earlier one made of them; rows of `quarantine` from `judging` on are judged anew
    waiting      envelopes of which a part that shows together with them has not come yet
    preferences  which side people keep in conflicts about a field, remembered on this device
    scopes       of which types only some records are kept on this device: those that meet a condition
    picks        records that are kept whatever the conditions say
    leaving      records that do not belong here any more and have unsent work
    at_relay     while a relay that has lost something is given it back: what it has shown of a record
    history      what each transaction changed in a record, for types whose schema keeps a history
    leases       who has checked out which record, as the relay's log tells it in `row`
    checkouts    what was checked out on this device and is not checked in yet; `sent`: updates since
    spare_…      who this device is and the keys of its spaces a second time, on other pages (kept by
                 triggers): a damaged page must not cost them

A store of an earlier format is upgraded when it is opened (`upgrade_tables`); one of a later is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from crdt_sync.errors import NotAStore, StoreTooNew
from crdt_sync_client.store.connection import Database

APPLICATION_ID: Final = 0x63526453
"""`cRdS` in the SQLite header: this database is a crdt-sync store."""
STORE_VERSION: Final = 4

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE spaces (
  no INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, name TEXT NOT NULL, relay_url TEXT NOT NULL,
  stage TEXT NOT NULL, keys BLOB NOT NULL, pending_entry BLOB,
  cursor INTEGER NOT NULL DEFAULT 0, relay_seen BLOB, catching_up INTEGER NOT NULL DEFAULT 2,
  promised INTEGER NOT NULL DEFAULT 0, gives_back INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE membership (
  space INTEGER NOT NULL, position INTEGER NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (space, position)
) WITHOUT ROWID;
CREATE TABLE records (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, opaque BLOB NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
  json TEXT, deleted INTEGER NOT NULL DEFAULT 0, standing BLOB, parent TEXT, absent TEXT,
  wanted INTEGER NOT NULL DEFAULT 0, UNIQUE (space, opaque)
);
CREATE INDEX records_by_type ON records (space, type, deleted);
CREATE TABLE documents (
  record INTEGER PRIMARY KEY, state BLOB NOT NULL, heads BLOB NOT NULL, group_ends BLOB
);
CREATE TABLE outbox (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, record INTEGER NOT NULL, incarnation INTEGER NOT NULL,
  schema_version INTEGER NOT NULL, change BLOB NOT NULL, at_ms INTEGER NOT NULL, error TEXT,
  tied INTEGER, clock INTEGER
);
CREATE INDEX outbox_by_record ON outbox (record, incarnation, error, space);
CREATE TABLE sealed (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, record INTEGER NOT NULL, incarnation INTEGER NOT NULL,
  sequence INTEGER NOT NULL, hash BLOB NOT NULL, updates INTEGER NOT NULL, envelope BLOB NOT NULL,
  at_ms INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, error TEXT,
  until INTEGER, priority INTEGER NOT NULL DEFAULT 5, last_error TEXT, clock INTEGER,
  UNIQUE (space, incarnation, sequence)
);
CREATE TABLE held (
  space INTEGER NOT NULL, record INTEGER NOT NULL, incarnation INTEGER NOT NULL, arrived INTEGER NOT NULL,
  PRIMARY KEY (record, incarnation)
) WITHOUT ROWID;
CREATE TABLE conflicts (
  no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record INTEGER NOT NULL, path TEXT NOT NULL,
  rule TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, alternatives BLOB NOT NULL,
  winner INTEGER NOT NULL, seen_at_ms INTEGER NOT NULL, closed_at_ms INTEGER, resolver BLOB,
  resolution BLOB, superseded_by TEXT
);
CREATE INDEX conflicts_by_record ON conflicts (record);
CREATE INDEX conflicts_open ON conflicts (no) WHERE state = 'open';
CREATE TABLE chains (
  space INTEGER NOT NULL, device BLOB NOT NULL, incarnation INTEGER NOT NULL,
  sequence INTEGER NOT NULL, hash BLOB NOT NULL, acked INTEGER NOT NULL DEFAULT 0,
  settled INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (space, device, incarnation)
) WITHOUT ROWID;
CREATE TABLE quarantine (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, seq INTEGER NOT NULL, opaque BLOB NOT NULL,
  device BLOB NOT NULL, incarnation INTEGER NOT NULL, sequence INTEGER NOT NULL, hash BLOB NOT NULL,
  code TEXT NOT NULL, reason TEXT NOT NULL, envelope BLOB NOT NULL, at_ms INTEGER NOT NULL, type TEXT,
  UNIQUE (space, hash)
);
"""
"""The tables of the first format, with the columns that they have now."""

_NEW_IN_2: Final = """
CREATE TABLE types (
  space INTEGER NOT NULL, type TEXT NOT NULL, source TEXT, after INTEGER NOT NULL DEFAULT 0,
  until INTEGER NOT NULL DEFAULT 0, judging INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (space, type)
) WITHOUT ROWID;
CREATE INDEX records_by_parent ON records (space, parent) WHERE parent IS NOT NULL;
CREATE TABLE waiting (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, seq INTEGER NOT NULL, opaque BLOB NOT NULL,
  device BLOB NOT NULL, incarnation INTEGER NOT NULL, sequence INTEGER NOT NULL, hash BLOB NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, envelope BLOB NOT NULL, at_ms INTEGER NOT NULL,
  UNIQUE (space, hash)
);
CREATE TABLE preferences (
  type TEXT NOT NULL, field TEXT NOT NULL, keep TEXT NOT NULL, at_ms INTEGER NOT NULL,
  PRIMARY KEY (type, field)
) WITHOUT ROWID;
CREATE TABLE history (
  record INTEGER NOT NULL, no INTEGER NOT NULL, at_ms INTEGER NOT NULL, entry BLOB NOT NULL,
  PRIMARY KEY (record, no)
) WITHOUT ROWID;
"""

_NEW_IN_3: Final = """
CREATE TABLE refused (
  record INTEGER PRIMARY KEY, code TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
  since_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, retry_ms INTEGER,
  aside INTEGER NOT NULL
);
CREATE INDEX records_absent ON records (space, wanted) WHERE absent IS NOT NULL;
CREATE TABLE scopes (
  space INTEGER NOT NULL, type TEXT NOT NULL, condition TEXT NOT NULL, PRIMARY KEY (space, type)
) WITHOUT ROWID;
CREATE TABLE picks (
  space INTEGER NOT NULL, opaque BLOB NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
  PRIMARY KEY (space, opaque)
) WITHOUT ROWID;
CREATE TABLE leaving (record INTEGER PRIMARY KEY, space INTEGER NOT NULL);
CREATE TABLE leases (
  space INTEGER NOT NULL, opaque BLOB NOT NULL, row INTEGER NOT NULL, lease BLOB NOT NULL,
  PRIMARY KEY (space, opaque)
) WITHOUT ROWID;
CREATE TABLE checkouts (
  space INTEGER NOT NULL, opaque BLOB NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
  token INTEGER NOT NULL, ttl_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL, sent INTEGER NOT NULL,
  PRIMARY KEY (space, opaque)
) WITHOUT ROWID;
CREATE TABLE at_relay (
  space INTEGER NOT NULL, opaque BLOB NOT NULL, state BLOB NOT NULL, heads BLOB NOT NULL,
  PRIMARY KEY (space, opaque)
) WITHOUT ROWID;
"""

_SPARE: Final = """
CREATE TABLE spare_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE spare_spaces (
  no INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, name TEXT NOT NULL, relay_url TEXT NOT NULL,
  stage TEXT NOT NULL, keys BLOB NOT NULL, pending_entry BLOB
);
INSERT INTO spare_meta SELECT name, value FROM meta WHERE name IN ('name', 'keys');
INSERT INTO spare_spaces SELECT no, id, name, relay_url, stage, keys, pending_entry FROM spaces;
CREATE TRIGGER spare_meta_insert AFTER INSERT ON meta WHEN new.name IN ('name', 'keys') BEGIN
  DELETE FROM spare_meta WHERE name = new.name;
  INSERT INTO spare_meta VALUES (new.name, new.value);
END;
CREATE TRIGGER spare_spaces_insert AFTER INSERT ON spaces BEGIN
  DELETE FROM spare_spaces WHERE no = new.no OR id = new.id;
  INSERT INTO spare_spaces
    VALUES (new.no, new.id, new.name, new.relay_url, new.stage, new.keys, new.pending_entry);
END;
CREATE TRIGGER spare_spaces_update
  AFTER UPDATE OF name, relay_url, stage, keys, pending_entry ON spaces BEGIN
  DELETE FROM spare_spaces WHERE no = new.no OR id = new.id;
  INSERT INTO spare_spaces
    VALUES (new.no, new.id, new.name, new.relay_url, new.stage, new.keys, new.pending_entry);
END;
CREATE TRIGGER spare_spaces_delete AFTER DELETE ON spaces BEGIN
  DELETE FROM spare_spaces WHERE no = old.no;
END;
"""
"""New in 3. Who this device is and its spaces' keys a second time, on pages of their own.

No REPLACE here: in a trigger the conflict rule of the statement that fired it counts instead.
"""

_NEW_IN_4: Final = """
CREATE INDEX records_unshown ON records (space, type) WHERE json IS NULL AND deleted = 0;
CREATE TABLE outbox_past (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, opaque BLOB NOT NULL, clock INTEGER,
  incarnation INTEGER NOT NULL, sequence INTEGER, priority INTEGER NOT NULL, attempts INTEGER NOT NULL,
  error TEXT, sealed_ms INTEGER, ended_ms INTEGER NOT NULL, discarded INTEGER NOT NULL,
  row INTEGER, delivered_ms INTEGER
);
"""

_UPGRADES: Final[Mapping[int, str]] = {
    2: """
ALTER TABLE records ADD COLUMN parent TEXT;
ALTER TABLE spaces ADD COLUMN catching_up INTEGER NOT NULL DEFAULT 2;
ALTER TABLE documents ADD COLUMN group_ends BLOB;
ALTER TABLE outbox ADD COLUMN tied INTEGER;
ALTER TABLE sealed ADD COLUMN until INTEGER;
ALTER TABLE chains ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN type TEXT;
"""
    + _NEW_IN_2,
    3: """
UPDATE outbox SET no = no + (5 << 48) WHERE no < (1 << 48);
ALTER TABLE sealed ADD COLUMN priority INTEGER NOT NULL DEFAULT 5;
ALTER TABLE sealed ADD COLUMN last_error TEXT;
ALTER TABLE records ADD COLUMN absent TEXT;
ALTER TABLE records ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spaces ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spaces ADD COLUMN gives_back INTEGER NOT NULL DEFAULT 0;
"""
    + _NEW_IN_3
    + _SPARE,
    4: """
DROP INDEX IF EXISTS outbox_by_record;
CREATE INDEX outbox_by_record ON outbox (record, incarnation, error, space);
ALTER TABLE outbox ADD COLUMN clock INTEGER;
ALTER TABLE sealed ADD COLUMN clock INTEGER;
"""
    + _NEW_IN_4,
}
"""By format: what makes a store of the format before it one of this. It only ever adds."""


def create_tables(db: Database) -> None:
    """Lay out an empty database. Call it inside a transaction."""
    _run(db, _TABLES + _NEW_IN_2 + _NEW_IN_3 + _SPARE + _NEW_IN_4)
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute(f"PRAGMA user_version={STORE_VERSION}")


def upgrade_tables(db: Database) -> None:
    """Make a store of an earlier format one of this. Call it inside a transaction, after `check_tables`."""
    version = db.value("PRAGMA user_version")
    if version == STORE_VERSION:
        return
    for number in range(version + 1, STORE_VERSION + 1):
        _run(db, _UPGRADES[number])
    db.execute(f"PRAGMA user_version={STORE_VERSION}")


def _run(db: Database, statements: str) -> None:
    statement = ""
    for part in statements.split(";"):
        statement += part
        # What a trigger does has semicolons of its own.
        if "CREATE TRIGGER" in statement and not statement.rstrip().endswith("END"):
            statement += ";"
        elif statement.strip():
            db.execute(statement)
            statement = ""


def check_tables(db: Database) -> None:
    """Raises NotAStore or StoreTooNew; reads only."""
    if db.value("PRAGMA application_id") != APPLICATION_ID:
        raise NotAStore("this is an encrypted database, but not a crdt-sync store", hint="name another file")
    version = db.value("PRAGMA user_version")
    if version > STORE_VERSION:
        raise StoreTooNew(
            f"the store has format {version}, this program knows formats up to {STORE_VERSION}",
            hint="update crdt-sync on this device",
        )
