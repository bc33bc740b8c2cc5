"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...locking import LockMethods as AsyncLockMethods
from ...store.size import StoreSize
from ...store_opening import Secret
from ..wrapping import Blocking

W = TypeVar("W", bound=AsyncLockMethods)


class LockMethods(Blocking[W]):
    """Part of `Device`: its store comes and goes, here."""

    @property
    def locked(self) -> bool:
        """Whether the store is closed until `unlock`."""
        return self._read(lambda: self._inner.locked)

    def lock(self) -> None:
        """Finish the writes on their way, stop syncing, close the store and let its keys go.

        From the moment this is called every other call raises StoreLocked. Again is harmless.
        """
        self._run(lambda: self._inner.lock())

    def unlock(self, passphrase: str | None = None, *, key: bytes | None = None) -> None:
        """Open the store again; no network is needed. One that was connected connects again.

        Raises WrongPassphrase, also for a device that is not locked, and what `Device.open` raises; the
        device stays as it is then.
        """
        self._run(lambda: self._inner.unlock(passphrase, key=key))

    def lock_after(self, seconds: float | None, *, on_lock: Callable[[], None] | None = None) -> None:
        """Lock by itself once no method of the device was called for so long; None: never. Kept in the store.

        `on_lock` is called in its own thread when it happens; it is not kept. Syncing in the background is no
        use, and ends. Time that the machine was asleep counts. Raises ValidationError below one second.
        """
        self._run(lambda: self._inner.lock_after(seconds, on_lock=on_lock))

    def touch(self) -> None:
        """Somebody uses the app, though it asks nothing of the device: the idle time starts over."""
        self._call(lambda: self._inner.touch())

    def lock_if_idle(self) -> bool:
        """Lock now if the idle time is over; whether the device is locked. For an app that comes back to the
        front, and for one with timers of its own.
        """
        return self._call(lambda: self._inner.lock_if_idle())

    def change_passphrase(self, old: Secret, new: Secret) -> None:
        """Encrypt the store with another passphrase (text) or key (32 bytes).

        `old` is what opens it now. Killed at any point, one of the two opens it, never neither; afterwards
        nothing in its files is under the old one. Calls made meanwhile wait: about 1 s per 100 MB. Raises
        WrongPassphrase, NoKey for a `new` that cannot be used, and StoreError when the disk has no room or
        fails; after that error the device is locked.
        """
        self._run(lambda: self._inner.change_passphrase(old, new))

    def store_size(self) -> StoreSize:
        """How large the store is on the disk, and what takes the room."""
        return self._run(lambda: self._inner.store_size())

    def vacuum(self) -> int:
        """Give room in the store's file that nobody uses back to the disk; returns how many bytes.

        Everything else waits meanwhile. It takes as much room as the store has beside it, and again among
        the system's temporary files, where the copy is encrypted as the store is.
        """
        return self._run(lambda: self._inner.vacuum())
