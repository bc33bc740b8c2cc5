"""Waiting for what is told to nobody: it is asked every few milliseconds. A test that waits in vain fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE_S: Final = 30.0


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when it holds. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.005)
