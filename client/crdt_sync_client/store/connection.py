"""One SQLCipher file, opened by one process, behind a port as small as the engine needs.

Above this file nothing knows which SQLite driver runs: the engine uses `execute`, `executemany` and
`transaction` of a `Database`, which any DB-API connection in autocommit mode can back.

Keys. The file is encrypted with a 32-byte key, given as it is (from the keychain) or derived from a
passphrase with Argon2id. The salt of the derivation is the file's own: SQLCipher keeps 16 random bytes,
unencrypted, at the start of its file, so no second file is needed. SQLCipher gets the finished key and
does no derivation of its own. The key goes in by the C interface, never as SQL text, so that neither a
statement cache nor a trace nor an error message can hold it. Like SQLCipher, an open `Database` has it in
memory, to go on after a damaged page (`mend`); closing forgets it.

Changing the key writes every page again under the new one, in one transaction of the WAL (`change_key`): a
file killed at any point opens with the old key or with the new, and what the old one opened is overwritten.

Locking. A second opener, in this process or another, gets `StoreInUse` (see `claim`).
`locking_mode=EXCLUSIVE` keeps SQLite's lock from opening to closing, and the WAL index in memory instead
of in a shared file.

Durability. With WAL and `synchronous=FULL` a commit is on the disk when it returns: for what people
wrote. `NORMAL` may lose the last commits in a power cut, never the file's integrity: enough for what the
relay still has, because the cursor is in the same transaction. A later FULL commit makes all before it
durable too.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, cast

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from crdt_sync.errors import (
    NotAStore,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreExists,
    StoreMissing,
    WrongPassphrase,
)
from crdt_sync_client.store.claim import FileClaim
from crdt_sync_client.store.failures import damaged, store_failure

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
PAGE_BYTES: Final = 4096
"""SQLCipher's default page; a store is always a whole number of them."""
CACHE_KIB: Final = 16_384
"""Page cache: every page read twice is decrypted once. 16 MiB holds about 5,000 records of 1 KB."""

_PLAIN_SQLITE: Final = b"SQLite format 3\0"
_MIN_DISTINCT_BYTES: Final = 200
"""A page of ciphertext has 248 or more of the 256 byte values (below 248 in fewer than 1 of 10**15)."""

Params = Sequence[Any] | Mapping[str, Any]


class Cursor(Protocol):
    """What a statement returns: its rows."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def close(self) -> None: ...


class Connection(Protocol):
    """The part of a DB-API connection in autocommit mode that a `Database` uses."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any: ...
    def executemany(self, sql: str, parameters: Any, /) -> Any: ...
    def close(self) -> None: ...


class KeyedConnection(Connection, Protocol):
    """One whose key can be changed: SQLCipher's."""

    def reset_key(self, key: str, /) -> None: ...


