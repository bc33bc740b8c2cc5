"""What the end of a connection means, and when a device that lost one comes back.

However a connection ends, those who wait for it get one of our own errors:

    RelayUnreachable   no connection, or it was lost, or the relay asked to come back later
    RelayRefused       the relay said no, and would say no again
    RemoteError        the relay sent what cannot be; we closed, with a code and a reason

Nothing here does I/O: the asyncio shell and the simulator decide with the same code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from crdt_sync.errors import (
    BadMembership,
    CrdtSyncError,
    InviteError,
    InviteExpired,
    InviteUsed,
    InviteWithdrawn,
    RelayBusy,
    RelayRefused,
    RelayUnreachable,
    ShutOut,
    VersionMismatch,
)
from crdt_sync.protocol.codes import RETRYABLE, CloseCode
from crdt_sync.protocol.frames import AppendRefused

from .backoff import Backoff

logger = logging.getLogger("crdt_sync.client")

MAX_AT_ONCE: Final = 5
"""How many connections in a row may each bring nothing but the wish for the next one, before that counts as
a failure. Three refusals of the same bytes and a new incarnation are the most that happens to the honest."""

APPEND_TRIES: Final = 10
"""Each lost race means that another entry went in; ten in a row do not happen to people."""
STALE_HEAD: Final = "stale_head"
"""The relay's code for a membership entry that does not follow the newest one."""

_SHUT_OUT: Final = "the relay's operator has shut this device out"
_ADMIT: Final = (
    "ask the operator to let it in again (crdt-sync relay revoke --undo); until then everything here is kept"
    " and can be worked with, and what is unsent waits"
)
_BY_CODE: Final[dict[str, type[InviteError]]] = {
    kind.code: kind for kind in (InviteUsed, InviteExpired, InviteWithdrawn)
}
_HINTS: Final[dict[int, str]] = {
    CloseCode.UNAUTHENTICATED: "check the setup token or the invite; is this the right relay?",
    CloseCode.FORBIDDEN: "ask an admin of the space for a new invite",
    CloseCode.UNKNOWN_SPACE: "check the relay's address; was its data directory replaced?",
    CloseCode.VERSION: "update this device or the relay, whichever is older",
    CloseCode.TOO_LARGE: "the relay's limits are below what this device sends; ask its operator",
    CloseCode.MALFORMED: "update this device or the relay, whichever is older",
}


SHUT_OUT_S: Final = 3600.0
"""Between two tries of a device that the relay's operator has shut out, each with up to a quarter more."""


class Reconnect(RelayUnreachable):
    """Not a failure: the next session begins where this one cannot go on."""


class Reconnecting:
    """Counts how connections ended and says how long to wait before the next one."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 up to 1, for the spread of the waits."""
        self.problem: CrdtSyncError | None = None
        """Why the last attempt or connection failed; None since the last that caught up."""
        self.failures = 0
        """Attempts and connections that failed, ever; compare before and after."""
        self._random = random
        self._backoff = Backoff(random)
        self._fruitless = 0

    def asked(self) -> None:
        """Somebody asks for a connection now: the waits start over."""
        self._backoff.reset()

    def caught_up(self) -> None:
        """A connection had everything, so the way and both ends are well."""
        self._backoff.reset()
        self._fruitless = 0
        self.problem = None

    def ended(self, error: Exception, *, fruitful: bool) -> float | None:
        """Seconds to wait before the next try; None: at once, this was no failure.

        `fruitful`: the connection brought something to either side before it ended.
        """
        if isinstance(error, Reconnect):
            self._fruitless = 0 if fruitful else self._fruitless + 1
            if self._fruitless < MAX_AT_ONCE:
                return None
        self._fruitless = 0
        if not isinstance(error, CrdtSyncError):
            error = RelayUnreachable(f"syncing failed: {type(error).__name__}", hint="see the log")
        self.problem = error
        self.failures += 1
        refused = isinstance(error, RelayRefused | BadMembership | VersionMismatch)
        delay_s = self._backoff.longest_s() if refused else self._backoff.next_s()
        if isinstance(error, ShutOut):
            delay_s = SHUT_OUT_S * (1 + self._random() / 4)
        logger.info("connection failed: %s; next try in %.1f s", error.code, delay_s)
        return delay_s


def refusal(close_code: int, error: str, reason: str, url: str) -> CrdtSyncError:
    """The error for a connection that the relay closed. `error` is a code of `crdt_sync.errors`, or empty."""
    text = printable(reason)
    kind = _BY_CODE.get(error)
    if kind is not None:
        return kind(text or "the relay refused the invite", hint="ask for a new invite")
    if error == ShutOut.code:
        return ShutOut(text or _SHUT_OUT, close_code=close_code, hint=_ADMIT)
    if close_code in RETRYABLE:
        detail = f": {text}" if text else ""
        kind_of_end = RelayBusy if error == RelayBusy.code else RelayUnreachable
        return kind_of_end(
            f"the connection to {url} ended ({close_code}{detail})",
            hint="local work goes on; the device tries again by itself while it is connected",
        )
    return RelayRefused(
        f"the relay at {url} refused: {text or 'no reason given'} ({close_code})",
        close_code=close_code,
        hint=_HINTS.get(close_code, "ask the relay's operator"),
    )


def late_handshake() -> RelayUnreachable:
    """The error for a relay that took too long to say welcome."""
    return RelayUnreachable("the relay did not finish the handshake in time", hint="the device tries again")


def append_refusal(answer: AppendRefused, url: str) -> CrdtSyncError:
    """The error for a membership entry that the relay will not take."""
    return refusal(CloseCode.FORBIDDEN, answer.code, answer.reason, url)


def printable(text: str) -> str:
    """A peer's text, made safe to show: no control characters, at most 300 characters."""
    return "".join(char if char.isprintable() else "�" for char in text[:300])
