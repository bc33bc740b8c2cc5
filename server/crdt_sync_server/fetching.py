"""Answering a device that asks for single records: all rows there are of them, cut to one frame.

A device asks so for records that it does not hold any more, or never did, because of what its user chose to
sync, and for those that a damaged store lost. It asks again for what did not fit; nothing is kept for that
here. A record's rows stand in the log's order, so a snapshot that takes the place of some between two
questions is met by whoever had not come that far, as in delivery.
"""

from __future__ import annotations

from crdt_sync.protocol.frames import Fetched, FetchRecords, Row
from crdt_sync_server.live import FRAME_BYTES, FRAME_ROWS, page_rows
from crdt_sync_server.spaces import Space
from crdt_sync_server.storage.port import Storage


def fetched(storage: Storage, space: Space, asked: FetchRecords) -> Fetched:
    """As many of the rows as one frame holds; one at least, if there is one."""
    space.flush()
    max_rows = page_rows(FRAME_ROWS)
    rows: list[Row] = []
    size_bytes = whole = 0
    after = asked.after
    for record in asked.records:
        if rows and (len(rows) >= max_rows or size_bytes >= FRAME_BYTES):
            break
        found, all_there = storage.read_record(
            space.key, record, after, max_rows=max_rows - len(rows), max_bytes=FRAME_BYTES - size_bytes
        )
        rows += found
        size_bytes += sum(len(row.payload) for row in found)
        if not all_there:
            break
        after = 0
        whole += 1
    return Fetched(rows, whole, space.head)
