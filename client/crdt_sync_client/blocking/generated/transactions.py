"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from ...create_method import Changes
from ...transactions import Transaction as AsyncTransaction
from ..wrapping import BlockingContext
from .records import WriteResult
from .write_methods import WriteMethods


class Transaction(WriteMethods[AsyncTransaction], BlockingContext[AsyncTransaction]):
    """See the module. Made by `Device.transaction`, for one block.

    `create`, `update`, `delete`, `restore`, `resolve`, `resolve_record` and `restore_version` take and raise
    what the device's do, and return what the write is going to do. `results` has what was done.
    """

    @property
    def results(self) -> list[WriteResult]:
        """What each write did, in their order; empty until the block has ended."""
        found = self._read(lambda: self._inner.results)
        return [WriteResult(made, self._background, self._kept()) for made in found]

    def create(
        self,
        type: str,
        values: Changes,
        *,
        id: str | None = None,
        space: str | None = None,
        priority: int | None = None,
    ) -> WriteResult:
        """Make a record. Its id is in the result, so that what follows can name it.

        With the `id` of a record that is there, that one gets the values instead. Raises UnknownType,
        ValidationError, PermissionDenied.
        """
        made = self._run(lambda: self._inner.create(type, values, id=id, space=space, priority=priority))
        return WriteResult(made, self._background, self._kept())
