"""Databases of earlier relays go on in this one."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from crdt_sync.ids import DeviceId, RelayId, SpaceId
from crdt_sync_server.storage.port import Visit
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage

VERSION_1 = (Path(__file__).parent / "formats" / "relay1.sql").read_text()


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
