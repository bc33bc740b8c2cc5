"""Appending an entry to the membership log of a space, through its live session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from crdt_sync.protocol.frames import Appended

from .database_thread import DatabaseThread
from .endings import STALE_HEAD, append_refusal
from .live_session import LiveSession
from .signal import Signal

ROW_TIMEOUT_S: Final = 5.0
"""How long a membership entry that the relay has may take to reach a connected device."""

Make = Callable[[int], tuple[bytes, str]]
"""Builds the entry on the engine's thread, given the relay's time, unix ms; what it is for comes with it."""


async def append(
    session: LiveSession, thread: DatabaseThread, signal: Signal, make: Make, *, last: bool
) -> str | None:
    """Append the entry that `make` builds; returns what came with it.

    None when another admin's entry came first: that is here then, or on its way to us, and it may be tried
    again; a `last` try raises the relay's refusal instead, as all do for a refusal of another kind.
    """
    driver = session.driver
    await signal.until(lambda: driver.caught_up or not session.live)
    seen, relay_now_ms = driver.membership_batches, driver.relay_now_ms
    entry, made = await thread.run(lambda: make(relay_now_ms))
    answer = await session.append(entry)
    if isinstance(answer, Appended):
        return made
    if answer.code != STALE_HEAD or last:
        raise append_refusal(answer, session.connection.url)
    with suppress(TimeoutError):
        async with asyncio.timeout(ROW_TIMEOUT_S):
            await signal.until(lambda: driver.membership_batches != seen or not session.live)
    return None
