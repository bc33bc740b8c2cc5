"""A CRDT document that takes in updates and gives its state, and does nothing else.

`pycrdt.Doc` readies every document for observers, subscribers and asyncio, which takes longer than filling
one that holds a record. The class of the bindings beneath it has what is wanted here. It has no public name;
the dependency's upper bound keeps it in place, and no record can be read without it, so tests would tell.
"""

from __future__ import annotations

from typing import Final

from pycrdt._pycrdt import Doc

_NO_CLIENT: Final = 1
"""Client id of every document: nothing is inserted through it, so this never stands in one."""
_NOTHING_KNOWN: Final = b"\0"
"""The state vector of an empty document."""


class PlainDoc:
    """Belongs to the thread it was made in."""

    __slots__ = ("_doc",)

    def __init__(self) -> None:
        self._doc = Doc(_NO_CLIENT, None, None)

    def apply_update(self, update: bytes) -> None:
        """Take in an update. Raises ValueError for bytes that are none."""
        transaction = self._doc.create_transaction()
        try:
            self._doc.apply_update(transaction, update)
        finally:
            transaction.commit()
            transaction.drop()

    def get_update(self) -> bytes:
        """All that shows, as one update."""
        transaction = self._doc.create_transaction()
        try:
            return self._doc.get_update(transaction, _NOTHING_KNOWN)
        finally:
            transaction.drop()
