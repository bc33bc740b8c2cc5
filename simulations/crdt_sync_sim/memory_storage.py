"""Storage in memory: a perfect disk, on which a power cut loses nothing that was committed.

It is for speed, so it does not compile the same SQL for every run. What `begin_from` is given is loaded into
a connection once; a run works inside one transaction on it, which is rolled back when the run is over, page
by page. So the next run finds the image as it was and every statement compiled. The product's own
transactions are savepoints meanwhile, and so is what a backup was taken of: putting it back goes back to
there. A run does the same whether the connection was kept or had to be made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import apsw

from crdt_sync_sim.disk import DiskTally
from crdt_sync_sim.storage import CACHE_KIB, MAIN, Connection, Rows, open_database

_MOST_KEPT: Final = 128
"""Images with connections that wait for the next run; a scenario has one per node and variant."""
_kept: OrderedDict[bytes, list[apsw.Connection]] = OrderedDict()


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
        self._copies: list[Mapping[str, bytes]] = []
        """Images taken of it, each of which it can go back to: the savepoint `copy_` with its index."""
        self._open: _MemoryConnection | None = None
        self._capacity_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        if self._apsw is _CLOSED:
            return 0
        return int(self._apsw.pragma("page_count")) * int(self._apsw.pragma("page_size"))

    def connect(self) -> Connection:
        if self._apsw is _CLOSED:
            self._use(_new())
        self._open = _MemoryConnection(self._apsw)
        self._open.limit(self._capacity_bytes)
        return self._open

    def crash(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def cut_power(self) -> None:
        self.tally.power_cuts += 1
        self.crash()

    def image(self) -> dict[str, bytes]:
        if not self.size_bytes:
            return {}
        copy = {MAIN: self._apsw.serialize("main")}
        if self._open is None or not self._open.in_transaction:
            self._apsw.execute(f"SAVEPOINT copy_{len(self._copies)}")
            self._copies.append(copy)
        return copy

    def begin_from(self, image: Mapping[str, bytes]) -> None:
        self.restore({})
        self._image = image[MAIN]
        waiting = _kept.get(self._image)
        self._use(waiting.pop() if waiting else _new(self._image))

    def restore(self, image: Mapping[str, bytes]) -> None:
        self.crash()
        for number, copy in enumerate(self._copies):
            if copy is image:
                self._apsw.execute(f"ROLLBACK TO copy_{number}")
                del self._copies[number + 1 :]
                return
        self._leave()
        if MAIN in image:
            self._use(_new(image[MAIN]))

    def discard(self) -> None:
        self.crash()
        self._leave()

    def set_capacity(self, capacity_bytes: int | None) -> None:
        self._capacity_bytes = capacity_bytes
        if self._open is not None:
            self._open.limit(capacity_bytes)

    def _use(self, connection: apsw.Connection) -> None:
        connection.execute("BEGIN")
        self._apsw = connection

    def _leave(self) -> None:
        """Keep the connection for the next run, as it was before this one, or close it."""
        connection, self._apsw = self._apsw, _CLOSED
        self._copies.clear()
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
    """What the product gets: one life's use of the storage's connection, inside a transaction of its own."""

    __slots__ = ("_in_transaction", "_most_pages")

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        self._in_transaction = False
        self._most_pages: int | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        special = _SPECIAL.get(sql)
        if special is not None:
            special(self)
            return Rows()
        if self._most_pages is not None:
            return self._if_room(lambda: Connection.execute(self, sql, parameters))
        rows = self._last = Rows(self._cursor.execute(sql, parameters or None).fetchall())
        rows.connection = self
        return rows

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        if self._most_pages is not None:
            return self._if_room(lambda: Connection.executemany(self, sql, parameters))
        return super().executemany(sql, parameters)

    @property
    def in_transaction(self) -> bool:
        return self._in_transaction

    def limit(self, capacity_bytes: int | None) -> None:
        """How large the database may grow. One that is larger stays as it is."""
        self._most_pages = None
        if capacity_bytes is not None:
            self._most_pages = max(capacity_bytes // int(self._apsw.pragma("page_size")), self._pages)

    @property
    def _pages(self) -> int:
        return int(self._apsw.pragma("page_count"))

    def _if_room(self, run: Callable[[], Rows]) -> Rows:
        """Run a statement. One that needs too much room fails, and the transaction is taken back with it."""
        alone = not self._in_transaction
        if alone:
            self._begin_one()
        try:
            rows = run()
            if self._most_pages is not None and self._pages > self._most_pages:
                raise apsw.FullError("database or disk is full")
        except BaseException as exc:
            if alone or isinstance(exc, apsw.FullError):
                self._end_by_rollback()
            raise
        if alone:
            self._commit_one()
        return rows

    def close(self) -> None:
        """The life is over. The storage's connection stays; what was not committed does not."""
        self._last = None
        if self._apsw is not _CLOSED:
            if self._in_transaction:
                self._end_by_rollback()
            self._apsw = self._cursor = _CLOSED

    def _begin_one(self) -> None:
        if self._in_transaction:
            raise apsw.SQLError("cannot start a transaction within a transaction")
        self._cursor.execute("SAVEPOINT product")
        self._in_transaction = True

    def _commit_one(self) -> None:
        if not self._in_transaction:
            raise apsw.SQLError("cannot commit - no transaction is active")
        self._cursor.execute("RELEASE product")
        self._in_transaction = False

    def _end_by_rollback(self) -> None:
        if not self._in_transaction:
            raise apsw.SQLError("cannot rollback - no transaction is active")
        self._in_transaction = False
        self._cursor.execute("ROLLBACK TO product")
        self._cursor.execute("RELEASE product")

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
