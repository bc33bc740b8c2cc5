"""What the groups of a device's methods have in common. `Device` is made of them, and they meet in it.

What a group asks of the others is an abstract method here or in the group; a `Device` without it cannot be
made, so nothing is asked that nobody answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from crdt_sync.ids import SpaceId

    from .engine import Engine
    from .engine.model import RecordChange
    from .sync_loop import SpaceSync

T = TypeVar("T")


class StorePart(ABC):
    """Methods that need the store: of a device, and of a transaction on one."""

    _engine: Engine

    @abstractmethod
    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        """On the store's thread, as soon as the store is open."""

    @abstractmethod
    async def _space_id(self, space: str | None) -> SpaceId | None:
        """Of a space by name or id. Raises UnknownSpace."""


class DevicePart(StorePart):
    """Methods that need the connections too, or tell watchers what they changed."""

    _syncs: dict[SpaceId, SpaceSync]

    @abstractmethod
    def _publish(self, changes: Sequence[RecordChange]) -> None:
        """Tell whoever watches."""
