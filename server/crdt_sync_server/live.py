"""The live end of one space's log, kept in memory for those who are reading along.

Every connection is a reader with a cursor. The newest rows stand here in a ring, bounded in rows and bytes;
readers within it are served from memory, readers behind it from the database. Nothing is queued per reader,
so a slow one costs nothing but its cursor. A frame is encoded once for all readers at the same cursor; only
an author whose own rows are in it gets one of his own, without them.

A snapshot takes its place in the ring as it does in the log: a reader who came here from the database may
have passed rows that were pruned already, and has to meet the snapshot in their stead. The other rows it
covers stay in the ring: a device takes a covered update twice, and one whose predecessors are pruned already
shows when the snapshot has come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from crdt_sync.ids import Author
from crdt_sync.protocol.frames import Deliver, Row, encode
from crdt_sync.rare import rare
from crdt_sync_server.effects import LiveRow

RING_ROWS: Final = 1024
RING_BYTES: Final = 2 * 1024 * 1024
FRAME_BYTES: Final = 256 * 1024
"""Rows in one `Deliver`: enough to make frames cheap, little enough that a phone shows progress."""
FIRST_FRAME_BYTES: Final = 16 * 1024
"""The same in the first frame of a connection; each may have twice as much as the one before. A network that
breaks every few seconds brings some frames whole each time, so that a first sync comes to its end."""
FRAME_ROWS: Final = 512

ReaderT = TypeVar("ReaderT")


def page_rows(most: int) -> int:
    """How many rows a page of the log may have, `most` unless a simulator wants them one by one."""
    return 1 if rare("page_of_one_row") else most


class LiveFrame(NamedTuple):
    """What a reader gets next, and where it stands then. `data` is empty if all of it was its own."""

    data: bytes
    cursor: int
    rows: int
    authors: frozenset[Author]
    """Whose updates are in it; those authors need another frame."""


class LiveLog(Generic[ReaderT]):
    """See the module. Begins empty, at the end of the log."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.readers: dict[ReaderT, None] = {}
        self._rows: deque[LiveRow] = deque()
        self._bytes = 0
        self._frames: dict[tuple[int, int], LiveFrame] = {}

    @property
    def start(self) -> int:
        """A reader whose cursor is at least this is served from memory."""
        return self.head - len(self._rows)

    def grow(self, rows: Sequence[LiveRow]) -> None:
        """Rows were added to the log. Those up to `head` are known already."""
        self._frames.clear()
        for live in rows:
            if live.row.sequence <= self.head:
                continue
            self._rows.append(live)
            self._bytes += len(live.row.payload)
            self.head = live.row.sequence
        self._shrink()

    def _shrink(self) -> None:
        rows, size_bytes = (0, 0) if rare("ring_dropped") else (RING_ROWS, RING_BYTES)
        while len(self._rows) > rows or self._bytes > size_bytes:
            self._bytes -= len(self._rows.popleft().row.payload)

    def replace(self, row: Row) -> None:
        """A snapshot has taken the place of a row."""
        index = row.sequence - self.start - 1
        if index >= 0:
            self._bytes += len(row.payload) - len(self._rows[index].row.payload)
            self._rows[index] = LiveRow(row, None)
            self._frames.clear()
            self._shrink()

    def next_frame(
        self, cursor: int, author: Author, told: int | None = None, most_bytes: int = FRAME_BYTES
    ) -> LiveFrame:
        """What `author` gets next behind `cursor`, which lies between `start` and `head`.

        `told` is the cursor that it knows of: behind `cursor` when own rows were passed in silence.
        """
        told = cursor if told is None else told
        key = cursor, most_bytes
        frame = self._frames.get(key)
        if frame is None:
            frame = self._frames[key] = self._encoded(cursor, None, cursor, most_bytes)
        if author in frame.authors:
            return self._encoded(cursor, author, told, most_bytes)
        return frame if told == cursor else self._encoded(cursor, None, told, most_bytes)

    def _encoded(self, cursor: int, without: Author | None, told: int, most_bytes: int) -> LiveFrame:
        rows: list[Row] = []
        authors: set[Author] = set()
        size_bytes = taken = 0
        first = cursor - self.start
        for index in range(first, min(len(self._rows), first + FRAME_ROWS)):
            row, author = self._rows[index]
            size_bytes += len(row.payload)
            if taken and (size_bytes > most_bytes or rare("frame_per_row")):
                break
            taken += 1
            if author is not None:
                if author == without:
                    continue
                authors.add(author)
            rows.append(row)
        end = cursor + taken
        data = encode(Deliver(told, rows, end, end == self.head)) if rows else b""
        return LiveFrame(data, end, taken, frozenset(authors))
