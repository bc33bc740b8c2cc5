"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from typing import TypeVar

from ...logout import LogoutMethods as AsyncLogoutMethods
from ...logout import LogoutReport
from ...store_opening import StorePath
from .locking import LockMethods

W = TypeVar("W", bound=AsyncLogoutMethods)


class LogoutMethods(LockMethods[W]):
    """Part of `Device`."""

    def logout(self, *, force: bool = False, export_to: StorePath | None = None) -> LogoutReport:
        """Remove the store with everything in it, and its key from the keychain. The device is closed then.

        While there is work that no relay has, raises UnsyncedWork saying how much, and nothing has changed;
        `force` gives that work up, `export_to` writes it to a new file first: one JSON object a line, with
        the values. That file is not encrypted: whoever can read it can read them.
        The relay is not told. To keep the device's keys from being used by whoever copied them before, an
        admin removes it from its spaces.
        """
        return self._run(lambda: self._inner.logout(force=force, export_to=export_to))
