"""The device for programs without asyncio: the same names, arguments, results and errors, without `await`.

    from crdt_sync_client.blocking import Device

    with Device.open("tablet.db", passphrase="…") as device:
        device.sync()
        for change in device.watch("work_order"):
            print(change.record)

What was awaited returns its result, `async with` is `with`, `async for` is `for`. An iterator can be asked
with a limit too: `watch.next(timeout_s=5)`. Values (`Record`, `Query`, `field`, …) are those of
`crdt_sync_client`; a `WriteResult` has `wait` and `life` that block.

Each device has an event loop in a thread of its own, where all of it happens. So one device may be used from
several threads; they share the commits of their writes. Functions that are handed in (`merge`, `progress`,
`on_lock`) are called in that thread: they must be quick and ask nothing of the device.

Ctrl-C ends the call that waits: a write that was not durable by then is not done, and an iterator goes on
where it was. Close a device, or use it in a `with` block: closing finishes what was begun. A program that
ends without is given a few seconds for it; everything that a call returned from is on the disk anyway.

In a thread that runs an event loop every call raises LocalError, because it would stop that loop: there use
`crdt_sync_client.Device`.

`generated/` is made by `blocking_generator` from the asynchronous classes, module by module; a test compares
them.
"""

from __future__ import annotations

from .generated.conflict_watching import ConflictWatch
from .generated.device import Device
from .generated.live import LiveQuery
from .generated.preferences import Preferences
from .generated.records import WriteResult
from .generated.transactions import Transaction
from .generated.watching import Watch

__all__ = ["ConflictWatch", "Device", "LiveQuery", "Preferences", "Transaction", "Watch", "WriteResult"]
