"""Close codes: why a connection ended, the same numbers on the wire, in `Bye` and in the documentation.

Codes from 4400 on follow HTTP's numbering, so that an operator can guess what they mean. Which of them
are worth another try is part of the protocol: a device that reconnects after `FORBIDDEN` only burns its
battery.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class CloseCode(IntEnum):
    """A WebSocket close code (RFC 6455 section 7.4) with the meaning it has here."""

    NORMAL = 1000
    """Either side has nothing more to say."""
    GOING_AWAY = 1001
    """The relay or the device is shutting down; come back."""
    TOO_BIG = 1009
    """Sent by the WebSocket layer itself for a message it will not even read."""
    INTERNAL = 1011
    """The relay could not do its work, for example because its disk is full. Come back, and send again."""
    MALFORMED = 4400
    """Not a frame of this protocol, or a frame at a moment when it may not be sent."""
    UNAUTHENTICATED = 4401
    """Unknown device or invite, wrong signature or wrong setup token."""
    FORBIDDEN = 4403
    """Known, but not allowed: a spent invite, or a device that was removed."""
    UNKNOWN_SPACE = 4404
    """This relay does not hold the space."""
    HANDSHAKE_TIMEOUT = 4408
    """The other side did not say who it is in time."""
    CONFLICT = 4409
    """Two chains or two connections claim to be the same author."""
    TOO_LARGE = 4413
    """A frame, envelope or batch above the limits of the challenge."""
    DAMAGED = 4422
    """The checksum of a frame does not fit: it was changed on the way. Come back, and send again."""
    VERSION = 4426
    """No protocol version in common."""
    RATE = 4429
    """Too much at once; come back later."""


RETRYABLE: Final[frozenset[int]] = frozenset(
    {
        CloseCode.NORMAL,
        CloseCode.GOING_AWAY,
        1005,  # no code was given
        1006,  # the connection was lost
        CloseCode.INTERNAL,
        1012,  # service restart
        1013,  # try again later
        CloseCode.HANDSHAKE_TIMEOUT,
        CloseCode.CONFLICT,
        CloseCode.DAMAGED,
        CloseCode.RATE,
    }
)
"""After these a device tries again, with its usual backoff. After any other, a person has to act first."""
