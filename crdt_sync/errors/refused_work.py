"""The relay did not take something that this device sent."""

from __future__ import annotations

from typing import ClassVar

from crdt_sync.errors.connection import ConnectionFailed


class WorkRefused(ConnectionFailed):
    """The relay did not take something this device sent. It is kept, and the rest goes on.

    `code` is the relay's, `reason` its words.
    """

    code = "refused"
    said: ClassVar[str] = "the relay did not take it"
    next_step: ClassVar[str] = "the device tries again by itself; `crdt-sync outbox ls` shows when"

    def __init__(self, code: str = "", reason: str = "") -> None:
        super().__init__(f"{self.said}: {reason}" if reason else self.said, hint=self.next_step)
        self.relay_code = code
        self.reason = reason


_BY_HAND = "`crdt-sync outbox retry` tries again, `crdt-sync outbox discard` gives it up"


class InvalidWork(WorkRefused):
    """What was sent cannot be right, to the relay."""

    code = "invalid"
    retryable = False
    said = "the relay finds something wrong with it"
    next_step = f"update crdt-sync here and at the relay; then {_BY_HAND}"


class NotPermitted(WorkRefused):
    """This device may not write there."""

    code = "not_permitted"
    retryable = False
    said = "this device may not write that"
    next_step = f"ask an admin of the space for another role; then {_BY_HAND}"


class WorkTooLarge(WorkRefused):
    """More than the relay takes of one record at once."""

    code = "work_too_large"
    retryable = False
    said = "it is larger than the relay takes"
    next_step = f"ask the relay's operator for a higher limit; then {_BY_HAND}"


class Revoked(WorkRefused):
    """This device is not a member of the space any more."""

    code = "revoked"
    retryable = False
    said = "this device was removed from the space"
    next_step = (
        "ask an admin for a new invite; `crdt-sync outbox discard --export FILE` keeps the work as text"
    )


class SpaceGone(WorkRefused):
    """The relay does not hold the space."""

    code = "space_gone"
    retryable = False
    said = "the relay does not hold the space"
    next_step = f"check the relay's address; then {_BY_HAND}"


class CheckedOut(WorkRefused):
    """Another device has the record checked out. It goes when the lease ends."""

    code = "checked_out"
    said = "another device has the record checked out"
    next_step = "it is sent by itself when the record is free again; an admin can break the lease"


class OverQuota(WorkRefused):
    """No room at the relay."""

    code = "over_quota"
    said = "there is no room left at the relay"
    next_step = "it is sent by itself when there is room; ask the relay's operator for some"


class RateLimited(WorkRefused):
    """More at once than one device may send."""

    code = "rate_limited"
    said = "this device sends more than its share"
    next_step = "the device goes on by itself in a moment"
