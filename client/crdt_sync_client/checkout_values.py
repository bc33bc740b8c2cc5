"""What the library says about checkouts, as plain values. Times are Unix ms of this device's clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .engine import checkouts as engine_checkouts
from .engine.holders import Checkout as Checkout
from .engine.holders import LateWork as LateWork
from .engine.holders import utc_text

CheckinState = Literal["returned", "expired", "broken", "taken"]


@dataclass(frozen=True, slots=True)
class CheckoutResult:
    """What became of one record: "granted", "renewed", "broken", or why not: "checked_out", "permission" …

    "returned": an admin broke what this device itself had. `checkout` says who has it now, until when;
    None: nobody had it. `type` and `id` are empty for a record that is not known on this device.
    """

    type: str
    id: str
    code: str
    checkout: Checkout | None

    @property
    def done(self) -> bool:
        return self.code in ("granted", "renewed", "broken", "returned")

    @classmethod
    def of(cls, outcome: engine_checkouts.CheckoutOutcome) -> CheckoutResult:
        return cls(outcome.type, outcome.id, outcome.code, outcome.checkout)

    def to_json(self) -> dict[str, Any]:
        held = None if self.checkout is None else self.checkout.to_json()
        return {"type": self.type or None, "id": self.id or None, "code": self.code, "checkout": held}


@dataclass(frozen=True, slots=True)
class CheckinResult:
    """One record that was checked in. `sent`: updates that the relay took since it was checked out.

    `pending` and `refused`: updates that it has not, and would not take. `conflicts`: ids of its open ones.
    `state`: "returned"; or its checkout had ended before: "expired", "broken", "taken" by another device.
    """

    type: str
    id: str
    state: CheckinState
    sent: int
    pending: int
    refused: int
    late: int
    conflicts: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in self.__slots__}, "conflicts": list(self.conflicts)}


def write_notice(waits_for: Checkout | None, *, late: bool, when: Callable[[int], str] = utc_text) -> str:
    """What to tell the person who has written to a record, about whoever has it checked out; else nothing.

    `when` makes text of a moment in Unix milliseconds.
    """
    if waits_for is not None:
        until = f"checked out by {waits_for.device} until {when(waits_for.until_at)}"
        marked = ", and marked as late" if late else ""
        return f"{until}: this is saved here, and sent when that ends{marked}"
    if late:
        return "the checkout of it that this device had has ended: this merges, and is marked as late"
    return ""
