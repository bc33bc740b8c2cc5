"""Where a node's SQL runs: on a simulated disk that loses power, or in memory for speed (`memory_storage`).

Both give connections of the shape that the product's database ports take: `execute` and `executemany` return
cursors, autocommit unless a transaction is begun by SQL, `close` ends it. Both survive the end of the
process that used them, and both can be imaged and restored. The one in memory is a perfect disk; runs that
are not about disks use it, being several times faster.

Not encrypted: SQLCipher reads and writes its pages below SQL, so nothing that the engine does depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final, Protocol

import apsw

from crdt_sync_sim.disk import Disk, DiskTally

if not apsw.connections():  # it takes that only before the first
    # A connection is used on one thread, and nobody asks how much memory SQLite has: neither needs locks.
    # What a statement needs while it runs, a connection has in store: 400 pieces of 1,200 bytes.
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_MULTITHREAD)
    apsw.config(apsw.SQLITE_CONFIG_MEMSTATUS, False)
    apsw.config(apsw.SQLITE_CONFIG_LOOKASIDE, 1_200, 400)

CACHE_KIB: Final = 8_192
MAIN: Final = "main.db"
_STATEMENTS_KEPT: Final = 512
"""The most that apsw can. It forgets a compiled statement after so many uses of others, however few."""


def open_database(path: str, **options: Any) -> apsw.Connection:
    """A connection that compiles each statement once.

    Without the planner's stability guarantee SQLite compiles a statement anew whenever a value is bound that
    its plan might depend on, which it does not without statistics.
    """
    connection = apsw.Connection(path, statementcachesize=_STATEMENTS_KEPT, **options)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return connection


class Connection:
    """An apsw connection in the shape of the product's ports.

    Statements run to their end at once and hand back all rows: an engine may then leave a cursor half read,
    as a DB-API driver lets it, without holding a lock on the tables. So one cursor does for all of them.
    """

    __slots__ = ("_apsw", "_cursor", "_last")

    def __init__(self, connection: apsw.Connection) -> None:
        self._apsw = connection
        self._cursor = connection.cursor()
        self._last: Rows | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        rows = self._last = Rows(self._cursor.execute(sql, parameters or None).fetchall())
        rows.connection = self
        return rows

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        rows = self._last = Rows(self._cursor.executemany(sql, list(parameters)).fetchall())
        rows.connection = self
        return rows

    @property
    def in_transaction(self) -> bool:
        return bool(self._apsw.in_transaction)

    def close(self) -> None:
        self._apsw.close()

    def image(self) -> bytes:
        return self._apsw.serialize("main")

    def of_last(self, rows: Rows) -> apsw.Connection:
        """The connection, to ask about the statement that gave `rows`; it knows about the last one only."""
        if rows is not self._last:
            raise RuntimeError("another statement ran on this connection since")
        return self._apsw


class Rows(list[Any]):
    """A cursor whose rows are all there: those that are not read yet, but for iterating, which takes none."""

    __slots__ = ("connection",)

    connection: Connection
    """What ran the statement."""

    @property
    def lastrowid(self) -> int:
        return self.connection.of_last(self).last_insert_rowid()

    @property
    def rowcount(self) -> int:
        return self.connection.of_last(self).changes()

    def fetchone(self) -> Any:
        return self.pop(0) if self else None

    def fetchall(self) -> list[Any]:
        return self

    def close(self) -> None:
        """The rest is not wanted."""
        self.clear()


class Storage(Protocol):
    """One node's storage over all its lives."""

    @property
    def tally(self) -> DiskTally: ...

    def connect(self) -> Connection:
        """Open the node's one database; it is empty the first time. At most one is open at a time."""

    def crash(self) -> None:
        """The process ended without closing; what it had not committed is rolled back."""

    def cut_power(self) -> None:
        """Power went."""

    def image(self) -> dict[str, bytes]:
        """A backup, as of now."""

    def begin_from(self, image: Mapping[str, bytes]) -> None:
        """Hold what `image` gave on another storage. Many will begin from the same one."""

    def restore(self, image: Mapping[str, bytes]) -> None:
        """Put a backup in place of what is there; no image is an empty database."""

    def discard(self) -> None:
        """The world is over."""

    def set_capacity(self, capacity_bytes: int | None) -> None:
        """Limit how large it may grow; None: no limit."""

    @property
    def size_bytes(self) -> int: ...


class DiskStorage:
    """On a simulated disk, with a write-ahead log. The engine chooses `synchronous`, as in the product.

    `before_wal` are statements that a database wants when it is new, before it gets its write-ahead log.
    """

    def __init__(self, chance: Random, before_wal: Sequence[str] = ()) -> None:
        self.disk = Disk(chance)
        self._before_wal = before_wal
        self._connection: apsw.Connection | None = None

    @property
    def tally(self) -> DiskTally:
        return self.disk.tally

    @property
    def size_bytes(self) -> int:
        return self.disk.size_bytes

    def connect(self) -> Connection:
        connection = self._connection = open_database(MAIN, vfs=self.disk.vfs_name)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        if not self.disk.exists(MAIN) or not self.disk.size_bytes:
            for statement in self._before_wal:
                connection.execute(statement)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        return Connection(connection)

    def crash(self) -> None:
        self._bury()

    def cut_power(self) -> None:
        self._bury()
        self.disk.cut_power()

    def image(self) -> dict[str, bytes]:
        return self.disk.image()

    def begin_from(self, image: Mapping[str, bytes]) -> None:
        self.restore(image)

    def restore(self, image: Mapping[str, bytes]) -> None:
        self._bury()
        self.disk.restore(image)

    def discard(self) -> None:
        self._bury()
        self.disk.unplug()

    def _bury(self) -> None:
        self.disk.drop_handles()
        if self._connection is not None:
            self.disk.burying = True
            try:
                self._connection.close()
            finally:
                self.disk.burying = False
                self._connection = None

    def set_capacity(self, capacity_bytes: int | None) -> None:
        self.disk.capacity_bytes = capacity_bytes
