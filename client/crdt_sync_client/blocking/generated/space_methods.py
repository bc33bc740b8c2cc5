"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from typing import TypeVar

from ...space_methods import LeaveReport
from ...space_methods import SpaceMethods as AsyncSpaceMethods
from ...store_opening import StorePath
from ..wrapping import Blocking

W = TypeVar("W", bound=AsyncSpaceMethods)


class SpaceMethods(Blocking[W]):
    """See the module."""

    def switch_space(self, space: str, on: bool) -> None:
        """Whether this device syncs a space. Kept in the store.

        While it is off, its records can be read and written as ever, and what is written waits; the status
        says `off`. On again, it goes on where it was.
        """
        self._run(lambda: self._inner.switch_space(space, on))

    def leave(self, space: str, *, force: bool = False, export_to: StorePath | None = None) -> LeaveReport:
        """Remove a space from this device: its records, its keys and what waits to be sent.

        While there is work in it that no relay has, raises UnsyncedWork saying how much, and nothing has
        changed; `force` gives that work up, `export_to` writes it to a new file first, one JSON object a
        line, not encrypted. Watches are told that its records left, and the status has the space no
        more. The others of the space are not told: this device stays a member until an admin removes it.
        Coming back takes an invite.
        """
        return self._run(lambda: self._inner.leave(space, force=force, export_to=export_to))