class Database:
    """A database connection with explicit transactions. Use it on one thread."""

    def __init__(
        self,
        connection: Connection,
        claim: FileClaim | None = None,
        key_digest: bytes = b"",
        connect_again: Callable[[], Connection] | None = None,
    ) -> None:
        """Takes over a connection that is open, keyed and in autocommit mode, and the claim on its file.

        `key_digest` is that of its key (`digest_of`), for a store whose key is to be changed. `connect_again`
        gives another connection after a page could not be read (`mend`).
        """
        self._connection: Connection | None = connection
        self._connect_again = connect_again
        self._claim = claim
        self._key_digest = key_digest
        self._durable: bool | None = None
        self._in_transaction = False
        self.execute = connection.execute
        self.executemany = connection.executemany

    def __repr__(self) -> str:
        return f"<Database {'closed' if self._connection is None else 'open'}>"

    execute: Any
    executemany: Any

    @classmethod
    def create(cls, path: str | os.PathLike[str], key: bytes | str, *, salt: bytes) -> Database:
        """Make an encrypted file, readable by its owner only.

        `key` is 32 bytes or a passphrase, `salt` 16 random bytes. Raises StoreExists for any file that is
        there, and leaves it alone.
        """
        if os.path.exists(f"{os.fspath(path)}-wal"):
            # SQLite would take its pages for the new store's.
            raise StoreExists(
                f"{path}-wal is there, of a store that is gone or was moved",
                hint="put it beside its store again, or delete it",
            )
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, stat.S_IRUSR | stat.S_IWUSR))
        except FileExistsError:
            raise StoreExists(
                f"{path} is there already", hint="choose another file, or open this one"
            ) from None
        except FileNotFoundError:
            raise StoreMissing(f"there is no directory {Path(path).parent}", hint="make it first") from None
        try:
            return cls._claimed(path, key, salt)
        except BaseException:
            os.unlink(path)
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], key: bytes | str) -> Database:
        """Open an existing file. Raises StoreMissing, NotAStore, WrongPassphrase, StoreInUse.

        A refused file is left as it was, byte for byte.
        """
        return cls._claimed(path, key, None)

    @classmethod
    def _claimed(cls, path: str | os.PathLike[str], key: bytes | str, salt: bytes | None) -> Database:
        """`salt` for a new file; None for one that is to be looked at first."""
        try:
            claim = FileClaim(path)
        except FileNotFoundError:
            raise StoreMissing(
                f"there is no store at {path}", hint="make one with `crdt-sync init --store FILE --name NAME`"
            ) from None
        try:
            if salt is None:
                salt = _check_file(path, claim)
            key = _key_bytes(key, salt)
            return cls(_connect(path, key, salt), claim, digest_of(key), lambda: _connect(path, key, salt))
        except BaseException:
            claim.release()
            raise

    def transaction(self, *, durable: bool) -> Transaction:
        """All or nothing: commits at the end, rolls back on any exception. Not to be nested.

        `durable`: whether the commit must survive a power cut by itself.
        """
        return Transaction(self, durable)

    def begin(self, *, durable: bool) -> None:
        """What `transaction` begins with; `commit` or `roll_back` is its end."""
        if self._in_transaction:
            raise RuntimeError("transactions do not nest")
        if self._durable is not durable:
            self.execute("PRAGMA synchronous=FULL" if durable else "PRAGMA synchronous=NORMAL")
            self._durable = durable
        self.execute("BEGIN IMMEDIATE")
        self._in_transaction = True

    def commit(self) -> None:
        """Rolls back, and raises why, when that fails."""
        try:
            self.execute("COMMIT")
        except BaseException as exc:
            self.roll_back(exc)
            raise
        self._in_transaction = False

    def roll_back(self, error: BaseException | None) -> None:
        """`error` is why."""
        self._in_transaction = False
        with suppress(Exception):  # the first error is the one to tell; SQLite may have rolled back itself
            self.execute("ROLLBACK")
        if error is not None:
            self.mend(error)

    def mend(self, error: BaseException) -> None:
        """Go on after `error`, if it says that a page could not be read. Not inside a transaction.

        After one such page SQLCipher refuses every other one that is not in its cache, and every write, until
        the file is opened again.
        """
        again = self._connect_again
        if (
            again is None
            or self._connection is None
            or not isinstance(store_failure(error, ""), StoreDamaged)
        ):
            return
        self._connection.close()
        try:
            connection = self._connection = again()
        except StoreError:
            self._connection = None
            self.execute = self.executemany = _closed
            raise
        self.execute, self.executemany = connection.execute, connection.executemany
        self._durable = None

    def rows(self, sql: str, params: Params = ()) -> list[Any]:
        """All rows of a query."""
        found: list[Any] = self.execute(sql, params).fetchall()
        return found

    def value(self, sql: str, params: Params = ()) -> Any:
        """The first column of the first row, or None."""
        row = self.execute(sql, params).fetchone()
        return None if row is None else row[0]

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one prepared statement for each of `rows`."""
        self.executemany(sql, rows)

    def opens_with(self, key: bytes | str) -> bool:
        """Whether that is the file's key or passphrase."""
        if self._connection is None or self._claim is None:
            _closed()
        salt = self._claim.read_start(SALT_BYTES)[0]
        if not salt:  # a new file of which nothing but the WAL is written
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            salt = self._claim.read_start(SALT_BYTES)[0]
        return hmac.compare_digest(digest_of(_key_bytes(key, salt)), self._key_digest)

    def change_key(self, old: bytes | str, new: bytes | str) -> None:
        """Encrypt the whole file with another key or passphrase. Not inside a transaction.

        Killed at any point, the file opens with the old one or with the new one. Afterwards no page of it
        and nothing in the WAL is under the old one. Takes about 1 s per 100 MB, and for that time as much
        room on the disk again. Raises WrongPassphrase for `old`; StoreError when the disk has no room or
        fails: then one of the two opens the file, and this connection is closed.
        """
        claim = self._claim
        if self._connection is None or claim is None:
            _closed()
        connection = cast("KeyedConnection", self._connection)
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # a new file may still be in its WAL, with its salt
        before = claim.read_start(PAGE_BYTES)[0]
        salt = before[:SALT_BYTES]
        if not self.opens_with(old):
            raise WrongPassphrase(
                "that is not the store's present passphrase or key", hint="nothing was changed; try again"
            )
        key = _key_bytes(new, salt)
        problem = ""
        try:
            self._durable = True
            self.execute("PRAGMA synchronous=FULL")
            # In WAL mode this is one transaction whose pages are all in the WAL, under the new key only.
            connection.reset_key(f"x'{key.hex()}{salt.hex()}'")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except Exception as exc:
            problem = str(exc)
        # SQLCipher does not say when it failed, and would then write with one key and read with the other.
        if problem or claim.read_start(PAGE_BYTES)[0] == before:
            self.close()
            raise StoreError(
                f"changing the store's key was not finished: {problem or 'the disk did not take it'}",
                hint="make room on the disk and open the store with the old one; if that fails, with the new",
            ) from None
        self._key_digest = digest_of(key)
        path = claim.path
        self._connect_again = lambda: _connect(path, key, salt)

    def close(self) -> None:
        """Close the connection; again is harmless. Afterwards every call raises StoreClosed."""
        self._key_digest = b""
        self._connect_again = None  # it has the key
        self.execute = self.executemany = _closed
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
        if self._claim is not None:
            self._claim.release()


