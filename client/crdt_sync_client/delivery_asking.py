"""Asking the relay once how many others have a write, without waiting until all have."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from .delivery_desk import DeliveryWait

if TYPE_CHECKING:
    from .sync_loop import SpaceSync


async def ask(sync: SpaceSync, row: int | None, within_s: float) -> DeliveryWait:
    """How many others have everything up to `row` of the relay's log (None: up to its end).

    Nobody is asked where there is no connection, and what is not answered in time stays unknown.
    """
    wait = DeliveryWait(row)
    if sync.session is None or not sync.session.live:
        return wait
    sync.deliveries.add(wait)
    sync.session.look()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await sync.signal.until(lambda: wait.members is not None or sync.session is None)
    finally:
        sync.deliveries.remove(wait)
        if sync.session is not None:
            sync.session.look()
    return wait
