"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from typing import TypeVar

from ...engine.queries import Where
from ...records import Record
from ...scope_methods import FinishedRecord, Scope
from ...scope_methods import ScopeMethods as AsyncScopeMethods
from ..wrapping import Blocking

W = TypeVar("W", bound=AsyncScopeMethods)


class ScopeMethods(Blocking[W]):
    """See the module."""

    def scope(self, space: str | None = None) -> Scope:
        """What of a space this device keeps."""
        return self._run(lambda: self._inner.scope(space))

    def set_scope(self, type: str, where: Where, *, space: str | None = None) -> int:
        """Keep only those of a type's records for which `where` holds, None: all; how many left at once.

        It is kept in the store. Records that match are fetched when the relay can be reached; what has work
        that is not sent leaves afterwards. Conditions are as in `query`; `nothing` holds for none, so that
        only picked records are kept. Raises UnknownType, ValidationError.
        """
        return self._run(lambda: self._inner.set_scope(type, where, space=space))

    def pick(self, type: str, id: str, *, space: str | None = None) -> None:
        """Keep a record on this device, with those that belong to it, whatever `set_scope` says."""
        self._run(lambda: self._inner.pick(type, id, space=space))

    def unpick(self, type: str, id: str, *, space: str | None = None) -> int:
        """Keep it only if `set_scope` says so; how many records left at once."""
        return self._run(lambda: self._inner.unpick(type, id, space=space))

    def finished(self, space: str | None = None) -> list[FinishedRecord]:
        """What `clean_up` would take off this device now."""
        return self._run(lambda: self._inner.finished(space))

    def clean_up(self, space: str | None = None) -> int:
        """Take records off this device that have been closed or deleted for long enough; how many.

        How long is said by `x-closed` of their schema, or by the setting `keep_days.TYPE`. The space keeps
        them: `fetch` brings one back. What is picked, unsent or in conflict stays.
        """
        return self._run(lambda: self._inner.clean_up(space))

    def clear_cache(self, space: str | None = None) -> int:
        """Have fresh copies of all records fetched; how many left. What has unsent work stays as it is."""
        return self._run(lambda: self._inner.clear_cache(space))

    def fetch(self, type: str, id: str, *, space: str | None = None, timeout_s: float = 30.0) -> Record:
        """The record, from the relay if it is not on this device.

        Raises RecordNotFound when the space does not have it, RecordAbsent when the relay cannot be reached
        within the time; it is fetched then as soon as the device is connected again. Whether it stays is said
        by `set_scope` and `pick`: it may leave again when something else comes for it.
        """
        return self._run(lambda: self._inner.fetch(type, id, space=space, timeout_s=timeout_s))
