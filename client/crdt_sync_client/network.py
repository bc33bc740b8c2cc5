"""Which network a device is on, as its app says, and what may travel there.

The library cannot know what a network costs. An app that knows tells it: `device.network("metered")`.
Without a word everything may travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crdt_sync.schemas.priorities import LAST

from .settings import Settings

Network = Literal["wifi", "metered", "none", "unknown"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What may travel now. `priority`: of what is written here, what is at least so urgent is sent."""

    connect: bool = True
    priority: int = LAST
    initial: bool = True
    fetch: bool = True
    snapshots: bool = True

    @classmethod
    def on(cls, network: Network, settings: Settings) -> Policy:
        """On a network of that kind."""
        if network == "metered":
            return cls(
                True,
                settings.metered_priority,
                settings.metered_initial,
                settings.metered_fetch,
                settings.metered_snapshots,
            )
        return cls(connect=network != "none")


EVERYTHING = Policy()
