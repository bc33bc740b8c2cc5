"""Kinds of values that settings have beside click's own: sizes, time spans, rates, secrets.

Each takes what a person writes and gives a number in the unit its setting is counted in; `written` is the way
back. `off` is None: no limit.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

import click

_SIZES: Final = {"": 1, "B": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3, "TIB": 1024**4}
_SPANS: Final = {"": 1, "S": 1, "M": 60, "H": 3600, "D": 86_400}
MIN_SECRET_CHARS: Final = 16
"""Of a token that a person may have made up: long enough that nobody tries them all."""


class _Measured(click.ParamType[int | None]):
    """A whole number with a unit behind it, within bounds."""

    _UNITS: ClassVar[dict[str, int]] = {"": 1}
    _EXAMPLE: ClassVar[str] = "a number"

    def __init__(self, low: int, high: int, *, off: bool = False) -> None:
        self.low, self.high, self.off = low, high, off

    @property
    def allowed(self) -> str:
        """What may be written."""
        bounds = f"{self._EXAMPLE}, from {self.written(self.low)} to {self.written(self.high)}"
        return f"{bounds}, or off" if self.off else bounds

    def written(self, value: int | None) -> str:
        """The value as it may be written."""
        if value is None:
            return "off"
        unit = max((size for size in self._UNITS.values() if value and value % size == 0), default=1)
        name = next(name for name, size in reversed(self._UNITS.items()) if size == unit)
        return f"{value // unit}{_CASE.get(name, name.lower())}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or (self.off and value == "off"):
            return None
        match = re.fullmatch(r"(\d{1,18})\s*([A-Za-z]*)", str(value).strip(), re.ASCII)
        unit = None if match is None else self._UNITS.get(match[2].upper())
        if match is None or unit is None or not self.low <= int(match[1]) * unit <= self.high:
            self.fail(f"{value!r} is not {self.allowed}", param, ctx)
        return int(match[1]) * unit


_CASE: Final = {"B": "", "KIB": "KiB", "MIB": "MiB", "GIB": "GiB", "TIB": "TiB"}


class Whole(_Measured):
    """A number of something."""

    name = "number"
    _EXAMPLE = "a whole number"


class Size(_Measured):
    """Bytes."""

    name = "size"
    _UNITS = _SIZES
    _EXAMPLE = "a size as in 512KiB, 4MiB or 2GiB"


class Duration(_Measured):
    """Seconds."""

    name = "duration"
    _UNITS = _SPANS
    _EXAMPLE = "a time span as in 30s, 10m or 1h"


class Rate(_Measured):
    """So many a second."""

    name = "rate"
    _EXAMPLE = "a number a second"

    def __init__(self, low: int, high: int) -> None:
        super().__init__(low, high, off=True)


class Secret(click.ParamType[str]):
    """A token. Never shown."""

    name = "secret"

    @staticmethod
    def written(value: str) -> str:
        """That there is one."""
        return "set, not shown"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if len(text) < MIN_SECRET_CHARS or not text.isascii() or not text.isprintable() or " " in text:
            self.fail(f"a token has at least {MIN_SECRET_CHARS} ASCII characters and no blank", param, ctx)
        return text
