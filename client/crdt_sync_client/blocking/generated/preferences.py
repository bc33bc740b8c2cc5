"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from ...engine.model import Preference
from ...preferences import Preferences as AsyncPreferences
from ..wrapping import Blocking


class Preferences(Blocking[AsyncPreferences]):
    """Made by `Device.preferences`."""

    def set(self, type: str, field: str, *, keep: str) -> Preference:
        """Keep "mine", "theirs" or what a role wrote ("office", …) in conflicts about the field.

        The field of a row is named for all rows: "parts_used.*.qty". For "$deleted" (or a row's
        "parts_used.*.$deleted") also "deleted" and "record". Raises UnknownType, and ValidationError that
        says what there is.
        """
        return self._run(lambda: self._inner.set(type, field, keep=keep))

    def ls(self) -> list[Preference]:
        """All of them, by type and field."""
        return self._run(lambda: self._inner.ls())

    def clear(self, type: str, field: str | None = None) -> int:
        """Forget one, or all of a type; returns how many there were."""
        return self._run(lambda: self._inner.clear(type, field))
