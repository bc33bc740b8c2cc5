"""Storage in memory: a perfect disk, on which a power cut loses nothing that was committed.

It is for speed, so it does not compile the same SQL for every run. What `begin_from` is given is loaded into
a connection once; a run works inside one transaction on it, which is rolled back when the run is over, page
by page. So the next run finds the image as it was and every statement compiled. The product's own
transactions are savepoints meanwhile. A run does the same whether the connection was kept or had to be made.

As soon as something happens that would end the outer transaction (the disk gets full, a backup is put back)
the content is moved to a connection of the run's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import apsw

from crdt_sync_sim.disk import DiskTally
from crdt_sync_sim.storage import CACHE_KIB, MAIN, Connection, Rows, open_database

_MOST_KEPT: Final = 128
"""Images with connections that wait for the next run; a scenario has one per node and variant."""
_kept: OrderedDict[bytes, list[apsw.Connection]] = OrderedDict()
_UNLIMITED_PAGES: Final = 2**32 - 2


def forget_all() -> None:
    """Close the connections that are kept."""
    for connections in _kept.values():
        for connection in connections:
            connection.close()
    _kept.clear()


class _Closed:
    """In place of a connection that is closed."""

    def __getattr__(self, name: str) -> Any:
        raise apsw.ConnectionClosedError("this connection was open in a process that is gone")


_CLOSED: Any = _Closed()


class MemoryStorage:
    """See the module."""

    def __init__(self) -> None:
        self.tally = DiskTally()
        self._apsw: apsw.Connection = _CLOSED
        self._image: bytes | None = None
        """What the connection goes back to at the end, when it is one to be kept."""
        self._open: _MemoryConnection | None = None

    @property
    def size_bytes(self) -> int:
        if self._apsw is _CLOSED:
            return 0
        return int(self._apsw.pragma("page_count")) * int(self._apsw.pragma("page_size"))

    def connect(self) -> Connection:
        if self._apsw is _CLOSED:
            self._apsw = _new()
        self._open = _MemoryConnection(self._apsw, nested=self._image is not None)
        return self._open

    def crash(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def cut_power(self) -> None:
        self.tally.power_cuts += 1
        self.crash()

    def image(self) -> dict[str, bytes]:
        return {MAIN: self._apsw.serialize("main")} if self.size_bytes else {}

    def begin_from(self, image: Mapping[str, bytes]) -> None:
        self.restore({})
        self._image = image[MAIN]
        waiting = _kept.get(self._image)
        self._apsw = waiting.pop() if waiting else _new(self._image)
        self._apsw.execute("BEGIN")

    def restore(self, image: Mapping[str, bytes]) -> None:
        self.crash()
        self._leave()
        if MAIN in image:
            self._apsw = _new(image[MAIN])

    def discard(self) -> None:
        self.crash()
        self._leave()

    def set_capacity(self, capacity_bytes: int | None) -> None:
        if self._image is not None:
            if capacity_bytes is None:
                return
            own = _new(self._apsw.serialize("main"))
            self._leave()
            self._apsw = own
            if self._open is not None:
                self._open.move_to(own)
        if self._apsw is _CLOSED:
            self._apsw = _new()
        page_bytes = int(self._apsw.pragma("page_size"))
        pages = _UNLIMITED_PAGES if capacity_bytes is None else max(capacity_bytes // page_bytes, 1)
        self._apsw.execute(f"PRAGMA max_page_count={pages}")

    def _leave(self) -> None:
        """Keep the connection for the next run, as it was before this one, or close it."""
        connection, self._apsw = self._apsw, _CLOSED
        if connection is _CLOSED:
            return
        if self._image is None:
            connection.close()
            return
        connection.execute("ROLLBACK")
        _kept.setdefault(self._image, []).append(connection)
        _kept.move_to_end(self._image)
        self._image = None
        if len(_kept) > _MOST_KEPT:
            for connection in _kept.popitem(last=False)[1]:
                connection.close()


def _new(image: bytes | None = None) -> apsw.Connection:
    """An empty database, or one with the content of an image."""
    connection = open_database(":memory:")
    if image is not None:
        source = apsw.Connection("")
        source.deserialize("main", image)
        with connection.backup("main", source, "main") as backup:
            backup.step()
        source.close()
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    return connection


class _MemoryConnection(Connection):
    """What the product gets: one life's use of the storage's connection. `nested`: inside a transaction."""

    __slots__ = ("_begin", "_commit", "_in_transaction", "_roll_back")

    def __init__(self, connection: apsw.Connection, *, nested: bool) -> None:
        super().__init__(connection)
        self._in_transaction = False
        self._nest(nested)

    def _nest(self, nested: bool) -> None:
        self._begin = "SAVEPOINT product" if nested else "BEGIN IMMEDIATE"
        self._commit = "RELEASE product" if nested else "COMMIT"
        self._roll_back = ("ROLLBACK TO product", "RELEASE product") if nested else ("ROLLBACK",)

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        special = _SPECIAL.get(sql)
        if special is not None:
            special(self)
            return Rows()
        rows = self._last = Rows(self._cursor.execute(sql, parameters or None).fetchall())
        rows.connection = self
        return rows

    @property
    def in_transaction(self) -> bool:
        return self._in_transaction

    def close(self) -> None:
        """The life is over. The storage's connection stays; what was not committed does not."""
        self._last = None
        if self._apsw is not _CLOSED:
            # The database is the one to know: when it is full it may have taken a transaction back itself.
            if self._in_transaction and self._apsw.in_transaction:
                self._end_by_rollback()
            self._apsw = self._cursor = _CLOSED

    def move_to(self, connection: apsw.Connection) -> None:
        """Go on with the same content elsewhere. Not inside a transaction of the product."""
        if self._in_transaction:
            raise RuntimeError("the product is inside a transaction")
        self._apsw, self._cursor = connection, connection.cursor()
        self._nest(False)

    def _begin_one(self) -> None:
        if self._in_transaction:
            raise apsw.SQLError("cannot start a transaction within a transaction")
        self._cursor.execute(self._begin)
        self._in_transaction = True

    def _commit_one(self) -> None:
        if not self._in_transaction:
            raise apsw.SQLError("cannot commit - no transaction is active")
        self._cursor.execute(self._commit)
        self._in_transaction = False

    def _end_by_rollback(self) -> None:
        if not self._in_transaction:
            raise apsw.SQLError("cannot rollback - no transaction is active")
        self._in_transaction = False
        for sql in self._roll_back:
            self._cursor.execute(sql)

    def _nothing(self) -> None:
        """There is nothing to wait for: memory is as durable as it gets."""


_SPECIAL: Final[Mapping[str, Callable[[_MemoryConnection], None]]] = {
    "BEGIN": _MemoryConnection._begin_one,
    "BEGIN IMMEDIATE": _MemoryConnection._begin_one,
    "BEGIN EXCLUSIVE": _MemoryConnection._begin_one,
    "COMMIT": _MemoryConnection._commit_one,
    "ROLLBACK": _MemoryConnection._end_by_rollback,
    "PRAGMA synchronous=FULL": _MemoryConnection._nothing,
    "PRAGMA synchronous=NORMAL": _MemoryConnection._nothing,
}
