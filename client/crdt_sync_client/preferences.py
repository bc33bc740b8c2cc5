"""Remembered preferences: which side somebody keeps in conflicts about a field, on this device.

    await device.preferences.set("work_order", "root_cause", keep="theirs")

A preference is shown as the `suggestion` of open conflicts and never applied by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from .engine import Engine
from .engine.model import Preference

T = TypeVar("T")


class Run(Protocol):
    """Does some work on the store's thread."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class Preferences:
    """Made by `Device.preferences`."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self._engine = engine
        self._run = run

    async def set(self, type: str, field: str, *, keep: str) -> Preference:
        """Keep "mine", "theirs" or what a role wrote ("office", …) in conflicts about the field.

        The field of a row is named for all rows: "parts_used.*.qty". For "$deleted" (or a row's
        "parts_used.*.$deleted") also "deleted" and "record". Raises UnknownType, and ValidationError that
        says what there is.
        """
        return await self._run(lambda: self._engine.set_preference(type, field, keep))

    async def ls(self) -> list[Preference]:
        """All of them, by type and field."""
        return await self._run(lambda: self._engine.preferences())

    async def clear(self, type: str, field: str | None = None) -> int:
        """Forget one, or all of a type; returns how many there were."""
        return await self._run(lambda: self._engine.clear_preferences(type, field))
