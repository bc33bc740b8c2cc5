"""Changes that are not plain assignments.

`{"status": "done"}` assigns a value. A counter and a set are changed relative to what they hold, so
that two devices that change them while apart both count:

    {"hours": Increment(2), "tags": AddElement("urgent")}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = bool | int | float | str | bytes | list["Value"] | dict[str, "Value"] | None
"""What a field can hold. Integers are -2**63 to 2**64 - 1, the range MessagePack carries."""


@dataclass(frozen=True, slots=True)
class Increment:
    """Add `amount`, which may be negative, to a counter field."""

    amount: int | float


@dataclass(frozen=True, slots=True)
class AddElement:
    """Put `element` into a set field; nothing happens when it is there already."""

    element: Value


@dataclass(frozen=True, slots=True)
class RemoveElement:
    """Take `element` out of a set field; nothing happens when it is not there."""

    element: Value


Change: TypeAlias = Increment | AddElement | RemoveElement
