"""Logging out: the device's store, its keys and its queue leave the machine.

A relay that has everything is what makes that harmless. So a logout is refused while there is work that no
relay has, unless it is written to a file first or given up by name.
"""

from __future__ import annotations

import asyncio
import os
import stat
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from crdt_sync.errors import CrdtSyncError, LocalError, StoreClosed, UnsyncedWork

from .database_thread import DatabaseThread
from .engine.exporting import UnsyncedOperation
from .locking import LockMethods
from .store.wiping import salt_of, wipe
from .store_opening import StorePath


@dataclass(frozen=True, slots=True)
class LogoutReport:
    """What a logout took away that no relay has: in how many records, and where it was written to."""

    unsynced_records: int
    unsynced_operations: int
    exported_to: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "unsynced_records": self.unsynced_records,
            "unsynced_operations": self.unsynced_operations,
            "exported_to": self.exported_to,
        }


class LogoutMethods(LockMethods):
    """Part of `Device`."""

    @abstractmethod
    def _end_watches(self) -> None: ...

    async def logout(self, *, force: bool = False, export_to: StorePath | None = None) -> LogoutReport:
        """Remove the store with everything in it, and its key from the keychain. The device is closed then.

        While there is work that no relay has, raises UnsyncedWork saying how much, and nothing has changed;
        `force` gives that work up, `export_to` writes it to a new file first: one JSON object a line, with
        the values. That file is not encrypted: whoever can read it can read them.
        The relay is not told. To keep the device's keys from being used by whoever copied them before, an
        admin removes it from its spaces.
        """
        self._use()
        thread, syncs, writes = self._detach(_logging_out)
        try:
            await asyncio.gather(*(sync.disconnect() for sync in syncs), return_exceptions=True)
            await writes.drained()
            engine = thread.store.engine
            left = await thread.run(lambda: list(engine.unsynced()))
            report = await asyncio.to_thread(judge, left, force, export_to)
        except BaseException:
            await self._come_back(thread)
            raise
        self._closed = True
        self._end_watches()
        await _away_with(self._path, thread)
        return report


def _logging_out() -> CrdtSyncError:
    return StoreClosed("the device is logged out", hint="make a new one and join again with an invite")


def judge(left: Sequence[UnsyncedOperation], force: bool, export_to: StorePath | None) -> LogoutReport:
    """What is about to be lost, written to `export_to`. Raises UnsyncedWork without that or `force`."""
    records = len({(operation.space_id, operation.type, operation.id) for operation in left})
    failed = len({(o.space_id, o.type, o.id) for o in left if o.state == "failed"})
    if left and not force and export_to is None:
        some = f", {failed} of them with work that failed" if failed else ""
        raise UnsyncedWork(
            f"no relay has the work on {records} {'record' if records == 1 else 'records'}{some}",
            records=records,
            hint="sync first; or write it to a file with export_to (--export FILE), or lose it with force",
        )
    if export_to is not None:
        export_unsynced(left, export_to)
    return LogoutReport(records, len(left), None if export_to is None else os.fspath(export_to))


def export_unsynced(left: Sequence[UnsyncedOperation], path: StorePath) -> None:
    """Write operations to a new file, one JSON object a line.

    Raises LocalError, and leaves no file, when it cannot be written or is there already.
    """
    encode = msgspec.json.Encoder().encode
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR)
    except OSError as exc:
        raise LocalError(
            f"{path} cannot be made: {exc.strerror}", hint="name a new file; nothing was removed"
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(encode(operation.to_json()) + b"\n" for operation in left)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        os.unlink(path)
        raise LocalError(
            f"{path} cannot be written: {exc.strerror}", hint="make room; nothing was removed"
        ) from None


async def _away_with(path: StorePath, thread: DatabaseThread) -> None:
    await thread.close()

    def remove() -> None:
        from . import keychain

        salt = salt_of(path)
        wipe(path)
        # Last: a store without its key could not be opened to log out again.
        keychain.forget_key(salt)

    await asyncio.to_thread(remove)
