"""Roles: what a device is in a space."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """A device's role. The number is what stands in writes and membership entries; it never changes."""

    FIELD = 1
    OFFICE = 2
    SUPERVISOR = 3
    ADMIN = 4
    READER = 5

    @property
    def text(self) -> str:
        """The name used in schemas, on the command line and in messages."""
        return self.name.lower()

    @property
    def may_write(self) -> bool:
        """Everyone but readers may write records."""
        return self is not Role.READER

    @classmethod
    def parse(cls, text: str) -> Role:
        """The role of that name; raises ValueError naming the roles there are."""
        try:
            return cls[text.upper()]
        except KeyError:
            names = ", ".join(role.text for role in cls)
            raise ValueError(f"there is no role {text!r}; the roles are {names}") from None
