"""What of a transaction of another device has not come yet, as an app is told of it."""

from __future__ import annotations

from dataclasses import dataclass

from crdt_sync.ids import DeviceId


@dataclass(frozen=True, slots=True)
class UnfinishedGroup:
    """Changes that a device made together, of which only a part has come: none of them shows.

    `arrived` of `size` envelopes, the first of them at `since_ms` (Unix milliseconds).
    """

    device: DeviceId
    device_name: str
    arrived: int
    size: int
    since_ms: int
