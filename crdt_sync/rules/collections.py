"""Rules for fields that hold many things: `set` and `rows`.

Every element of a set and every field of a row has a path of its own, so two devices that add different
elements, or change different fields of one row, never meet. What can meet is adding and removing.

Adding wins by default. A removal takes away the writes its author had seen; what another device wrote
meanwhile survives it, and the element, or the whole row, is there. With `remove_wins` the removal leaves
a mark that stands against everything its author had not seen, until somebody who has seen the mark adds
the element or row again.
"""

from __future__ import annotations

from crdt_sync.rules.base import Rule


class SetRule(Rule):
    """The union of what all devices added and nobody who had seen it removed."""

    __slots__ = ("remove_wins",)
    name = "set"
    shape = "set"

    def __init__(self, *, remove_wins: bool = False) -> None:
        self.remove_wins = remove_wins


class Rows(Rule):
    """Rows by key; each field of a row merges by its own rule, like a field of the record itself."""

    __slots__ = ("remove_wins",)
    name = "rows"
    shape = "rows"

    def __init__(self, *, remove_wins: bool = False) -> None:
        self.remove_wins = remove_wins
