"""What a merge rule is.

A rule says how concurrent writes of one field become its value. Rules are pure functions of the visible
writes alone: no clock, no order of arrival, no memory. That is the whole reason why devices that have
seen the same writes show the same values.

The *shape* of a rule says how a field's writes lie in the document (see `records.writes`):

    value     one path; the rule chooses one of the writes
    set       one path per element
    rows      one path per field of each row, and every such field has its own rule
    counter   one path; every author has its own running total there, and they are summed
    text      one path; what stands there side by side is woven into one text

What rules do not know: schemas, roles' permissions, and what a value means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

from crdt_sync.ids import Author
from crdt_sync.records.writes import Write

Shape: TypeAlias = Literal["value", "set", "rows", "counter", "text"]


class RuleError(Exception):
    """A rule that does not exist, has a wrong option or does not fit its field's type.

    The message is for the author of a schema; the schema loader adds file and line.
    """


class Rule:
    """Base of all rules. Rules hold their options and nothing else."""

    __slots__ = ()

    name: ClassVar[str]
    shape: ClassVar[Shape]
    opens_conflict: ClassVar[bool] = False
    """Whether concurrent writes wait for a person (`manual`) instead of being settled."""


class ValueRule(Rule, ABC):
    """A rule that chooses one of the visible writes of a path."""

    __slots__ = ()

    shape = "value"

    @abstractmethod
    def choose(self, writes: Sequence[Write]) -> Write:
        """The write whose value is shown. `writes` is not empty; its order does not matter."""


def by_clock(write: Write) -> tuple[int, Author]:
    """The last word of every rule: the later time, and of equal times the greater author."""
    return (write.hlc, write.author)
