"""Frames about how far others have come: a device asks, the relay counts what they have confirmed.

The relay says what it knows: up to where a member's device has confirmed that it keeps the log. It says so of
how many, never of whom. A device that does not keep a record (see `FetchRecords`) confirms its rows as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from crdt_sync.protocol.limits import MAX_AWAITED_ROWS
from crdt_sync.protocol.wire_types import Frame, Number


class AwaitDelivery(Frame, frozen=True, tag=29):
    """How many other members have everything up to each of these rows? Tell now, and whenever it is more.

    In growing order. It takes the place of the last such question; none: tell nothing more.
    """

    rows: Annotated[list[Number], Meta(max_length=MAX_AWAITED_ROWS)]


class Delivered(Frame, frozen=True, tag=30):
    """So many of `members` other members have confirmed everything up to each of `rows`."""

    rows: Annotated[list[Number], Meta(max_length=MAX_AWAITED_ROWS)]
    reached: Annotated[list[Number], Meta(max_length=MAX_AWAITED_ROWS)]
    members: Number


class ConfirmCursor(Frame, frozen=True, tag=31):
    """Somebody waits: send `Got` as soon as everything up to `upto` is durable, and not when it suits."""

    upto: Number


def in_growing_order(rows: Sequence[int]) -> bool:
    """Whether each is greater than the one before."""
    return all(one < next for one, next in pairwise(rows))


def can_be(frame: Delivered) -> bool:
    """Whether the numbers fit each other: who has a row has those before it."""
    reached = frame.reached
    falls = all(one >= next for one, next in pairwise(reached))
    return len(reached) == len(frame.rows) and falls and (not reached or reached[0] <= frame.members)
