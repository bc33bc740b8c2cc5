"""Databases of earlier relays go on in this one."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from crdt_sync.ids import DeviceId, RelayId, SpaceId
from crdt_sync_server.storage.port import Visit
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage

VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE spaces (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
CREATE TABLE authors (
    number INTEGER PRIMARY KEY,
    space INTEGER NOT NULL,
    device BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (space, device, incarnation)
);
CREATE TABLE log (
    position INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    author INTEGER,
    sequence INTEGER,
    record BLOB,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX log_by_author ON log (author, sequence) WHERE author IS NOT NULL;
CREATE INDEX log_by_record ON log (record, kind) WHERE record IS NOT NULL;
CREATE TABLE superseded (
    space INTEGER NOT NULL,
    record BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (space, record)
) WITHOUT ROWID;
INSERT INTO meta VALUES ('relay_id', x'00112233445566778899aabbccddeeff');
INSERT INTO spaces VALUES (1, x'01'), (2, x'02');
INSERT INTO log VALUES ((1 << 40) | 1, 3, NULL, NULL, NULL, x'aabbcc');
INSERT INTO log VALUES ((2 << 40) | 1, 3, NULL, NULL, NULL, x'aa');
INSERT INTO log VALUES ((1 << 40) | 2, 1, 1, 1, x'05', x'aabb');
INSERT INTO superseded VALUES (1, x'06', 1, x'aabbccdd');
PRAGMA user_version = 1;
PRAGMA application_id = 0x43525359;
"""


def test_version_1_is_upgraded_once_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "relay.sqlite3"
    with sqlite3.connect(path) as old:
        old.executescript(VERSION_1)
    old.close()
    for _ in range(2):
        storage = SqliteStorage(connect_storage(path, os.urandom))
        one, two = storage.spaces()
        assert storage.life_end(one.key, RelayId(bytes.fromhex("00112233445566778899aabbccddeeff"))) == 2
        assert (storage.size_bytes(one.key), storage.size_bytes(two.key)) == (3 + 2 + 4, 1)
        assert storage.find_space(SpaceId(b"\x01")) == one.key
        assert [row.payload for row in storage.read(one.key, 0, max_rows=9, max_bytes=99).rows] == [
            b"\xaa\xbb\xcc",
            b"\xaa\xbb",
        ]
        with storage.transaction():
            storage.books.visit([Visit(one.key, DeviceId(b"d" * 16), 7)])
        assert len(storage.books.devices(one.key)) == 1
        storage.close()
