"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...network import Network
from ...settings import Settings
from ...trigger_methods import TriggerMethods as AsyncTriggerMethods
from ..wrapping import Blocking

W = TypeVar("W", bound=AsyncTriggerMethods)


class TriggerMethods(Blocking[W]):
    """See the module."""

    def settings(self) -> Settings:
        """What is chosen about syncing and keeping on this device."""
        return self._run(lambda: self._inner.settings())

    def set_setting(self, name: str, value: int | bool | None) -> Settings:
        """Choose one, by its name in `Settings` or `keep_days.TYPE`; None: as it is by default. Kept.

        Raises ValidationError.
        """
        return self._run(lambda: self._inner.set_setting(name, value))

    def network(self, kind: Network) -> None:
        """The app says which network there is: "wifi", "metered", "none", or "unknown".

        With "none" connections are closed and not tried; with any other, a device that is to be connected
        connects at once. What a metered network is for stands in the settings.
        """
        self._run(lambda: self._inner.network(kind))

    def auto_sync(self) -> None:
        """Sync now, every `sync_every_s` seconds, and after urgent writes, until `disconnect` or the end.

        For apps that do not stay connected with `connect`. What fails stands in the status.
        """
        self._run(lambda: self._inner.auto_sync())

    def foreground(self) -> None:
        """The app comes to the front: lock if it is time, notice dead connections, and sync.

        Returns at once; what comes is seen by watches and in the status.
        """
        self._run(lambda: self._inner.foreground())

    def ready(
        self,
        space: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Returns when this device has had everything of a space once; fetches it if need be.

        `progress` is told how many rows of how many have come. A first sync that breaks off goes on where it
        was. Raises what `sync` raises, and NotReady when the time is up.
        """
        self._run(lambda: self._inner.ready(space, progress=progress, timeout_s=timeout_s))

    def require_ready(self, required: bool = True) -> None:
        """Whether reading raises NotReady until a space was received whole once. Not kept."""
        self._run(lambda: self._inner.require_ready(required))