class Transaction:
    """A transaction of a `Database`, for one `with` block. A class: a generator costs three times as much."""

    __slots__ = ("_database", "_durable")

    def __init__(self, database: Database, durable: bool) -> None:
        self._database = database
        self._durable = durable

    def __enter__(self) -> None:
        self._database.begin(durable=self._durable)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None = None, *_: object
    ) -> None:
        if kind is None:
            self._database.commit()
        else:
            self._database.roll_back(error)


def _closed(*_: Any) -> NoReturn:
    raise StoreClosed("the store is closed", hint="open it again")


def derive_key(passphrase: str, salt: bytes) -> bytes:
    """32 bytes from a passphrase: Argon2id with RFC 9106's second choice (64 MiB, 3 passes, 4 lanes)."""
    return Argon2id(salt=salt, length=KEY_BYTES, iterations=3, lanes=4, memory_cost=64 * 1024).derive(
        passphrase.encode()
    )


def digest_of(key: bytes) -> bytes:
    """What tells a key from another without being it."""
    return hashlib.sha256(b"crdt-sync store key" + key).digest()


def _key_bytes(key: bytes | str, salt: bytes) -> bytes:
    if isinstance(key, str):
        return derive_key(key, salt)
    if len(key) != KEY_BYTES:
        raise ValueError(f"a store's key has {KEY_BYTES} bytes")
    return key


def _check_file(path: str | os.PathLike[str], claim: FileClaim) -> bytes:
    """The file's salt, after telling apart what can be told without the key."""
    salt = recognise(path, claim)
    if claim.read_start(0)[1] % PAGE_BYTES:
        raise NotAStore(
            f"{path} is not a store, or was cut short: its size is not a multiple of {PAGE_BYTES} bytes",
            hint=f"see what can be saved: crdt-sync doctor --store {path}",
        )
    return salt


def recognise(path: str | os.PathLike[str], claim: FileClaim) -> bytes:
    """The salt of a file that may be a store, as far as its beginning says. Raises NotAStore."""
    try:
        first, _ = claim.read_start(PAGE_BYTES)
    except IsADirectoryError:
        raise NotAStore(f"{path} is a directory, not a store", hint="name the store's file") from None
    if first.startswith(_PLAIN_SQLITE):
        raise NotAStore(f"{path} is an unencrypted SQLite database, not a store", hint="name another file")
    if len(first) < PAGE_BYTES or len(set(first)) < _MIN_DISTINCT_BYTES:
        raise NotAStore(f"{path} is not a store", hint="name the file that `crdt-sync init` made")
    return first[:SALT_BYTES]


def _connect(path: str | os.PathLike[str], key: bytes, salt: bytes) -> Connection:
    # The driver is imported here so that everything above runs with another one, or none.
    from sqlcipher3 import dbapi2

    connection = dbapi2.connect(
        os.fspath(path), isolation_level=None, timeout=0, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute("PRAGMA cipher_log_level=NONE")  # it would write to the program's stderr
        connection.set_key(f"x'{key.hex()}{salt.hex()}'")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA cipher_memory_security=OFF")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except dbapi2.Error as exc:
        connection.close()
        raise _open_error(exc, os.fspath(path), key, salt) from None
    except UnicodeDecodeError:  # SQLite quotes what it cannot make sense of
        connection.close()
        raise damaged(path, opens=False) from None
    except BaseException:
        connection.close()
        raise
    opened: Connection = connection
    return opened


def _open_error(error: Exception, path: str, key: bytes, salt: bytes) -> Exception:
    """Why SQLite does not open the file, in our terms."""
    # Imported here because only a store that fails needs it, and it needs this module.
    from crdt_sync_client.store.pages import key_fits

    if "not a database" in str(error):
        if key_fits(path, key, salt):  # the key is right, so it is the beginning of the file that is not
            return damaged(path, opens=False)
        return WrongPassphrase(
            f"{path} does not open with this passphrase or key",
            hint="check the passphrase; a file that is no store, or one whose first bytes are damaged, "
            "looks the same",
        )
    if "malformed" in str(error):
        return damaged(path, opens=False)
    return store_failure(error, path) or NotAStore(
        f"{path} is damaged or was cut short: {error}",
        hint=f"see what can be saved: crdt-sync doctor --store {path}",
    )
